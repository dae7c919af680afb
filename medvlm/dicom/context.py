"""Who the patient is, for worklist, review and export.

This travels beside the path that the images take, never on it: no prompt, log, URL, path or record
of a draft holds any of it.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, fields
from pathlib import Path

from pydicom.datadict import tag_for_keyword
from pydicom.valuerep import PersonName

from medvlm.dicom import patient
from medvlm.dicom.decode import header_value, parse
from medvlm.dicom.header import AnyDataset, read_header
from medvlm.dicom.instance import read_bytes
from medvlm.dicom.patient import Sex
from medvlm.dicom.workers import in_worker
from medvlm.errors import InputError, InputNotFound

_KEYWORDS = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("PatientAge", "StudyDate", "AccessionNumber", "StudyDescription", "SeriesDescription"),
    *("ReferringPhysicianName", "InstitutionName", "SeriesNumber"),
)
_WANTED = frozenset(int(tag) for word in _KEYWORDS if (tag := tag_for_keyword(word)) is not None)


@dataclass(frozen=True, repr=False)
class PatientContext:
    """What a header says of the patient and the examination; None where it does not.

    Attributes:
        name, referring: as DICOM writes names, `Family^Given^Middle^Prefix^Suffix`, with the
            ideographic and the phonetic group after `=` where there are any.
        birth_date: YYYYMMDD.
        age_years: at the examination.
    """

    name: str | None = None
    patient_id: str | None = None
    issuer: str | None = None
    birth_date: str | None = None
    sex: Sex | None = None
    age_years: float | None = None
    accession_number: str | None = None
    study_description: str | None = None
    series_description: str | None = None
    referring: str | None = None
    institution: str | None = None
    series_number: int | None = None

    def __repr__(self) -> str:
        """Nothing of it: an object that is logged by mistake tells only what it holds."""
        told = [one.name for one in fields(self) if getattr(self, one.name) is not None]
        return f"PatientContext({', '.join(told)})"


NOBODY = PatientContext()


def patient_context(path: Path) -> PatientContext:
    """What the file's header says; nothing of a picture or of what cannot be read.

    Raises InputNotFound if the file is gone.
    """
    try:
        _, header = read_header(path, _WANTED)
        if header is not None:
            return _context(header.ds)
        return in_worker(_of_unusual, path)  # a header that has to be parsed as a whole
    except InputNotFound:
        raise
    except OSError as error:
        raise InputNotFound("The file cannot be read.", file="the file") from error
    except InputError:
        return NOBODY


def _of_unusual(path: Path) -> PatientContext:
    return _context(parse(read_bytes(path, "the file")))


def _context(ds: AnyDataset) -> PatientContext:
    born, taken = _text(ds, "PatientBirthDate"), _text(ds, "StudyDate")
    number = _text(ds, "SeriesNumber")
    return PatientContext(
        name=_name(ds, "PatientName"),
        patient_id=_text(ds, "PatientID"),
        issuer=_text(ds, "IssuerOfPatientID"),
        birth_date=_date(born),
        sex=patient.sex(_text(ds, "PatientSex")),
        age_years=patient.age_years(_text(ds, "PatientAge"), born, taken),
        accession_number=_text(ds, "AccessionNumber"),
        study_description=_text(ds, "StudyDescription"),
        series_description=_text(ds, "SeriesDescription"),
        referring=_name(ds, "ReferringPhysicianName"),
        institution=_text(ds, "InstitutionName"),
        series_number=int(number) if number and number.lstrip("-").isdecimal() else None,
    )


def _name(ds: AnyDataset, keyword: str) -> str | None:
    """All groups of a name, decoded by the file's character sets; empty ends are dropped."""
    value = header_value(ds, keyword)
    if not isinstance(value, str | PersonName):
        return None
    groups = [_clean(group).rstrip("^ ") for group in str(value).split("=")[:3]]
    return "=".join(groups).rstrip("=") or None


def _text(ds: AnyDataset, keyword: str) -> str | None:
    value = header_value(ds, keyword)
    if value is None or not isinstance(value, str | int):
        return None
    return _clean(str(value)) or None


def _clean(text: str) -> str:
    """Without control characters and padding; every kind of space is kept as a plain one."""
    kept = (" " if char.isspace() else char for char in text)
    return "".join(char for char in kept if unicodedata.category(char)[0] != "C").strip()


def _date(text: str | None) -> str | None:
    digits = (text or "").replace(".", "").replace("-", "")
    return digits if len(digits) == 8 and digits.isdecimal() else None
