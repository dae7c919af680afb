"""Checkpoints that this site promoted: copies that nobody edits, and a history of what was in use.

    HOME/history.jsonl           one line for each promotion and rollback, only ever added to
    HOME/checkpoints/<id>/       a promoted checkpoint, as it was promoted
    HOME/candidates/             those that wait for promotion (`medvlm.model.candidates`)
    HOME/site.key                the key of this site's pseudonyms (`medvlm finetune`)

The history is the only record of which checkpoint is in use: it is found by going through the
lines, so there is no second file that could say something else. A line that a crash cut short was
never acknowledged and is dropped. Nothing here knows who promoted: a user's name is an identifier.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from medvlm.errors import CheckpointError

HISTORY, CHECKPOINTS, LOCK = "history.jsonl", "checkpoints", ".lock"
ID_LENGTH = 12
LONGEST_WAIT = 300  # seconds: another promotion loads and tries its checkpoint


def home_dir() -> Path:
    """What this installation keeps for good: MEDVLM_HOME, else `medvlm` in the user's data folder.

    Unlike the cache it must not be cleared.
    """
    if chosen := os.environ.get("MEDVLM_HOME"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "medvlm"
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA", Path.home() / "AppData" / "Roaming")) / "medvlm"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "medvlm"


class Kept(BaseModel):
    """What a file here holds: nothing unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class GateResult(Kept):
    """One condition of promotion: what was asked, what was found; `passed` None: cannot be told."""

    gate: str
    limit: float
    value: float | None
    passed: bool | None
    note: str = ""


class Entry(Kept):
    """One line of the history; `checkpoint`: the id in use from then on, None for the default.

    Hashes are sha256: `config_sha256` of config.yaml as promoted, `evaluation_sha256` of the
    evaluation that the gates judged.
    """

    event: Literal["promote", "rollback"]
    time: str
    checkpoint: str | None
    name: str = ""
    version: str = ""
    weights_sha256: str = ""
    config_sha256: str = ""
    evaluation_sha256: str = ""
    gates: tuple[GateResult, ...] = ()
    warnings: tuple[str, ...] = ()


def read_history() -> list[Entry]:
    """All promotions and rollbacks, the oldest first.

    Raises CheckpointError if a line is not one that medvlm wrote: guessing which checkpoint is in
    use would be worse than stopping.
    """
    path = home_dir() / HISTORY
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError("cannot be read", file=str(path), remedy=_BESIDE) from error
    try:
        return [Entry.model_validate_json(line) for line in lines[:-1]]
    except ValidationError as error:
        raise CheckpointError(
            "is not a history of promotions", file=str(path), remedy=_BESIDE
        ) from error


_BESIDE = "Restore it from a backup, or name a checkpoint with --checkpoint meanwhile."


def stack() -> list[Entry]:
    """The promotions that are not rolled back: the last is in use, empty means the default."""
    standing: list[Entry] = []
    for entry in read_history():
        if entry.event == "promote":
            standing.append(entry)
        elif standing:
            standing.pop()
    return standing


def promoted() -> Path | None:
    """The folder of the checkpoint in use, None if it is the default.

    Raises CheckpointError if it is damaged: another checkpoint must not quietly take its place.
    """
    standing = stack()
    return folder_of(standing[-1]) if standing else None


def find(name: str) -> Path | None:
    """The folder of a promoted checkpoint by id or name (the latest of that name)."""
    for entry in reversed(read_history()):
        if entry.event == "promote" and name in (entry.checkpoint, entry.name):
            return folder_of(entry)
    return None


def folder_of(entry: Entry) -> Path:
    """The folder of a promotion. Raises CheckpointError unless its configuration is untouched.

    The configuration holds the hash of the weights, which loading compares.
    """
    folder = home_dir() / CHECKPOINTS / str(entry.checkpoint)
    try:
        found = hashlib.sha256((folder / "config.yaml").read_bytes()).hexdigest()
    except OSError:
        found = ""
    if found != entry.config_sha256:
        raise CheckpointError(
            "the promoted checkpoint was changed or is missing",
            file=str(folder),
            remedy="Promote it again, or go back with `medvlm model rollback`.",
        )
    return folder


def add(
    source: Path,
    finish: Callable[[Path], None],
    *,
    name: str,
    version: str,
    weights_sha256: str,
    evaluation_sha256: str,
    gates: tuple[GateResult, ...],
    warnings: tuple[str, ...],
) -> Entry:
    """Copies a checkpoint in and puts it to use; all of it or nothing.

    Args:
        source: the checkpoint's folder; links in it are refused.
        finish: is given the copy before anybody can see it, to mark and to try it. What it raises
            stops the promotion.

    Raises CheckpointError if the registry cannot be written.
    """
    if any(path.is_symlink() for path in source.rglob("*")):
        raise CheckpointError(
            "holds links", file=str(source), remedy="Give a folder that holds the files themselves."
        )
    with _changing() as home:
        folders = home / CHECKPOINTS
        folders.mkdir(exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folders))
        try:
            shutil.copytree(source, partial, dirs_exist_ok=True)
            finish(partial)
            digest = hashlib.sha256((partial / "config.yaml").read_bytes()).hexdigest()
            _sync(partial)
            target = _unused(folders, digest[:ID_LENGTH])
            partial.replace(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        entry = Entry(
            event="promote",
            time=_now(),
            checkpoint=target.name,
            name=name,
            version=version,
            weights_sha256=weights_sha256,
            config_sha256=digest,
            evaluation_sha256=evaluation_sha256,
            gates=gates,
            warnings=warnings,
        )
        _append(entry)
        return entry


def rollback() -> Entry:
    """Back to the checkpoint that was in use before the last promotion.

    Raises CheckpointError if nothing is promoted, or the earlier checkpoint is damaged.
    """
    with _changing():
        standing = stack()
        if not standing:
            raise CheckpointError(
                "nothing is promoted: the default is in use", remedy="`medvlm model list` shows it"
            )
        earlier = standing[-2] if len(standing) > 1 else None
        if earlier is not None:
            folder_of(earlier)
        entry = Entry(
            event="rollback",
            time=_now(),
            checkpoint=earlier.checkpoint if earlier else None,
            name=earlier.name if earlier else "",
            version=earlier.version if earlier else "",
            weights_sha256=earlier.weights_sha256 if earlier else "",
            config_sha256=earlier.config_sha256 if earlier else "",
        )
        _append(entry)
        return entry


@contextmanager
def _changing() -> Iterator[Path]:
    """The registry's folder while nobody else changes it.

    Raises CheckpointError if it cannot be written.
    """
    home = home_dir()
    try:
        private(home)
        with FileLock(home / LOCK, timeout=LONGEST_WAIT):
            yield home
    except OSError as error:  # the lock's Timeout is one too
        raise CheckpointError(
            f"cannot be written ({error.strerror or 'another process holds the lock'})",
            file=str(home),
            remedy="Make room there, or set MEDVLM_HOME to another folder.",
        ) from error


def _unused(folders: Path, key: str) -> Path:
    """A name of its own even for what was promoted before: nothing promoted is ever replaced."""
    names = chain([key], (f"{key}-{n}" for n in count(2)))
    return next(folders / name for name in names if not (folders / name).exists())


def private(folder: Path) -> None:
    """Makes a folder that only its owner can look into."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _append(entry: Entry) -> None:
    """Adds a line that is on disk when this returns; a line cut short before is cut away."""
    path = home_dir() / HISTORY
    line = json.dumps(entry.model_dump(mode="json")) + "\n"
    with path.open("ab+") as file:
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Puts the folder's files on disk before the history speaks of them."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def as_record(entry: Entry) -> dict[str, Any]:
    """A history line for `--json`."""
    return entry.model_dump(mode="json")
