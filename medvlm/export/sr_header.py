"""The patient, study and image attributes that a structured report takes over from its images.

A new object is held to the standard, whatever its source was: what does not fit its value
representation is left out. An identifier is never cut, because the rest of it is another one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from medvlm.dicom.decode import header_value
from medvlm.dicom.facts import integer, uid
from medvlm.errors import ExportError
from medvlm.export.words import cut, plain
from medvlm.review.records import Report

_NEEDED = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_REMEDY = "give the headers of this report's own images"
_LONG, _SHORT = 64, 16  # characters of LO and of each group of PN, and of SH
# Patient, Patient Study and General Study: type 2 attributes are there, if need be empty.
_REQUIRED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("ReferringPhysicianName", "StudyID", "AccessionNumber"),
)
_OPTIONAL = ("IssuerOfPatientID", "PatientAge", "StudyDescription", "InstitutionName")
_NAMES = frozenset({"PatientName", "ReferringPhysicianName"})
_WORDS = frozenset({"StudyDescription", "InstitutionName"})  # may be cut
_SHORT_IDENTIFIERS = frozenset({"StudyID", "AccessionNumber"})
_PATTERNS = {
    "PatientBirthDate": re.compile(r"[0-9]{8}"),
    "StudyDate": re.compile(r"[0-9]{8}"),
    "StudyTime": re.compile(r"([01][0-9]|2[0-3])([0-5][0-9]([0-5][0-9](\.[0-9]{1,6})?)?)?"),
    "PatientSex": re.compile(r"[MFO]"),
    "PatientAge": re.compile(r"[0-9]{3}[DWMY]"),
    "TimezoneOffsetFromUTC": re.compile(r"[+-](0[0-9]|1[0-4])[0-5][0-9]"),
}


def images_of(report: Report, headers: Sequence[Dataset]) -> dict[str, Dataset]:
    """The headers by SOPInstanceUID, in the report's order.

    Raises:
        ExportError: there is none, or one is of another study, patient or image.
    """
    if report.study.study_instance_uid is None:
        raise ExportError(
            "A picture that is not DICOM belongs to no study, so it has no structured report",
            remedy="export it as PDF, text, JSON or FHIR",
        )
    by_uid: dict[str, Dataset] = {}
    for header in headers:
        if any(uid(header, keyword) is None for keyword in _NEEDED):
            raise _wrong("An image's header lacks a UID")
        if uid(header, "StudyInstanceUID") != report.study.study_instance_uid:
            raise _wrong("An image's header is of another study")
        told, patient = one(header, "PatientID"), plain(report.study.patient.patient_id)
        if told and patient and told != patient:
            raise _wrong("An image's header is of another patient")
        by_uid[str(uid(header, "SOPInstanceUID"))] = header
    known = [row.sop_instance_uid for row in report.images if row.sop_instance_uid]
    if set(by_uid) - set(known):
        raise _wrong("A header's image is none of the report's")
    if not by_uid:
        raise _wrong("A structured report needs the headers of the images it speaks of")
    if len({one(header, "PatientID") for header in by_uid.values()}) > 1:
        raise _wrong("The images are of several patients")
    return {name: by_uid[name] for name in known if name in by_uid}


def carry_over(source: Dataset, target: Dataset) -> None:
    """Writes the patient's and the study's attributes into a new object."""
    target.StudyInstanceUID = uid(source, "StudyInstanceUID")
    for keyword in (*_REQUIRED, *_OPTIONAL, "TimezoneOffsetFromUTC"):
        value = _fitting(keyword, one(source, keyword))
        if value or keyword in _REQUIRED:
            setattr(target, keyword, value)
    method = long_string(one(source, "DeidentificationMethod"))
    if one(source, "PatientIdentityRemoved") == "YES" and method:
        target.PatientIdentityRemoved, target.DeidentificationMethod = "YES", method


def one(ds: Dataset, keyword: str) -> str:
    """The one value of an element as text without control characters or backslashes, or ""."""
    value = header_value(ds, keyword)
    if value is None or isinstance(value, MultiValue):
        return ""
    return _value(str(value))


def long_string(text: str) -> str:
    """Words fit for LO: one line, at most 64 bytes, no backslash, which would part it in two."""
    return cut(_value(text), _LONG)


def dicom_name(name: str) -> str:
    """Fit for PN: three groups of at most 64 characters."""
    return "=".join(_value(group)[:_LONG].strip() for group in name.split("=")[:3])


def size(header: Dataset) -> tuple[int, int, int]:
    """(rows, columns, frames)."""
    rows, columns = integer(header, "Rows"), integer(header, "Columns")
    if not rows or not columns:
        raise _wrong("An image's header lacks its size")
    return rows, columns, integer(header, "NumberOfFrames") or 1


def _fitting(keyword: str, value: str) -> str:
    if keyword in _PATTERNS:
        return value if _PATTERNS[keyword].fullmatch(value) else ""
    if keyword in _NAMES:
        return dicom_name(value)
    if keyword in _WORDS:
        return long_string(value)
    return value if len(value) <= (_SHORT if keyword in _SHORT_IDENTIFIERS else _LONG) else ""


def _value(text: str) -> str:
    return plain(text).replace("\\", "/")


def _wrong(message: str) -> ExportError:
    return ExportError(message, remedy=_REMEDY)
