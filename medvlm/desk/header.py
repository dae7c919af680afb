"""What the viewer has to know of an image before its frames: size, spacing, windows, directions."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from pydicom.dataset import Dataset

from medvlm.desk.frames import (
    LARGEST,
    Dtype,
    Job,
    Seen,
    check_size,
    dtype_of,
    is_inverse,
    packed,
    safely,
    see,
)
from medvlm.desk.voi import FileWindow, table_window
from medvlm.dicom.decode import header_value, typed_errors
from medvlm.dicom.facts import numbers
from medvlm.dicom.instance import Instance
from medvlm.image.modality import is_little_endian, may_be_negative
from medvlm.image.window import ROBUST_PERCENTILES, file_windows, voi_tables


class ImageHeader(BaseModel):
    """What the viewer has to know of an image before its frames.

    Attributes:
        dtype: of every frame. uint8 is always RGB.
        samples: of a pixel, 3 for RGB.
        spacing_mm: (between rows, between columns).
        at_detector: the spacing is the detector's: what lies before it is shown a little larger.
        pixel_aspect: height of a pixel over its width.
        windows: what the file offers, in its order, labelled in its words (plain text).
        window: what to begin with.
        invert: high values are dark.
        padding: stands where the file has no image: outside all values, black in every window.
            None where the first frame has none.
        minimum, maximum: of the first, middle and last frame, without padding.
        frame_ms: how long a frame of a cine lasts.
        directions: where a row and a column point, such as ("L", "F"); empty where unknown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rows: int
    columns: int
    frames: int
    dtype: Dtype
    samples: Literal[1, 3] = 1
    colour: bool
    spacing_mm: tuple[float, float] | None = None
    at_detector: bool = False
    pixel_aspect: float = 1.0
    windows: tuple[FileWindow, ...] = ()
    window: FileWindow
    invert: bool = False
    unit: str
    padding: float | None = None
    minimum: float
    maximum: float
    frame_ms: float | None = None
    directions: tuple[str, ...] = ()


class Opened(NamedTuple):
    """A header, and the first frame's values, which had to be decoded for it."""

    header: ImageHeader
    first: bytes


def open_image(instance: Instance) -> Opened:
    """Decodes up to three frames. Raises InputError."""
    return safely(_open, instance, ())


def _open(job: Job) -> Opened:
    instance, _ = job
    opened = instance.open()
    last = instance.frames - 1
    shown = [see(opened, number) for number in sorted({0, last // 2, last})]
    first = shown[0]
    check_size(instance, first)
    invert = isinstance(opened, Dataset) and not first.colour and is_inverse(opened)
    dtype = dtype_of(opened, instance, first, invert)
    array, padding = packed(first, dtype, invert)
    offers = _offers(opened) if isinstance(opened, Dataset) and not first.colour else []
    valid = np.concatenate([one.values[np.isfinite(one.values)].ravel() for one in shown])
    low, high = (float(valid.min()), float(valid.max())) if valid.size else (0.0, 0.0)
    start = offers[0] if offers else _start(first, valid)
    spacing = instance.pixel_spacing_mm
    facts = _facts(opened) if isinstance(opened, Dataset) else {}
    if spacing:
        facts["pixel_aspect"] = spacing[0] / spacing[1]
    header = ImageHeader(
        rows=instance.rows,
        columns=instance.columns,
        frames=instance.frames,
        dtype=dtype,
        samples=3 if first.colour else 1,
        colour=first.colour,
        spacing_mm=spacing,
        windows=tuple(offers),
        window=start,
        invert=invert,
        unit=first.unit,
        padding=padding,
        minimum=max(low, -LARGEST),
        maximum=min(high, LARGEST),
        directions=_directions(instance),
        **facts,
    )
    return Opened(header, np.ascontiguousarray(array).tobytes())


def _offers(ds: Dataset) -> list[FileWindow]:
    """The file's tables, as the nearest windows, then its windows: the first is its choice."""
    with typed_errors(None):
        tables = voi_tables(
            ds, 0, signed=may_be_negative(ds, 0), little_endian=is_little_endian(ds)
        )
        near = [table_window(table) for table in tables]
        return [one for one in near if one] + [FileWindow.of(one) for one in file_windows(ds, 0)]


def _start(first: Seen, valid: NDArray[Any]) -> FileWindow:
    """Where the file offers none: all of 8 bits, else the robust range that the model sees too."""
    if first.whole_range:
        return FileWindow(center=128, width=256)
    if not valid.size:
        return FileWindow(center=0, width=1)
    low, high = np.percentile(valid, ROBUST_PERCENTILES)
    if high <= low:
        low, high = float(valid.min()), float(valid.max())
    width = float(high - low) or 1.0
    return FileWindow(center=float(low) + width / 2, width=width, function="LINEAR_EXACT")


def _facts(ds: Dataset) -> dict[str, Any]:
    """What only the whole header says."""
    aspect = numbers(ds, "PixelAspectRatio", 2)
    facts: dict[str, Any] = {}
    if aspect and min(aspect) > 0:
        facts["pixel_aspect"] = aspect[0] / aspect[1]
    measured = numbers(ds, "PixelSpacing", 2) or header_value(ds, "SharedFunctionalGroupsSequence")
    facts["at_detector"] = not measured and numbers(ds, "ImagerPixelSpacing", 2) is not None
    time = _positive(ds, "FrameTime")
    rate = _positive(ds, "RecommendedDisplayFrameRate") or _positive(ds, "CineRate")
    facts["frame_ms"] = time or (rate and 1000.0 / rate)
    return facts


def _positive(ds: Dataset, keyword: str) -> float | None:
    try:
        number = float(header_value(ds, keyword))
    except (TypeError, ValueError):
        return None
    return number if 0 < number < np.inf else None


def _directions(instance: Instance) -> tuple[str, ...]:
    """The file's own words for a projection; of a slice, from its direction cosines."""
    if len(instance.patient_orientation) == 2:
        return tuple(one.upper()[:3] for one in instance.patient_orientation)
    if instance.orientation is None:
        return ()
    cosines = np.array(instance.orientation).reshape(2, 3)
    return tuple(_towards(one) for one in cosines)


def _towards(cosines: NDArray[np.float64]) -> str:
    """A direction in letters, the main one first; x points left, y posterior, z to the head."""
    letters = [pair[int(part > 0)] for pair, part in zip(("RL", "AP", "FH"), cosines, strict=True)]
    order = np.argsort(-np.abs(cosines), kind="stable")
    return "".join(letters[axis] for axis in order if abs(cosines[axis]) > 0.2)
