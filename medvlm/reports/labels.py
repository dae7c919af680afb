"""Labels of a report: what it says of each of the fifteen findings.

Rules over the lexicon, no model: the same text always gives the same labels. `docs/reports.md`
describes the rules and how well they agree with labels that people gave.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from medvlm.findings import FINDINGS, Polarity
from medvlm.reports.sections import LABELLED, Section, SectionName, split_sections, split_sentences
from medvlm.reports.statements import Statement, statements

LABELLER = "2"  # raise it when a rule changes: labels made by different rules do not mix
Labels = dict[str, Polarity | None]

_STRONGEST: tuple[Polarity, ...] = ("present", "uncertain", "absent")
# An opacity is how these look; where none is seen, these are not.
_OPAQUE = ("Consolidation", "Infiltration", "Pneumonia")
_NOT_OPAQUE = ("Consolidation", "Infiltration")


@dataclass(frozen=True)
class Sentence:
    """One sentence of a labelled section and what it states."""

    section: SectionName
    text: str
    statements: tuple[Statement, ...]


def label_report(text: str) -> Labels:
    """What a report says of each finding; None where it does not mention it.

    Only findings, impression and addenda count. A finding that is called present anywhere is
    present, else uncertain, else absent; what is only implied counts where nothing plainer is said.
    """
    return label_sections(split_sections(text))


def label_sections(sections: Sequence[Section]) -> Labels:
    """The same, of a report that is in sections already."""
    return combine(
        statement for sentence in read_sentences(sections) for statement in sentence.statements
    )


def read_sentences(sections: Sequence[Section]) -> list[Sentence]:
    """The sentences of the labelled sections, each with its statements."""
    return [
        Sentence(name, text, tuple(statements(text)))
        for name, body in sections
        if name in LABELLED
        for text in split_sentences(body)
    ]


def combine(said: Iterable[Statement]) -> Labels:
    """One label for each finding, and what follows from one finding for another.

    Consolidation, infiltration and pneumonia are opacities; without any opacity there is neither
    consolidation nor infiltration. Such a label never replaces one that the text gives.
    """
    plain: dict[str, set[Polarity]] = {finding: set() for finding in FINDINGS}
    implied: dict[str, set[Polarity]] = {finding: set() for finding in FINDINGS}
    for statement in said:
        (implied if statement.implied else plain)[statement.finding].add(statement.polarity)
    labels: Labels = {
        finding: _strongest(plain[finding]) or _strongest(implied[finding]) for finding in FINDINGS
    }
    follows = _strongest({label for name in _OPAQUE if (label := labels[name])} - {"absent"})
    if labels["Lung_Opacity"] == "absent":
        for name in _NOT_OPAQUE:
            labels[name] = labels[name] or "absent"
    else:
        labels["Lung_Opacity"] = labels["Lung_Opacity"] or follows
    return labels


def _strongest(polarities: set[Polarity]) -> Polarity | None:
    return next((polarity for polarity in _STRONGEST if polarity in polarities), None)
