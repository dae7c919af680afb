"""Comparisons over samples and seeds, against answers that are known."""

from __future__ import annotations

import time

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medvlm.evaluate.metrics import macro_auroc_of
from medvlm.evaluate.statistics import (
    Gain,
    estimate,
    estimate_of,
    holm,
    over_rows,
    paired_gain,
    paired_gain_of,
    verdicts,
)


def test_a_gain_that_every_sample_shares_has_no_spread() -> None:
    b = np.random.default_rng(0).normal(size=(1, 40))
    gain = paired_gain(b + 0.25, b, np.arange(40))
    assert gain[:3] == pytest.approx((0.25, 0.25, 0.25))
    assert gain.p == pytest.approx(2 / 1001)
    back = paired_gain(b, b + 0.25, np.arange(40))
    assert back[:3] == pytest.approx((-0.25, -0.25, -0.25))


def test_no_difference_is_not_told_apart() -> None:
    values = np.random.default_rng(0).normal(size=(2, 50))
    gain = paired_gain(values, values, np.arange(50))
    assert gain.mean == 0
    assert gain.low < 0 < gain.high
    assert gain.p > 0.5


def test_the_interval_of_one_seed_is_that_of_the_mean_difference() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.1, 1, 400), rng.normal(0, 1, 400)
    gain = paired_gain(a, b, np.arange(400))
    half = 1.96 * (a - b).std() / 20
    assert gain.mean == pytest.approx((a - b).mean())
    assert gain.low == pytest.approx(gain.mean - half, abs=0.012)
    assert gain.high == pytest.approx(gain.mean + half, abs=0.012)


def test_samples_of_one_patient_count_as_one() -> None:
    rng = np.random.default_rng(2)
    a = np.repeat(rng.normal(size=30), 10)
    by_patient = paired_gain(a, np.zeros(300), np.repeat(np.arange(30), 10))
    by_sample = paired_gain(a, np.zeros(300), np.arange(300))
    assert by_patient.high - by_patient.low > 2 * (by_sample.high - by_sample.low)


def test_seeds_bring_their_variance_unbiased() -> None:
    # Samples that do not differ, seeds that differ by a constant: all spread is that of the seeds.
    # Of two seeds both draws are the same one in a quarter of the cases each, half a difference
    # from the mean; stretched by the root of 2 their variance is that of a mean of two.
    two = estimate(np.array([[0.0], [1.0]]) * np.ones((1, 20)), np.arange(20))
    assert two == pytest.approx((0.5, 0.5 - np.sqrt(0.5), 0.5 + np.sqrt(0.5)))
    levels = np.random.default_rng(3).normal(size=10)
    ten = estimate(levels[:, None] * np.ones((1, 20)), np.arange(20), n=20000)
    half = 1.96 * levels.std(ddof=1) / np.sqrt(10)
    assert ten.mean == pytest.approx(levels.mean())
    assert ten.high - ten.low == pytest.approx(2 * half, rel=0.05)


def test_an_estimate_of_a_score_that_is_no_mean() -> None:
    found = estimate_of(lambda level, counts: np.full(len(counts), level), [0.2, 0.4], range(20))
    assert found.mean == pytest.approx(0.3)
    assert found.low < 0.3 < found.high


def test_the_seeds_of_two_systems_are_drawn_apart() -> None:
    a = np.array([[0.0], [1.0]]) * np.ones((1, 30))
    gain = paired_gain(a, a, np.arange(30))  # seed 0 of one is no partner of seed 0 of the other
    assert gain.low <= -0.5
    assert gain.high >= 0.5


def test_a_score_over_counts_equals_one_over_rows() -> None:
    rng = np.random.default_rng(4)
    y = (rng.random((60, 2)) < 0.4).astype(float)
    runs_a = [np.clip(0.4 * y + rng.random(y.shape), 0, 1) for _ in range(2)]
    runs_b = [rng.random(y.shape) for _ in range(3)]
    patients = np.arange(60) // 2

    def by_rows(p: np.ndarray, rows: np.ndarray) -> float:
        return float(np.mean([roc_auc_score(y[rows, f], p[rows, f]) for f in range(2)]))

    fast = paired_gain_of(
        lambda p, counts: macro_auroc_of(y, p, counts), runs_a, runs_b, patients, n=60
    )
    slow = paired_gain_of(over_rows(by_rows), runs_a, runs_b, patients, n=60)
    assert fast == pytest.approx(slow)
    own = [by_rows(p, np.arange(60)) for p in runs_a]
    others = [by_rows(p, np.arange(60)) for p in runs_b]
    assert fast.mean == pytest.approx(np.mean(own) - np.mean(others))
    assert fast.low > 0


def test_a_thousand_resamples_of_243_films_are_quick() -> None:
    rng = np.random.default_rng(5)
    y = (rng.random((243, 14)) < 0.1).astype(float)
    runs = [rng.random(y.shape) for _ in range(6)]
    start = time.process_time()
    gain = paired_gain_of(
        lambda p, counts: macro_auroc_of(y, p, counts), runs[:3], runs[3:], np.arange(243) // 2
    )
    assert time.process_time() - start < 10
    assert abs(gain.mean) < 0.1


def test_results_repeat() -> None:
    values = np.random.default_rng(6).normal(size=(3, 30))
    first, second = (paired_gain(values, values[:2], range(30), seed=7) for _ in range(2))
    assert first == second
    assert first != paired_gain(values, values[:2], range(30), seed=8)


@pytest.mark.parametrize("values", [[[1.0, np.nan]], [[[1.0, 2.0]]], [[1.0, np.inf]]])
def test_values_that_are_no_table_are_refused(values: list) -> None:
    with pytest.raises(ValueError, match="finite"):
        estimate(values, [0, 1])


def test_holm_by_hand() -> None:
    # 0.01 x 4, 0.02 x 3, 0.03 x 2, 0.04 x 1; never below the one before.
    assert holm([0.01, 0.04, 0.03, 0.02]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_verdicts() -> None:
    gains = {
        "better": Gain(0.1, 0.05, 0.2, 0.002),
        "worse": Gain(-0.1, -0.2, -0.05, 0.004),
        "alone it would": Gain(0.1, 0.01, 0.2, 0.04),
        "no": Gain(0.0, -0.1, 0.1, 0.9),
    }
    found = verdicts(gains)
    assert [verdict.says for verdict in found.values()] == [
        "better", "worse", "not told apart", "not told apart",
    ]  # fmt: skip
    assert found["alone it would"].p_holm == pytest.approx(0.08)
