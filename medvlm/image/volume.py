"""A stack of planes as one regular volume, with an exact way to the patient and to the source.

Axes: voxels are [planes, rows, columns] = [D, H, W]. A voxel's centre has whole-number indices.
Patient coordinates are DICOM's LPS, in millimetres: x to the patient's left, y to the back, z to
the head. Source pixels are counted as everywhere in this program: x to the right, y down, origin at
the top-left corner of the top-left pixel, so that a pixel's centre lies at +0.5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy import ndimage

from medvlm.dicom.instance import Instance
from medvlm.dicom.planes import Plane
from medvlm.dicom.stack import Stack
from medvlm.dicom.workers import where_safe
from medvlm.errors import InputError, Undecodable
from medvlm.image.pixels import modality_values

Array = NDArray[np.float64]
FRAMES_A_JOB = 16  # of a multi-frame file, so that a job's results stay small
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class SourcePoint:
    """A place in a source image: `x`, `y` in pixels of the frame (counted from 0).

    `interpolated`: the voxel lies between planes, and the nearest of them is named.
    """

    sop_instance_uid: str | None
    frame: int
    x: float
    y: float
    interpolated: bool = False


@dataclass(frozen=True)
class PlaneSource:
    """Where one plane of a volume comes from.

    `shift`: voxel (row, column) = the plane's own (row, column) + shift. `interpolated`: between
    planes; `plane` is the nearest.
    """

    plane: Plane
    shift: tuple[float, float] = (0.0, 0.0)
    interpolated: bool = False


@dataclass(frozen=True)
class Volume:
    """Regular voxels, and where they lie.

    Attributes:
        voxels: float32 [D, H, W], in `unit`.
        affine: float64 [4, 4], (plane, row, column, 1) to LPS millimetres.
        sources: for each plane of the volume, where it comes from.
    """

    voxels: NDArray[np.float32] = field(repr=False)
    unit: str
    modality: str | None
    affine: Array = field(repr=False)
    sources: tuple[PlaneSource, ...] = field(repr=False)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Between planes, rows and columns."""
        lengths = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(lengths[0]), float(lengths[1]), float(lengths[2])

    @property
    def affine_ras(self) -> Array:
        """`affine` to RAS millimetres (x to the right, y to the front), as MONAI and NIfTI have."""
        return LPS_TO_RAS @ self.affine

    def patient_from_voxel(self, voxels: Array) -> Array:
        """LPS millimetres [N, 3] of voxel indices [N, 3] (plane, row, column)."""
        return np.asarray(voxels) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def voxel_from_patient(self, points: Array) -> Array:
        """Voxel indices [N, 3], not rounded, of LPS millimetres [N, 3]."""
        offset = np.asarray(points) - self.affine[:3, 3]
        return np.asarray(np.linalg.solve(self.affine[:3, :3], offset.T).T, dtype=np.float64)

    def source_from_voxel(self, plane: float, row: float, column: float) -> SourcePoint:
        """The source pixel of a voxel. Raises IndexError outside the planes."""
        number = round(plane)
        if not 0 <= number < len(self.sources):
            raise IndexError(f"plane {number} of {len(self.sources)}")
        source = self.sources[number]
        return SourcePoint(
            source.plane.instance.sop_instance_uid,
            source.plane.frame,
            source.plane.left + column - source.shift[1] + 0.5,
            source.plane.top + row - source.shift[0] + 0.5,
            source.interpolated,
        )

    def voxel_from_source(
        self, sop_instance_uid: str | None, frame: int, x: float, y: float
    ) -> tuple[float, float, float]:
        """The voxel (plane, row, column) of a source pixel; inverse of `source_from_voxel`.

        Raises KeyError if no plane of the volume comes from there.
        """
        for number, source in enumerate(self.sources):
            plane = source.plane
            if source.interpolated or plane.frame != frame:
                continue
            if plane.instance.sop_instance_uid != sop_instance_uid:
                continue
            column, row = x - 0.5 - plane.left, y - 0.5 - plane.top
            if -0.5 <= row < plane.rows - 0.5 and -0.5 <= column < plane.columns - 0.5:
                return number, row + source.shift[0], column + source.shift[1]
        raise KeyError(f"no plane of the volume is frame {frame} of that image there")


def load_volume(
    stack: Stack, number: int = 0, progress: Callable[[int, int], None] | None = None
) -> Volume:
    """Decodes one of a stack's volumes; resamples it where the stack is not regular.

    Missing planes are filled and a slant is straightened by linear interpolation.

    Args:
        stack: from `medvlm.dicom.assemble`.
        number: which of its `volumes`, counted from 0.
        progress: called with (planes done, planes in all).

    Raises:
        InputError: an image is gone or does not decode; names the file.
    """
    planes = stack.volumes[number]
    pixels, units = [], set()
    for done, (values, unit) in enumerate(_decode(planes), 1):
        pixels.append(values)
        units.add(unit)
        if progress:
            progress(done, len(planes))
    if len(units) > 1:
        raise Undecodable(
            f"The slices are in different units ({', '.join(sorted(units))}).",
            file=planes[0].instance.file,
        )
    first = planes[0]
    between_rows, between_columns = first.spacing or (1.0, 1.0)
    # How far each plane lies aside of the first, in rows and columns.
    per_step = np.array(
        [
            np.dot(stack.slant, first.column) / between_rows,
            np.dot(stack.slant, first.row) / between_columns,
        ]
    )
    drift = np.outer(stack.steps, per_step)
    shifts = drift - drift.min(axis=0)
    voxels = np.stack(_straightened(pixels, shifts)).astype(np.float32)
    origin = np.array(first.position) + drift.min(axis=0) @ np.stack(
        [first.column * between_rows, first.row * between_columns]
    )
    affine = np.eye(4)
    affine[:3, 0] = first.normal * stack.distance
    affine[:3, 1] = first.column * between_rows
    affine[:3, 2] = first.row * between_columns
    affine[:3, 3] = origin
    sources = [
        PlaneSource(plane, (float(shift[0]), float(shift[1])))
        for plane, shift in zip(planes, shifts, strict=True)
    ]
    if stack.steps != tuple(range(stack.depth)):
        voxels, sources = _filled(voxels, sources, np.array(stack.steps), stack.depth)
    return Volume(voxels, units.pop(), first.instance.modality, affine, tuple(sources))


def _straightened(pixels: list[Array], shifts: Array) -> list[Array]:
    """Planes moved by their shifts on a common, larger plane; the rest is the lowest value."""
    if not shifts.any():
        return pixels
    more = np.ceil(shifts.max(axis=0)).astype(int)
    lowest = min(float(plane.min()) for plane in pixels)
    return [
        ndimage.shift(
            np.pad(plane, ((0, more[0]), (0, more[1])), constant_values=lowest),
            shift,
            order=1,
            mode="constant",
            cval=lowest,
        )
        for plane, shift in zip(pixels, shifts, strict=True)
    ]


def _filled(
    voxels: NDArray[np.float32], sources: list[PlaneSource], steps: Array, depth: int
) -> tuple[NDArray[np.float32], list[PlaneSource]]:
    """The regular planes 0 .. depth - 1, interpolated from planes at `steps`."""
    out = np.empty((depth, *voxels.shape[1:]), dtype=np.float32)
    named = []
    for number in range(depth):
        above = int(np.clip(np.searchsorted(steps, number), 1, len(steps) - 1))
        low, high = steps[above - 1], steps[above]
        share = float(np.clip((number - low) / (high - low), 0.0, 1.0))
        out[number] = (1 - share) * voxels[above - 1] + share * voxels[above]
        nearest = sources[above - 1 if share < 0.5 else above]
        between = min(share, 1 - share) > 1e-6
        named.append(replace(nearest, interpolated=True) if between else nearest)
    return out, named


def _decode(planes: Sequence[Plane]) -> Iterator[tuple[Array, str]]:
    """Values [rows, columns] and unit of each plane, in order."""
    jobs: list[tuple[Instance, list[Plane]]] = []
    for instance, own in groupby(planes, key=lambda plane: plane.instance):
        group = list(own)
        bare = replace(instance, keep=())
        for start in range(0, len(group), FRAMES_A_JOB):
            part = [replace(plane, instance=bare) for plane in group[start : start + FRAMES_A_JOB]]
            jobs.append((instance, part))
    parts = [part for _, part in jobs]
    results = where_safe(_planes, parts, lambda part: part[0].instance.is_compressed)
    for (instance, _), result in zip(jobs, results, strict=True):
        if isinstance(result, InputError):
            result.file = instance.file
            raise result
        yield from result
    _opened.cache_clear()


def _planes(planes: list[Plane]) -> list[tuple[Array, str]]:
    ds = _opened(planes[0].instance)
    out: list[tuple[Array, str]] = []
    for plane in planes:
        values, unit = modality_values(ds, plane.frame, file=plane.instance.file)
        tile = values[plane.top : plane.top + plane.rows, plane.left : plane.left + plane.columns]
        out.append((tile, unit))
    return out


@lru_cache(maxsize=1)  # the planes of one file are read one after another
def _opened(instance: Instance) -> Dataset:
    opened = instance.open()
    if not isinstance(opened, Dataset):
        raise Undecodable("A picture lies nowhere in a patient.", file=instance.file)
    return opened
