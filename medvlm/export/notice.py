"""The words that every form carries, and whether a report is what its status says.

A signed report says who reviewed what the software drafted; anything else says that nobody did.
"""

from __future__ import annotations

import re
from datetime import UTC, tzinfo

from medvlm.errors import ExportError
from medvlm.export.words import moment, plain
from medvlm.review.records import Report

RESEARCH_USE = "Research use only: drafts are made by software and are not a diagnosis."
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TITLES = {
    "preliminary": "PRELIMINARY REPORT",
    "final": "FINAL REPORT",
    "amended": "AMENDED REPORT",
}


def checked(report: Report) -> Report:
    """The report, if its status is true.

    Raises:
        ExportError: it says final or amended without a signature, preliminary with one, or its
            addenda do not go with its status.
    """
    signature = (report.signed_by, report.signed_at, report.attestation)
    if report.status == "preliminary":
        if any(part is not None for part in signature) or report.addenda:
            raise _untrue("it is preliminary and yet carries a signature or an addendum")
        return report
    if not all(signature) or not plain(report.signed_by) or not plain(report.attestation):
        raise _untrue(f"it is {report.status} and lacks a signature")
    if not _SHA256.fullmatch(report.sha256 or "") or report.version < 1:
        raise _untrue(f"it is {report.status} and was never stored as signed")
    if (report.status == "amended") != bool(report.addenda):
        raise _untrue("only an amended report has addenda")
    if report.status == "amended" and report.version < 2:
        raise _untrue("it is amended and has no earlier version")
    return report


def is_signed(report: Report) -> bool:
    return report.status != "preliminary"


def title(report: Report) -> str:
    return _TITLES[report.status]


def software(report: Report) -> str:
    """The model and its version; "" for a report that no software drafted."""
    return plain(f"{report.model.name} {report.model.version}") if report.model else ""


def provenance(report: Report) -> str:
    """Who wrote it and who answers for it."""
    drafted = f"Drafted by software ({software(report)})" if report.model else "Written by hand"
    if not is_signed(report):
        return f"{drafted}, NOT reviewed: preliminary."
    return f"{drafted}, reviewed by {plain(report.signed_by)}."


def signature(report: Report, zone: tzinfo = UTC) -> str:
    """Who signed, when, and how they proved who they are; "" for a report that nobody signed."""
    if report.signed_by is None or report.signed_at is None:
        return ""
    return _signed(report.signed_by, moment(report.signed_at, zone), report.attestation or "")


def addendum_signatures(report: Report, zone: tzinfo = UTC) -> list[str]:
    """The same for each addendum, in their order."""
    return [_signed(a.signed_by, moment(a.signed_at, zone), a.attestation) for a in report.addenda]


def notices(report: Report) -> tuple[str, ...]:
    return (provenance(report), RESEARCH_USE)


def _signed(name: str, time: str, attestation: str) -> str:
    how = plain(attestation)
    how = how if how == "locally attested" else f"signed in through {how}"
    return f"{plain(name)}, {time} ({how})"


def _untrue(why: str) -> ExportError:
    return ExportError(
        f"The report cannot be exported: {why}",
        remedy="load it again from the store with `medvlm.review.signing.report`",
    )
