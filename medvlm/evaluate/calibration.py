"""Whether probabilities mean what they say.

N films, F findings, R resamples; truth is 0, 1 or NaN (unknown, left out).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from medvlm.evaluate.bootstrap import Counts, Floats, percentiles, ratio, resamples, with_interval
from medvlm.evaluate.metrics import pair

BINS = 15
_COVERAGES = np.arange(1, 11) / 10
_SCORES = ("ece", "brier", "brier_skill")


def calibration_table(
    y: ArrayLike,
    p: ArrayLike,
    groups: ArrayLike,
    names: Sequence[str] = (),
    n: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """The ``calibration`` part of the evaluation JSON, from ``y`` and ``p`` [N] or [N, F].

    All known (film, finding) pairs are pooled. ``ece``: 15 bins of equal width. ``brier_skill``:
    1 - Brier score / that of always saying the finding's prevalence in these films. ``bins``: the
    reliability diagram. ``risk_coverage``: the share of wrong yes/no decisions (at 0.5) among the
    most confident ``coverage`` of the pairs. ``per_finding``: the same scores of each of ``names``.
    """
    truth, score = pair(y, p)
    truth, score = truth.reshape(len(truth), -1), score.reshape(len(score), -1)
    counts = np.concatenate([np.ones((1, len(truth))), resamples(groups, n, seed)])
    known = ~np.isnan(truth)
    return _scores(truth, score, counts) | {
        "risk_coverage": risk_coverage(truth[known], score[known]),
        "bins": reliability_bins(truth, score, counts[1:]),
        "per_finding": {
            name: _scores(truth[:, [f]], score[:, [f]], counts)
            | {"n_positive": int((truth[:, f] == 1).sum()), "n": int(known[:, f].sum())}
            for f, name in enumerate(names)
        },
    }


def calibration_of(y: ArrayLike, p: ArrayLike, counts: Counts, bins: int = BINS) -> Floats:
    """[R, 3]: calibration error, Brier score and its skill of [N, F], all known pairs pooled."""
    truth, score = np.asarray(y, np.float64), np.asarray(p, np.float64)
    known = ~np.isnan(truth)
    size = counts @ known.sum(axis=1)
    gaps = _binned(truth, score, np.where(known, score - truth, 0), bins)
    ece = ratio(np.abs(counts @ gaps).sum(axis=1), size)
    errors = np.where(known, (score - truth) ** 2, 0).sum(axis=1)
    brier = ratio(counts @ errors, size)
    films, positives = counts @ known, counts @ (truth == 1)
    prevalence = np.nan_to_num(ratio(positives, films))
    reference = ratio((films * prevalence * (1 - prevalence)).sum(axis=1), size)
    return np.stack([ece, brier, 1 - ratio(brier, reference)], axis=1)


def expected_calibration_error(y: ArrayLike, p: ArrayLike, bins: int = BINS) -> float:
    """Mean gap between probability and frequency over bins of equal width, weighted by size."""
    truth, score = pair(y, p)
    once = np.ones((1, truth.size))
    return float(calibration_of(truth.reshape(-1, 1), score.reshape(-1, 1), once, bins)[0, 0])


def reliability_bins(
    y: ArrayLike, p: ArrayLike, counts: Counts, bins: int = BINS
) -> list[dict[str, Any]]:
    """What a reliability diagram shows of [N, F]: per bin that is not empty its bounds, how many
    pairs, their mean probability, and how often the finding was there, with its interval."""
    truth, score = pair(y, p)
    known = ~np.isnan(truth)
    sizes = _binned(truth, score, known, bins)
    said = _binned(truth, score, np.where(known, score, 0), bins)
    there = _binned(truth, score, truth == 1, bins)
    frequency = ratio(counts @ there, counts @ sizes)
    table = []
    for b in np.flatnonzero(sizes.sum(axis=0)):
        size = float(sizes[:, b].sum())
        table.append(
            {
                "low": round(b / bins, 4),
                "high": round((b + 1) / bins, 4),
                "n": int(size),
                "mean_p": float(said[:, b].sum() / size),
                "frequency": float(there[:, b].sum() / size),
                "frequency_ci": list(percentiles(frequency[:, b])),
            }
        )
    return table


def risk_coverage(y: ArrayLike, p: ArrayLike) -> list[dict[str, float]]:
    """Error rate at 0.5 among the most confident 10, 20 .. 100 % of [N]; ties as they come."""
    truth, score = pair(y, p)
    if truth.size == 0:
        return []
    order = np.argsort(-np.abs(score - 0.5), kind="stable")
    wrong = ((score >= 0.5) != (truth == 1))[order]
    taken = np.maximum(1, np.rint(_COVERAGES * truth.size).astype(int))
    return [
        {"coverage": float(coverage), "risk": float(wrong[:k].mean())}
        for coverage, k in zip(_COVERAGES, taken, strict=True)
    ]


def _scores(truth: Floats, score: Floats, counts: Counts) -> dict[str, Any]:
    values = calibration_of(truth, score, counts)
    result: dict[str, Any] = {}
    for i, name in enumerate(_SCORES):
        result |= with_interval(name, values[0, i], values[1:, i])
    return result


def _binned(truth: Floats, score: Floats, weights: ArrayLike, bins: int) -> Floats:
    """[N, bins]: each film's sum of ``weights`` [N, F] by the bin of the probability."""
    known = ~np.isnan(truth)
    which = np.minimum((np.where(known, score, 0) * bins).astype(int), bins - 1)
    films = np.arange(len(truth))[:, None]
    flat = np.bincount(
        (films * bins + which).ravel(),
        weights=np.asarray(weights, np.float64).ravel(),
        minlength=len(truth) * bins,
    )
    return np.asarray(flat.reshape(len(truth), bins), np.float64)
