"""Two systems over the same samples, each trained with several seeds.

S seeds, N samples, R resamples. What differs between two systems may be luck of the samples or luck
of the seed; a resample therefore draws patients and, for each system apart, seeds. A system that
was trained once shows nothing of the second kind: its interval is for that one training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from medvlm.evaluate.bootstrap import Counts, Floats, Rows, percentiles, resamples

T = TypeVar("T")

Statistic = Callable[[T, Counts], Floats]
"""(one seed's output over the N samples, counts [R, N]) -> the score of each resample [R]."""


class Estimate(NamedTuple):
    """The mean over seeds of a system's score, with its 95 % interval."""

    mean: float
    low: float
    high: float


class Gain(NamedTuple):
    """How much better a than b, with its 95 % interval; `p` is two-sided, for no difference."""

    mean: float
    low: float
    high: float
    p: float


class Verdict(NamedTuple):
    """One of several gains, its `p` adjusted for their number."""

    gain: Gain
    p_holm: float
    says: Literal["better", "worse", "not told apart"]


def estimate(values: ArrayLike, groups: ArrayLike, n: int = 1000, seed: int = 0) -> Estimate:
    """The mean of ``values`` [S, N] (or [N]: one seed), over samples and seeds.

    Raises ValueError for another shape, or a value that is not finite.
    """
    return estimate_of(_mean, _seeds_of(values), groups, n, seed)


def paired_gain(
    values_a: ArrayLike, values_b: ArrayLike, groups: ArrayLike, n: int = 1000, seed: int = 0
) -> Gain:
    """Mean of ``values_a`` [S_a, N] less that of ``values_b`` [S_b, N]; column i is one sample.

    ``groups`` [N] are patients (or images). Raises ValueError for other shapes, or a value that is
    not finite.
    """
    return paired_gain_of(_mean, _seeds_of(values_a), _seeds_of(values_b), groups, n, seed)


def estimate_of(
    statistic: Statistic[T], outputs: Sequence[T], groups: ArrayLike, n: int = 1000, seed: int = 0
) -> Estimate:
    """:func:`estimate` of a score that is no mean over samples, such as an AUROC.

    ``outputs``: one entry per seed, whatever ``statistic`` scores.
    """
    rng = np.random.default_rng([seed, 1])
    values = _over_seeds(statistic, outputs, _with_whole(groups, n, seed), rng)
    return Estimate(float(values[0]), *percentiles(values[1:]))


def paired_gain_of(
    statistic: Statistic[T],
    outputs_a: Sequence[T],
    outputs_b: Sequence[T],
    groups: ArrayLike,
    n: int = 1000,
    seed: int = 0,
) -> Gain:
    """:func:`paired_gain` of a score that is no mean over samples, such as an AUROC.

    For the macro AUROC of probabilities [N, F]:
    ``paired_gain_of(lambda p, counts: macro_auroc_of(y, p, counts), runs_a, runs_b, patients)``.
    """
    counts = _with_whole(groups, n, seed)
    rng = np.random.default_rng([seed, 1])
    values = _over_seeds(statistic, outputs_a, counts, rng) - _over_seeds(
        statistic, outputs_b, counts, rng
    )
    drawn = values[1:][~np.isnan(values[1:])]
    beyond = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p = min(1.0, 2 * (beyond + 1) / (drawn.size + 1)) if drawn.size else float("nan")
    return Gain(float(values[0]), *percentiles(drawn), float(p))


def over_rows(statistic: Callable[[T, Rows], float]) -> Statistic[T]:
    """A :data:`Statistic` from a score of row numbers, one resample after another: slower."""

    def of(output: T, counts: Counts) -> Floats:
        rows = np.arange(counts.shape[1])
        return np.array([statistic(output, np.repeat(rows, own.astype(int))) for own in counts])

    return of


def holm(p: Sequence[float]) -> list[float]:
    """Adjusts p-values so that the chance of any false alarm among them stays bounded.

    Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    order = np.argsort(p, kind="stable")
    factors = len(p) - np.arange(len(p))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.asarray(p)[order] * factors))
    return [float(value) for value in adjusted]


def verdicts(gains: Mapping[str, Gain], level: float = 0.05) -> dict[str, Verdict]:
    """Which of several gains remain after Holm's adjustment.

    The smallest p that a bootstrap of n resamples can show is 2 / (n + 1): with m gains, take n
    well over 2 m / level.
    """
    adjusted = holm([gain.p for gain in gains.values()])
    out = {}
    for (name, gain), p in zip(gains.items(), adjusted, strict=True):
        better: Literal["better", "worse"] = "better" if gain.mean > 0 else "worse"
        out[name] = Verdict(gain, p, better if p <= level else "not told apart")
    return out


def _seeds_of(values: ArrayLike) -> list[Floats]:
    table = np.atleast_2d(np.asarray(values, np.float64))
    if table.ndim != 2 or not np.isfinite(table).all():
        raise ValueError(f"values must be finite and [seeds, samples], got shape {table.shape}")
    return list(table)


def _mean(values: Floats, counts: Counts) -> Floats:
    return counts @ values / counts.sum(axis=1)


def _with_whole(groups: ArrayLike, n: int, seed: int) -> Counts:
    """All rows once, for the point estimate, then the resamples."""
    drawn = resamples(groups, n, seed)
    return np.concatenate([np.ones((1, drawn.shape[1])), drawn])


def _over_seeds(
    statistic: Statistic[T], outputs: Sequence[T], counts: Counts, rng: np.random.Generator
) -> Floats:
    """[1 + R]: the mean over the seeds on all rows, then over seeds drawn anew in each resample.

    Drawing S seeds anew shows but (S - 1) / S of their variance, which is half of it for two seeds;
    the deviations are stretched by as much (Rao and Wu, "Resampling inference with complex survey
    data", JASA 1988).
    """
    scores = np.stack([statistic(output, counts) for output in outputs], axis=1)
    size = len(outputs)
    drawn = rng.multinomial(size, np.full(size, 1 / size), len(counts) - 1) / size
    stretch = np.sqrt(size / (size - 1)) if size > 1 else 0.0
    weights = np.full(scores.shape, 1 / size)
    weights[1:] += stretch * (drawn - 1 / size)
    return np.asarray((scores * weights).sum(axis=1))
