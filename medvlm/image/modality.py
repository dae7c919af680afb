"""From stored values to the modality's own and their unit: bits, padding, modality LUT, rescale."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from medvlm.dicom.decode import header_value
from medvlm.dicom.functional_groups import functional_group, stating
from medvlm.image.lut import Table, lookup_table

STORED = "stored values"
UNSPECIFIED = "unspecified"
# Units as DICOM and UCUM write them, where this program has one word for both.
_UNITS = {
    "[hnsf'U]": "HU",
    "Bq/ml": "BQML",
    "g/ml{SUVbw}": "SUVbw",
    "{SUVbw}g/ml": "SUVbw",
    "{SUVlbm}g/ml": "SUVlbm",
    "{SUVibw}g/ml": "SUVibw",
    "{SUVbsa}cm2/ml": "SUVbsa",
    "CM2ML": "SUVbsa",
}
_SUV_TYPES = {"BSA": "SUVbsa", "LBM": "SUVlbm", "IBW": "SUVibw"}  # SUVbw where none is stated
_PIXEL_PADDING = (
    ("PixelPaddingValue", "PixelPaddingRangeLimit"),
    ("FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit"),
    ("DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit"),
)


class ModalityValues(NamedTuple):
    """Values of one frame, float64 [rows, columns], and the unit they are in."""

    values: NDArray[np.float64]
    unit: str


class _Rescale(NamedTuple):
    slope: float = 1.0
    intercept: float = 0.0


def is_little_endian(ds: Dataset) -> bool:
    """The byte order of tables that stand in the file as bytes."""
    syntax = getattr(getattr(ds, "file_meta", None), "TransferSyntaxUID", None)
    return syntax is None or syntax.is_little_endian


def padding_mask(stored: NDArray[Any], ds: Dataset) -> NDArray[np.bool_]:
    """Where the file's padding value stands, or one between it and the range limit; bool [H, W].

    NaN and infinity, which only float pixels can hold, count as padding.
    """
    whole = np.issubdtype(stored.dtype, np.integer)
    mask = np.zeros(stored.shape, dtype=bool) if whole else ~np.isfinite(stored)
    for first_name, limit_name in _PIXEL_PADDING[:1] if whole else _PIXEL_PADDING[1:]:
        first, limit = header_value(ds, first_name), header_value(ds, limit_name)
        try:
            bounds = [
                _as_stored(value, stored.dtype) for value in (first, limit) if value is not None
            ]
        except (TypeError, ValueError):
            continue
        if first is not None:
            mask |= (stored >= min(bounds)) & (stored <= max(bounds))
    return mask


def stored_bits(stored: NDArray[Any], ds: Dataset) -> NDArray[Any]:
    """Only the bits that hold the value: old files keep overlays in the others.

    Values that do not end at bit 0 (a high bit above BitsStored - 1) are moved there; a decoder of
    compressed pixels has done so.
    """
    if not np.issubdtype(stored.dtype, np.integer):
        return stored
    allocated, used = 8 * stored.dtype.itemsize, _whole(ds, "BitsStored") or 0
    high = _whole(ds, "HighBit")
    if high is None or _moves_bits(ds):
        high = used - 1
    if used < 1 or high < used - 1 or high >= allocated or used == allocated:
        return stored
    # Shifting up and down again drops the unused bits and keeps the sign of signed values.
    return np.right_shift(np.left_shift(stored, allocated - 1 - high), allocated - used)


def modality_output(stored: NDArray[Any], ds: Dataset, frame: int = 0) -> NDArray[np.float64]:
    """What the VOI stage works on: stored values through the modality LUT or rescale, [H, W]."""
    table = _modality_table(ds, frame)
    if table is not None:
        return table(stored)
    slope, intercept = _rescale(ds, frame) or _Rescale()
    return stored.astype(np.float64) * slope + intercept


def may_be_negative(ds: Dataset, frame: int = 0) -> bool:
    """Whether `modality_output` may go below 0, so that a VOI table's first input has a sign."""
    if _modality_table(ds, frame) is not None:
        return False
    bits = _whole(ds, "BitsStored") or 16
    low = -(1 << (bits - 1)) if header_value(ds, "PixelRepresentation") == 1 else 0
    slope, intercept = _rescale(ds, frame) or _Rescale()
    return min(slope * value + intercept for value in (low, low + (1 << bits) - 1)) < 0


def values_and_unit(stored: NDArray[Any], ds: Dataset, frame: int = 0) -> ModalityValues:
    """`modality_output` with its unit, or real-world values where only their map says something.

    A map that does the same as the rescale gives its unit to it where the rescale has none.
    """
    values, unit = modality_output(stored, ds, frame), _stated_unit(ds, frame)
    table, rescale = _modality_table(ds, frame), _rescale(ds, frame)
    plain = table is None and (rescale or _Rescale()) == _Rescale()
    if unit is not None:
        return ModalityValues(values, unit)
    item = functional_group(ds, frame, "RealWorldValueMappingSequence")
    line, real_unit = _real_world_line(item), _real_world_unit(item)
    if plain and (line or header_value(item, "RealWorldValueLUTData")):
        return ModalityValues(_real_world(stored, item, line), real_unit or UNSPECIFIED)
    if line and real_unit and rescale and np.allclose(line, rescale, rtol=1e-6):
        return ModalityValues(values, real_unit)
    return ModalityValues(values, STORED if plain else UNSPECIFIED)


def _stated_unit(ds: Dataset, frame: int) -> str | None:
    """The unit that goes with the modality LUT or rescale; None where the file leaves it open."""
    modality = str(header_value(ds, "Modality") or "")
    if modality == "RTDOSE" and _number(ds, "DoseGridScaling"):
        return _word(ds, "DoseUnits")
    units = _word(ds, "Units")
    if modality == "PT" and units:
        if units == "GML":
            return _SUV_TYPES.get((_word(ds, "SUVType") or "BW")[:3], "SUVbw")
        return None if units == "NONE" else _UNITS.get(units, units)
    if _modality_table(ds, frame) is not None:
        stated = _word(header_value(ds, "ModalityLUTSequence")[0], "ModalityLUTType")
        stated = stated or "US"
    else:
        stated = _word(_transformation(ds, frame), "RescaleType")
    if stated:
        return None if stated in ("US", "UNSPECIFIED") else _UNITS.get(stated, stated)
    # The CT image module asks for a type only where the unit is not HU; a localizer has none.
    localizer = "LOCALIZER" in (header_value(ds, "ImageType") or ())
    hounsfield = modality == "CT" and _rescale(ds, frame) is not None and not localizer
    return "HU" if hounsfield else None


def _transformation(ds: Dataset, frame: int) -> Dataset:
    return stating(ds, frame, "PixelValueTransformationSequence", "RescaleSlope")


def _modality_table(ds: Dataset, frame: int) -> Table | None:
    items = header_value(ds, "ModalityLUTSequence")
    if not items or not isinstance(items[0], Dataset):
        return None
    signed = header_value(ds, "PixelRepresentation") == 1
    return lookup_table(items[0], signed=signed, little_endian=is_little_endian(ds))


def _rescale(ds: Dataset, frame: int) -> _Rescale | None:
    """Slope and intercept; None where one is missing, or the slope is 0."""
    scaling = _number(ds, "DoseGridScaling")
    if scaling and header_value(ds, "Modality") == "RTDOSE":
        return _Rescale(scaling, 0.0)
    item = _transformation(ds, frame)
    slope, intercept = _number(item, "RescaleSlope"), _number(item, "RescaleIntercept")
    return None if not slope or intercept is None else _Rescale(slope, intercept)


def _real_world_line(item: Dataset) -> _Rescale | None:
    slope, intercept = (_number(item, f"RealWorldValue{end}") for end in ("Slope", "Intercept"))
    return None if slope is None or intercept is None else _Rescale(slope, intercept)


def _real_world_unit(item: Dataset) -> str | None:
    codes = header_value(item, "MeasurementUnitsCodeSequence")
    code = _word(codes[0], "CodeValue") if codes and isinstance(codes[0], Dataset) else None
    return _UNITS.get(code, code) if code else None


def _real_world(stored: NDArray[Any], item: Dataset, line: _Rescale | None) -> NDArray[np.float64]:
    """Stored values through a real-world value map; NaN where it does not say what they are."""
    first, last = (_bound(item, end, stored.dtype) for end in ("First", "Last"))
    inside = np.isfinite(stored)
    inside &= True if first is None else stored >= first
    inside &= True if last is None else stored <= last
    if line:
        values = stored.astype(np.float64) * line.slope + line.intercept
        return np.where(inside, values, np.nan)
    entries = np.asarray(header_value(item, "RealWorldValueLUTData"), dtype=np.float64)
    index = stored.astype(np.float64) - (first or 0.0)
    inside &= (index >= 0) & (index < entries.size)
    return np.where(inside, entries[np.where(inside, index, 0).astype(np.intp)], np.nan)


def _bound(item: Dataset, end: str, dtype: np.dtype[Any]) -> float | None:
    number = _number(item, f"DoubleFloatRealWorldValue{end}ValueMapped")
    if number is None:
        number = _number(item, f"RealWorldValue{end}ValueMapped")
    return None if number is None else _as_stored(number, dtype)


def _as_stored(value: float, dtype: np.dtype[Any]) -> float:
    """The value in the pixels' own signedness: writers often give one in the other."""
    if dtype.kind not in "iu":
        return float(value)
    span = 1 << (8 * dtype.itemsize)
    if dtype.kind == "i" and span // 2 <= value < span:
        return int(value) - span
    return int(value) + span if dtype.kind == "u" and -span // 2 <= value < 0 else int(value)


def _moves_bits(ds: Dataset) -> bool:
    """Whether the pixels come from a codec that knows values only, not where their bits lay."""
    syntax = getattr(getattr(ds, "file_meta", None), "TransferSyntaxUID", None)
    return syntax is not None and syntax.is_encapsulated and syntax != RLELossless


def _number(ds: Dataset, keyword: str) -> float | None:
    try:
        number = float(header_value(ds, keyword))
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _whole(ds: Dataset, keyword: str) -> int | None:
    number = _number(ds, keyword)
    return None if number is None else int(number)


def _word(ds: Dataset, keyword: str) -> str | None:
    value = header_value(ds, keyword)
    return str(value).strip()[:32] or None if isinstance(value, str) else None
