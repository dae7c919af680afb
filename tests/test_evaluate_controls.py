"""Controls that hide the image, and scores of groups of films."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medvlm.data.sets import Film, load_set
from medvlm.draft.look import look_at
from medvlm.evaluate.bootstrap import resamples
from medvlm.evaluate.heads import known_findings
from medvlm.evaluate.image_use import _changes, _hidden, image_use
from medvlm.evaluate.metrics import auroc
from medvlm.evaluate.scan import look_at_files
from medvlm.evaluate.subgroups import calibration_by_group, classification_by_group, members_of
from medvlm.findings import FINDINGS
from medvlm.image.geometry import Box
from medvlm.image.hide import BLANK_GREY, blank, erase, mirrored
from medvlm.image.load import ImageInput
from medvlm.model.checkpoint import load_checkpoint
from medvlm.model.extras import Extras
from medvlm.model.heads import ATTRIBUTES
from tests.sets import kermany, nih
from tests.test_evidence import OTHERS, donors


def image(pixels: np.ndarray) -> ImageInput:
    return ImageInput(pixels.astype(np.float32), "film", "0" * 64, False)


# ---- what is hidden ----


def test_a_blank_keeps_the_size_and_nothing_else() -> None:
    empty = blank(image(np.random.default_rng(0).random((20, 30))))
    assert empty.pixels.shape == (20, 30)
    assert (empty.pixels == BLANK_GREY).all()


def test_what_is_erased_takes_up_its_surroundings() -> None:
    slope = np.tile(np.linspace(0.2, 0.8, 60), (40, 1))
    spotted = slope.copy()
    spotted[15:25, 20:30] = 1.0
    before = image(spotted)
    after = erase(before, [Box(19.5, 14.5, 11, 11)])
    outside = np.ones((40, 60), bool)
    outside[14:26, 19:31] = False
    np.testing.assert_array_equal(after.pixels[outside], before.pixels[outside])
    # The spot was up to 0.6 brighter than the slope that the fill goes back to.
    assert np.abs(after.pixels - slope)[~outside].max() < 0.05
    assert before.pixels[20, 25] == 1  # the film itself is left alone


@pytest.mark.parametrize(
    "box", [Box(-5, -5, 20, 20), Box(50, 30, 40, 40), Box(0, 10, 60, 5), Box(20, 0, 5, 40)]
)
def test_at_the_border_the_sides_that_are_left_fill(box: Box) -> None:
    even = np.full((40, 60), 0.3)
    spotted = even.copy()
    own = box.clip(60, 40)
    spotted[int(own.y) : int(own.bottom), int(own.x) : int(own.right)] = 1
    np.testing.assert_allclose(erase(image(spotted), [box]).pixels, 0.3, atol=1e-6)


def test_all_erased_is_the_mean_and_nothing_erased_is_the_film() -> None:
    film = image(np.random.default_rng(0).random((12, 8)))
    np.testing.assert_allclose(erase(film, [Box(0, 0, 8, 12)]).pixels, film.pixels.mean(), 1e-5)
    outside = [Box(20, 20, 5, 5), Box(2, 2, 0, 0)]
    np.testing.assert_array_equal(erase(film, outside).pixels, film.pixels)


def test_the_mirrored_box_lies_across() -> None:
    assert mirrored(Box(10, 5, 20, 8), 100) == Box(70, 5, 20, 8)


# ---- use of the image ----


def test_changes_by_hand() -> None:
    truth = np.array([[1.0, 0.0], [1.0, 1.0], [np.nan, 1.0], [1.0, 0.0], [1.0, 0.0]])
    real = np.array([[0.9, 0.1], [0.5, 0.6], [0.5, 0.4], [0.5, 0.1], [0.5, 0.1]])
    control = np.array([[0.4, 0.9], [0.7, 0.6], [0.0, 0.3], [0.7, 0.1], [0.6, 0.1]])
    patients = list("abcde")
    found = _changes(truth, real, control, patients, resamples(patients, n=20))
    assert found["n"] == 6  # 0.9 to 0.4, 0.5 to 0.7, 0.6 as it was, 0.4 to 0.3, 0.5 to 0.7 and 0.6
    assert found["mean_change"] == pytest.approx((-0.5 + 0.2 + 0 - 0.1 + 0.2 + 0.1) / 6)
    assert found["share_falling"] == pytest.approx(2 / 6)
    low, high = found["mean_change_ci"]
    assert low < found["mean_change"] < high
    control[2, 1] = np.nan
    few = _changes(truth, real, control, patients, resamples(patients, n=20))
    assert few["n"] == 5  # of four patients
    assert few["too_few"]
    assert few["mean_change"] is few["share_falling_ci"] is None
    nothing = np.full_like(truth, np.nan)
    assert _changes(truth, real, nothing, patients, np.ones((1, 5))) == {"n": 0}


@pytest.mark.usefixtures("tiny")
def test_a_place_across_the_middle_has_no_mirrored_control() -> None:
    checkpoint = load_checkpoint()
    film = image(np.random.default_rng(0).random((80, 100)))
    (seen,) = look_at(checkpoint, [film])
    side, middle = Box(5, 10, 20, 20), Box(35, 10, 30, 20)
    places = {"Mass": ([side], True), "Hernia": ([middle], True), "Edema": ([], False)}
    places["Nodule"] = ([side], True)
    hidden = _hidden(checkpoint, seen, places, 4)
    assert set(hidden) == {
        ("region_erased", "Mass"), ("mirrored_erased", "Mass"), ("region_erased", "Hernia"),
        ("region_erased", "Nodule"), ("mirrored_erased", "Nodule"),
    }  # fmt: skip
    assert hidden["region_erased", "Mass"] is hidden["region_erased", "Nodule"]
    erased = hidden["region_erased", "Mass"].image.pixels
    np.testing.assert_array_equal(erased[:, 25:], film.pixels[:, 25:])
    assert (erased[10:30, 5:25] != film.pixels[10:30, 5:25]).any()


@pytest.mark.usefixtures("tiny")
def test_image_use_of_a_set(tmp_path: Path) -> None:
    films = load_set(nih(tmp_path / "nih", count=12)).films
    # The set's boxes are of opacities; this finding's are added to a film that has it.
    films = (replace(films[0], boxes=(("Effusion", (0.1, 0.1, 0.2, 0.2)),)), *films[1:])
    names = known_findings(films)
    scores = image_use(load_checkpoint(), films, names, 4)
    positives = sum(int((film.findings[:14] == 1).sum()) for film in films)
    assert scores["n_positive"] == positives
    assert scores["n_true_places"] == 1
    for reading in ("probabilities", "checklist"):
        assert scores[reading]["blank"]["n"] == positives
        assert scores[reading]["other_patient"]["n"] == positives
        assert 1 <= scores[reading]["region_erased"]["n"] <= positives
        assert scores[reading]["region_erased"]["mean_change"] != 0
        low, high = scores[reading]["blank"]["share_falling_ci"]
        assert 0 <= low <= scores[reading]["blank"]["share_falling"] <= high <= 1
    assert scores == image_use(load_checkpoint(), films, names, 4)
    assert scores["probabilities"]["donors"] == {"n": 0}  # the checkpoint has none


@pytest.mark.usefixtures("tiny")
def test_donors_in_the_place_of_a_set(tmp_path: Path) -> None:
    checkpoint = load_checkpoint()
    given = donors(checkpoint)
    films = load_set(nih(tmp_path / "nih", count=12)).films
    names = known_findings(films)
    scores = image_use(replace(checkpoint, extras=Extras(given)), films, names, 4)
    for reading in ("probabilities", "checklist"):
        assert scores[reading]["donors"]["n"] == scores["n_positive"]
    said = 1 / (1 + np.exp(-OTHERS))
    real = [
        seen.probabilities[FINDINGS[i]] - said
        for film, seen in zip(
            films, look_at_files(checkpoint, [f.image for f in films], 4, "again"), strict=True
        )
        for i in np.flatnonzero(film.findings[:14] == 1)
    ]
    assert scores["probabilities"]["donors"]["share_falling"] == pytest.approx(
        np.mean(np.array(real) > 0)
    )
    assert scores["probabilities"]["donors"]["mean_change"] == pytest.approx(
        -np.mean(real), abs=1e-4
    )


@pytest.mark.usefixtures("tiny")
def test_without_another_patient_there_is_no_such_control(tmp_path: Path) -> None:
    films = [replace(film, group="one") for film in load_set(kermany(tmp_path / "k", 4)).films]
    scores = image_use(load_checkpoint(), films, ["Pneumonia"], 4)
    assert scores["probabilities"]["other_patient"] == {"n": 0}
    assert "macro_auroc" not in scores["checklist"]


# ---- groups ----


def film(male: float = np.nan, age: float | None = None, ap: float = np.nan) -> Film:
    attributes = np.full(len(ATTRIBUTES), np.nan)
    attributes[ATTRIBUTES.index("male")] = male
    attributes[ATTRIBUTES.index("ap_view")] = ap
    return Film(Path("film"), "patient", np.full(len(FINDINGS), np.nan), attributes, age_years=age)


def test_members_by_sex_age_and_view() -> None:
    ages = [0, 17.9, 18, 40, 41, 65, 65.5, 66, 90, None]
    films = [film(male=i % 2, age=age) for i, age in enumerate(ages)]
    members = members_of(films)
    assert set(members) == {"sex", "age"}  # no view is known
    assert members["sex"]["male"].sum() == 5
    by_age = {name: np.flatnonzero(own).tolist() for name, own in members["age"].items()}
    assert by_age == {"<18": [0, 1], "18-40": [2, 3], "41-65": [4, 5, 6], ">65": [7, 8]}
    assert members_of([film()]) == {}


def test_a_group_is_held_against_all_others() -> None:
    rng = np.random.default_rng(0)
    films = [film(male=i % 2) for i in range(120)]
    men = np.arange(120) % 2 == 1
    truth = (rng.random((120, 2)) < 0.4).astype(float)
    truth[men, 1] = 0  # nobody to tell apart among the men
    said = np.where(men[:, None], 0.8 * truth, 0) + 0.5 * rng.random((120, 2))
    patients = [str(i) for i in range(120)]
    scores = classification_by_group(members_of(films), truth, said, ["A", "B"], patients)
    male, female = scores["sex"]["male"], scores["sex"]["female"]
    assert male["macro_over"] == ["A"]
    assert male["n"] == 60
    assert male["macro_auroc"] == 1.0
    rest = auroc(truth[~men, 0], said[~men, 0])
    assert male["others_macro_auroc"] == pytest.approx(rest)
    assert male["gap"] == pytest.approx(1 - rest)
    assert male["gap_ci"][0] > 0.2
    assert female["gap"] == pytest.approx(rest - 1)
    few = {"auroc": None, "auroc_ci": None, "n_positive": 0, "too_few": True}
    assert male["per_finding"]["B"] == few
    assert female["per_finding"]["B"]["auroc"] == pytest.approx(
        auroc(truth[~men, 1], said[~men, 1])
    )


def test_few_films_are_counted_and_not_scored() -> None:
    films = [film(age=10)] * 15 + [film(age=50)] * 45
    truth = np.tile([[1.0], [0.0], [1.0]], (20, 1))
    patients = [str(i) for i in range(60)]
    members = members_of(films)
    auc = classification_by_group(members, truth, 0.9 * truth, ["A"], patients)["age"]["<18"]
    assert (auc["n"], auc["n_positive"], auc["macro_auroc"], auc["gap_ci"]) == (15, 10, None, None)
    table = calibration_by_group(members, truth, np.full((60, 1), 0.5), patients)["age"]
    assert (table["<18"]["ece"], table["<18"]["n"]) == (None, 15)
    assert auc["too_few"]
    assert table["<18"]["too_few"]
    assert "too_few" not in table["41-65"]
    assert table["41-65"]["bias"] == pytest.approx(0.5 - 2 / 3)
    assert table["41-65"]["ece"] == pytest.approx(2 / 3 - 0.5)
    assert table["41-65"]["brier"] == pytest.approx(0.25)
