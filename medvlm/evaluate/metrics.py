"""Scores of findings' probabilities, and of the findings that a text names.

N films, F findings, R resamples. Truth is 0, 1 or NaN (unknown, left out); probabilities are 0..1;
``groups`` [N] are patients. Every interval is a 95 % bootstrap interval by group. A score that is
undefined is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvlm.evaluate.bootstrap import Counts, Floats, ratio, resamples, scored, with_interval

MIN_POSITIVES = 10  # fewer make an AUROC too uncertain to enter a macro figure
_CURVE_POINTS = 200


def auroc(y: ArrayLike, p: ArrayLike) -> float:
    """Area under the ROC curve: how often a positive is above a negative, ties counting half.

    ``y`` and ``p`` are [N]. NaN if there are no positives or no negatives.
    """
    return float(auroc_of(y, p, _once(y))[0])


def auroc_of(y: ArrayLike, p: ArrayLike, counts: Counts) -> Floats:
    """[R]: :func:`auroc` of resamples whose rows are counted in ``counts`` [R, N]."""
    positive, negative = _by_score(y, p, counts)
    below = np.cumsum(negative, axis=1) - negative / 2
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    return ratio((positive * below).sum(axis=1), pairs)


def auprc(y: ArrayLike, p: ArrayLike) -> float:
    """Average precision: precision at each threshold, weighted by the recall gained there.

    NaN if there are no positives. Without skill it equals the prevalence.
    """
    return float(auprc_of(y, p, _once(y))[0])


def auprc_of(y: ArrayLike, p: ArrayLike, counts: Counts) -> Floats:
    """[R]: :func:`auprc` of resamples."""
    positive, negative = (part[:, ::-1] for part in _by_score(y, p, counts))
    found = np.cumsum(positive, axis=1)
    precision = np.nan_to_num(ratio(found, found + np.cumsum(negative, axis=1)))
    return ratio((positive * precision).sum(axis=1), positive.sum(axis=1))


def roc_curve(y: ArrayLike, p: ArrayLike, points: int = _CURVE_POINTS) -> dict[str, list[float]]:
    """``fpr`` and ``tpr`` from (0, 0) to (1, 1), to draw; empty lists if undefined.

    Only the corners are kept, and of more than ``points`` an even selection.
    """
    positive, negative = (part[0, ::-1] for part in _by_score(y, p, _once(y)))
    if not positive.sum() or not negative.sum():
        return {"fpr": [], "tpr": []}
    tpr = np.append(0, np.cumsum(positive))
    fpr = np.append(0, np.cumsum(negative))
    turns = np.diff(tpr[1:]) * np.diff(fpr[:-1]) != np.diff(tpr[:-1]) * np.diff(fpr[1:])
    corners = np.flatnonzero(np.concatenate([[True], turns, [True]]))
    kept = corners[
        np.unique(np.linspace(0, corners.size - 1, min(points, corners.size)).round().astype(int))
    ]
    return {
        "fpr": (fpr[kept] / fpr[-1]).round(4).tolist(),
        "tpr": (tpr[kept] / tpr[-1]).round(4).tolist(),
    }


def decisions_of(y: ArrayLike, said: ArrayLike, counts: Counts) -> Floats:
    """[R, 4]: F1, sensitivity, specificity and precision of yes/no decisions ``said`` [N]."""
    truth, claimed = np.asarray(y, np.float64), np.asarray(said, bool)
    true = counts @ (truth == 1)
    false = counts @ (truth == 0)
    hits = counts @ ((truth == 1) & claimed)
    alarms = counts @ ((truth == 0) & claimed)
    return np.stack(
        [
            ratio(2 * hits, true + hits + alarms),
            ratio(hits, true),
            ratio(false - alarms, false),
            ratio(hits, hits + alarms),
        ],
        axis=1,
    )


_DECISIONS = ("f1", "sensitivity", "specificity", "precision")


def classification_table(
    y: ArrayLike,
    p: ArrayLike,
    names: Sequence[str],
    groups: ArrayLike,
    stated: ArrayLike | None = None,
    n: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """The ``classification`` part of the evaluation JSON, from ``y`` and ``p`` [N, F].

    ``stated`` [N, F]: what a draft would state as present; with it each finding has its F1,
    sensitivity, specificity and precision there. ``macro_...`` is the mean over the findings with
    at least 10 positives, ``macro_auroc_all`` over every finding that has an AUROC. A finding with
    fewer is marked ``too_few``: its numbers are there for that mean, not to be read by themselves.
    """
    truth, score = pair(y, p)
    if truth.ndim != 2 or truth.shape[1] != len(names):
        raise ValueError(f"y must be [N, {len(names)}], one column per name, got {truth.shape}")
    # The first row is the whole set: its scores are the point estimates.
    counts = np.concatenate([np.ones((1, len(truth))), resamples(groups, n, seed)])
    columns = range(len(names))
    values = {
        "auroc": np.stack([auroc_of(truth[:, f], score[:, f], counts) for f in columns], axis=1),
        "auprc": np.stack([auprc_of(truth[:, f], score[:, f], counts) for f in columns], axis=1),
    }
    if stated is not None:
        claimed = np.asarray(stated, bool)
        decided = [decisions_of(truth[:, f], claimed[:, f], counts) for f in columns]
        values |= {name: np.stack(decided, axis=1)[..., i] for i, name in enumerate(_DECISIONS)}
    positives = (truth == 1).sum(axis=0)
    common = positives >= MIN_POSITIVES
    result: dict[str, Any] = {}
    for name in ("auroc", "auprc", "f1"):
        if name in values:
            macro = means(values[name][:, common])
            result |= with_interval(f"macro_{name}", macro[0], macro[1:])
    every = means(values["auroc"])
    result |= with_interval("macro_auroc_all", every[0], every[1:])
    per_finding: dict[str, Any] = {}
    for f, finding in enumerate(names):
        own: dict[str, Any] = {}
        for name, table in values.items():
            own |= with_interval(name, table[0, f], table[1:, f])
            if name in _DECISIONS and len(set(own[f"{name}_ci"] or ())) == 1:
                own[f"{name}_ci"] = None  # none found, or all: resamples cannot tell how sure
        own |= {"n_positive": int(positives[f]), "n": int((~np.isnan(truth[:, f])).sum())}
        if not common[f]:
            own["too_few"] = True
        per_finding[finding] = own | {"roc": roc_curve(truth[:, f], score[:, f])}
    return result | {"per_finding": per_finding}


def finding_f1(
    truth: ArrayLike, said: ArrayLike, groups: ArrayLike | None = None, n: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """``precision``, ``recall`` and ``f1`` over all pairs (film, finding) of [N, F].

    ``truth`` may hold NaN (unknown): such a pair is left out. With ``groups`` each has its interval
    too. ``precision`` is None where nothing is said.
    """
    known, claimed = np.asarray(truth, np.float64), np.asarray(said, bool)
    if known.shape != claimed.shape:
        raise ValueError(f"truth {known.shape} and said {claimed.shape} must have one shape")
    counts = np.zeros((0, len(known))) if groups is None else resamples(groups, n, seed)
    counts = np.concatenate([np.ones((1, len(known))), counts])
    values = pooled_f1_of(known, claimed, counts)
    if groups is None:
        return {
            name: None if np.isnan(value) else float(value)
            for name, value in zip(_F1, values[0], strict=True)
        }
    result: dict[str, Any] = {}
    for i, name in enumerate(_F1):
        result |= with_interval(name, values[0, i], values[1:, i])
    return result


_F1 = ("precision", "recall", "f1")


def pooled_f1_of(truth: ArrayLike, said: ArrayLike, counts: Counts) -> Floats:
    """[R, 3]: precision, recall and F1 over all known pairs of [N, F]."""
    known, claimed = np.asarray(truth, np.float64), np.asarray(said, bool)
    hits = counts @ ((known == 1) & claimed).sum(axis=1)
    named = counts @ (~np.isnan(known) & claimed).sum(axis=1)
    there = counts @ (known == 1).sum(axis=1)
    return np.stack(
        [ratio(hits, named), ratio(hits, there), ratio(2 * hits, named + there)], axis=1
    )


def paired_f1_gain(
    truth: ArrayLike, said: ArrayLike, control: ArrayLike, counts: Counts
) -> dict[str, Any]:
    """``gain`` and ``gain_ci``: pooled F1 of ``said`` less that of ``control``, undefined as 0."""

    def gain(own: Counts) -> Floats:
        with_it, without = (pooled_f1_of(truth, x, own)[:, 2] for x in (said, control))
        return np.nan_to_num(with_it) - np.nan_to_num(without)

    return scored("gain", gain, counts)


def macro_auroc_of(y: ArrayLike, p: ArrayLike, counts: Counts) -> Floats:
    """[R]: the mean AUROC over the columns of [N, F] that have one in the resample."""
    truth, score = np.asarray(y, np.float64), np.asarray(p, np.float64)
    columns = [auroc_of(truth[:, f], score[:, f], counts) for f in range(truth.shape[1])]
    return means(np.stack(columns, axis=1)) if columns else np.full(len(counts), np.nan)


def pair(y: ArrayLike, p: ArrayLike) -> tuple[Floats, Floats]:
    """Both as float64. Raises ValueError for another shape, label or an unknown probability."""
    truth, score = np.asarray(y, np.float64), np.asarray(p, np.float64)
    if truth.shape != score.shape:
        raise ValueError(f"y {truth.shape} and p {score.shape} must have one shape")
    if not np.isin(truth[~np.isnan(truth)], (0, 1)).all():
        raise ValueError("y must be 0, 1 or NaN")
    if np.isnan(score[~np.isnan(truth)]).any():
        raise ValueError("p is NaN where y is known")
    return truth, score


def means(table: Floats) -> Floats:
    """[R]: the mean of each row of [R, F] without NaN; NaN where nothing is left."""
    known = ~np.isnan(table)
    return ratio(np.where(known, table, 0).sum(axis=1), known.sum(axis=1))


def _once(y: ArrayLike) -> Counts:
    return np.ones((1, len(np.asarray(y))))


def _by_score(y: ArrayLike, p: ArrayLike, counts: Counts) -> tuple[Floats, Floats]:
    """Positives and negatives [R, U] at each of the U different scores, the lowest first."""
    truth, score = np.asarray(y, np.float64), np.asarray(p, np.float64)
    rows = np.flatnonzero(~np.isnan(truth))
    rows = rows[np.argsort(score[rows], kind="stable")]
    if rows.size == 0:
        return np.zeros((len(counts), 1)), np.zeros((len(counts), 1))
    starts: NDArray[np.intp] = np.append(0, np.flatnonzero(np.diff(score[rows])) + 1)
    sorted_counts = counts[:, rows]
    positive = np.add.reduceat(sorted_counts * (truth[rows] == 1), starts, axis=1)
    negative = np.add.reduceat(sorted_counts * (truth[rows] == 0), starts, axis=1)
    return positive, negative
