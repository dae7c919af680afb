"""Boxes of lung opacities: which shapes occur in a lung, and which of them the map speaks for.

The opacity map alone, cut at a level, gives boxes of what is certain, which are smaller than what
radiologists draw. So the map says in which lung there is something, and of a few dozen shapes of
radiologists' boxes those with the highest expected overlap are shown (`medvlm.model.box_scorer`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medvlm.draft.locate import DENSE_OPACITY, MOST_BOXES, LungSide, ScoredBox, midline, side_of
from medvlm.draft.look import Seen
from medvlm.image.geometry import Box
from medvlm.model.box_scorer import BoxScorer, Floats

SIDES: tuple[LungSide, ...] = ("right", "left")
APART = 0.15
"""The largest IoU of two boxes that are shown of one film."""
SHARE = 0.6
"""A further box is shown from this share of the first one's score."""
NEARNESS = 0.1
"""How much a shape's score gains where the lung's highest heat is at its middle."""
PULL = 0.5
"""How far a box is moved towards the middle of the heat that it holds."""

FEATURES = (
    *("mean_heat", "share_of_lung", "overlap", "soft_overlap", "log_odds"),
    *("lung_heat", "other_lung_heat"),
    *("opacity", "ap_view", "x", "y", "width", "height"),
)
PLACE_ALONE = tuple(FEATURES.index(name) for name in FEATURES[7:])
"""The features that do not look at the map."""


class Candidates(NamedTuple):
    """N boxes in grid pixels, the lung of each, and their features [N, len(FEATURES)]."""

    boxes: list[Box]
    sides: list[LungSide]
    features: Floats


def opacity_boxes(scorer: BoxScorer, seen: Seen, marked: Sequence[Box]) -> list[ScoredBox]:
    """The boxes that fit best, the best first, at most 3; none unless both lungs were found.

    Only in lungs where the map has `marked` something (grid pixels): a second box in the other lung
    would raise the overlap to be expected, and make two sides of one. Scores are that overlap, and
    a little for shapes around the map's peak, towards which the boxes are then moved.
    """
    found = candidates(scorer.candidates, seen)
    if found is None:
        return []
    sides = {side_of(box, seen.lungs) for box in marked}
    heat = _Heat(seen.dense[DENSE_OPACITY], seen.transform.size)
    scores = scorer.score(found.features) + NEARNESS * heat.nearness(found, seen.lungs)
    chosen: list[ScoredBox] = []
    for i in np.argsort(-scores, kind="stable"):
        box, score = found.boxes[i], float(scores[i])
        if found.sides[i] not in sides:
            continue
        if chosen and score < SHARE * chosen[0].score:
            break
        if all(box.iou(other.box) <= APART for other in chosen):
            chosen.append(ScoredBox(box, score))
        if len(chosen) == MOST_BOXES:
            break
    moved = [heat.moved(item.box, side_of(item.box, seen.lungs), seen.lungs) for item in chosen]
    scored = zip(moved, chosen, strict=True)
    return [ScoredBox(box, min(max(item.score, 0.0), 1.0)) for box, item in scored]


def candidates(shapes: Floats, seen: Seen) -> Candidates | None:
    """`shapes` [K, 4] in both lungs; None unless both were found."""
    lungs = seen.lungs
    if len(lungs) < 2:
        return None
    heat = _Heat(seen.dense[DENSE_OPACITY], seen.transform.size)
    whole = {side: heat.over(lungs[side]) for side in SIDES}
    boxes, rows = [], []
    for side, other in zip(SIDES, reversed(SIDES), strict=True):
        for shape in shapes:
            box = in_lung(shape, lungs[side], side)
            boxes.append(box)
            rows.append([*heat.features(box, lungs[side]), whole[side], whole[other]])
    film = [seen.probabilities["Lung_Opacity"], seen.attributes["ap_view"]]
    known = np.concatenate([np.tile(film, (len(boxes), 1)), np.tile(shapes, (2, 1))], axis=1)
    sides = [side for side in SIDES for _ in shapes]
    return Candidates(boxes, sides, np.concatenate([np.array(rows), known], axis=1))


def in_lung(shape: Floats, lung: Box, side: LungSide) -> Box:
    """A shape (see `BoxScorer.candidates`) in a lung's box."""
    x, y, width, height = map(float, shape)
    left = 1 - x - width if side == "left" else x
    return Box(
        lung.x + left * lung.width,
        lung.y + y * lung.height,
        width * lung.width,
        height * lung.height,
    )


def shape_of(box: Box, lung: Box, side: LungSide) -> Floats:
    """The way back: [4]."""
    left, width = (box.x - lung.x) / lung.width, box.width / lung.width
    x = 1 - left - width if side == "left" else left
    return np.array([x, (box.y - lung.y) / lung.height, width, box.height / lung.height])


class _Heat:
    """Sums of a map [rows, columns] over boxes in grid pixels, from tables of running sums."""

    def __init__(self, probabilities: NDArray[np.floating], size: int) -> None:
        heat = probabilities.astype(np.float64).clip(1e-4, 1 - 1e-4)
        self.cell = size / len(heat)
        self.smooth = ndimage.gaussian_filter(heat, 1.0)
        self.tables = [_running(m) for m in (heat, np.sqrt(heat), np.log(heat / (1 - heat)))]

    def over(self, box: Box) -> float:
        """The mean over a box."""
        (total, _, _), area = self._sums(box)
        return total / area

    def nearness(self, found: Candidates, lungs: Mapping[LungSide, Box]) -> Floats:
        """The heat at each box's middle, of the highest on its side, [N]."""
        highest = {side: max(self._on(side, lungs).max(), 1e-6) for side in SIDES}
        limit = len(self.smooth) - 1
        rows = []
        for box, side in zip(found.boxes, found.sides, strict=True):
            x, y = (min(max(int(value / self.cell), 0), limit) for value in box.centre)
            rows.append(self.smooth[y, x] / highest[side])
        return np.array(rows)

    def moved(self, box: Box, side: LungSide, lungs: Mapping[LungSide, Box]) -> Box:
        """A box nearer to the middle of the heat in it, squared so that the peak decides."""
        weight = np.zeros_like(self.smooth)
        top, left = (max(int(edge / self.cell), 0) for edge in (box.y, box.x))
        window = (
            slice(top, int(box.bottom / self.cell) + 1),
            slice(left, int(box.right / self.cell) + 1),
        )
        weight[window] = self._on(side, lungs)[window] ** 2
        if not weight.any():
            return box
        rows, columns = np.indices(weight.shape) + 0.5
        x, y = ((own * weight).sum() / weight.sum() * self.cell for own in (columns, rows))
        across, down = box.centre
        return Box(
            box.x + PULL * (float(x) - across),
            box.y + PULL * (float(y) - down),
            box.width,
            box.height,
        )

    def _on(self, side: LungSide, lungs: Mapping[LungSide, Box]) -> Floats:
        """The smoothed heat on one side of the midline."""
        middle = midline(lungs) / self.cell
        right = np.arange(self.smooth.shape[1]) + 0.5 < middle
        return np.where(right if side == "right" else ~right, self.smooth, 0)

    def features(self, box: Box, lung: Box) -> list[float]:
        """The first five of `FEATURES`."""
        (own, soft, log_odds), area = self._sums(box)
        (whole, whole_soft, _), _ = self._sums(lung)
        return [
            own / area,
            own / max(whole, 1e-6),
            own / (area + whole - own),
            soft / (area + whole_soft - soft),
            log_odds / area,
        ]

    def _sums(self, box: Box) -> tuple[list[float], float]:
        limit = len(self.tables[0]) - 1
        edges = (box.x, box.y, box.right, box.bottom)
        left, top, right, bottom = (min(max(round(e / self.cell), 0), limit) for e in edges)
        sums = [t[bottom, right] - t[top, right] - t[bottom, left] + t[top, left] for t in
                self.tables]  # fmt: skip
        return [float(s) for s in sums], float(max(1, (right - left) * (bottom - top)))


def _running(values: Floats) -> Floats:
    return np.pad(values, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
