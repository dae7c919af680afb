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
from medvlm.errors import InputError, InputNotFound, Undecodable
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

    `shift`: voxel (row, column) = the plane's own (row, column) + shift. `step`: its place along
    the volume's first axis. `interpolated`: between planes; `plane` is the nearest.
    """

    plane: Plane
    shift: tuple[float, float] = (0.0, 0.0)
    step: float = 0.0
    interpolated: bool = False

    def holds(self, row: float, column: float) -> bool:
        """Whether the plane's own (row, column) lies on one of its pixels."""
        return -0.5 <= row < self.plane.rows - 0.5 and -0.5 <= column < self.plane.columns - 0.5


@dataclass(frozen=True)
class Volume:
    """Regular voxels, and where they lie.

    Attributes:
        voxels: float32 [D, H, W], in `unit`.
        affine: float64 [4, 4], (plane, row, column, 1) to LPS millimetres.
        sources: for each plane of the volume, where it comes from.
        placed: the planes of the files, each at its place along the first axis.
    """

    voxels: NDArray[np.float32] = field(repr=False)
    unit: str
    modality: str | None
    affine: Array = field(repr=False)
    sources: tuple[PlaneSource, ...] = field(repr=False)
    placed: tuple[PlaneSource, ...] = field(repr=False)

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
        """The source pixel of a voxel. Raises IndexError where no image was taken."""
        number = int(np.floor(plane + 0.5))
        if not 0 <= number < len(self.sources):
            raise IndexError(f"plane {number} of {len(self.sources)}")
        source = self.sources[number]
        own_row, own_column = row - source.shift[0], column - source.shift[1]
        if not source.holds(own_row, own_column):
            raise IndexError(f"row {row:g}, column {column:g} lies beside plane {number}")
        return SourcePoint(
            source.plane.instance.sop_instance_uid,
            source.plane.frame,
            source.plane.left + own_column + 0.5,
            source.plane.top + own_row + 0.5,
            source.interpolated,
        )

    def voxel_from_source(
        self, sop_instance_uid: str, frame: int, x: float, y: float
    ) -> tuple[float, float, float]:
        """The voxel (plane, row, column) of a source pixel; inverse of `source_from_voxel`.

        The plane is no whole number where the file's own lies between those of the volume. Raises
        KeyError if no plane of the volume comes from there.
        """
        for source in self.placed:
            plane = source.plane
            if plane.frame == frame and plane.instance.sop_instance_uid == sop_instance_uid:
                row, column = y - 0.5 - plane.top, x - 0.5 - plane.left
                if source.holds(row, column):
                    return source.step, row + source.shift[0], column + source.shift[1]
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
    first = planes[0]
    voxels = np.empty((len(planes), first.rows, first.columns), dtype=np.float32)
    units: set[str] = set()
    for done, (values, unit) in enumerate(_decode(planes)):
        voxels[done] = values
        units.add(unit)
        if progress:
            progress(done + 1, len(planes))
    if len(units) > 1:
        raise Undecodable(
            f"The slices are in different units ({', '.join(sorted(units))}).",
            file=first.instance.file,
        )
    between_rows, between_columns = first.spacing or (1.0, 1.0)
    slant = np.array(stack.slant)
    affine = np.eye(4)
    affine[:3, 0] = first.normal * stack.distance + (slant if stack.is_straight else 0)
    affine[:3, 1] = first.column * between_rows
    affine[:3, 2] = first.row * between_columns
    affine[:3, 3] = first.position
    shifts = np.zeros((len(planes), 2))
    if not stack.is_straight:
        # How far each plane lies aside of the first, in rows and columns.
        per_step = [slant @ first.column / between_rows, slant @ first.row / between_columns]
        drift = np.outer(stack.steps, per_step)
        shifts = drift - drift.min(axis=0)
        voxels = _straightened(voxels, shifts)
        affine[:3, 3] += affine[:3, 1:3] @ drift.min(axis=0)
    placed = tuple(
        PlaneSource(plane, (float(shift[0]), float(shift[1])), float(step))
        for plane, shift, step in zip(planes, shifts, stack.steps, strict=True)
    )
    sources = placed
    if stack.steps != tuple(range(stack.depth)):
        voxels, sources = _filled(voxels, placed, stack.depth)
    return Volume(voxels, units.pop(), first.instance.modality, affine, sources, placed)


def _straightened(voxels: NDArray[np.float32], shifts: Array) -> NDArray[np.float32]:
    """Planes moved by their shifts on a common, larger plane; the rest is the lowest value."""
    more = np.ceil(shifts.max(axis=0)).astype(int)
    lowest = float(voxels.min())
    depth, height, width = voxels.shape
    out = np.empty((depth, height + more[0], width + more[1]), dtype=np.float32)
    for number, shift in enumerate(shifts):
        plane = np.pad(voxels[number], ((0, more[0]), (0, more[1])), constant_values=lowest)
        out[number] = ndimage.shift(plane, shift, order=1, mode="constant", cval=lowest)
    return out


def _filled(
    voxels: NDArray[np.float32], placed: Sequence[PlaneSource], depth: int
) -> tuple[NDArray[np.float32], tuple[PlaneSource, ...]]:
    """The regular planes 0 .. depth - 1, interpolated from those at their steps."""
    steps = [source.step for source in placed]
    out = np.empty((depth, *voxels.shape[1:]), dtype=np.float32)
    named = []
    for number in range(depth):
        above = int(np.clip(np.searchsorted(steps, number), 1, len(steps) - 1))
        low, high = steps[above - 1], steps[above]
        share = float(np.clip((number - low) / (high - low), 0.0, 1.0))
        out[number] = (1 - share) * voxels[above - 1] + share * voxels[above]
        nearest = placed[above - 1 if share < 0.5 else above]
        between = min(share, 1 - share) > 1e-6
        named.append(
            replace(nearest, step=float(number), interpolated=True) if between else nearest
        )
    return out, tuple(named)


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
    results = where_safe(_planes, parts, lambda part: part[0].instance.needs_worker)
    try:
        for (instance, _), result in zip(jobs, results, strict=True):
            if isinstance(result, InputError):
                result.file = instance.file
                raise result
            yield from result
    finally:
        _opened.cache_clear()


def _planes(planes: list[Plane]) -> list[tuple[Array, str]]:
    instance = planes[0].instance
    try:
        state = instance.path.stat()
    except OSError as error:
        raise InputNotFound("The file cannot be read.", file=instance.file) from error
    ds = _opened(instance, (state.st_mtime_ns, state.st_size))
    out: list[tuple[Array, str]] = []
    for plane in planes:
        values, unit = modality_values(ds, plane.frame, file=plane.instance.file)
        tile = values[plane.top : plane.top + plane.rows, plane.left : plane.left + plane.columns]
        out.append((tile, unit))
    return out


@lru_cache(maxsize=1)  # the planes of one file are read one after another
def _opened(instance: Instance, state: tuple[int, int]) -> Dataset:
    """The data set; `state` tells a file from another that took its place."""
    opened = instance.open()
    if not isinstance(opened, Dataset):
        raise Undecodable("A picture lies nowhere in a patient.", file=instance.file)
    return opened
