"""The regular grid on which sorted planes lie, or what keeps them from one.

Every plane's place is held to a share of the distance, and not only every gap: a hundred gaps that
are each a little too wide put the last plane far from where a regular grid has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvlm.dicom.stack import Problem, count

TOLERANCE = 0.05  # of the distance between planes
STRAY_MM = 0.1
SLANT_TOLERANCE = 0.01  # of the way from the first plane to the last; less stays in the affine
# More than this and a volume would be made up rather than repaired.
MOST_MISSING_TOGETHER = 3
MOST_MISSING_SHARE = 0.25

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """Planes' places in units of `distance` (mm), and `slant` (mm aside per unit, a vector)."""

    steps: Array
    distance: float
    slant: Array
    problems: tuple[Problem, ...] = ()

    @property
    def is_straight(self) -> bool:
        """Whether the slant is small enough to be left as it is."""
        return bool(np.linalg.norm(self.slant) <= SLANT_TOLERANCE * self.distance)


def fit_grid(positions: Array, normal: Array) -> Grid | Problem:
    """The grid of planes at `positions` [N, 3] mm, sorted along `normal`; or why there is none."""
    along = positions @ normal
    places = _places(along - along[0])
    if isinstance(places, Problem):
        return places
    steps, distance, problems = places
    across = positions - np.outer(along, normal)
    slant = (across[-1] - across[0]) / (along[-1] - along[0])
    strayed = across - across[0] - np.outer(along - along[0], slant)
    if np.abs(strayed).max() > max(TOLERANCE * distance, STRAY_MM):
        message = "The slices do not lie on one line: they were taken in several places."
        return Problem("irregular_position", message, "refused")
    grid = Grid(steps, distance, slant * distance, problems)
    if grid.is_straight:
        return grid
    angle = float(np.degrees(np.arctan(np.linalg.norm(slant))))
    message = f"The slices are sheared by {angle:.1f} degrees; they are straightened."
    tilt = Problem("gantry_tilt", message, "resampled")
    return Grid(steps, distance, grid.slant, (*problems, tilt))


def _places(along: Array) -> tuple[Array, float, tuple[Problem, ...]] | Problem:
    """Each plane's place on a grid, the grid's distance, and what was met on the way."""
    gaps = np.diff(along)
    if _fit(along, regular := np.arange(len(along), dtype=float)):
        return regular, float(along[-1] / regular[-1]), ()
    # The smallest gap is the distance of neighbours even where most slices are missing.
    for unit in (gaps.min(), np.median(gaps)):
        steps = np.concatenate([[0.0], np.cumsum(np.maximum(1, np.round(gaps / unit)))])
        if _fit(along, steps):
            return _with_gaps(along, steps)
    distance, apart = float(np.median(gaps)), f"{gaps.min():.2f} to {gaps.max():.2f} mm apart"
    if gaps.max() > (MOST_MISSING_TOGETHER + 1) * distance:
        return Problem("irregular_spacing", f"Slices lie {apart}.", "refused")
    message = f"Slices lie {apart}; the volume is interpolated to {distance:.2f} mm."
    return along / distance, distance, (Problem("irregular_spacing", message, "resampled"),)


def _fit(along: Array, steps: Array) -> bool:
    """Whether every plane is where the grid has it."""
    distance = along[-1] / steps[-1]
    return bool(np.abs(along - steps * distance).max() <= TOLERANCE * distance)


def _with_gaps(along: Array, steps: Array) -> tuple[Array, float, tuple[Problem, ...]] | Problem:
    gaps = np.diff(steps)
    missing = int(steps[-1]) + 1 - len(steps)
    said = f"{count(missing, 'slice')} missing between the others"
    many = missing > MOST_MISSING_SHARE * (steps[-1] + 1)
    if gaps.max() - 1 > MOST_MISSING_TOGETHER or many:
        return Problem("missing_slice", f"{said}: too many to fill in.", "refused")
    filled = Problem("missing_slice", f"{said}; filled by interpolation.", "resampled")
    return steps, float(along[-1] / steps[-1]), (filled,)
