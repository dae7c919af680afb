"""Parallel planes in order, and in words what stood in their way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medvlm.dicom.planes import Plane

Action = Literal["accepted", "split", "resampled", "refused"]


@dataclass(frozen=True)
class Problem:
    """What was found, in words, and what was done about it."""

    code: str
    message: str
    action: Action


@dataclass(frozen=True)
class Stack:
    """Parallel planes of one size at regular distances; in `volumes`, once for each time or echo.

    Attributes:
        volumes: each a tuple of planes, sorted by position along the normal.
        steps: for each plane, its place on the regular grid in units of `distance`; whole numbers
            0, 1, 2 ... unless planes are missing or irregular.
        depth: planes of the regular grid.
        distance: mm between planes, along the normal.
        slant: mm that each plane lies aside of the last, in patient coordinates, across the normal.
        is_straight: whether the slant is so small that planes are left where they are.
    """

    volumes: tuple[tuple[Plane, ...], ...]
    steps: tuple[float, ...]
    depth: int
    distance: float
    slant: tuple[float, ...] = (0.0, 0.0, 0.0)
    is_straight: bool = True

    @property
    def shape(self) -> tuple[int, int, int]:
        """[planes, rows, columns], before a slant is straightened."""
        first = self.volumes[0][0]
        return self.depth, first.rows, first.columns

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """In the order of `shape`."""
        rows, columns = self.volumes[0][0].spacing or (1.0, 1.0)
        return self.distance, rows, columns

    @property
    def orientation(self) -> str:
        """For each axis of `shape`, the side of the patient it grows towards, such as "SPL"."""
        first = self.volumes[0][0]
        # Rows are counted along a column's direction, columns along a row's.
        return "".join(_side(axis) for axis in (first.normal, first.column, first.row))


@dataclass(frozen=True)
class Assembly:
    """What became of a series: its stacks, the largest first, and the problems met."""

    stacks: tuple[Stack, ...]
    problems: tuple[Problem, ...]


def count(number: int, word: str, plural: str | None = None) -> str:
    """A number and its word: "1 slice", "2 slices"."""
    return f"{number} {word if number == 1 else plural or word + 's'}"


def _side(direction: NDArray[np.float64]) -> str:
    """The side of the patient that a direction in DICOM's patient coordinates points to."""
    axis = int(np.argmax(np.abs(direction)))
    return ("LR", "PA", "SI")[axis][int(direction[axis] < 0)]
