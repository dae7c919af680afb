"""From maps to boxes: lungs, opacities, the place of a finding.

All boxes are in grid pixels, all maps probabilities of cells [rows, columns] over the whole grid.
The patient's right lies on the left of a frontal film.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from scipy import ndimage

from medvlm.draft.parse import Location, Zone
from medvlm.image.geometry import Box
from medvlm.image.polygon import Polygon

DENSE_OPACITY = 2
"""Index of the opacity map in `DENSE_MAPS`."""

MOST_BOXES = 3
OUTLINE_ROWS = 40
"""About how many rows of a mask its outline follows."""
LUNG_FROM = 0.5
FAINTEST_LUNG = 0.1
"""Where even the clearest twentieth of a half is fainter, there is no lung."""

MIDLINE_WITHIN = (0.35, 0.65)
"""Shares of the grid's width between which the midline is looked for."""

SMALLEST_SHARE = 0.004
"""A box covers at least this share of the grid; below it is grain."""

SECOND_PEAK = 0.85
"""A further peak of a score map counts from this share of the highest."""

BOTH_SIDES_FROM = 0.25
"""A box with this share of its width on either side of the midline lies on both."""

LungSide = Literal["right", "left"]


class ScoredBox(NamedTuple):
    """A box and how sure the map is of it, 0..1."""

    box: Box
    score: float


def lung_masks(dense: np.ndarray) -> dict[LungSide, np.ndarray]:
    """The largest connected part of each lung, bool [H, W], from `dense` [3, H, W].

    The two maps are added, and told apart by the valley between them: on films unlike those with
    masks (children's), a lung is seen as lung long before it is seen as left or right, and more
    faintly. So the cut-off is half of a lung's own height where that is low.
    """
    field = np.clip(dense[0] + dense[1], 0, 1)
    width = field.shape[1]
    first, last = (round(share * width) for share in MIDLINE_WITHIN)
    columns = ndimage.gaussian_filter1d(field.sum(axis=0), 1.0)
    middle = first + int(np.argmin(columns[first : last + 1]))
    masks: dict[LungSide, np.ndarray] = {}
    halves: tuple[tuple[LungSide, slice], ...] = (
        ("right", slice(0, middle)),
        ("left", slice(middle, width)),
    )
    for side, half in halves:
        own = field[:, half]
        height = float(np.quantile(own, 0.95))
        mask = np.zeros(field.shape, dtype=bool)
        if height >= FAINTEST_LUNG:
            mask[:, half] = own > min(LUNG_FROM, height / 2)
        masks[side] = ndimage.binary_fill_holes(_largest(mask))
    return masks


def lung_boxes(dense: np.ndarray, size: int) -> dict[LungSide, Box]:
    """The lungs' boxes; a lung that was not found is left out."""
    return mask_boxes(lung_masks(dense), size)


def mask_boxes(masks: Mapping[LungSide, np.ndarray], size: int) -> dict[LungSide, Box]:
    """The boxes around masks of the lungs; an empty mask has none."""
    return {side: box_of_mask(mask, size) for side, mask in masks.items() if mask.any()}


def map_boxes(heat: np.ndarray, threshold: float, size: int) -> list[ScoredBox]:
    """Boxes around the connected parts of `heat` over `threshold`, the surest first, at most 3."""
    parts, count = ndimage.label(heat >= threshold)
    found = []
    for part in range(1, count + 1):
        mask = parts == part
        if mask.mean() >= SMALLEST_SHARE:
            found.append(ScoredBox(box_of_mask(mask, size), float(heat[mask].max())))
    return sorted(found, key=lambda item: -item.score)[:MOST_BOXES]


def peak_boxes(
    scores: np.ndarray, size: int, valid: np.ndarray, share: float = 0.6
) -> list[ScoredBox]:
    """Boxes where a finding's score map (logits) comes near its own peak among the `valid` cells.

    Their scores compare parts of one map with each other, not films.
    """
    heat = peak_heat(scores, valid)
    if not heat.any():
        return []
    # A much weaker second peak is no second place: it would turn one side into both.
    return [item for item in map_boxes(heat, share, size) if item.score >= SECOND_PEAK]


def peak_heat(scores: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """How near a score map (logits) comes to its peak among the `valid` cells: 0 at their median
    and elsewhere, 1 at the peak."""
    if not valid.any():
        return np.zeros(scores.shape)
    low, high = float(np.median(scores[valid])), float(scores[valid].max())
    if high <= low:
        return np.zeros(scores.shape)
    return np.where(valid, np.clip((scores - low) / (high - low), 0, 1), 0)


def place_of(boxes: list[Box], lungs: Mapping[LungSide, Box]) -> Location | None:
    """Side and zone of `boxes` relative to the lungs; None without boxes or without both lungs.

    A zone is a third of the lung's height; boxes in several zones have none in common.
    """
    if not boxes or len(lungs) < 2:
        return None
    sides: set[LungSide] = set()
    zones: set[Zone] = set()
    middle = midline(lungs)
    for box in boxes:
        _, y = box.centre
        side = side_of(box, lungs)
        sides.add(side)
        if min(middle - box.x, box.right - middle) >= BOTH_SIDES_FROM * box.width:
            sides |= {"right", "left"}
        lung = lungs[side]
        share = (y - lung.y) / max(lung.height, 1e-6)
        zones.add("upper" if share < 1 / 3 else "mid" if share < 2 / 3 else "lower")
    return Location(
        side="both" if len(sides) > 1 else sides.pop(),
        zone=zones.pop() if len(zones) == 1 else None,
    )


def side_of(box: Box, lungs: Mapping[LungSide, Box]) -> LungSide:
    """The side of the midline that a box's middle lies on; both lungs are needed."""
    return "right" if box.centre[0] < midline(lungs) else "left"


def midline(lungs: Mapping[LungSide, Box]) -> float:
    """Where it stands, x in grid pixels; both lungs are needed."""
    return (lungs["right"].right + lungs["left"].x) / 2


def _largest(mask: np.ndarray) -> np.ndarray:
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    return np.asarray(parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]))


def outline_of_mask(mask: np.ndarray, size: int) -> Polygon:
    """Around a mask [rows, columns] that is not empty, in grid pixels: from row to row the first
    and the last cell, so that bays at the side are cut off, those from above or below are not.
    """
    cell_y, cell_x = size / mask.shape[0], size / mask.shape[1]
    rows = np.flatnonzero(mask.any(axis=1))
    step = max(1, len(rows) // OUTLINE_ROWS)
    rows = np.unique([*rows[::step], rows[-1]])
    first = mask[rows].argmax(axis=1) * cell_x
    last = (mask.shape[1] - mask[rows, ::-1].argmax(axis=1)) * cell_x
    # Rows are met in their middles; the first and the last reach to their outer edges.
    y = np.array([rows[0], *(rows + 0.5), rows[-1] + 1]) * cell_y
    first, last = (np.array([own[0], *own, own[-1]]) for own in (first, last))
    down = list(zip(first.tolist(), y.tolist(), strict=True))
    up = list(zip(last[::-1].tolist(), y[::-1].tolist(), strict=True))
    return Polygon((*down, *up))


def box_of_mask(mask: np.ndarray, size: int) -> Box:
    """The box around the cells of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    cell_y, cell_x = size / mask.shape[0], size / mask.shape[1]
    return Box.from_corners(
        columns[0] * cell_x,
        rows[0] * cell_y,
        (columns[-1] + 1) * cell_x,
        (rows[-1] + 1) * cell_y,
    )
