"""Boxes of opacities: shapes, their features, their scorer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.draft import opacity_boxes as module
from medvlm.draft.comparison import change, read_findings
from medvlm.draft.ground import finding_boxes
from medvlm.draft.locate import DENSE_OPACITY, LungSide, side_of
from medvlm.draft.look import Seen, look_at
from medvlm.draft.opacity_boxes import (
    APART,
    FEATURES,
    PLACE_ALONE,
    candidates,
    in_lung,
    opacity_boxes,
    shape_of,
)
from medvlm.findings import FINDINGS
from medvlm.image.geometry import Box
from medvlm.image.load import ImageInput
from medvlm.model.box_scorer import BoxScorer, pairs, terms
from medvlm.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from medvlm.model.extras import Extras
from medvlm.train.opacity_boxes import FEWEST, Marked, fit_box_scorer

SIZE, CELLS = 320, 40
LUNGS: dict[LungSide, Box] = {"right": Box(48, 64, 96, 192), "left": Box(176, 64, 96, 192)}
LOWER = np.array([0.1, 0.6, 0.8, 0.4])
UPPER = np.array([0.1, 0.0, 0.8, 0.4])


def cells(box: Box) -> tuple[slice, slice]:
    cell = SIZE / CELLS
    rows = slice(round(box.y / cell), round(box.bottom / cell))
    return rows, slice(round(box.x / cell), round(box.right / cell))


def film(*opacities: Box, sure: float = 0.9, seed: int = 0) -> Seen:
    """A film with lungs where `LUNGS` says and an opacity map that is high in `opacities`."""
    random = np.random.default_rng(seed)
    dense = np.full((3, CELLS, CELLS), 0.02)
    for row, side in enumerate(("right", "left")):
        dense[row][cells(LUNGS[side])] = 0.95  # type: ignore[index]
    dense[DENSE_OPACITY] = random.uniform(0.01, 0.05, (CELLS, CELLS))
    for box in opacities:
        dense[DENSE_OPACITY][cells(box)] = sure
    image = ImageInput(np.zeros((SIZE, SIZE), np.float32), "film", "0" * 64, False)
    _, transform = image.grid(SIZE)
    known: Any = {"sight": None, "check": None, "score_maps": np.zeros((1, 1, 1))}
    return Seen(
        image=image,
        transform=transform,
        probabilities={"Lung_Opacity": 0.8},
        attributes={"ap_view": 0.5},
        dense=dense,
        **known,
    )


def training(count: int = 60) -> list[Marked]:
    """Films with one opacity each, in the lower or upper part of either lung."""
    films = []
    for seed in range(count):
        random = np.random.default_rng(seed)
        side: LungSide = ("right", "left")[seed % 2]
        shape = (LOWER, UPPER)[seed // 2 % 2] + random.uniform(-0.03, 0.03, 4)
        box = in_lung(shape, LUNGS[side], side)
        films.append(Marked(film(box, seed=seed), [box]))
    return films


@pytest.fixture(scope="module")
def scorer() -> BoxScorer:
    fitted = fit_box_scorer(training())
    assert fitted is not None
    return fitted


# ---- shapes ----


@given(
    st.sampled_from(["right", "left"]),
    st.tuples(*(st.floats(0, 300),) * 2, *(st.floats(1, 200),) * 2),
    st.tuples(*(st.floats(0, 300),) * 2, *(st.floats(10, 200),) * 2),
)
def test_a_shape_goes_back_to_its_box(
    side: LungSide, box: tuple[float, ...], lung: tuple[float, ...]
) -> None:
    own, around = Box(*box), Box(*lung)
    again = in_lung(shape_of(own, around, side), around, side)
    for name in ("x", "y", "width", "height"):
        assert getattr(again, name) == pytest.approx(getattr(own, name), abs=1e-9)


def test_shapes_are_mirrored_about_the_middle() -> None:
    right, left = (in_lung(LOWER, LUNGS[side], side) for side in ("right", "left"))
    assert left.x + left.width - 160 == pytest.approx(160 - right.x)


# ---- features ----


def test_features_are_what_they_are_called() -> None:
    box = in_lung(LOWER, LUNGS["right"], "right")
    seen = film(box)
    found = candidates(np.stack([LOWER, UPPER]), seen)
    assert found is not None
    assert found.features.shape == (4, len(FEATURES))
    named = {n: found.features[:, i] for i, n in enumerate(FEATURES)}
    heat = seen.dense[DENSE_OPACITY]
    for i, own in enumerate(found.boxes):
        assert named["mean_heat"][i] == pytest.approx(heat[cells(own)].mean())
    lung = seen.lungs["right"]
    assert named["lung_heat"][0] == pytest.approx(heat[cells(lung)].mean())
    assert named["share_of_lung"][0] == pytest.approx(
        heat[cells(box)].sum() / heat[cells(lung)].sum()
    )
    assert named["other_lung_heat"][0] == named["lung_heat"][2]
    assert list(named["opacity"]) == [0.8] * 4
    assert [tuple(row) for row in found.features[:, -4:]] == [tuple(LOWER), tuple(UPPER)] * 2
    # The place alone knows nothing of the map.
    other = candidates(np.stack([LOWER, UPPER]), film(sure=0.5, seed=9))
    assert other is not None
    assert (found.features[:, PLACE_ALONE] == other.features[:, PLACE_ALONE]).all()
    assert (found.features[:, :7] != other.features[:, :7]).any(axis=0).all()


def test_terms_are_all_products() -> None:
    first, second = pairs(3)
    known = terms(np.array([[2.0, 3.0, 5.0]]))
    assert known.tolist() == [[2, 3, 5, 4, 6, 10, 9, 15, 25]]
    assert list(zip(first, second, strict=True))[1] == (0, 1)


# ---- the scorer ----


def test_the_box_under_the_heat_comes_first(scorer: BoxScorer) -> None:
    for side in ("right", "left"):
        for shape in (LOWER, UPPER):
            box = in_lung(shape, LUNGS[side], side)  # type: ignore[index]
            first, *others = opacity_boxes(scorer, film(box, seed=99), [box])
            assert first.box.iou(box) > 0.7
            assert 0.3 < first.score <= 1
            for i, one in enumerate([first, *others]):
                assert all(one.box.iou(o.box) <= APART for o in [first, *others][:i])


def test_both_lungs_have_boxes_where_both_are_opaque(scorer: BoxScorer) -> None:
    true = [in_lung(LOWER, LUNGS[side], side) for side in ("right", "left")]  # type: ignore[index]
    found = opacity_boxes(scorer, film(*true, seed=5), true)
    assert all(max(item.box.iou(box) for item in found) > 0.5 for box in true)


def test_at_most_three_and_none_without_lungs(
    scorer: BoxScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARE", -9.0)
    assert len(opacity_boxes(scorer, film(), list(LUNGS.values()))) == 3
    blind = film()
    blind.dense[:2] = 0.0
    assert opacity_boxes(scorer, blind, list(LUNGS.values())) == []


def test_boxes_lie_only_in_lungs_that_are_marked(scorer: BoxScorer) -> None:
    for side in ("right", "left"):
        box = in_lung(LOWER, LUNGS[side], side)  # type: ignore[index]
        found = opacity_boxes(scorer, film(box, seed=7), [box])
        assert {side_of(item.box, film().lungs) for item in found} == {side}
    assert opacity_boxes(scorer, film(), []) == []


def test_where_the_map_marks_nothing_there_is_no_box(tiny: Path, scorer: BoxScorer) -> None:
    checkpoint = replace(load_checkpoint(), extras=Extras(boxes=scorer))
    assert finding_boxes(checkpoint, film(), "Lung_Opacity") == []


def test_an_opacity_that_grew_is_larger_by_what_is_marked(tiny: Path, scorer: BoxScorer) -> None:
    checkpoint = replace(load_checkpoint(), extras=Extras(boxes=scorer))
    small, large = (Box(64, 176, 32, 32), Box(56, 112, 80, 128))
    reads = [
        next(r for r in read_findings(checkpoint, [seen_of(box)]) if r.finding == "Pneumonia")
        for box in (small, large)
    ]
    assert change(reads[1], reads[0]) == "larger"
    assert change(reads[0], reads[1]) == "smaller"


def seen_of(box: Box) -> Seen:
    """A film whose every finding is present, with one opacity."""
    return replace(
        film(box),
        probabilities=dict.fromkeys(FINDINGS, 0.9),
        score_maps=np.zeros((len(FINDINGS), CELLS // 2, CELLS // 2)),
    )


def test_too_few_boxes_fit_nothing() -> None:
    films = training(FEWEST)
    assert fit_box_scorer(films) is not None
    assert fit_box_scorer(films[1:]) is None


def test_fitting_twice_gives_the_same(scorer: BoxScorer) -> None:
    again = fit_box_scorer(training())
    assert again is not None
    for name in ("candidates", "mean", "scale", "weights", "bias"):
        assert (getattr(again, name) == getattr(scorer, name)).all()


# ---- in the checkpoint ----


def test_the_scorer_travels_and_is_used(scorer: BoxScorer, tiny: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint()
    save_checkpoint(loaded.model, loaded.config, tmp_path / "with", Extras(boxes=scorer))
    found = load_checkpoint(str(tmp_path / "with"))
    boxes = found.extras.boxes
    assert boxes is not None
    for name in ("candidates", "mean", "scale", "weights", "bias"):
        assert getattr(boxes, name) == pytest.approx(getattr(scorer, name), rel=1e-6, abs=1e-6)
    box = in_lung(LOWER, LUNGS["left"], "left")
    seen = film(box)
    assert finding_boxes(found, seen, "Pneumonia") == opacity_boxes(boxes, seen, [box])
    assert finding_boxes(loaded, seen, "Pneumonia") != finding_boxes(found, seen, "Pneumonia")
    # Without lungs, what the map marks.
    seen.dense[:2] = 0.0
    blind = replace(seen)
    assert finding_boxes(found, blind, "Pneumonia") == finding_boxes(loaded, blind, "Pneumonia")


def test_a_real_look_has_features(tiny: Path, scorer: BoxScorer) -> None:
    checkpoint: Checkpoint = load_checkpoint()
    pixels = np.random.default_rng(0).random((96, 80)).astype(np.float32)
    (seen,) = look_at(checkpoint, [ImageInput(pixels, "film", "0" * 64, False)])
    found = candidates(scorer.candidates, seen)
    if len(seen.lungs) == 2:
        assert found is not None
        assert np.isfinite(found.features).all()
    else:
        assert found is None
