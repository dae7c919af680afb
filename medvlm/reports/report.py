"""One report of one study, from whatever file it came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from medvlm.errors import InputError
from medvlm.reports.known import Kind
from medvlm.reports.sections import LABELLED, Section


@dataclass(frozen=True)
class Report:
    """A report's sections and what ties it to a study.

    Attributes:
        source: how people find the file: the start of its sha256, and a line of a table.
        study_instance_uid, accession_number: at least one is there.
        own_study: the UID is that of the report's own file, which may be filed elsewhere.
        patient_id: as the report says it; compared with the images' and never shown.
        issued: ISO 8601, so that later sorts after earlier; None where the report does not say.
        final: False for a preliminary report.
        known: identifiers that stand beside the text, in memory only.
    """

    source: str
    sections: tuple[Section, ...] = field(repr=False)
    study_instance_uid: str | None = field(default=None, repr=False)
    accession_number: str | None = field(default=None, repr=False)
    own_study: bool = False
    patient_id: str | None = field(default=None, repr=False)
    issued: str | None = None
    final: bool = True
    known: Mapping[str, Kind] = field(default_factory=dict, repr=False)

    @property
    def text(self) -> str:
        """Findings, impression and addenda: what is labelled."""
        return "\n\n".join(body for name, body in self.sections if name in LABELLED)


@dataclass(frozen=True)
class Problem:
    """Something that could not be used, or that somebody should know of; `source` is no path."""

    source: str
    code: str
    message: str


class UnusableReport(InputError):
    """A file or row that holds no report that could be used."""

    code = "unusable_report"


def checked(report: Report) -> Report:
    """The report. Raises UnusableReport where it is empty or belongs to no study."""
    if not report.study_instance_uid and not report.accession_number:
        raise UnusableReport("The report names no study.", code="no_study")
    if not report.text.strip():
        raise UnusableReport("The report says nothing: no findings, no impression.", code="empty")
    return report
