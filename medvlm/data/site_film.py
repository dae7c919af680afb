"""What the header of a site's film says beyond an `Instance`: whose it is, and what it may show."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

from medvlm.dicom.burned_in import regions_to_keep
from medvlm.dicom.decode import PIXEL_KEYWORDS, typed_errors
from medvlm.dicom.facts import text
from medvlm.dicom.identifiers import fold, squash, tells
from medvlm.dicom.instance import Instance, read_bytes
from medvlm.errors import RefusedByPolicy
from medvlm.records import Reason
from medvlm.reports import known
from medvlm.reports.known import Known

_WORD = re.compile(r"[^\W_]+")
_OLDEST = 90  # years; the ages of the oldest identify them


@dataclass(frozen=True)
class FilmFacts:
    """Facts of one file; all but the last four identify somebody and stay in memory.

    Attributes:
        accession, patient_id: as in the header, the ID in one case.
        identities: what may tell the patient: the ID; name and birth date; else the study.
        known: what the header names.
        age_years: whole years, at most 90.
        sex: M, F or "".
        pixels_sha256: of the stored pixels and their size.
        policy: why an image may show text that identifies, None where nothing says so.
        is_copy: another file has the same pixels.
    """

    accession: str | None = field(repr=False)
    patient_id: str | None = field(repr=False)
    identities: tuple[str, ...] = field(repr=False)
    known: Known = field(repr=False)
    age_years: int | None
    sex: str
    sha256: str
    pixels_sha256: str
    policy: Reason | None
    is_copy: bool = False


def film_facts(instance: Instance) -> FilmFacts:
    """Reads a DICOM file for its facts. Raises InputError; RefusedByPolicy for a picture."""
    if not instance.is_dicom:
        raise RefusedByPolicy(
            "A PNG or JPEG says nothing about itself, and may show names.", code="picture"
        )
    ds = instance.open()
    assert isinstance(ds, Dataset)
    with typed_errors(None):
        return FilmFacts(
            accession=text(ds, "AccessionNumber"),
            patient_id=(text(ds, "PatientID") or "").casefold() or None,
            identities=_identities(ds),
            known=known.of_header(ds),
            age_years=_whole(instance.age_years),
            sex=instance.patient_sex or "",
            sha256=hashlib.sha256(read_bytes(instance.path, "")).hexdigest(),
            pixels_sha256=_pixels(ds),
            policy=_policy(ds),
        )


def _identities(ds: Dataset) -> tuple[str, ...]:
    """ID, name and birth date; where both are missing or stand for nobody, the study."""
    patient_id = (text(ds, "PatientID") or "").casefold()
    name = fold(text(ds, "PatientName") or "")
    born = text(ds, "PatientBirthDate")
    found = []
    if any(tells(word) or (word.isdecimal() and int(word)) for word in _WORD.findall(patient_id)):
        found.append(f"id\0{patient_id}")
    if born and any(tells(word) or len(word) == 2 for word in _WORD.findall(name)):
        found.append(f"name\0{squash(name)}\0{born}")
    return tuple(found) or (f"study\0{text(ds, 'StudyInstanceUID')}",)


def _whole(age_years: float | None) -> int | None:
    return None if age_years is None else min(_OLDEST, int(age_years + 1e-9))


def _pixels(ds: Dataset) -> str:
    digest = hashlib.sha256(f"{ds.Rows} {ds.Columns} {ds.BitsAllocated}\n".encode())
    for keyword in PIXEL_KEYWORDS:
        if keyword in ds:
            digest.update(ds[keyword].value)
    return digest.hexdigest()


def _policy(ds: Dataset) -> Reason | None:
    try:
        regions = regions_to_keep(ds)
    except RefusedByPolicy as error:
        return Reason(code=error.code, message=error.message)
    if regions is None:
        return None
    message = "An image with text around its picture is not used."
    return Reason(code="text_around_picture", message=message)
