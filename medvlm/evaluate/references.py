"""Reports that people wrote, where a set has them in `reports.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from medvlm.errors import DataSetError
from medvlm.evaluate import REPORTS
from medvlm.findings import Polarity
from medvlm.reports.labels import combine, label_report
from medvlm.reports.statements import Statement

Mention = Literal["present", "uncertain", "absent", "unmentioned"]
MENTIONS: tuple[Mention, ...] = get_args(Mention)


@dataclass(frozen=True)
class Reference:
    """A report's words, and what it says of each finding that it names."""

    text: str
    polarities: Mapping[str, Polarity]


def read_references(root: Path) -> dict[str, Reference]:
    """Reports by the name of their image; empty where the set has none.

    A line names its `images` (or one `image`) and holds `sentences` (`text`, `statements` of
    `finding` and `polarity`, as :mod:`medvlm.data.prepare` writes them) or a `text`, which is then
    read by the rules of :mod:`medvlm.reports`. A report without words is left out.

    Raises DataSetError for a line that cannot be read.
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
            if reference.text:
                found |= {Path(str(name)).name: reference for name in names}
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise DataSetError(
                f"line {number} cannot be read ({type(error).__name__})",
                file=str(path),
                remedy="compare it with docs/evaluation.md",
            ) from error
    return found


def strongest(said: Iterable[tuple[str, Polarity]]) -> dict[str, Polarity]:
    """One polarity per finding: what is there outweighs what may be, and that what is not."""
    out: dict[str, Polarity] = {}
    for finding, polarity in said:
        if finding not in out or MENTIONS.index(polarity) < MENTIONS.index(out[finding]):
            out[finding] = polarity
    return out


def _reference(row: dict[str, Any]) -> Reference:
    if "sentences" not in row:
        text = str(row["text"]).strip()
        labels = label_report(text)
    else:
        sentences = row["sentences"]
        text = " ".join(str(sentence["text"]) for sentence in sentences).strip()
        said = [Statement(**one) for sentence in sentences for one in sentence["statements"]]
        if unknown := {one.polarity for one in said}.difference(MENTIONS[:3]):
            raise ValueError(f"polarity {unknown}")
        labels = combine(said)
    return Reference(text, {name: label for name, label in labels.items() if label})
