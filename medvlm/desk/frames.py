"""The exact values of an image file's frames, as the viewer gets them.

Grey frames are the modality's own values (Hounsfield units and so on), little-endian int16 or
uint16 where every value is whole and fits, else float32; colour is RGB, uint8. Rows from the top,
each from the left. The browser applies the window; nothing is scaled here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydicom.dataset import Dataset

from medvlm.dicom.decode import decode_frame, header_value, typed_errors
from medvlm.dicom.instance import Instance
from medvlm.dicom.workers import where_safe
from medvlm.errors import InputError, InputNotFound, Undecodable
from medvlm.image.lut import palette_tables
from medvlm.image.modality import (
    STORED,
    is_little_endian,
    modality_output,
    padding_mask,
    stored_bits,
    values_and_unit,
)

Dtype = Literal["int16", "uint16", "float32", "uint8"]
DTYPES: dict[Dtype, np.dtype[Any]] = {
    "int16": np.dtype("<i2"),
    "uint16": np.dtype("<u2"),
    "float32": np.dtype("<f4"),
    "uint8": np.dtype("u1"),
}
BATCH_BYTES = 32 << 20  # of frames that are decoded together, 4 bytes for each sample
MOST_IN_BATCH = 32
LARGEST = float(np.finfo(np.float32).max)
_LIMITS = {"int16": (-32768, 32767), "uint16": (0, 65535), "float32": (-LARGEST, LARGEST)}

Job = tuple[Instance, tuple[int, ...]]
Result = TypeVar("Result")


class Frame(NamedTuple):
    """Values as bytes, and their kind."""

    data: bytes
    dtype: Dtype


class Seen(NamedTuple):
    """Grey values, float64 [H, W], NaN where there is no image; or RGB, uint8 [H, W, 3]."""

    values: NDArray[Any]
    unit: str
    whole_range: bool = False  # shown from 0 to 255 unless the user chooses otherwise

    @property
    def colour(self) -> bool:
        return self.values.ndim == 3


def frames_of(instance: Instance, wanted: Sequence[int]) -> list[Frame]:
    """Some frames, counted from 0; at most a batch (`batches`) at a time. Raises InputError."""
    if any(not 0 <= number < instance.frames for number in wanted):
        raise InputNotFound("The image has no such frame.", file=instance.file)
    return safely(_frames, instance, tuple(wanted))


def batches(rows: int, columns: int, frames: int) -> list[range]:
    """All frames in parts to decode together: the file is opened once for each part."""
    size = int(min(MOST_IN_BATCH, max(1, BATCH_BYTES // (4 * rows * columns))))
    return [range(start, min(frames, start + size)) for start in range(0, frames, size)]


def safely(
    function: Callable[[Job], Result], instance: Instance, wanted: tuple[int, ...]
) -> Result:
    """The function's result, in a process of its own where a decoder sees the bytes."""
    job: Job = replace(instance, keep=()), wanted
    (result,) = where_safe(function, [job], lambda one: one[0].needs_worker)
    if isinstance(result, InputError):
        result.file = instance.file
        raise result
    return result


def _frames(job: Job) -> list[Frame]:
    instance, wanted = job
    opened = instance.open()
    invert = isinstance(opened, Dataset) and is_inverse(opened)
    made: list[Frame] = []
    for number in wanted:
        seen = see(opened, number)
        check_size(instance, seen)
        dtype = made[0].dtype if made else dtype_of(opened, instance, seen, invert)
        array, _ = packed(seen, dtype, invert)
        made.append(Frame(np.ascontiguousarray(array).tobytes(), dtype))
    return made


def check_size(instance: Instance, seen: Seen) -> None:
    """A codestream that is not of the header's size would put every region on wrong pixels."""
    if seen.values.shape[:2] != (instance.rows, instance.columns):
        raise Undecodable("The decoded image is not of the size that its header says.")


def see(opened: Dataset | Image.Image, frame: int) -> Seen:
    if isinstance(opened, Image.Image):
        with typed_errors(None):
            return _picture(opened)
    stored = decode_frame(opened, frame)
    with typed_errors(None):
        palette = header_value(opened, "PhotometricInterpretation") == "PALETTE COLOR"
        if stored.ndim == 3 and stored.shape[2] == 3:
            return Seen(_to_8_bits(stored, 2.0 ** int(opened.BitsStored) - 1), "RGB", True)
        if stored.ndim != 2:
            raise Undecodable("A frame of this shape is no image.")
        if palette:
            return Seen(_painted(stored, opened), "RGB", True)
        hole = padding_mask(stored, opened)
        bits = stored_bits(stored, opened)
        bits = bits if bits is stored else np.where(hole, stored, bits)
        values = modality_output(bits, opened, frame)
        values[hole | ~np.isfinite(values)] = np.nan
        return Seen(values, _unit(bits.dtype, opened, frame))


def _unit(dtype: np.dtype[Any], ds: Dataset, frame: int) -> str:
    """The unit of what the modality LUT gives.

    Windows are said in that, not in what a real-world value map makes of it; two values tell.
    """
    two = np.array([[1, 2]], dtype=dtype)
    found = values_and_unit(two, ds, frame)
    same = np.array_equal(modality_output(two, ds, frame), found.values, equal_nan=True)
    return found.unit if same else STORED


def _picture(picture: Image.Image) -> Seen:
    """A PNG or JPEG, upright, transparent parts black; grey as it is, else RGB."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return Seen(np.asarray(picture, dtype=np.float64), STORED)
    if picture.mode in ("1", "L") and not picture.has_transparency_data:
        return Seen(np.asarray(picture.convert("L"), dtype=np.float64), STORED, True)
    if picture.has_transparency_data:
        opaque = picture.convert("RGBA")
        black = Image.new("RGBA", opaque.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, opaque)
    return Seen(np.asarray(picture.convert("RGB")), "RGB", True)


def _painted(stored: NDArray[Any], ds: Dataset) -> NDArray[np.uint8]:
    tables = palette_tables(ds, little_endian=is_little_endian(ds))
    if tables is None:
        raise Undecodable("The colour palette is missing or damaged.")
    index = stored_bits(stored, ds)
    return _to_8_bits(np.stack([table(index) for table in tables], axis=-1), tables[0].white)


def _to_8_bits(colours: NDArray[Any], white: float) -> NDArray[np.uint8]:
    if white == 255 and colours.dtype == np.uint8:
        return colours
    return np.clip(np.rint(colours * (255.0 / white)), 0, 255).astype(np.uint8)


def dtype_of(opened: Dataset | Image.Image, instance: Instance, seen: Seen, invert: bool) -> Dtype:
    """The smallest kind that holds the image exactly: by its values, of many frames by its header.

    All frames of an image are of one kind, and none of them has to be decoded to know it.
    """
    if seen.colour:
        return "uint8"
    values = seen.values
    if instance.frames > 1 and isinstance(opened, Dataset):
        values = _possible(opened, instance.frames)
    hole = np.isnan(values)
    valid = values[~hole]
    if not valid.size:
        return "int16"
    if not (valid == np.rint(valid)).all():
        return "float32"
    padded = bool(hole.any())
    kinds: tuple[Dtype, ...] = ("int16",) if padded else ("int16", "uint16")
    for kind in kinds:
        least, most = _LIMITS[kind]
        least, most = least + (padded and not invert), most - (padded and invert)
        if least <= valid.min() and valid.max() <= most:
            return kind
    return "float32"


def _possible(ds: Dataset, frames: int) -> NDArray[np.float64]:
    """The values between which those of all frames lie; a NaN among them if some may be padding."""
    bits, signed = int(ds.BitsStored), int(ds.PixelRepresentation or 0)
    if not 1 <= bits <= 16 or "PixelData" not in ds or header_value(ds, "ModalityLUTSequence"):
        return np.array([0.5])  # only float32 holds it
    low = -(1 << (bits - 1)) if signed else 0
    ends = np.array([low, low + 1, low + (1 << bits) - 1])
    ranges = [modality_output(ends, ds, frame) for frame in range(frames)]
    padding = [np.nan] if header_value(ds, "PixelPaddingValue") is not None else []
    return np.concatenate([*ranges, padding])


def packed(seen: Seen, dtype: Dtype, invert: bool) -> tuple[NDArray[Any], float | None]:
    """The values as they are sent, and what stands for padding, None where there is none.

    Padding lies outside all values, at the dark end: no window shows it as anything but black.
    """
    values = seen.values
    if seen.colour:
        return values, None
    least, most = _LIMITS[dtype]
    hole = np.isnan(values)
    padding = float(most if invert else least) if hole.any() else None
    if padding is not None:
        values = np.where(hole, padding, values)
    return np.clip(values, least, most).astype(DTYPES[dtype]), padding


def is_inverse(ds: Dataset) -> bool:
    """Whether high values are dark. MONOCHROME1 and the shape INVERSE say the same, not twice."""
    shape = header_value(ds, "PresentationLUTShape")
    return header_value(ds, "PhotometricInterpretation") == "MONOCHROME1" or shape == "INVERSE"
