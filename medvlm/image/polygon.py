"""Freehand outlines in source or grid pixels (origin and unit as in `medvlm.image.geometry`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvlm.image.geometry import Box

Point = tuple[float, float]

FINE = 8
MOST_POINTS = 2000
"""More than a hand draws."""


@dataclass(frozen=True, slots=True)
class Polygon:
    """A closed outline of at least three points; where it crosses itself, even-odd is inside."""

    points: tuple[Point, ...]

    @property
    def box(self) -> Box:
        """The upright rectangle around it."""
        xs, ys = zip(*self.points, strict=True)
        return Box.from_corners(min(xs), min(ys), max(xs), max(ys))

    @property
    def flat(self) -> bool:
        """Whether all points lie on one line."""
        from_first = np.array(self.points) - self.points[0]
        return bool(np.linalg.matrix_rank(from_first) < 2)

    def clip(self, width: float, height: float) -> Polygon | None:
        """The part inside an image of `width` x `height` (Sutherland and Hodgman, CACM 1974); None
        if nothing is."""
        points = list(self.points)
        for axis, limit, sign in ((0, 0.0, 1), (0, width, -1), (1, 0.0, 1), (1, height, -1)):
            points = _cut(points, axis, limit, sign)
        return Polygon(tuple(points)) if len(points) >= 3 else None

    def moved(self, to: Callable[[Point], Point]) -> Polygon:
        """The outline of its points under `to`."""
        return Polygon(tuple(map(to, self.points)))

    def coverage(
        self, rows: int, columns: int, cell: float, fine: int = FINE
    ) -> NDArray[np.float32]:
        """The share of each cell inside, [rows, columns]; a cell is `cell` pixels wide and high.

        It is counted on `fine` by `fine` points of a cell.
        """
        inside = np.zeros((rows * fine, columns * fine), dtype=np.float32)
        x1, y1 = np.array(self.points, dtype=np.float64).T * (fine / cell)
        x2, y2 = np.roll(x1, -1), np.roll(y1, -1)
        middles = np.arange(columns * fine) + 0.5
        for row in range(rows * fine):
            y = row + 0.5
            crossed = (y1 <= y) != (y2 <= y)
            share = (y - y1[crossed]) / (y2 - y1)[crossed]
            crossings = np.sort(x1[crossed] + share * (x2 - x1)[crossed])
            inside[row] = np.searchsorted(crossings, middles) % 2
        return inside.reshape(rows, fine, columns, fine).mean(axis=(1, 3), dtype=np.float32)


Drawn = Box | Polygon
"""A region as somebody drew it."""


def box_of(drawn: Drawn) -> Box:
    """The upright rectangle around it."""
    return drawn.box if isinstance(drawn, Polygon) else drawn


def _cut(points: list[Point], axis: int, limit: float, sign: int) -> list[Point]:
    """The outline on one side of a line: where `sign` * (coordinate - limit) is not negative."""
    kept: list[Point] = []
    for i, now in enumerate(points):
        before = points[i - 1]
        inside = sign * (now[axis] - limit) >= 0
        if inside != (sign * (before[axis] - limit) >= 0):
            share = (limit - before[axis]) / (now[axis] - before[axis])
            other = 1 - axis
            crossing = before[other] + share * (now[other] - before[other])
            kept.append((limit, crossing) if axis == 0 else (crossing, limit))
        if inside:
            kept.append(now)
    return kept
