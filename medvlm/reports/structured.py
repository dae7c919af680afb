"""Reports as DICOM structured reports: Basic Text, Enhanced and Comprehensive SR."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset
from pydicom.uid import UID

from medvlm.dicom.decode import header_value, last_element_is_short, parse, typed_errors
from medvlm.dicom.facts import text, uid
from medvlm.errors import TruncatedPixels
from medvlm.reports import known
from medvlm.reports.report import Report, UnusableReport, checked
from medvlm.reports.sections import LABELLED, Section, SectionName, section_name, split_sections
from medvlm.reports.table import iso

_DEEPEST = 32
# Who observed, and with what: no part of what was seen.
_CONTEXTS = frozenset({"HAS OBS CONTEXT", "HAS ACQ CONTEXT"})


def structured_report(data: bytes, source: str) -> Report:
    """The report in the bytes of a DICOM file.

    The texts stand in the order of the content tree. A text belongs to the section that its own
    concept name opens, else the nearest container's; a text outside of all sections is split like
    any report. Coded findings, measurements and references are not read.

    Raises:
        UnusableReport: it is no text report, says nothing, or names no study.
        InputError: it is broken.
    """
    ds = parse(data)
    if last_element_is_short(ds):
        # Half a report may say the opposite of the whole.
        raise TruncatedPixels("The report ends too early.", code="truncated")
    with typed_errors(None):
        kind = UID(str(header_value(ds, "SOPClassUID") or "")).name
        if "SR" not in kind.split() or "ContentSequence" not in ds:
            raise UnusableReport("The file is no structured report with content.", code="no_report")
        evidence = _evidence(ds)
        return checked(
            Report(
                source=source,
                sections=tuple(_sections(ds)),
                study_instance_uid=evidence or uid(ds, "StudyInstanceUID"),
                own_study=evidence is None,
                accession_number=text(ds, "AccessionNumber"),
                patient_id=text(ds, "PatientID"),
                issued=iso((text(ds, "ContentDate") or "") + (text(ds, "ContentTime") or "")),
                final=text(ds, "PreliminaryFlag") != "PRELIMINARY"
                and text(ds, "CompletionFlag") != "PARTIAL",
                known=known.of_header(ds),
            )
        )


def _evidence(ds: Dataset) -> str | None:
    """The study whose images are the evidence, if it is one."""
    evidence = {
        uid(item, "StudyInstanceUID")
        for item in header_value(ds, "CurrentRequestedProcedureEvidenceSequence") or ()
    } - {None}
    return evidence.pop() if len(evidence) == 1 else None


def _sections(ds: Dataset) -> Iterator[Section]:
    for name, body in _texts(ds, "other", 0):
        parts = split_sections(body)
        # A whole report may stand in one text, whatever that is called.
        if name == "other" or (name in LABELLED and len(parts) > 1):
            yield from parts
        else:
            yield Section(name, body)


def _texts(item: Dataset, inherited: SectionName, depth: int) -> Iterator[tuple[SectionName, str]]:
    if depth > _DEEPEST:
        raise UnusableReport("Its content is nested too deeply.", code="too_deep")
    for child in header_value(item, "ContentSequence") or ():
        if text(child, "RelationshipType") in _CONTEXTS:
            continue
        own = section_name(_concept(child))
        name = inherited if own == "other" else own
        if text(child, "ValueType") == "TEXT":
            # Not `facts.text`, which would drop line breaks.
            body = str(header_value(child, "TextValue") or "").strip(" \0\r\n")
            if body:
                yield name, body
        yield from _texts(child, name, depth + 1)


def _concept(item: Dataset) -> str:
    codes = header_value(item, "ConceptNameCodeSequence")
    return (text(codes[0], "CodeMeaning") or "") if codes else ""
