"""Where `medvlm finetune` left checkpoints that wait for promotion.

    HOME/candidates/<id>.json

Only a help to find them: a candidate that was moved, changed or removed is no longer listed.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from medvlm.model.registry import ID_LENGTH, Kept, home_dir, private

CANDIDATES = "candidates"


class Candidate(Kept):
    """A fine-tuned checkpoint that waits for promotion."""

    folder: Path
    name: str
    version: str


def note_candidate(folder: Path, name: str, version: str, config_sha256: str) -> None:
    """Remembers where a candidate lies, for `medvlm model list`; no harm if it cannot."""
    candidate = Candidate(folder=folder.resolve(), name=name, version=version)
    path = home_dir() / CANDIDATES / f"{config_sha256[:ID_LENGTH]}.json"
    try:
        private(path.parent)
        partial = path.with_suffix(f".partial-{os.getpid()}")
        partial.write_text(candidate.model_dump_json(), encoding="utf-8")
        partial.replace(path)
    except OSError:
        pass


def candidates() -> list[Candidate]:
    """The candidates that are still where they were left."""
    found = []
    for path in sorted((home_dir() / CANDIDATES).glob("*.json")):
        try:
            candidate = Candidate.model_validate_json(path.read_text(encoding="utf-8"))
            content = (candidate.folder / "config.yaml").read_bytes()
        except (OSError, ValueError):
            continue
        if hashlib.sha256(content).hexdigest()[:ID_LENGTH] == path.stem:
            found.append(candidate)
    return found
