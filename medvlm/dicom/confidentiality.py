"""What becomes of each element of a header: DICOM PS3.15 Annex E, stricter where it leaves room.

The table of the Basic Application Level Confidentiality Profile and its plain actions come from
dicom-anonymizer. Left alone, that library looks at the top level only, makes up UIDs at random,
turns dates into the year 1 and lets pass what its table does not name. So it is called for every
nested item, with actions of our own for UIDs, dates, sequences and all that the table does not
name: of that, only numbers, codes and a few texts about the device stay.
"""

from __future__ import annotations

import hmac
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dicomanonymizer import anonymize_dataset, initialize_actions
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from medvlm.dicom.identifiers import TEXT_VRS, Identifiers, values

MOST_DAYS = 3650  # dates go back by 1 to so many days
OLDEST = 89  # years; above, PatientAge becomes 090Y
EDITION = "dicomfields_2026c"  # of PS3.15, as dicom-anonymizer names it


def _tags(*keywords: str) -> frozenset[int]:
    return frozenset(tag for word in keywords if (tag := tag_for_keyword(word)) is not None)


# Ranges of tags (longer than two numbers) are of groups that are dropped as a whole.
_TABLE = {tag: act for tag, act in initialize_actions(EDITION).items() if len(tag) == 2}
# Command, file header, directory, documents, graphics, signatures and encryption, results; ranges:
# printing, curves and audio, overlays. Nothing that an image needs.
_DROPPED_GROUPS = frozenset(
    {0x0000, 0x0002, 0x0004, 0x0042, 0x0070, 0x0400, 0x4000, 0x4008, 0x4FFE}
)
_DROPPED_RANGES = (range(0x2000, 0x3000), range(0x5000, 0x5100), range(0x6000, 0x6100))
_PSEUDONYMS = _tags("PatientID", "PatientName")
# When the patient was examined. The dates of a device are the same for all patients: shifted, they
# would give away how far one patient's shift is from another's. They are removed.
_SHIFTED = _tags(
    *[f"{of}Date" for of in ("Study", "Series", "Acquisition", "Content", "InstanceCreation")],
    *[f"{of}Time" for of in ("Study", "Series", "Acquisition", "Content", "InstanceCreation")],
    *[f"PerformedProcedureStep{end}" for end in ("StartDate", "StartTime", "EndDate", "EndTime")],
    *[f"PerformedProcedureStep{end}DateTime" for end in ("Start", "End")],
    *[f"Radiopharmaceutical{at}" for at in ("StartTime", "StopTime")],
    *[f"Radiopharmaceutical{at}DateTime" for at in ("Start", "Stop")],
    *("AcquisitionDateTime", "StartAcquisitionDateTime", "EndAcquisitionDateTime"),
    *("FrameAcquisitionDateTime", "FrameReferenceDateTime", "DecayCorrectionDateTime"),
    *("ContrastBolusStartTime", "ContrastBolusStopTime"),
)
# Retain Patient Characteristics Option. What else it would keep is text: removed.
_CHARACTERISTICS = _tags(
    *("PatientAge", "PatientSex", "PatientSize", "PatientWeight", "PatientSexNeutered"),
    *("SmokingStatus", "PregnancyStatus"),
)
_AGE = tag_for_keyword("PatientAge")
# The only free texts that stay, each if it is short, printable and names nobody of the header.
_TEXTS = _tags(
    *("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "ConvolutionKernel"),
    *("FilterType", "SequenceName", "PulseSequenceName", "ImagedNucleus", "ReceiveCoilName"),
    *("TransmitCoilName", "RescaleType", "ModalityLUTType", "LUTExplanation", "StackID"),
    *("WindowCenterWidthExplanation", "PhosphorType", "PlateType", "PositionReferenceIndicator"),
    *("AcquisitionDeviceProcessingCode", "Radiopharmaceutical", "ReconstructionMethod"),
    *("AttenuationCorrectionMethod", "ScatterCorrectionMethod", "CodingSchemeVersion"),
)
_CODES = _tags("CodeValue", "CodeMeaning", "CodingSchemeDesignator")
# A code of a hospital's own scheme may mean anything.
_CODING_SCHEMES = frozenset(
    "DCM SRT SCT SNM3 UCUM RADLEX LN FMA MDC NCIt UMLS I9C I10".split()  # noqa: SIM905
)
_LUTS = [f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue", "Alpha")]
LOOK_UP_TABLES = _tags("LUTData", *_LUTS, *[f"Segmented{name}" for name in _LUTS])
PIXELS = _tags("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_NUMBER_VRS = frozenset({"AT", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"})
_BYTE_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW"})
_FORMS = {
    "AS": re.compile(r"\d{3}[DWMY]|"),
    "CS": re.compile(r"[A-Za-z0-9 _.+/()-]{0,16}"),
    "DS": re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|"),
    "IS": re.compile(r"[+-]?\d{1,12}|"),
    "TM": re.compile(r"(\d\d:?(\d\d:?(\d\d(\.\d{1,6})?)?)?)?"),
    "DT": re.compile(r"(\d{8})((?:\d\d){0,3}(?:\.\d{1,6})?)(?:[+-]\d{4})?"),
}


@dataclass(frozen=True)
class Key:
    """The secret from which all that is put in place of identifiers is computed.

    Whoever holds it can check a guess at an identifier; nobody can turn one back.
    """

    secret: bytes = field(repr=False)

    def digest(self, purpose: str, value: str) -> bytes:
        """32 bytes; for each purpose other ones."""
        message = f"{purpose}\0{value}".encode("utf-8", "surrogateescape")
        return hmac.new(self.secret, message, "sha256").digest()

    def uid(self, value: str) -> str:
        """The UID that stands for this one, 2.25.<128-bit number>; UIDs of the standard stay."""
        value = value.strip(" \0")
        if not value or UID(value).name != value:
            return value
        return f"2.25.{int.from_bytes(self.digest('uid', value)[:16], 'big')}"

    def days(self, patient: str) -> int:
        """By how many days this patient's dates go back."""
        return 1 + int.from_bytes(self.digest("days", patient)[:8], "big") % MOST_DAYS


class Cleaner:
    """Cleans data sets of one patient, in place, and counts what it did.

    Attributes:
        actions: "removed", "emptied", "replaced", "uid" or "shifted"; for each, how often for which
            element: its keyword, "private" or "unknown".
    """

    def __init__(self, key: Key, patient: str, identifiers: Identifiers) -> None:
        self._key, self._identifiers = key, identifiers
        self._back = timedelta(days=key.days(patient))
        self.pseudonym = key.digest("patient", patient).hex()[:16]
        self.actions: dict[str, Counter[str]] = defaultdict(Counter)

    def clean(self, ds: Dataset, *, top: bool = True) -> None:
        """Cleans a data set and all items nested in it."""
        for tag in list(ds.keys()):
            if _has_no_place(tag, top) or not _is_readable(ds, tag):
                del ds[tag]
                self._count("removed", tag)
        rules = {(tag.group, tag.element): self._act for tag in ds.keys()}  # noqa: SIM118
        # Private elements are gone; asking the library for it once more costs nothing.
        anonymize_dataset(ds, base_rules_gen=lambda: rules, delete_private_tags=top)
        ds.pop("SpecificCharacterSet", None)

    def _act(self, ds: Dataset, numbers: tuple[int, int]) -> None:
        """Called by dicom-anonymizer for each element of a data set."""
        tag = Tag(numbers)
        element, stock = ds[tag], _TABLE.get(numbers)
        kind = stock.__name__ if stock else "keep"
        if tag in _PSEUDONYMS:
            self._put(ds, tag, self.pseudonym if tag == 0x00100020 else self.patient_name)
        elif tag in _SHIFTED:
            self._shift(ds, element)
        elif tag in _CHARACTERISTICS:
            self._characteristic(ds, element)
        elif element.VR == "UI" or kind == "replace_UID":
            self._map_uids(ds, element)
        elif element.VR == "SQ" and kind in ("keep", "delete_or_empty_or_replace_UID"):
            self._clean_items(ds, element)
        elif element.VR in ("SQ", "DA", "DT", "TM") and stock:
            if kind in ("empty", "empty_or_replace", "delete_or_empty"):
                element.clear()
                self._count("emptied", tag)
            else:
                self._remove(ds, tag)
        elif stock:
            try:
                stock(ds, numbers)
            except NotImplementedError:  # a VR that the library has no empty value for
                del ds[tag]
            done = "emptied" if kind in ("empty", "delete_or_empty") else "replaced"
            self._count(done if tag in ds else "removed", tag)
        elif not self._is_harmless(ds, element):
            self._remove(ds, tag)

    @property
    def patient_name(self) -> str:
        """Says that it is none, and tells patients apart."""
        return f"Anonymous^{self.pseudonym[:8]}"

    def _is_harmless(self, ds: Dataset, element: DataElement) -> bool:
        """Whether an element that the table does not name may stay."""
        vr = element.VR
        if " or " in vr:  # the header does not say which
            vr = "OW" if isinstance(element.value, bytes) else "US"
        if vr in _NUMBER_VRS:
            return True
        if vr in _BYTE_VRS:
            return element.tag in PIXELS | LOOK_UP_TABLES
        words = values(element)
        if vr in ("IS", "DS", "AS"):
            return all(_FORMS[vr].fullmatch(word) for word in words) and not any(
                map(self._identifiers.is_number, words)
            )
        if vr == "CS":
            fit = all(_FORMS[vr].fullmatch(word) for word in words)
        elif vr in TEXT_VRS and element.tag in _CODES:
            scheme = str(ds.get("CodingSchemeDesignator") or "").strip()
            fit = scheme in _CODING_SCHEMES and all(map(str.isprintable, words))
        else:
            fit = vr in TEXT_VRS and element.tag in _TEXTS and all(map(str.isprintable, words))
        return fit and not any(map(self._identifiers.in_text, words))

    def _clean_items(self, ds: Dataset, element: DataElement) -> None:
        items = list(element.value or ())
        for item in items:
            self.clean(item, top=False)
        element.value = [item for item in items if len(item)]
        if items and not element.value:
            self._remove(ds, element.tag)

    def _map_uids(self, ds: Dataset, element: DataElement) -> None:
        old = values(element)
        new = [self._key.uid(value) for value in old]
        if new != old:
            self._put(ds, element.tag, new if len(new) != 1 else new[0], "uid", "UI")

    def _shift(self, ds: Dataset, element: DataElement) -> None:
        old, vr = values(element), dictionary_VR(element.tag)  # the file may give a wrong one
        new = [day for value in old if (day := self._earlier(vr, value)) is not None]
        if len(new) < len(old):
            self._remove(ds, element.tag)
        elif new != old:
            self._put(ds, element.tag, new if len(new) != 1 else new[0], "shifted")

    def _earlier(self, vr: str, value: str) -> str | None:
        """The date, shifted by whole days, so that a time of day stays; None for neither."""
        if not value or (vr == "TM" and _FORMS["TM"].fullmatch(value)):
            return value
        time = ""
        if vr == "DT" and (parts := _FORMS["DT"].fullmatch(value)):
            value, time = parts[1], parts[2]
        try:
            day = datetime.strptime(value.replace(".", ""), "%Y%m%d")
            return f"{day - self._back:%Y%m%d}".rjust(8, "0") + time
        except (ValueError, OverflowError):
            return None

    def _characteristic(self, ds: Dataset, element: DataElement) -> None:
        if element.tag == _AGE and _years(values(element)) > OLDEST:
            self._put(ds, element.tag, f"{OLDEST + 1:03}Y")
        elif not self._is_harmless(ds, element):
            self._remove(ds, element.tag)

    def _put(
        self,
        ds: Dataset,
        tag: BaseTag,
        value: str | list[str],
        done: str = "replaced",
        vr: str | None = None,
    ) -> None:
        """Replaced as a whole: the VR that the file gave may be as wrong as the value."""
        ds[tag] = DataElement(tag, vr or dictionary_VR(tag), value)
        self._count(done, tag)

    def _remove(self, ds: Dataset, tag: BaseTag) -> None:
        del ds[tag]
        self._count("removed", tag)

    def _count(self, done: str, tag: BaseTag) -> None:
        # Numbers the standard does not have may come from anywhere, and spell something.
        name = "private" if tag.is_private else keyword_for_tag(tag) or "unknown"
        self.actions[done][name] += 1


def _has_no_place(tag: BaseTag, top: bool) -> bool:
    """Whether the element is dropped whatever it holds."""
    return (
        tag.is_private
        or tag.element == 0  # the length of a group, retired
        or tag.group in _DROPPED_GROUPS
        or tag.group >= 0xFFF0
        or any(tag.group in groups for groups in _DROPPED_RANGES)
        or not dictionary_has_tag(tag)
        or (not top and tag in PIXELS)
    )


def _is_readable(ds: Dataset, tag: BaseTag) -> bool:
    try:
        return ds[tag].VR not in ("UN", None)
    except Exception:  # whatever a parser makes of hostile bytes
        return False


def _years(ages: list[str]) -> int:
    (age, *more) = ages or [""]
    return int(age[:3]) if not more and re.fullmatch(r"\d{3}Y", age) else 0
