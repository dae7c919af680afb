"""Reports that people wrote, where a set has them in `reports.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from medvlm.draft.parse import Polarity, parse_sentence
from medvlm.errors import DataSetError
from medvlm.evaluate import REPORTS

Mention = Literal["present", "uncertain", "absent", "unmentioned"]
MENTIONS: tuple[Mention, ...] = get_args(Mention)


@dataclass(frozen=True)
class Reference:
    """A report's words, and what it says of each finding that it names."""

    text: str
    polarities: Mapping[str, Polarity]


def read_references(root: Path) -> dict[str, Reference]:
    """Reports by the name of their image; empty where the set has none.

    A line names its `image` (or several `images`) and holds `sentences`
    (`{text, finding, polarity}`) or a `text`, which is then read sentence by sentence; what else it
    holds is not looked at. Raises DataSetError for a line that cannot be read.
    """
    path = root / REPORTS
    if not path.is_file():
        return {}
    found: dict[str, Reference] = {}
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            reference = _reference(row)
            names = row.get("images") or [row["image"]]
            found |= {Path(str(name)).name: reference for name in names}
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise DataSetError(
                f"line {number} cannot be read ({type(error).__name__})",
                file=str(path),
                remedy="compare it with docs/evaluation.md",
            ) from error
    return found


def strongest(statements: Iterable[tuple[str, Polarity]]) -> dict[str, Polarity]:
    """One polarity per finding: what is there outweighs what may be, and that what is not."""
    out: dict[str, Polarity] = {}
    for finding, polarity in statements:
        if finding not in out or MENTIONS.index(polarity) < MENTIONS.index(out[finding]):
            out[finding] = polarity
    return out


def read_text(text: str) -> dict[str, Polarity]:
    """What a text says of each finding that it names."""
    return strongest((said.finding, said.polarity) for said in parse_sentence(text))


def _reference(row: dict[str, Any]) -> Reference:
    sentences = row.get("sentences") or []
    text = str(row.get("text") or " ".join(str(item["text"]) for item in sentences))
    labelled = [item for item in sentences if item.get("finding") and item.get("polarity")]
    if unknown := {str(item["polarity"]) for item in labelled} - set(MENTIONS[:3]):
        raise ValueError(f"polarity {unknown}")
    if not labelled:
        return Reference(text, read_text(text))
    return Reference(text, strongest((item["finding"], item["polarity"]) for item in labelled))
