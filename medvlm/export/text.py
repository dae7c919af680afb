"""A report as plain text, as it is pasted into a RIS."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, tzinfo

from medvlm.export.notice import (
    addendum_signatures,
    checked,
    notices,
    signature,
    title,
)
from medvlm.export.words import date_of, paragraphs, person_name, plain, sex_of
from medvlm.review.records import Report, StudyRow

NOTHING = "None stated."


def to_text(report: Report, *, zone: tzinfo = UTC) -> str:
    """Headings in capitals, one sentence a line, lines end with a line feed.

    Raises ExportError for a report that is not what its status says.
    """
    checked(report)
    return "\n\n".join("\n".join(part) for part in _parts(report, zone)) + "\n"


def patient_lines(report: Report) -> list[tuple[str, str]]:
    """(label, value) of the patient and the study, without what is not known."""
    patient, study = report.study.patient, report.study
    age = "" if patient.age_years is None else f"{int(patient.age_years)} years"
    identifier = plain(patient.patient_id)
    if identifier and plain(patient.issuer):
        identifier += f" ({plain(patient.issuer)})"
    pairs = [
        ("Patient", person_name(patient.name)),
        ("Patient ID", identifier),
        ("Born", date_of(patient.birth_date)),
        ("Sex and age", ", ".join(filter(None, (sex_of(patient.sex), age)))),
        ("Examination", examination(study)),
        ("Taken", date_of(study.taken)),
        ("Accession", plain(study.accession_number)),
    ]
    return [(label, value) for label, value in pairs if value]


def examination(study: StudyRow) -> str:
    """The description, else body part and view; and the modality: "CHEST PA (CR)"."""
    described = plain(study.description)
    told = [plain(part) for part in (study.body_part, study.view)]
    name = described or " ".join(filter(None, told))
    modality = plain(study.modality)
    return f"{name} ({modality})" if name and modality else name or modality


def sections(report: Report) -> list[tuple[str, list[str]]]:
    """(heading, lines) of what the report says, without addenda; findings are always there."""
    found = [line for one in report.sentences for line in paragraphs(one.text)]
    parts = [
        ("Indication", paragraphs(report.indication)),
        ("Comparison", paragraphs(report.comparison)),
        ("Findings", found or [NOTHING]),
        ("Impression", paragraphs(report.impression)),
    ]
    return [(heading, lines) for heading, lines in parts if lines]


def _parts(report: Report, zone: tzinfo) -> Iterator[list[str]]:
    # A draft warns before anything else; after a signature the findings come first.
    signed_by = signature(report, zone)
    yield [title(report), *(() if signed_by else notices(report))]
    if lines := patient_lines(report):
        yield [f"{label}: {value}" for label, value in lines]
    for heading, body in sections(report):
        yield [f"{heading.upper()}:", *body]
    signed = addendum_signatures(report, zone)
    for number, (addendum, by) in enumerate(zip(report.addenda, signed, strict=True), start=1):
        yield [f"ADDENDUM {number}:", *paragraphs(addendum.text), f"Addendum signed by {by}"]
    yield [f"Signed by: {signed_by}", *notices(report)] if signed_by else ["Signed by: nobody"]
