"""Facts from a DICOM header, each None where the file does not say it or says nonsense."""

from __future__ import annotations

import hmac
import math
import os
import re
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medvlm.dicom import patient
from medvlm.dicom.decode import header_value
from medvlm.dicom.header import AnyDataset
from medvlm.dicom.identifiers import names_nobody

_UID = re.compile(r"[0-9]+(\.[0-9]+)+")

# What tells images apart that were taken at one place: time, echo, diffusion weighting.
ACQUISITION = (
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "EchoTime",
    "InversionTime",
    "DiffusionBValue",
    "TriggerTime",
    "ConvolutionKernel",
    "EchoNumbers",
    "ReconstructionDiameter",
    "FrameOfReferenceUID",
    "AcquisitionDateTime",
    "AcquisitionTime",
)
# Everything that `dicom_facts` and the checks before it look at.
KEYWORDS = (
    *ACQUISITION,
    *("AnatomicRegionSequence", "BitsAllocated", "BitsStored", "BodyPartExamined"),
    *("BurnedInAnnotation", "Columns", "ConversionType", "HighBit", "ImageLaterality"),
    "ImageOrientationPatient",
    *("ImagePositionPatient", "ImageType", "ImagerPixelSpacing", "InstanceNumber"),
    *("IssuerOfPatientID", "Laterality", "Modality", "NumberOfFrames", "PatientID"),
    *("PatientAge", "PatientBirthDate", "PatientSex"),
    *("PatientOrientation", "PhotometricInterpretation", "PixelRepresentation", "PixelSpacing"),
    *("PresentationIntentType", "Rows", "SOPClassUID", "SOPInstanceUID", "SamplesPerPixel"),
    *("SeriesInstanceUID", "SharedFunctionalGroupsSequence", "StudyDate", "StudyInstanceUID"),
    *("StudyTime", "ViewCodeSequence", "ViewPosition"),
)


def dicom_facts(ds: AnyDataset) -> dict[str, Any]:
    """The fields of an `Instance` that the header of an image fills."""
    between = spacing(ds)
    return {
        "rows": int(ds.Rows),
        "columns": int(ds.Columns),
        "frames": integer(ds, "NumberOfFrames") or 1,
        "samples": integer(ds, "SamplesPerPixel") or 1,
        "transfer_syntax": str(ds.file_meta.TransferSyntaxUID),
        "sop_class_uid": uid(ds, "SOPClassUID"),
        "sop_instance_uid": uid(ds, "SOPInstanceUID"),
        "study_instance_uid": text(ds, "StudyInstanceUID"),
        "series_instance_uid": uid(ds, "SeriesInstanceUID"),
        "study_date": _digits(ds, "StudyDate", (8,)),
        "study_time": _digits(ds, "StudyTime", (6, 4, 2)),
        "patient_key": patient_pseudonym(text(ds, "PatientID"), text(ds, "IssuerOfPatientID")),
        "patient_sex": patient.sex(text(ds, "PatientSex")),
        "age_years": patient.age_years(
            *(text(ds, keyword) for keyword in ("PatientAge", "PatientBirthDate", "StudyDate"))
        ),
        "modality": text(ds, "Modality"),
        "body_part": text(ds, "BodyPartExamined") or meaning(ds, "AnatomicRegionSequence"),
        "view_position": text(ds, "ViewPosition") or meaning(ds, "ViewCodeSequence"),
        "laterality": text(ds, "ImageLaterality") or text(ds, "Laterality"),
        "photometric": text(ds, "PhotometricInterpretation"),
        "burned_in_annotation": text(ds, "BurnedInAnnotation"),
        "conversion_type": text(ds, "ConversionType"),
        "pixel_spacing_mm": (between[0], between[1]) if between else None,
        "instance_number": integer(ds, "InstanceNumber"),
        "image_type": words(ds, "ImageType"),
        "patient_orientation": words(ds, "PatientOrientation"),
        "presentation_intent": text(ds, "PresentationIntentType"),
        "position_mm": numbers(ds, "ImagePositionPatient", 3),
        "orientation": numbers(ds, "ImageOrientationPatient", 6),
        "acquisition": tuple(told(ds, keyword) for keyword in ACQUISITION),
    }


def patient_pseudonym(patient_id: str | None, issuer: str | None = None) -> str | None:
    """12 hexadecimal digits that stand for the patient; None for an ID that is empty or anybody's.

    "ANONYMOUS" is no patient: two people under it would be compared with each other.

    Keyed with `MEDVLM_PSEUDONYM_KEY`. Without it the key is a public constant, so that names of
    folders stay the same between runs; whoever can guess an ID could then check the guess.
    """
    identity = (patient_id or "").strip()
    if names_nobody(identity):
        return None
    key = os.environ.get("MEDVLM_PSEUDONYM_KEY") or "medvlm"
    identified = f"{(issuer or '').strip()}\0{identity}"
    return hmac.new(key.encode(), identified.encode("utf-8", "replace"), "sha256").hexdigest()[:12]


def text(ds: AnyDataset, keyword: str) -> str | None:
    """The value as printable text without padding, or None."""
    value = header_value(ds, keyword)
    if value is None or isinstance(value, Sequence):  # whose text is all that it holds
        return None
    return "".join(char for char in str(value) if char.isprintable()).strip() or None


def told(ds: AnyDataset, keyword: str) -> str | None:
    """The value as text, numbers in one form: 10 and 10.0 are one echo time."""
    value = text(ds, keyword)
    try:
        return value and repr(float(value))
    except ValueError:
        return value


def uid(ds: AnyDataset, keyword: str) -> str | None:
    """A UID (digits and dots, at most 64 characters), or None for anything else.

    Leading zeros, wrong but common, are let through.
    """
    value = text(ds, keyword)
    return value if value and is_uid(value) else None


def is_uid(value: str) -> bool:
    """Digits and dots, at most 64 characters."""
    return len(value) <= 64 and _UID.fullmatch(value) is not None


def words(ds: AnyDataset, keyword: str) -> tuple[str, ...]:
    """Every one of the values as text; empty where there is none."""
    value = header_value(ds, keyword)
    if value is None or isinstance(value, Sequence):
        return ()
    values = [value] if isinstance(value, str) else value
    return tuple(str(one).strip() for one in values)


def integer(ds: AnyDataset, keyword: str) -> int | None:
    """The value as a whole number, or None."""
    try:
        return int(header_value(ds, keyword))
    except (TypeError, ValueError):
        return None


def numbers(ds: AnyDataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """`count` finite numbers, or None."""
    value = header_value(ds, keyword)
    try:
        numbers = tuple(map(float, [value] if isinstance(value, str) else value))
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def _digits(ds: AnyDataset, keyword: str, counts: tuple[int, ...]) -> str | None:
    """A date or time's digits without punctuation, cut to the first count that they fill."""
    found = re.sub(r"[.:-]", "", text(ds, keyword) or "")
    length = next((count for count in counts if len(found) >= count), 0)
    return found[:length] if length and found[:length].isdecimal() else None


def spacing(ds: AnyDataset) -> tuple[float, ...] | None:
    """(row, column) in mm; for a projection without a calibration, at the detector."""
    measures: Any = ds
    for keyword in ("SharedFunctionalGroupsSequence", "PixelMeasuresSequence"):
        items = header_value(measures, keyword)
        measures = items[0] if items else Dataset()
    found = (
        numbers(ds, "PixelSpacing", 2)
        or numbers(measures, "PixelSpacing", 2)
        or numbers(ds, "ImagerPixelSpacing", 2)
    )
    return found if found and min(found) > 0 else None


def meaning(ds: AnyDataset, keyword: str) -> str | None:
    """The words of the first code in a code sequence, in capitals."""
    items = header_value(ds, keyword)
    said = text(items[0], "CodeMeaning") if items else None
    return said.upper()[:64] if said else None
