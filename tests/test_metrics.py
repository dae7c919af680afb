"""Scores against numbers worked out by hand and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    f1_score,
    roc_auc_score,
)
from sklearn.metrics import roc_curve as sklearn_roc_curve

from medvlm.evaluate.bootstrap import (
    bootstrap,
    replicates,
    resamples,
    unless_few,
    weighted_mean,
    with_interval,
)
from medvlm.evaluate.boxes import (
    best_constant_boxes,
    grounding_scores,
    iou,
    map50,
    mean_best_iou,
    pointing_game,
)
from medvlm.evaluate.calibration import (
    calibration_table,
    expected_calibration_error,
    reliability_bins,
    risk_coverage,
)
from medvlm.evaluate.metrics import (
    auprc,
    auprc_of,
    auroc,
    auroc_of,
    classification_table,
    finding_f1,
    paired_f1_gain,
    roc_curve,
)

NAN = float("nan")


# ---- bootstrap ----


def test_bootstrap_draws_whole_groups() -> None:
    groups = np.array(["b", "a", "b", "c"])

    def both_rows_of_b_or_none(rows: np.ndarray) -> float:
        assert (rows == 0).sum() == (rows == 2).sum()
        assert len(rows) == 3 + (rows == 0).sum()  # three groups, of which b has two rows
        return 0.0

    assert bootstrap(both_rows_of_b_or_none, groups, n=50) == (0.0, 0.0)


def test_bootstrap_interval_is_that_of_the_mean_and_repeats() -> None:
    values = np.random.default_rng(3).normal(size=400)
    low, high = bootstrap(lambda rows: values[rows].mean(), np.arange(400), seed=1)
    assert (low, high) == bootstrap(lambda rows: values[rows].mean(), np.arange(400), seed=1)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.01)
    assert high == pytest.approx(values.mean() + half, abs=0.01)


def test_bootstrap_is_wider_where_films_of_a_patient_agree() -> None:
    patients = np.repeat(np.arange(30), 10)
    values = np.random.default_rng(0).normal(size=30)[patients]
    by_patient = bootstrap(lambda rows: values[rows].mean(), patients)
    by_film = bootstrap(lambda rows: values[rows].mean(), np.arange(300))
    assert by_patient[1] - by_patient[0] > 2 * (by_film[1] - by_film[0])


def test_bootstrap_leaves_undefined_resamples_out() -> None:
    values = np.array([1.0, NAN])
    assert bootstrap(lambda rows: values[rows].sum(), [0, 1], n=100) == (2.0, 2.0)
    assert np.isnan(bootstrap(lambda rows: NAN, [0, 1], n=5)).all()
    assert with_interval("x", NAN, np.array([NAN])) == {"x": None, "x_ci": None}
    assert with_interval("x", 1.0, np.array([1.0, 1.0])) == {"x": 1.0, "x_ci": [1.0, 1.0]}
    with pytest.raises(ValueError, match="groups"):
        replicates(lambda rows: 0.0, [])


def test_counts_are_those_of_the_rows() -> None:
    groups = np.array(["b", "a", "b", "c", "d"])
    counts = resamples(groups, n=30, seed=3)
    drawn = replicates(lambda rows: np.bincount(rows, minlength=5), groups, n=30, seed=3)
    np.testing.assert_array_equal(counts, drawn)
    values = np.array([1.0, 2.0, NAN, 4.0, 5.0])
    means = replicates(lambda rows: np.nanmean(values[rows]), groups, n=30, seed=3)
    np.testing.assert_allclose(weighted_mean(values, counts), means)


def test_a_mean_over_films_and_findings_pools_them() -> None:
    values = [[1.0, NAN], [2.0, 6.0]]
    counts = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(weighted_mean(values, counts), [3, 1, NAN])


def test_few_groups_are_counted_and_not_scored() -> None:
    scores = {"x": 0.5, "x_ci": [0.0, 1.0], "n": 9}
    assert unless_few(scores, list("aabbccddee")) == scores
    few = {"x": None, "x_ci": None, "n": 9, "too_few": True}
    assert unless_few(scores, list("aabbccdd")) == few


# ---- classification, calibration ----


def test_auroc_by_hand() -> None:
    # Positives 0.8 and 0.4 against negatives 0.4 and 0.2: above, above, tied, above = 3.5 of 4.
    assert auroc([1, 1, 0, 0], [0.8, 0.4, 0.4, 0.2]) == 0.875
    assert auroc([1, 1, 0, 0, NAN], [0.8, 0.4, 0.4, 0.2, NAN]) == 0.875
    assert np.isnan(auroc([1, 1], [0.1, 0.2]))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=40))
def test_auroc_is_that_of_scikit_learn(pairs: list[tuple[bool, int]]) -> None:
    y, p = zip(*pairs, strict=True)
    if len(set(y)) == 2:
        assert auroc(y, p) == pytest.approx(roc_auc_score(y, p))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=40))
def test_average_precision_is_that_of_scikit_learn(pairs: list[tuple[bool, int]]) -> None:
    y, p = zip(*pairs, strict=True)
    if any(y):
        assert auprc(y, p) == pytest.approx(average_precision_score(y, p))
    else:
        assert np.isnan(auprc(y, p))


@pytest.mark.parametrize(("counted", "whole"), [(auroc_of, auroc), (auprc_of, auprc)])
def test_scores_over_counts_are_those_over_rows(counted, whole) -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(40) < 0.3).astype(float)
    y[:3] = NAN
    p = rng.integers(0, 9, 40) / 8  # with ties
    groups = np.arange(40) // 3
    slow = replicates(lambda rows: whole(y[rows], p[rows]), groups, n=50)
    np.testing.assert_allclose(counted(y, p, resamples(groups, n=50)), slow)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=40))
def test_the_roc_curve_passes_the_corners_of_scikit_learn_s(pairs: list[tuple[bool, int]]) -> None:
    y, p = zip(*pairs, strict=True)
    if len(set(y)) < 2:
        assert roc_curve(y, p) == {"fpr": [], "tpr": []}
        return
    curve = roc_curve(y, p)
    fpr, tpr, _ = sklearn_roc_curve(y, p)  # drops what lies on a line, but keeps some of it
    for x, height in zip(fpr, tpr, strict=True):
        on_it = [
            abs((x1 - x0) * (height - y0) - (y1 - y0) * (x - x0)) < 1e-3
            for x0, y0, x1, y1 in zip(
                curve["fpr"], curve["tpr"], curve["fpr"][1:], curve["tpr"][1:], strict=False
            )
            if x0 - 1e-4 <= x <= x1 + 1e-4 and y0 - 1e-4 <= height <= y1 + 1e-4
        ]
        assert any(on_it)
    assert np.trapezoid(curve["tpr"], curve["fpr"]) == pytest.approx(auroc(y, p), abs=1e-3)


def test_a_long_roc_curve_is_thinned() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(2000) % 2
    curve = roc_curve(y, 0.2 * y + rng.random(2000), points=50)
    assert len(curve["fpr"]) == len(curve["tpr"]) <= 50
    assert (curve["fpr"][0], curve["tpr"][-1]) == (0, 1)


def test_decisions_at_the_operating_point() -> None:
    y = np.zeros((40, 1))
    y[:12] = 1
    stated = np.zeros((40, 1), bool)
    stated[:6] = stated[12:15] = True
    table = classification_table(y, np.full((40, 1), 0.5), ["A"], np.arange(40), stated, n=50)
    own = table["per_finding"]["A"]
    assert own["f1"] == table["macro_f1"] == pytest.approx(f1_score(y, stated))
    assert own["sensitivity"] == 0.5
    assert own["specificity"] == pytest.approx(25 / 28)
    assert own["precision"] == pytest.approx(6 / 9)
    assert own["f1_ci"][0] < own["f1"] < own["f1_ci"][1]
    silent = classification_table(y, y, ["A"], np.arange(40), np.zeros((40, 1), bool), n=50)
    never = silent["per_finding"]["A"]
    assert (never["sensitivity"], never["sensitivity_ci"]) == (0, None)  # no width is no certainty
    assert never["precision"] is None


def test_auroc_table() -> None:
    rng = np.random.default_rng(0)
    y = np.zeros((60, 3))
    y[:30, 0] = 1
    y[:3, 1] = 1  # too few for the macro
    y[50:, 0] = NAN
    p = np.clip(y * 0.3 + rng.random((60, 3)) * 0.7, 0, 1)
    p[np.isnan(y)] = 0.5
    table = classification_table(y, p, ["A", "B", "C"], np.arange(60) // 2, n=100)
    a = roc_auc_score(y[:50, 0], p[:50, 0])
    b = roc_auc_score(y[:, 1], p[:, 1])
    assert table["macro_auroc"] == pytest.approx(a)
    assert table["macro_auroc_all"] == pytest.approx((a + b) / 2)
    assert table["macro_auroc_ci"][0] < a < table["macro_auroc_ci"][1]
    assert table["per_finding"]["A"]["n_positive"] == 30
    assert table["per_finding"]["A"]["n"] == 50
    nothing = table["per_finding"]["C"]
    assert nothing == {
        "auroc": None, "auroc_ci": None, "auprc": None, "auprc_ci": None,
        "n_positive": 0, "n": 60, "too_few": True, "roc": {"fpr": [], "tpr": []},
    }  # fmt: skip
    assert table["per_finding"]["B"]["too_few"]
    assert "too_few" not in table["per_finding"]["A"]


def test_auroc_table_without_a_common_finding() -> None:
    table = classification_table([[1.0], [0.0]], [[0.9], [0.1]], ["A"], [0, 1], n=20)
    assert table["macro_auroc"] is None
    assert table["macro_auroc_ci"] is None
    assert table["macro_auroc_all"] == 1.0


def test_calibration_by_hand() -> None:
    # Bins of 1/15: 0.1 (one film, truth 0), 0.9 (two films, truth 1 and 0).
    y, p = np.array([0, 1, 0]), np.array([0.1, 0.9, 0.9])
    assert expected_calibration_error(y, p) == pytest.approx((0.1 + 2 * abs(0.9 - 0.5)) / 3)
    result = calibration_table(y, p, [0, 1, 2], n=50)
    assert result["brier"] == pytest.approx((0.01 + 0.01 + 0.81) / 3)
    assert result["brier"] == pytest.approx(brier_score_loss(y, p))
    assert result["brier_skill"] == pytest.approx(1 - (0.83 / 3) / (2 / 9))
    assert result["risk_coverage"][-1] == {"coverage": 1.0, "risk": pytest.approx(1 / 3)}
    assert result["ece_ci"][0] <= result["ece"] <= result["ece_ci"][1]


def test_calibration_takes_the_prevalence_of_each_finding_and_skips_the_unknown() -> None:
    y = np.array([[1, 0], [1, 0], [NAN, 1], [0, 0]])
    p = np.where(np.isnan(y), 0.3, [[2 / 3, 1 / 4]] * 4)
    result = calibration_table(y, p, [0, 1, 2, 3], n=20)
    assert result["brier_skill"] == pytest.approx(0)
    assert result["ece"] == pytest.approx(0)


def test_calibration_of_each_finding_and_bins() -> None:
    y = np.array([[1, 0], [1, 0], [NAN, 1], [0, 0]])
    p = np.array([[0.9, 0.2], [0.9, 0.2], [0.5, 0.2], [0.9, 0.2]])
    result = calibration_table(y, p, [0, 1, 2, 3], ["A", "B"], n=30)
    assert result["per_finding"]["A"]["ece"] == pytest.approx(0.9 - 2 / 3)
    assert result["per_finding"]["B"]["ece"] == pytest.approx(0.25 - 0.2)
    assert result["per_finding"]["A"]["n_positive"] == 2
    assert result["per_finding"]["A"]["n"] == 3
    low, high = result["bins"]
    assert (low["n"], low["mean_p"], low["frequency"]) == (4, pytest.approx(0.2), 0.25)
    assert (high["n"], high["mean_p"]) == (3, pytest.approx(0.9))
    assert (high["low"], high["high"]) == (0.8667, 0.9333)
    assert high["frequency_ci"][0] <= high["frequency"] <= high["frequency_ci"][1]
    # The calibration error is the bins' gaps by their size.
    gaps = sum(b["n"] * abs(b["mean_p"] - b["frequency"]) for b in result["bins"]) / 7
    assert result["ece"] == pytest.approx(gaps)


def test_calibration_intervals_are_those_over_rows() -> None:
    rng = np.random.default_rng(1)
    p = rng.random((50, 3))
    y = (rng.random((50, 3)) < p).astype(float)
    y[rng.random((50, 3)) < 0.2] = NAN
    groups = np.arange(50) // 2

    def brier(rows: np.ndarray) -> float:
        known = ~np.isnan(y[rows])
        return brier_score_loss(y[rows][known], p[rows][known])

    def ece(rows: np.ndarray) -> float:
        known = ~np.isnan(y[rows])
        return expected_calibration_error(y[rows][known], p[rows][known])

    result = calibration_table(y, p, groups, n=100)
    assert result["brier_ci"] == pytest.approx(bootstrap(brier, groups, n=100))
    assert result["ece_ci"] == pytest.approx(bootstrap(ece, groups, n=100))
    bins = reliability_bins(y, p, resamples(groups, n=10), bins=1)
    assert bins[0]["n"] == (~np.isnan(y)).sum()


def test_probability_one_falls_in_the_last_bin() -> None:
    assert expected_calibration_error([1, 0], [1.0, 0.0]) == 0


def test_risk_falls_where_the_confident_are_right() -> None:
    y = [1, 1, 0, 0, 1, 0, 1, 0, 1, 0]
    p = [0.99, 0.98, 0.01, 0.02, 0.9, 0.1, 0.8, 0.2, 0.45, 0.55]
    curve = risk_coverage(y, p)
    assert [point["risk"] for point in curve[:8]] == [0.0] * 8
    assert curve[8]["risk"] == pytest.approx(1 / 9)
    assert curve[9] == {"coverage": 1.0, "risk": 0.2}


@pytest.mark.parametrize(("y", "p"), [([0, 2], [0.1, 0.2]), ([0, 1], [0.1]), ([0, 1], [0.1, NAN])])
def test_impossible_input_is_refused(y: list[float], p: list[float]) -> None:
    with pytest.raises(ValueError, match=r"y |p is"):
        calibration_table(y, p, range(len(y)))


def test_finding_f1_by_hand_and_by_scikit_learn() -> None:
    truth = np.array([[1, 0, 1], [0, 1, 0]], bool)
    said = np.array([[1, 1, 0], [0, 1, 0]], bool)
    assert finding_f1(truth, said) == pytest.approx(
        {"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3}
    )
    assert finding_f1(truth, said)["f1"] == pytest.approx(f1_score(truth, said, average="micro"))
    with_ci = finding_f1(truth, said, groups=[0, 1], n=200)
    assert with_ci["f1_ci"] == pytest.approx([0.5, 1.0])
    silent = finding_f1(truth, np.zeros_like(truth))
    assert silent == {"precision": None, "recall": 0.0, "f1": 0.0}


def test_unknown_pairs_are_left_out_of_f1() -> None:
    truth, said = np.array([[1, NAN], [0, 1]]), np.array([[1, 1], [0, 0]], bool)
    assert finding_f1(truth, said) == pytest.approx({"precision": 1.0, "recall": 0.5, "f1": 2 / 3})


def test_the_gain_over_a_control_is_paired() -> None:
    truth = np.tile([[1, 0], [0, 1]], (10, 1))
    right, wrong = truth == 1, truth == 0
    gain = paired_f1_gain(truth, right, wrong, resamples(np.arange(20), n=50))
    assert gain == {"gain": 1.0, "gain_ci": [1.0, 1.0]}
    none = paired_f1_gain(truth, right, right, resamples(np.arange(20), n=50))
    assert none == {"gain": 0.0, "gain_ci": [0.0, 0.0]}


# ---- boxes ----

UNIT = (0.0, 0.0, 10.0, 10.0)


def test_iou_by_hand() -> None:
    shifted = (5.0, 0.0, 10.0, 10.0)
    np.testing.assert_allclose(
        iou([UNIT, shifted], [UNIT, (20, 20, 1, 1)]), [[1, 0], [50 / 150, 0]]
    )
    assert iou(np.empty((0, 4)), [UNIT]).shape == (0, 1)
    assert iou([(1, 1, 0, 0)], [(1, 1, 0, 0)])[0, 0] == 0
    with pytest.raises(ValueError, match="finite"):
        iou([(0, 0, -1, 1)], [UNIT])


def test_grounding_by_hand() -> None:
    truth = [[UNIT], [UNIT, (50.0, 50.0, 10.0, 10.0)], []]
    predicted = [
        [((0.0, 0.0, 10.0, 5.0), 0.9)],  # IoU 0.5, a hit; its centre is inside
        [((30.0, 30.0, 4.0, 4.0), 0.8), (UNIT, 0.7)],  # the first points beside, the second hits
        [(UNIT, 0.95)],  # nothing is there
    ]
    assert pointing_game(predicted, truth) == 1 / 2
    assert mean_best_iou(predicted, truth) == pytest.approx((0.5 + 1 + 0) / 3)
    # By score: miss, hit, miss, hit; precision 1/2 up to a recall of 2/3 (67 of the 101 recalls).
    assert map50(predicted, truth) == pytest.approx(67 * 0.5 / 101)
    scores = grounding_scores(predicted, truth, [0, 1, 2], n=50)
    assert scores["map50"] == map50(predicted, truth)
    assert scores["pointing_game_ci"] == [0.0, 1.0]
    assert {key: scores[key] for key in ("n_films", "n_boxes", "n_films_without_box")} == {
        "n_films": 3, "n_boxes": 3, "n_films_without_box": 1,
    }  # fmt: skip
    assert scores["marked_without_box"] == 1


def test_a_true_box_is_found_once() -> None:
    assert (
        map50([[(UNIT, 0.9), (UNIT, 0.8)]], [[UNIT]]) == 1.0
    )  # the double comes after full recall
    assert map50([[(UNIT, 0.9), (UNIT, 0.8)], [(UNIT, 0.1)]], [[UNIT], [UNIT]]) == pytest.approx(
        (51 * 1 + 50 * 2 / 3) / 101
    )


def test_grounding_without_boxes() -> None:
    assert map50([[]], [[UNIT]]) == 0
    assert pointing_game([[]], [[UNIT]]) == 0
    assert np.isnan(map50([[(UNIT, 0.5)]], [[]]))
    assert grounding_scores([[]], [[]], [0], n=5)["mean_best_iou"] is None


def test_constant_boxes_find_where_the_lesions_are() -> None:
    rng = np.random.default_rng(0)
    places = np.array([[0.1, 0.3, 0.2, 0.3], [0.6, 0.5, 0.25, 0.2]])
    films = [[tuple(places[i % 3 // 2] + rng.normal(0, 0.01, 4))] for i in range(60)] + [[]] * 10
    chosen = best_constant_boxes(films)
    assert len(chosen) == 3
    np.testing.assert_allclose(chosen[0][0], places[0], atol=0.03)
    np.testing.assert_allclose(chosen[2][0], places[1], atol=0.03)
    assert [score for _, score in chosen] == pytest.approx([2 / 3, 2 / 3, 1 / 3])
    released = [chosen] * len(films)
    assert mean_best_iou(released, films) > 0.85
    assert chosen == best_constant_boxes(films)


def test_constant_boxes_of_little() -> None:
    assert best_constant_boxes([[], []]) == []
    box = (0.2, 0.2, 0.4, 0.4)
    assert best_constant_boxes([[box]]) == [(box, 1.0)]  # a second could add nothing
