"""Fits the scorer of opacity boxes to radiologists' boxes on training films."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from medvlm.data.sets import Film
from medvlm.draft.ground import OPACITY
from medvlm.draft.locate import side_of
from medvlm.draft.look import Seen
from medvlm.draft.opacity_boxes import PLACE_ALONE, candidates, shape_of
from medvlm.evaluate.boxes import iou
from medvlm.image.geometry import Box
from medvlm.model.box_scorer import BoxScorer, Floats, pairs, terms

SHAPES = 40
FEWEST = 40
"""Boxes; with fewer nothing is fitted."""
RIDGE = 3000.0
MAP_WEIGHT = 0.25
"""The map's say beside the place's: on films that trained it, it is surer than on new ones."""


class Marked(NamedTuple):
    """A film as it was seen, with its true opacity boxes in grid pixels."""

    seen: Seen
    boxes: Sequence[Box]


def true_boxes(seen: Seen, film: Film) -> list[Box]:
    """A film's opacity boxes in grid pixels."""
    size = seen.transform.source_size
    own = [Box.from_fractions(*box, *size) for box in film.boxes_of(OPACITY)]
    return [seen.transform.to_grid(box) for box in own]


def fit_box_scorer(films: Sequence[Marked], seed: int = 0) -> BoxScorer | None:
    """None with fewer than `FEWEST` boxes on films with both lungs."""
    films = [film for film in films if len(film.seen.lungs) == 2 and film.boxes]
    shapes = np.array([_shape(film.seen, box) for film in films for box in film.boxes])
    if len(shapes) < FEWEST:
        return None
    grouped = KMeans(min(SHAPES, len(shapes)), n_init=3, random_state=seed).fit(shapes)
    centres = np.asarray(grouped.cluster_centers_, dtype=np.float64)
    features, overlaps = _examples(centres, films)
    mean, scale = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6)
    known = terms((features - mean) / scale)
    place = _of_place(features.shape[1])
    by_map = _ridge(known, overlaps, np.ones(known.shape[1], dtype=bool))
    by_place = _ridge(known, overlaps, place)
    blend = MAP_WEIGHT * by_map + (1 - MAP_WEIGHT) * by_place
    return BoxScorer(centres, mean, scale, blend[1:], blend[:1])


def _shape(seen: Seen, box: Box) -> Floats:
    side = side_of(box, seen.lungs)
    return shape_of(box, seen.lungs[side], side)


def _examples(shapes: Floats, films: Sequence[Marked]) -> tuple[Floats, Floats]:
    """Features of every candidate on every film, and its best IoU with a true box."""
    features, overlaps = [], []
    for film in films:
        found = candidates(shapes, film.seen)
        if found is not None:
            features.append(found.features)
            overlaps.append(iou(_numbers(found.boxes), _numbers(film.boxes)).max(axis=1))
    return np.concatenate(features), np.concatenate(overlaps)


def _numbers(boxes: Sequence[Box]) -> Floats:
    return np.array([(box.x, box.y, box.width, box.height) for box in boxes])


def _of_place(count: int) -> NDArray[np.bool_]:
    """Which terms do without the map."""
    alone = np.isin(np.arange(count), PLACE_ALONE)
    first, second = pairs(count)
    return np.concatenate([alone, alone[first] & alone[second]])


def _ridge(known: Floats, target: Floats, used: NDArray[np.bool_]) -> Floats:
    """Intercept and weights [1 + Q] of least squares on terms of unit variance; 0 if not `used`."""
    mean, scale = known[:, used].mean(axis=0), np.maximum(known[:, used].std(axis=0), 1e-6)
    units = (known[:, used] - mean) / scale
    square = units.T @ units + RIDGE * np.eye(units.shape[1])
    fitted = np.linalg.solve(square, units.T @ (target - target.mean())) / scale
    weights = np.zeros(known.shape[1])
    weights[used] = fitted
    return np.concatenate([[target.mean() - mean @ fitted], weights])
