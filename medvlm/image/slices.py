"""A volume as pictures: some of its planes for a 2-D encoder, a block of planes for a 3-D one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medvlm.errors import UsageError
from medvlm.image.geometry import Box, letterbox
from medvlm.image.intensity import normalise
from medvlm.image.load import resize_grid
from medvlm.image.places import Place
from medvlm.image.volume import Volume
from medvlm.image.window import Window


class Slice(NamedTuple):
    """One plane of a volume: its `number` from 0, its `grid` [size, size], its place."""

    number: int
    grid: NDArray[np.float32]
    place: Place


class Block(NamedTuple):
    """A volume on the model's grid [slices, size, size]; one place for each of its own planes.

    Plane number i of `places` fills the part i / len(places) .. (i + 1) / len(places) of the depth.
    """

    grid: NDArray[np.float32]
    places: tuple[Place, ...]


def spread(depth: int, count: int) -> tuple[int, ...]:
    """`count` plane numbers of `depth`, evenly: the middles of equal parts; all if there are fewer.

    Raises ValueError for a number below 1.
    """
    if min(depth, count) < 1:
        raise ValueError(f"at least one plane is needed, got {count} of {depth}")
    if count >= depth:
        return tuple(range(depth))
    return tuple(int((part + 0.5) * depth / count) for part in range(count))


def take_slices(
    volume: Volume, numbers: Sequence[int], size: int, *, window: Window | str | None = None
) -> list[Slice]:
    """Planes of a volume by its modality's rule for grey values, letterboxed to [size, size].

    The rule looks at the whole volume, so that one tissue is equally bright in every plane. Raises
    UsageError for a plane that the volume does not have.
    """
    depth = len(volume.voxels)
    if wrong := [number for number in numbers if not 0 <= number < depth]:
        raise UsageError(
            f"the volume has no plane {wrong[0]}", remedy=f"give numbers from 0 to {depth - 1}"
        )
    grey = _grey(volume, window)
    return [
        Slice(number, resize_grid(grey[number], size)[0], plane_place(volume, number, size))
        for number in numbers
    ]


def block_of(
    volume: Volume, size: int, slices: int, *, window: Window | str | None = None
) -> Block:
    """The whole volume as [slices, size, size]: planes letterboxed, then resampled along the depth.

    A slice is the mean of its neighbourhood, weighted by a triangle as wide as the distance of the
    slices (linear interpolation where the volume has fewer planes).
    """
    grey = _grey(volume, window)
    planes = np.stack([resize_grid(plane, size)[0] for plane in grey])
    depth = len(planes)
    middles = (np.arange(slices) + 0.5) * depth / slices - 0.5
    reach = max(1.0, depth / slices)
    distance = np.abs(np.clip(middles, 0, depth - 1)[:, None] - np.arange(depth)[None, :])
    weights = np.clip(1 - distance / reach, 0, None)
    weights /= weights.sum(axis=1, keepdims=True)
    grid = np.einsum("sd,dyx->syx", weights.astype(np.float32), planes)
    return Block(grid, tuple(plane_place(volume, number, size) for number in range(depth)))


def plane_place(volume: Volume, number: int, size: int) -> Place:
    """Where a plane's grid lies in its source frame; of a plane between two, in the nearest's.

    A plane that was moved aside to straighten a slant, or is one tile of a mosaic, is found in the
    frame's own pixels.
    """
    _, rows, columns = volume.voxels.shape
    source = volume.sources[number]
    plane = source.plane
    # Source pixel = plane pixel + these; a voxel's row is the plane's own plus the shift.
    right, down = plane.left - source.shift[1], plane.top - source.shift[0]
    fitted = letterbox(columns, rows, size)
    transform = replace(
        fitted,
        source_width=plane.instance.columns,
        source_height=plane.instance.rows,
        offset_x=fitted.offset_x - right * fitted.scale_x,
        offset_y=fitted.offset_y - down * fitted.scale_y,
    )
    extent = Box(float(plane.left), float(plane.top), float(plane.columns), float(plane.rows))
    return Place(transform, extent, plane.instance.sop_instance_uid, plane.frame)


def _grey(volume: Volume, window: Window | str | None) -> NDArray[np.float32]:
    return normalise(volume.voxels, volume.unit, volume.modality or "", window=window)
