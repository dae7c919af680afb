"""Scores of boxes against radiologists' boxes, and the best that fixed boxes can do.

A box is ``(x, y, width, height)``, origin at the top-left corner, in any unit that is the same for
the boxes of one film (pixels or fractions of its sides): intersection over union does not depend on
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm.evaluate.bootstrap import replicates, with_interval

Box = tuple[float, float, float, float]
Floats = NDArray[np.float64]
ScoredBox = tuple[Box, float]

IOU_HIT = 0.5
_RECALLS = np.linspace(0, 1, 101)  # the recalls at which COCO reads the precision
_MAX_CANDIDATES = 600
_STEPS = (0.04, 0.02, 0.01)  # fractions of the film by which a fixed box is moved and stretched


def iou(a: ArrayLike, b: ArrayLike) -> Floats:
    """Intersection over union of each box of ``a`` [N, 4] with each of ``b`` [M, 4]: [N, M]."""
    first, second = _boxes(a)[:, None], _boxes(b)[None]
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., :2] + first[..., 2:], second[..., :2] + second[..., 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    union = first[..., 2:].prod(axis=-1) + second[..., 2:].prod(axis=-1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def area(box: Box) -> float:
    """Width times height."""
    return box[2] * box[3]


def pointing_game(
    predicted: Sequence[Sequence[ScoredBox]], truth: Sequence[Sequence[Box]]
) -> float:
    """Of the films with a true box, the share where the best-scored box has its centre in one.

    A film without a predicted box is a miss. NaN if no film has a true box.
    """
    return float(_score(_match(predicted, truth))[0])


def mean_best_iou(
    predicted: Sequence[Sequence[ScoredBox]], truth: Sequence[Sequence[Box]]
) -> float:
    """The mean, over the true boxes, of the best IoU of a predicted box of the film."""
    return float(_score(_match(predicted, truth))[1])


def map50(predicted: Sequence[Sequence[ScoredBox]], truth: Sequence[Sequence[Box]]) -> float:
    """COCO's average precision at IoU 0.5 of one class, false boxes on empty films included.

    NaN if there is no true box at all.
    """
    return float(_score(_match(predicted, truth))[2])


def grounding_scores(
    predicted: Sequence[Sequence[ScoredBox]],
    truth: Sequence[Sequence[Box]],
    groups: ArrayLike,
    n: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """The three scores with intervals by group [N], and counts; one list of boxes per film.

    Films without a true box belong in: what is predicted on them lowers ``map50``, and
    ``marked_without_box`` counts those on which anything is predicted.
    """
    films = _match(predicted, truth)
    values = _score(films)
    sampled = replicates(lambda rows: _score([films[row] for row in rows]), groups, n, seed)
    result: dict[str, Any] = {}
    for i, name in enumerate(("pointing_game", "mean_best_iou", "map50")):
        result |= with_interval(name, values[i], sampled[:, i])
    empty = [film for film in films if film.best_iou.size == 0]
    return result | {
        "n_films": len(films),
        "n_boxes": sum(film.best_iou.size for film in films),
        "n_films_without_box": len(empty),
        "marked_without_box": sum(film.scores.size > 0 for film in empty),
    }


def best_constant_boxes(films: Sequence[Sequence[Box]], count: int = 3) -> list[ScoredBox]:
    """Up to ``count`` fixed boxes that do best on the training ``films`` (fractions of the film).

    Boxes are added one by one, each the one that raises :func:`mean_best_iou` most, tried from the
    true boxes and then moved and stretched in small steps. The score of a box is the share of films
    with a box where its centre is in one, so the first is the best place to point at. The baseline
    that a model must beat: it says the same for every film. No true box: an empty list.
    """
    marked = [_boxes(film) for film in films if len(film)]
    if not marked:
        return []
    true = np.concatenate(marked)
    candidates = true[:: -(-len(true) // _MAX_CANDIDATES)]
    best = np.zeros(len(true))
    chosen: list[Floats] = []
    for _ in range(count):
        gains = np.maximum(iou(candidates, true), best).mean(axis=1)
        box = _refine(candidates[gains.argmax()], true, best)
        reached = np.maximum(iou(box, true)[0], best)
        if reached.mean() <= best.mean():
            break
        best = reached
        chosen.append(box)
    scored = []
    for box in chosen:
        score = float(np.mean([_points_into(box, film) for film in marked]))
        x, y, width, height = (float(value) for value in box)
        scored.append(((x, y, width, height), score))
    return sorted(scored, key=lambda item: -item[1])


class _Film(NamedTuple):
    """What the scores need of one film: P predicted boxes by falling score, T true boxes."""

    scores: Floats  # [P]
    hits: NDArray[np.bool_]  # [P] matches a true box at IoU 0.5 that no better one has taken
    best_iou: Floats  # [T]
    pointed: bool


def _match(predicted: Sequence[Sequence[ScoredBox]], truth: Sequence[Sequence[Box]]) -> list[_Film]:
    if len(predicted) != len(truth):
        raise ValueError(f"{len(predicted)} films predicted, {len(truth)} with a truth")
    films = []
    for scored, true_boxes in zip(predicted, truth, strict=True):
        ranked = sorted(scored, key=lambda item: -item[1])
        boxes, true = _boxes([box for box, _ in ranked]), _boxes(true_boxes)
        overlap = iou(boxes, true)
        free = np.ones(len(true), bool)
        hits = np.zeros(len(boxes), bool)
        for i, row in enumerate(overlap):
            reach = np.where(free, row, -1.0)
            if reach.size and reach.max() >= IOU_HIT:
                free[reach.argmax()] = False
                hits[i] = True
        films.append(
            _Film(
                np.array([score for _, score in ranked], np.float64),
                hits,
                overlap.max(axis=0, initial=0.0),
                len(boxes) > 0 and _points_into(boxes[0], true),
            )
        )
    return films


def _score(films: Sequence[_Film]) -> Floats:
    """Pointing game, mean best IoU and average precision of some films."""
    best = np.concatenate([film.best_iou for film in films]) if films else np.empty(0)
    if best.size == 0:
        return np.full(3, np.nan)
    pointed = np.mean([film.pointed for film in films if film.best_iou.size])
    scores = np.concatenate([film.scores for film in films])
    hits = np.concatenate([film.hits for film in films])
    hits = hits[np.argsort(-scores, kind="stable")]
    return np.array([pointed, best.mean(), _average_precision(hits, best.size)])


def _average_precision(hits: NDArray[np.bool_], n_true: int) -> float:
    if hits.size == 0:
        return 0.0
    found = np.cumsum(hits)
    precision = found / np.arange(1, hits.size + 1)
    # The precision at a recall is the best at this or any higher recall.
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(found / n_true, _RECALLS, side="left")
    return float(np.append(precision, 0.0)[at].mean())


def _refine(box: Floats, true: Floats, best: Floats) -> Floats:
    """Move and stretch ``box`` while the mean best IoU with ``true`` rises."""
    moves = np.concatenate([np.eye(4), -np.eye(4)])
    value = np.maximum(iou(box, true)[0], best).mean()
    for step in _STEPS:
        while True:
            tries = box + step * moves
            tries[:, 2:] = np.maximum(tries[:, 2:], step)
            values = np.maximum(iou(tries, true), best).mean(axis=1)
            if values.max() <= value + 1e-9:
                break
            box, value = tries[values.argmax()], values.max()
    return box


def _points_into(box: Floats, true: Floats) -> bool:
    centre = box[:2] + box[2:] / 2
    inside = (centre >= true[:, :2]) & (centre <= true[:, :2] + true[:, 2:])
    return bool(inside.all(axis=1).any())


def _boxes(boxes: ArrayLike | Sequence[Box]) -> Floats:
    array = np.asarray(boxes, np.float64).reshape(-1, 4)
    if not np.isfinite(array).all() or (array[:, 2:] < 0).any():
        raise ValueError("boxes must be finite (x, y, width, height) of no negative size")
    return array
