"""From stored pixel values to the grey image a radiologist would see, and to values with a unit.

The DICOM grey-scale pipeline, in its order: stored values, modality LUT (or rescale), VOI LUT (or
window), polarity. 0 is black, 1 is white: air is dark and bone is bright, whatever the file's
photometric interpretation. Where a file brings no window, a robust range of its own values is used.
`docs/pixels.md` says what happens to each kind of file.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydicom.dataset import Dataset

from medvlm.dicom.decode import decode_frame, header_value, typed_errors
from medvlm.errors import Undecodable
from medvlm.image.lut import Table, palette_tables
from medvlm.image.modality import (
    ModalityValues,
    is_little_endian,
    may_be_negative,
    modality_output,
    padding_mask,
    stored_bits,
    values_and_unit,
)
from medvlm.image.window import Window, choose, file_windows, robust_range, voi_tables

Grey = NDArray[np.float32]  # [H, W], 0..1
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as PIL's mode "L"
LUMINANCE = "luminance"  # the unit of colour: 0 black .. 1 white


def render(
    ds: Dataset,
    frame: int = 0,
    *,
    file: str | None = None,
    window: Window | int | str | None = None,
) -> Grey:
    """One frame as float32 [rows, columns] in 0..1, what a radiologist would see.

    Pixels that the file marks as padding are black. Colour becomes luminance, and has no window.

    Args:
        ds: a data set with pixel data.
        frame: counts from 0.
        file: named in errors.
        window: None for the file's first VOI LUT, else its first window; a number for that one of
            its windows, counted from 0; words for the first whose explanation contains them; or a
            window in the unit of the modality values.

    Raises:
        NoPixels, TruncatedPixels, TooLarge, Undecodable;
        UsageError: the file has no such window.
    """
    stored = decode_frame(ds, frame, file=file)
    with typed_errors(file):
        if _is_colour(stored, ds, file):
            return _colour(stored, ds, file)
        windows, tables = file_windows(ds, frame), _tables(ds, frame)
    voi = choose(windows, tables, window)
    with typed_errors(file):
        padding = padding_mask(stored, ds)
        values = modality_output(_without_overlays(stored, padding, ds), ds, frame)
        if voi is None:
            grey = robust_range(values, ~padding)
        else:
            grey = voi(values) / voi.white if isinstance(voi, Table) else voi(values)
        if _is_inverse(ds):
            grey = 1.0 - grey
        grey[padding] = 0.0
        return cast(Grey, grey.astype(np.float32))


def modality_values(
    ds: Dataset, frame: int = 0, *, file: str | None = None, padding: float | None = None
) -> ModalityValues:
    """One frame's values as the modality means them, float64 [rows, columns], and their unit.

    The modality LUT or rescale is applied, with the frame's own numbers in an enhanced object, and
    no window. The unit is "HU", "BQML", "SUVbw" and so on where the file states it, "stored values"
    where nothing was applied, "unspecified" where something was and the file does not say what
    comes of it, "luminance" (0..1) for colour. Where only a real-world value map says what stored
    values mean, it is applied; values that it does not cover are NaN.

    Args:
        ds: a data set with pixel data.
        frame: counts from 0.
        file: named in errors.
        padding: given to pixels that the file marks as padding; None leaves their values.

    Raises:
        NoPixels, TruncatedPixels, TooLarge, Undecodable.
    """
    stored = decode_frame(ds, frame, file=file)
    with typed_errors(file):
        if _is_colour(stored, ds, file):
            return ModalityValues(_colour(stored, ds, file).astype(np.float64), LUMINANCE)
        mask = padding_mask(stored, ds)
        found = values_and_unit(_without_overlays(stored, mask, ds), ds, frame)
        if padding is not None:
            found.values[mask] = padding
        return found


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
            return robust_range(np.asarray(picture, dtype=np.float64)).astype(np.float32)
        if picture.mode in ("1", "L"):
            return np.asarray(picture.convert("L"), dtype=np.float32) / np.float32(255)
        if picture.has_transparency_data:
            opaque = picture.convert("RGBA")
            black = Image.new("RGBA", opaque.size, (0, 0, 0, 255))
            picture = Image.alpha_composite(black, opaque)
        return _luminance(np.asarray(picture.convert("RGB")), 255.0)


def _is_colour(stored: np.ndarray, ds: Dataset, file: str | None) -> bool:
    """Whether the frame is colour: three samples a pixel, or one that points into a palette.

    A supplemental palette beside grey pixels does not make them colour: it paints a chosen range
    of values over the grey image and is not needed to read it.
    """
    if stored.ndim == 3 and stored.shape[2] == 3:
        return True
    if stored.ndim != 2:
        raise Undecodable(f"A frame of shape {stored.shape} is no image.", file=file)
    return bool(header_value(ds, "PhotometricInterpretation") == "PALETTE COLOR")


def _colour(stored: np.ndarray, ds: Dataset, file: str | None) -> Grey:
    """The luminance of colour, stored as such ([H, W, 3]) or by a palette ([H, W])."""
    if stored.ndim == 3:
        return _luminance(stored, 2.0 ** int(ds.BitsStored) - 1)
    tables = palette_tables(ds, little_endian=is_little_endian(ds))
    if tables is None:
        raise Undecodable("The colour palette is missing or damaged.", file=file)
    index = stored_bits(stored, ds)
    return _luminance(np.stack([table(index) for table in tables], axis=-1), tables[0].white)


def _luminance(colours: np.ndarray, white: float) -> Grey:
    """[H, W, 3] with values 0..white as float32 [H, W] in 0..1."""
    grey = np.clip(colours.astype(np.float64) @ LUMA / white, 0.0, 1.0)
    return cast(Grey, grey.astype(np.float32))


def _without_overlays(stored: np.ndarray, padding: NDArray[np.bool_], ds: Dataset) -> np.ndarray:
    """The stored bits; padding keeps all of its own, which often need more than BitsStored."""
    bits = stored_bits(stored, ds)
    return bits if bits is stored else np.where(padding, stored, bits)


def _tables(ds: Dataset, frame: int) -> list[Table]:
    signed, little_endian = may_be_negative(ds, frame), is_little_endian(ds)
    return voi_tables(ds, frame, signed=signed, little_endian=little_endian)


def _is_inverse(ds: Dataset) -> bool:
    """Whether high values are dark. MONOCHROME1 and the shape INVERSE say the same, not twice."""
    shape = header_value(ds, "PresentationLUTShape")
    return header_value(ds, "PhotometricInterpretation") == "MONOCHROME1" or shape == "INVERSE"
