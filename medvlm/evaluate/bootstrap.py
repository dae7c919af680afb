"""Intervals by resampling whole patients, since films of one patient are not independent.

A resample is written as counts: how often it holds each row. A score that can be computed from
counts of many resamples at once (`Counts` [R, N]) is much faster than one that needs the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Rows = NDArray[np.intp]
Floats = NDArray[np.float64]
Counts = NDArray[np.float64]

FEWEST_GROUPS = 5


def resamples(groups: ArrayLike, n: int = 1000, seed: int = 0) -> Counts:
    """[n, N]: how often each of the N rows is in each of ``n`` resamples.

    ``groups`` [N] says which patient (or image) each row belongs to. A resample draws as many
    groups as there are, with replacement, and takes all rows of each.

    Raises ValueError if ``groups`` is empty or not one-dimensional.
    """
    _, group_of = _numbered(groups)
    size = int(group_of.max()) + 1
    drawn = [np.bincount(draw, minlength=size) for draw in _draws(size, n, seed)]
    return np.array(drawn, np.float64)[:, group_of]


def replicates(
    statistic: Callable[[Rows], ArrayLike], groups: ArrayLike, n: int = 1000, seed: int = 0
) -> Floats:
    """``statistic`` of ``n`` resamples: [n], or [n, K] where it returns K numbers.

    The resamples are those of :func:`resamples`; ``statistic`` gets the row numbers of each.
    """
    counts, group_of = _numbered(groups)
    rows = np.argsort(group_of, kind="stable")
    rows_of = np.split(rows, np.cumsum(counts)[:-1])
    return np.array(
        [
            statistic(np.concatenate([rows_of[g] for g in draw]))
            for draw in _draws(len(rows_of), n, seed)
        ],
        dtype=np.float64,
    )


def weighted_mean(values: ArrayLike, counts: Counts) -> Floats:
    """[R]: the mean of ``values`` [N] or [N, F] without NaN in each resample of the N rows.

    NaN where none is left.
    """
    table = np.asarray(values, np.float64).reshape(counts.shape[1], -1)
    known = ~np.isnan(table)
    return ratio(counts @ np.where(known, table, 0).sum(axis=1), counts @ known.sum(axis=1))


def ratio(part: ArrayLike, whole: ArrayLike) -> Floats:
    """``part / whole``, NaN where ``whole`` is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)


def percentiles(values: Floats) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of ``values`` [n] without NaN; (nan, nan) if none is left."""
    known = values[~np.isnan(values)]
    if known.size == 0:
        return float("nan"), float("nan")
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def bootstrap(
    statistic: Callable[[Rows], float], groups: ArrayLike, n: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile interval of ``statistic(rows)``; see :func:`replicates`.

    A resample in which the statistic is undefined (NaN) does not count.
    """
    return percentiles(replicates(statistic, groups, n, seed))


def with_interval(name: str, value: float, values: Floats) -> dict[str, float | list[float] | None]:
    """``{name: value, name_ci: [low, high]}`` for the evaluation JSON; None where undefined."""
    low, high = percentiles(values)
    return {
        name: None if np.isnan(value) else float(value),
        f"{name}_ci": None if np.isnan(value) or np.isnan(low) else [low, high],
    }


def scored(
    name: str, statistic: Callable[[Counts], Floats], counts: Counts
) -> dict[str, float | list[float] | None]:
    """:func:`with_interval` of a statistic over counts, its value that of all rows once."""
    once = np.ones((1, counts.shape[1]))
    return with_interval(name, float(statistic(once)[0]), statistic(counts))


def mean_with_interval(
    name: str, values: ArrayLike, counts: Counts
) -> dict[str, float | list[float] | None]:
    """:func:`scored` of :func:`weighted_mean`."""
    return scored(name, lambda own: weighted_mean(values, own), counts)


def unless_few(scores: dict[str, Any], groups: Sequence[str]) -> dict[str, Any]:
    """``scores``, or, from fewer than 5 groups, their counts alone and ``too_few``: true."""
    if len(set(groups)) >= FEWEST_GROUPS:
        return scores
    counts = {name: value if type(value) is int else None for name, value in scores.items()}
    return counts | {"too_few": True}


def _numbered(groups: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows per group [G], and each row's group number [N]."""
    names = np.asarray(groups)
    if names.ndim != 1 or names.size == 0:
        raise ValueError(f"groups must be [N] and not empty, got shape {names.shape}")
    _, group_of, counts = np.unique(names, return_inverse=True, return_counts=True)
    return counts, group_of


def _draws(size: int, n: int, seed: int) -> Iterator[NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return (rng.integers(size, size=size) for _ in range(n))
