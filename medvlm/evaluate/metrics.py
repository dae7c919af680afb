"""Scores of probabilities, of the findings a text names, and of short answers.

N films, F findings. Truth is 0, 1 or NaN (unknown, left out); probabilities are 0..1; ``groups``
[N] are patients. Every interval is a 95 % bootstrap interval by group. A score that is undefined is
None.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from medvlm.evaluate.bootstrap import Rows, replicates, with_interval

MIN_POSITIVES = 10  # fewer make an AUROC too uncertain to enter ``macro_auroc``
_ECE_BINS = 15
_COVERAGES = np.arange(1, 11) / 10

Floats = NDArray[np.float64]


def auroc(y: ArrayLike, p: ArrayLike) -> float:
    """Area under the ROC curve: how often a positive is above a negative, ties counting half.

    ``y`` and ``p`` are [N]. NaN if there are no positives or no negatives.
    """
    truth, score = np.asarray(y, np.float64), np.asarray(p, np.float64)
    known = ~np.isnan(truth)
    truth, score = truth[known], score[known]
    positives = int((truth == 1).sum())
    negatives = truth.size - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    ranks = rankdata(score)
    above = ranks[truth == 1].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def auroc_table(
    y: ArrayLike,
    p: ArrayLike,
    names: Sequence[str],
    groups: ArrayLike,
    n: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """The ``classification`` part of the evaluation JSON, from ``y`` and ``p`` [N, F].

    ``macro_auroc`` is the mean over the findings with at least 10 positives, ``macro_auroc_all``
    over every finding that has an AUROC.
    """
    truth, score = _pair(y, p)
    if truth.ndim != 2 or truth.shape[1] != len(names):
        raise ValueError(f"y must be [N, {len(names)}], one column per name, got {truth.shape}")

    def per_finding(rows: Rows) -> Floats:
        return np.array([auroc(truth[rows, f], score[rows, f]) for f in range(len(names))])

    positives = (truth == 1).sum(axis=0)
    common = positives >= MIN_POSITIVES
    values = per_finding(np.arange(len(truth)))
    sampled = replicates(per_finding, groups, n, seed)
    return {
        **with_interval("macro_auroc", _mean(values[common]), _means(sampled[:, common])),
        **with_interval("macro_auroc_all", _mean(values), _means(sampled)),
        "per_finding": {
            name: {
                **with_interval("auroc", values[f], sampled[:, f]),
                "n_positive": int(positives[f]),
                "n": int((~np.isnan(truth[:, f])).sum()),
            }
            for f, name in enumerate(names)
        },
    }


def calibration(
    y: ArrayLike, p: ArrayLike, groups: ArrayLike, n: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """The ``calibration`` part of the evaluation JSON, from ``y`` and ``p`` [N] or [N, F].

    All known (film, finding) pairs are pooled. ``ece``: 15 bins of equal width. ``brier_skill``:
    1 - Brier score / that of always saying the finding's prevalence in these films.
    ``risk_coverage``: the share of wrong yes/no decisions (at 0.5) among the most confident
    ``coverage`` of the pairs.
    """
    truth, score = _pair(y, p)
    truth, score = truth.reshape(len(truth), -1), score.reshape(len(score), -1)

    def scores(rows: Rows) -> Floats:
        y_rows, p_rows = truth[rows], score[rows]
        known = ~np.isnan(y_rows)
        if not known.any():
            return np.full(3, np.nan)
        brier = _mean(((p_rows - y_rows) ** 2)[known])
        prevalence = np.nansum(y_rows, axis=0) / np.maximum(known.sum(axis=0), 1)
        reference = _mean(((prevalence - y_rows) ** 2)[known])
        skill = 1 - brier / reference if reference > 0 else np.nan
        return np.array([expected_calibration_error(y_rows[known], p_rows[known]), brier, skill])

    values = scores(np.arange(len(truth)))
    sampled = replicates(scores, groups, n, seed)
    result: dict[str, Any] = {}
    for i, name in enumerate(("ece", "brier", "brier_skill")):
        result |= with_interval(name, values[i], sampled[:, i])
    known = ~np.isnan(truth)
    return result | {"risk_coverage": risk_coverage(truth[known], score[known])}


def expected_calibration_error(y: ArrayLike, p: ArrayLike, bins: int = _ECE_BINS) -> float:
    """Mean gap between probability and frequency over bins of equal width, weighted by size."""
    truth, score = _pair(y, p)
    which = np.minimum((score * bins).astype(int), bins - 1)
    gaps = np.bincount(which, weights=score - truth, minlength=bins)
    return float(np.abs(gaps).sum() / truth.size)


def risk_coverage(y: ArrayLike, p: ArrayLike) -> list[dict[str, float]]:
    """Error rate at 0.5 among the most confident 10, 20 .. 100 % of [N]; ties as they come."""
    truth, score = _pair(y, p)
    if truth.size == 0:
        return []
    order = np.argsort(-np.abs(score - 0.5), kind="stable")
    wrong = ((score >= 0.5) != (truth == 1))[order]
    taken = np.maximum(1, np.rint(_COVERAGES * truth.size).astype(int))
    return [
        {"coverage": float(coverage), "risk": float(wrong[:k].mean())}
        for coverage, k in zip(_COVERAGES, taken, strict=True)
    ]


def finding_f1(
    truth: ArrayLike, said: ArrayLike, groups: ArrayLike | None = None, n: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """``precision``, ``recall`` and ``f1`` over all pairs (film, finding) of boolean [N, F].

    With ``groups`` each has its interval too. ``precision`` is None where nothing is said.
    """
    true, claimed = np.asarray(truth, bool), np.asarray(said, bool)
    if true.shape != claimed.shape:
        raise ValueError(f"truth {true.shape} and said {claimed.shape} must have one shape")

    def scores(rows: Rows) -> Floats:
        t, s = true[rows], claimed[rows]
        both, said_n, true_n = (t & s).sum(), s.sum(), t.sum()
        return np.array(
            [_ratio(both, said_n), _ratio(both, true_n), _ratio(2 * both, said_n + true_n)]
        )

    values = scores(np.arange(len(true)))
    names = ("precision", "recall", "f1")
    if groups is None:
        return {
            name: None if np.isnan(v) else float(v) for name, v in zip(names, values, strict=True)
        }
    sampled = replicates(scores, groups, n, seed)
    result: dict[str, Any] = {}
    for i, name in enumerate(names):
        result |= with_interval(name, values[i], sampled[:, i])
    return result


def normalise_answer(text: str) -> str:
    """Lower case, without punctuation, articles and spare spaces, for comparison."""
    words = re.sub(r"[^\w\s]|_", " ", text.lower()).split()
    return " ".join(word for word in words if word not in {"a", "an", "the"})


def token_f1(a: str, b: str) -> float:
    """F1 of the words two answers share, after :func:`normalise_answer`; 1 if both are empty."""
    words_a, words_b = normalise_answer(a).split(), normalise_answer(b).split()
    if not words_a or not words_b:
        return float(words_a == words_b)
    shared = (Counter(words_a) & Counter(words_b)).total()
    return 2 * shared / (len(words_a) + len(words_b))


def _pair(y: ArrayLike, p: ArrayLike) -> tuple[Floats, Floats]:
    truth, score = np.asarray(y, np.float64), np.asarray(p, np.float64)
    if truth.shape != score.shape:
        raise ValueError(f"y {truth.shape} and p {score.shape} must have one shape")
    if not np.isin(truth[~np.isnan(truth)], (0, 1)).all():
        raise ValueError("y must be 0, 1 or NaN")
    if np.isnan(score[~np.isnan(truth)]).any():
        raise ValueError("p is NaN where y is known")
    return truth, score


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _means(sampled: Floats) -> Floats:
    return np.array([_mean(row) for row in sampled])


def _ratio(part: np.integer, whole: np.integer) -> float:
    return float(part / whole) if whole else float("nan")
