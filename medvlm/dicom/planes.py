"""The planes of the patient that a file shows: one of a classic image, many of an enhanced one.

Positions are DICOM's: millimetres in patient coordinates (x to the left, y to the back, z to the
head), of the centre of the top-left pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medvlm.dicom.decode import header_value, typed_errors
from medvlm.dicom.facts import ACQUISITION, numbers, told
from medvlm.dicom.functional_groups import PER_FRAME, SHARED, functional_group
from medvlm.dicom.instance import Instance
from medvlm.dicom.mosaic import is_mosaic, mosaic_tiles
from medvlm.dicom.workers import in_worker
from medvlm.errors import InputError, InputNotFound

Vector = NDArray[np.float64]

# Where an enhanced object keeps what a classic one says at the top level.
_FRAME_ACQUISITION = (
    ("FrameContentSequence", "TemporalPositionIndex"),
    ("FrameContentSequence", "FrameAcquisitionNumber"),
    ("FrameContentSequence", "StackID"),
    ("MREchoSequence", "EffectiveEchoTime"),
    ("MRDiffusionSequence", "DiffusionBValue"),
    ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    ("FrameContentSequence", "FrameAcquisitionDateTime"),
)
_FRAME_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")


@dataclass(frozen=True)
class Plane:
    """One plane of the patient, and where its pixels lie.

    Attributes:
        frame: counts from 0.
        left, top: where the plane begins in its frame, in pixels; (0, 0) but for a mosaic's tile.
        position: mm, of the centre of the plane's top-left pixel; None where the file lacks it.
        orientation: direction cosines of a row, then of a column (6 numbers), or None.
        spacing: mm (between rows, between columns), or None.
        acquisition: values that tell planes at one place apart.
    """

    instance: Instance
    frame: int
    rows: int
    columns: int
    left: int = 0
    top: int = 0
    position: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    spacing: tuple[float, ...] | None = None
    acquisition: tuple[str | None, ...] = ()

    @property
    def normal(self) -> Vector:
        """The direction in which planes follow each other, of unit length."""
        return np.cross(self.row, self.column)

    @property
    def row(self) -> Vector:
        """Where a row runs: the direction of growing column numbers."""
        return np.array((self.orientation or ())[:3])

    @property
    def column(self) -> Vector:
        """Where a column runs: the direction of growing row numbers."""
        return np.array((self.orientation or ())[3:])


def planes_of(instance: Instance) -> list[Plane]:
    """The planes of an image, in the order of its frames.

    Raises:
        InputError: the file is gone, or its functional groups cannot be read.
    """
    if is_mosaic(instance) or instance.frames > 1 or instance.orientation is None:
        try:
            planes = in_worker(_parsed, replace(instance, keep=()))
        except InputError as error:
            error.file = instance.file
            raise
        return [replace(plane, instance=instance) for plane in planes]
    return [
        Plane(
            instance,
            0,
            instance.rows,
            instance.columns,
            position=instance.position_mm,
            orientation=instance.orientation,
            spacing=instance.pixel_spacing_mm,
            acquisition=(*instance.acquisition, "\\".join(instance.image_type)),
        )
    ]


def _parsed(instance: Instance) -> list[Plane]:
    """The planes for which the header has to be parsed, and may be of any size and content."""
    ds = _header(instance)
    if is_mosaic(instance):
        return [_tile(instance, *tile) for tile in mosaic_tiles(instance, ds)]
    with typed_errors(instance.file):
        if header_value(ds, PER_FRAME) is None and header_value(ds, SHARED) is None:
            first = _frame(instance, ds, 0)
            return [replace(first, frame=frame) for frame in range(instance.frames)]
        return [_frame(instance, ds, frame) for frame in range(instance.frames)]


def _tile(instance: Instance, left: int, top: int, size: tuple[int, int], place: Vector) -> Plane:
    return Plane(
        instance,
        0,
        size[0],
        size[1],
        left,
        top,
        tuple(place.tolist()),
        instance.orientation,
        instance.pixel_spacing_mm,
        instance.acquisition,
    )


def _frame(instance: Instance, ds: Dataset, frame: int) -> Plane:
    place = functional_group(ds, frame, "PlanePositionSequence")
    turn = functional_group(ds, frame, "PlaneOrientationSequence")
    measures = functional_group(ds, frame, "PixelMeasuresSequence")
    return Plane(
        instance,
        frame,
        instance.rows,
        instance.columns,
        position=numbers(place, "ImagePositionPatient", 3),
        orientation=numbers(turn, "ImageOrientationPatient", 6),
        spacing=numbers(measures, "PixelSpacing", 2),
        acquisition=tuple(_frame_acquisition(ds, frame)),
    )


def _frame_acquisition(ds: Dataset, frame: int) -> Iterator[str | None]:
    if header_value(ds, "PerFrameFunctionalGroupsSequence") is None:
        yield from (told(ds, keyword) for keyword in ACQUISITION)
        return
    for sequence, keyword in _FRAME_ACQUISITION:
        yield told(functional_group(ds, frame, sequence), keyword)
    types = (functional_group(ds, frame, sequence) for sequence in _FRAME_TYPES)
    yield next((said for one in types if (said := told(one, "FrameType"))), None)


def _header(instance: Instance) -> Dataset:
    try:
        with typed_errors(instance.file):
            return pydicom.dcmread(instance.path, stop_before_pixels=True, force=True)
    except OSError as error:
        raise InputNotFound("The file cannot be read.", file=instance.file) from error
