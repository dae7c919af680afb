"""Intervals by resampling whole patients, since films of one patient are not independent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Rows = NDArray[np.intp]


def replicates(
    statistic: Callable[[Rows], ArrayLike], groups: ArrayLike, n: int = 1000, seed: int = 0
) -> NDArray[np.float64]:
    """``statistic`` of ``n`` resamples: [n], or [n, K] where it returns K numbers.

    ``groups`` [N] says which patient (or image) each row belongs to. A resample draws as many
    groups as there are, with replacement, and ``statistic`` gets the row numbers of all of them.

    Raises ValueError if ``groups`` is empty or not one-dimensional.
    """
    names = np.asarray(groups)
    if names.ndim != 1 or names.size == 0:
        raise ValueError(f"groups must be [N] and not empty, got shape {names.shape}")
    _, group_of, counts = np.unique(names, return_inverse=True, return_counts=True)
    rows = np.argsort(group_of, kind="stable")
    rows_of = np.split(rows, np.cumsum(counts)[:-1])
    rng = np.random.default_rng(seed)
    draws = (rng.integers(len(rows_of), size=len(rows_of)) for _ in range(n))
    return np.array(
        [statistic(np.concatenate([rows_of[g] for g in draw])) for draw in draws], dtype=np.float64
    )


def percentiles(values: NDArray[np.float64]) -> tuple[float, float]:
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


def with_interval(
    name: str, value: float, values: NDArray[np.float64]
) -> dict[str, float | list[float] | None]:
    """``{name: value, name_ci: [low, high]}`` for the evaluation JSON; None where undefined."""
    low, high = percentiles(values)
    return {
        name: None if np.isnan(value) else float(value),
        f"{name}_ci": None if np.isnan(value) or np.isnan(low) else [low, high],
    }
