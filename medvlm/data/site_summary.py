"""What was found in a site's folder and what becomes of it, in counts: shown, and written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict
from rich.console import Group
from rich.table import Table

Side = Literal["training", "validation"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProblemRecord(_Strict):
    """One thing that could not be used; `source` is a number and a hash, no path."""

    source: str
    code: str
    message: str


class Part(_Strict):
    """One side of the split."""

    patients: int
    studies: int
    films: int
    boxes: int
    sentences: int


class LabelCounts(_Strict):
    """Films by what is said of one finding; positives on each side of the split."""

    present: int
    absent: int
    uncertain: int
    not_mentioned: int
    positives: dict[Side, int]


class SiteSummary(_Strict):
    """Counts and hashes of a prepared set, or of what one would be; nothing about one patient.

    Attributes:
        dry: nothing was written; pixels were not looked at, so a few films more may be refused.
        found: files, images, studies, patients, reports, reviews, boxes that were read.
        prepared: each side of the split.
        labels: by finding.
        refused: images by why the gate or the policy on text in pixels refused them.
        redacted: identifiers replaced in sentences that were kept, by kind.
        dropped: sentences left out, by why.
        problems: how many of each code; `details` lists them.
        key_id: names the secret, so that two sets of one secret can be told.
        split_sha256: of the sorted lines "patient side".
        data_sha256: of everything else that was written; None for a dry run.
        labeller: version of the labelling rules.
    """

    schema_version: Literal["1.0"] = "1.0"
    medvlm: str
    labeller: str
    dry: bool
    found: dict[str, int]
    prepared: dict[Side, Part]
    labels: dict[str, LabelCounts]
    refused: dict[str, int]
    redacted: dict[str, int]
    dropped: dict[str, int]
    problems: dict[str, int]
    details: tuple[ProblemRecord, ...]
    key_id: str
    split_sha256: str
    data_sha256: str | None

    def total(self, what: Literal["patients", "studies", "films", "boxes", "sentences"]) -> int:
        """Of both sides together."""
        return sum(getattr(part, what) for part in self.prepared.values())


def summary_tables(summary: SiteSummary) -> Group:
    """The summary as tables for a terminal."""
    sides = Table("prepared", *summary.prepared, "all")
    for row in Part.model_fields:
        counts = [getattr(part, row) for part in summary.prepared.values()]
        sides.add_row(row, *map(str, counts), str(sum(counts)))
    labels = Table(
        *("finding", "present", "absent", "uncertain", "not mentioned"),
        *(f"positives, {side}" for side in summary.prepared),
    )
    for finding, row_ in summary.labels.items():
        counts = [row_.present, row_.absent, row_.uncertain, row_.not_mentioned]
        labels.add_row(finding, *map(str, [*counts, *row_.positives.values()]))
    return Group(
        _counts("found", summary.found),
        sides,
        labels,
        *(
            _counts(title, counts)
            for title, counts in (
                ("refused images", summary.refused),
                ("identifiers replaced", summary.redacted),
                ("sentences left out", summary.dropped),
                ("problems", summary.problems),
            )
            if counts
        ),
    )


def _counts(title: str, counts: Mapping[str, int]) -> Table:
    table = Table(title, "count")
    for name, number in counts.items():
        table.add_row(name.replace("_", " "), str(number))
    return table


def counted(codes: Iterable[str]) -> dict[str, int]:
    """How often each occurs, in alphabetical order."""
    found: dict[str, int] = {}
    for code in codes:
        found[code] = found.get(code, 0) + 1
    return dict(sorted(found.items()))
