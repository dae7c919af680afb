"""From stored pixel values to the grey image a radiologist would see, float32 in 0..1.

The DICOM grey-scale pipeline, in its order: stored values, modality LUT (or rescale), VOI LUT (or
window), polarity. 0 is black, 1 is white: air is dark and bone is bright, whatever the file's
photometric interpretation. Where a file brings no window, a robust range of its own values is used.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi

from medvlm.dicom.decode import decode_frame, header_value, typed_errors
from medvlm.errors import Undecodable

Grey = NDArray[np.float32]  # [H, W], 0..1
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as PIL's mode "L"
ROBUST_PERCENTILES = (0.5, 99.5)


def render(ds: Dataset, frame: int = 0, *, file: str | None = None) -> Grey:
    """One frame as float32 [rows, columns] in 0..1.

    Pixels that the file marks as padding are black. Colour becomes luminance.

    Args:
        ds: a data set with pixel data.
        frame: counts from 0.
        file: named in errors.

    Raises:
        NoPixels, TruncatedPixels, TooLarge, Undecodable.
    """
    stored = decode_frame(ds, frame, file=file)
    with typed_errors(file):
        photometric = str(header_value(ds, "PhotometricInterpretation") or "")
        if photometric == "PALETTE COLOR":
            colours = apply_color_lut(stored, ds)
            return _luminance(colours, 2.0 ** (8 * colours.dtype.itemsize) - 1)
        if stored.ndim == 3:
            return _luminance(stored, 2.0 ** int(ds.BitsStored) - 1)
        if stored.ndim != 2:
            raise Undecodable(f"A frame of shape {stored.shape} is no image.", file=file)
        padding = _padding(stored, ds)
        grey = _voi(apply_modality_lut(_stored_bits(stored, ds), ds), padding, ds)
        if photometric == "MONOCHROME1":
            grey = 1.0 - grey
        grey[padding] = 0.0
        return cast(Grey, grey.astype(np.float32))


def render_picture(picture: Image.Image) -> Grey:
    """A PNG or JPEG as float32 [height, width] in 0..1, turned upright by its EXIF orientation.

    8-bit values are taken as they are; deeper ones (often 12 bits in 16) over their robust range.
    Transparent parts are black. Colour becomes luminance.

    Raises:
        Undecodable: the picture's data are damaged.
    """
    with typed_errors(None):
        picture = ImageOps.exif_transpose(picture)
        if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
            return _robust_range(np.asarray(picture, dtype=np.float64)).astype(np.float32)
        if picture.mode in ("1", "L"):
            return np.asarray(picture.convert("L"), dtype=np.float32) / np.float32(255)
        if picture.has_transparency_data:
            opaque = picture.convert("RGBA")
            black = Image.new("RGBA", opaque.size, (0, 0, 0, 255))
            picture = Image.alpha_composite(black, opaque)
        return _luminance(np.asarray(picture.convert("RGB")), 255.0)


def _luminance(colours: np.ndarray, white: float) -> Grey:
    """[H, W, 3] with values 0..white as float32 [H, W] in 0..1."""
    grey = np.clip(colours.astype(np.float64) @ LUMA / white, 0.0, 1.0)
    return cast(Grey, grey.astype(np.float32))


def _stored_bits(stored: np.ndarray, ds: Dataset) -> np.ndarray:
    """Only the bits that hold the value: old files keep overlays in the unused high bits."""
    if not np.issubdtype(stored.dtype, np.integer):
        return stored
    used = int(header_value(ds, "BitsStored") or 0)
    high = header_value(ds, "HighBit")
    unused = 8 * stored.dtype.itemsize - used
    if used < 1 or unused <= 0 or (high is not None and int(high) != used - 1):
        return stored
    # Shifting up and down again drops the high bits and keeps the sign of signed values.
    return np.right_shift(np.left_shift(stored, unused), unused)


def _padding(stored: np.ndarray, ds: Dataset) -> NDArray[np.bool_]:
    """Where the stored value is the padding value, or lies between it and the range limit."""
    first = header_value(ds, "PixelPaddingValue")
    if first is None or not np.issubdtype(stored.dtype, np.integer):
        return np.zeros(stored.shape, dtype=bool)
    limit = header_value(ds, "PixelPaddingRangeLimit")
    bounds = [
        _as_stored(first if value is None else value, stored.dtype) for value in (first, limit)
    ]
    return (stored >= min(bounds)) & (stored <= max(bounds))


def _as_stored(value: int, dtype: np.dtype) -> int:
    """The value in the pixels' own signedness: writers often give one in the other."""
    bits = 8 * dtype.itemsize
    value = int(value) % (1 << bits)
    return value - (1 << bits) if dtype.kind == "i" and value >= 1 << (bits - 1) else value


def _voi(values: np.ndarray, padding: NDArray[np.bool_], ds: Dataset) -> NDArray[np.float64]:
    """Values of interest to 0..1: the first VOI LUT, else first window, else the robust range."""
    tables = header_value(ds, "VOILUTSequence")
    if tables:
        bits = int(tables[0].LUTDescriptor[2])
        shown = apply_voi(values.astype(np.int64), ds, index=0)
        return np.clip(shown.astype(np.float64) / (2.0**bits - 1), 0.0, 1.0)
    centre, width = (_first(header_value(ds, f"Window{name}")) for name in ("Center", "Width"))
    function = str(header_value(ds, "VOILUTFunction") or "LINEAR").upper()
    values = values.astype(np.float64)
    if centre is None or width is None or width < (1.0 if function == "LINEAR" else 1e-9):
        return _robust_range(values, ~padding)
    return _window(values, centre, width, function)


def _window(
    values: NDArray[np.float64], centre: float, width: float, function: str
) -> NDArray[np.float64]:
    """The window functions of DICOM PS3.3 C.11.2.1, with an output range of 0..1."""
    if function == "SIGMOID":
        exponent = np.clip(-4.0 * (values - centre) / width, -700.0, 700.0)
        return 1.0 / (1.0 + np.exp(exponent))
    if function != "LINEAR_EXACT":
        centre, width = centre - 0.5, width - 1.0
        if width == 0:
            return (values > centre).astype(np.float64)
    return np.clip((values - centre) / width + 0.5, 0.0, 1.0)


def _robust_range(
    values: NDArray[np.float64], valid: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Values over the range between two percentiles of the valid ones; a flat image is black."""
    chosen = values[np.isfinite(values) if valid is None else valid & np.isfinite(values)]
    if chosen.size == 0:
        return np.zeros_like(values)
    low, high = np.percentile(chosen, ROBUST_PERCENTILES)
    if high <= low:
        low, high = float(chosen.min()), float(chosen.max())
    if high <= low:
        return np.zeros_like(values)
    return np.clip(np.nan_to_num((values - low) / (high - low)), 0.0, 1.0)


def _first(value: Any) -> float | None:
    """The first of one or several numbers; None where there is none, or it is not finite."""
    if value is None:
        return None
    number = float(value[0] if isinstance(value, MultiValue) else value)
    return number if np.isfinite(number) else None
