"""De-identifies one DICOM file: DICOM PS3.15 Basic Profile, pixels included.

`docs/deidentification.md` says what is kept, shifted, removed and refused, and why.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from typing import Any

import pydicom
import pydicom.uid as uids
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.utils import get_expected_length
from pydicom.sequence import Sequence

from medvlm import __version__
from medvlm.dicom.burned_in import (
    blank_outside,
    refuse_spare_bits,
    regions_to_keep,
)
from medvlm.dicom.comments import without_comments
from medvlm.dicom.confidentiality import LOOK_UP_TABLES, PIXELS, Cleaner, Key
from medvlm.dicom.decode import check_pixels, header_value, parse, pixel_bytes, typed_errors
from medvlm.dicom.facts import integer
from medvlm.dicom.facts import text as text_of
from medvlm.dicom.identifiers import TEXT_VRS, Identifiers, every_element, values
from medvlm.dicom.instance import PICTURES
from medvlm.dicom.patient import age_months
from medvlm.errors import MedVLMError, NoPixels, RefusedByPolicy, Undecodable

IMPLEMENTATION_UID = uids.UID("2.25.257514616128632887668304338285591044343")
METHOD = [f"medvlm {__version__}", "DICOM PS3.15 Basic Application Confidentiality Profile"]
BASIC, PIXELS_CLEANED = "113100", "113101"
CODES = {
    BASIC: "Basic Application Confidentiality Profile",
    PIXELS_CLEANED: "Clean Pixel Data Option",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
    "113108": "Retain Patient Characteristics Option",
}
UNTOUCHED, COMMENTS, REENCODED = "untouched", "comments blanked", "encoded anew"
_STREAMS = frozenset(
    {
        *uids.JPEGTransferSyntaxes,
        *uids.JPEGLSTransferSyntaxes,
        *uids.JPEG2000TransferSyntaxes,
        *(uids.HTJ2K, uids.HTJ2KLossless, uids.HTJ2KLosslessRPCL),
    }
)
_NATIVE = frozenset(
    {uids.ImplicitVRLittleEndian, uids.ExplicitVRLittleEndian, uids.ExplicitVRBigEndian}
)
_SEARCHED_VRS = TEXT_VRS | {"AS", "CS", "PN", "UI"}
_SMALL_TABLE = 64  # bytes; the ascending numbers of a larger one may look like letters
_PSEUDONYM = re.compile(r"Anonymous\^[0-9a-f]{8}|[0-9a-f]{16}")
_WHOLE_BYTES = frozenset({1, 8, 16, 32, 64})  # bits allocated whose length can be told


@dataclass(frozen=True)
class Copy:
    """A de-identified file.

    Attributes:
        data: the file's bytes, which depend on nothing but the original's, the key and the version.
        pixels: what became of the pixel data, in words.
        actions: what became of the header: for each action, how often for each element.
    """

    data: bytes
    pixels: str
    actions: Mapping[str, Mapping[str, int]]


def deidentify(data: bytes, key: Key) -> Copy:
    """The de-identified copy of a file. No error quotes a value of the header.

    Raises:
        RefusedByPolicy: it may hold identifying text where none can be found or removed.
        InputError: it is broken, or no DICOM.
    """
    try:
        return _deidentify(data, key)
    except (MedVLMError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a decoder written in Rust panics past Exception
        raise Undecodable("It is damaged: a decoder gave up.") from error


def _deidentify(data: bytes, key: Key) -> Copy:
    if any(map(data.startswith, PICTURES)) and data[128:132] != b"DICM":
        raise RefusedByPolicy(
            "A PNG or JPEG says nothing about itself, and may show names.", code="picture"
        )
    ds = parse(data)
    del data
    _refuse_without_image(ds)
    with typed_errors(None):
        regions = regions_to_keep(ds)
        identifiers = Identifiers(ds)
        cleaner = Cleaner(key, _patient(ds), identifiers)
        supply_age(ds)
    if regions is not None:
        blank_outside(ds, regions)
        pixels = f"blanked outside {len(regions)} region{'s' * (len(regions) > 1)}"
    else:
        with typed_errors(None):
            pixels = _clean_stream(ds)
    with typed_errors(None):
        cleaner.clean(ds)
        _mark(ds, cleaner, cleaned=regions is not None)
        written = _write(ds)
        refuse_leftovers(written, identifiers)
    return Copy(written, pixels, {done: dict(tags) for done, tags in cleaner.actions.items()})


def _refuse_without_image(ds: Dataset) -> None:
    if header_value(ds.file_meta, "MediaStorageSOPClassUID") == uids.MediaStorageDirectoryStorage:
        raise RefusedByPolicy(
            "An index of other files (DICOMDIR), which names patients.", code="index"
        )
    try:
        with typed_errors(None):
            check_pixels(ds, pixel_bytes(ds))
    except NoPixels as error:  # a report, a plan, a waveform: text, or nothing that is read here
        raise RefusedByPolicy(error.message, code="no_image") from None


def _patient(ds: Dataset) -> str:
    """What tells the patient from others: the ID, else name and birth date, else the study."""
    for keywords in (
        ("PatientID", "IssuerOfPatientID"),
        ("PatientName", "PatientBirthDate"),
        ("StudyInstanceUID",),
    ):
        if text_of(ds, keywords[0]):
            return "\0".join(text_of(ds, keyword) or "" for keyword in keywords)
    return ""


def supply_age(ds: Dataset) -> None:
    """The age at the examination, which could not be told any more without the birth date."""
    months = age_months(text_of(ds, "PatientBirthDate"), text_of(ds, "StudyDate"))
    if months is not None and not text_of(ds, "PatientAge"):
        ds.PatientAge = f"{months // 12:03}Y" if months >= 24 else f"{months:03}M"


def _clean_stream(ds: Dataset) -> str:
    """Leaves of the pixel data nothing but pixels; says what was done."""
    syntax = ds.file_meta.TransferSyntaxUID
    if syntax in _STREAMS:
        return _clean_frames(ds)
    if syntax == uids.RLELossless:  # bytes may hide behind the runs of a segment
        ds.decompress(as_rgb=False, generate_instance_uid=False)
        ds.compress(uids.RLELossless, generate_instance_uid=False)
        return REENCODED
    if syntax == uids.DeflatedExplicitVRLittleEndian:
        ds.file_meta.TransferSyntaxUID = uids.ExplicitVRLittleEndian
    elif syntax not in _NATIVE:
        raise RefusedByPolicy("Video and streams of unknown kinds may hold text.", code="stream")
    if int(ds.BitsAllocated) not in _WHOLE_BYTES:
        raise RefusedByPolicy("Pixels of a size that is no longer used.", code="stream")
    length = get_expected_length(ds)
    for tag in PIXELS & set(ds.keys()):
        value = ds[tag].value[:length]  # what follows are no pixels
        ds[tag].value = value + b"\0" * (len(value) % 2)
    refuse_spare_bits(ds)
    return UNTOUCHED


def _clean_frames(ds: Dataset) -> str:
    count = max(1, integer(ds, "NumberOfFrames") or 1)
    offsets = None
    if "ExtendedOffsetTable" in ds:
        offsets = ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths
    frames = generate_frames(ds.PixelData, number_of_frames=count, extended_offsets=offsets)
    before = list(islice(frames, count))
    after = [without_comments(frame) for frame in before]
    # Anew, because bytes may hide between fragments and in offset tables.
    ds.PixelData = encapsulate(after)
    ds["PixelData"].is_undefined_length = True
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        ds.pop(keyword, None)
    return UNTOUCHED if before == after else COMMENTS


def _mark(ds: Dataset, cleaner: Cleaner, *, cleaned: bool) -> None:
    """Writes into the header what was done, and a file header of our own."""
    codes = [code for code in CODES if cleaned or code != PIXELS_CLEANED]
    elements = {
        "SpecificCharacterSet": "ISO_IR 192",
        "PatientID": cleaner.pseudonym,
        "PatientName": cleaner.patient_name,
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": METHOD,
        "DeidentificationMethodCodeSequence": Sequence(map(_code, codes)),
        "LongitudinalTemporalInformationModified": "MODIFIED",
        **({"BurnedInAnnotation": "NO"} if cleaned else {}),
    }
    for keyword, value in elements.items():
        ds.pop(keyword, None)  # its VR may have been wrong
        setattr(ds, keyword, value)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ds.file_meta.TransferSyntaxUID
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.ImplementationClassUID, meta.ImplementationVersionName = IMPLEMENTATION_UID, "MEDVLM"
    # The preamble may hold anything, a program too.
    ds.file_meta, ds.preamble = meta, b"\0" * 128


def _code(value: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", CODES[value]
    return item


def _write(ds: Dataset) -> bytes:
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def refuse_leftovers(written: bytes, identifiers: Identifiers) -> None:
    """The safety net: searches the finished file for what the original's header identified.

    Raises:
        RefusedByPolicy: something is left; the message names the element, not the value.
    """
    ds = pydicom.dcmread(BytesIO(written))
    header = written
    for tag in sorted(PIXELS & set(ds.keys()), reverse=True):
        raw: Any = ds.get_item(tag)  # as it lies in the file, with its place
        header = header[: raw.value_tell] + header[raw.value_tell + len(raw.value) :]
    # What was put in by us could only match somebody's name by chance.
    ours = [*METHOD, *CODES.values()]
    for keyword in ("PatientID", "PatientName"):
        if _PSEUDONYM.fullmatch(str(ds[keyword].value)):
            ours.append(str(ds.pop(keyword).value))
    for text in ours:
        header = header.replace(text.encode(), b"")
    for keyword in ("DeidentificationMethod", "DeidentificationMethodCodeSequence"):
        del ds[keyword]
    times: set[bytes] = set()
    for element in every_element(ds):
        name = element.keyword or "an unknown element"
        if element.tag.is_private or element.VR == "UN":
            raise _left(name)
        if isinstance(element.value, bytes) and element.value:
            if element.tag not in PIXELS | LOOK_UP_TABLES:
                raise _left(name)
            if element.tag in LOOK_UP_TABLES and len(element.value) > _SMALL_TABLE:
                header = header.replace(element.value, b"")
        words = values(element)
        if element.VR in ("DA", "DT", "TM"):
            times |= {word.encode() for word in words}
        elif element.VR in ("DS", "IS"):
            if any(map(identifiers.is_number, words)):
                raise _left(name)
        elif element.VR in _SEARCHED_VRS and any(map(identifiers.in_text, words)):
            raise _left(name)
    if any(written[:128]) or identifiers.in_bytes(header, frozenset(times)):
        raise _left("the header's bytes")


def _left(where: str) -> RefusedByPolicy:
    return RefusedByPolicy(
        f"After cleaning, something that identifies somebody was still there ({where}).",
        code="identifier_left",
    )
