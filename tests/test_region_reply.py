"""Questions over a drawn region, answered from what the maps mark there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medvlm.data.sets import load_set
from medvlm.draft import answer
from medvlm.draft.answer import answer_question, reply
from medvlm.draft.ground import OPACITY
from medvlm.draft.locate import DENSE_OPACITY
from medvlm.draft.look import Seen, look_at
from medvlm.draft.question import Kind, parse_question
from medvlm.draft.region_reply import ACROSS, NO_SIDES, NOTHING_HERE, height
from medvlm.errors import UsageError
from medvlm.evaluate.region_questions import ask_regions, region_scores
from medvlm.findings import FINDINGS
from medvlm.image.geometry import Box
from medvlm.image.load import ImageInput
from medvlm.image.polygon import MOST_POINTS, Polygon
from medvlm.model.checkpoint import Checkpoint, load_checkpoint
from medvlm.model.language import Turn
from tests.sets import nih
from tests.test_draft import with_points

SIDE = 640
HERE, THERE = Box(60, 300, 120, 120), Box(460, 300, 120, 120)
LESION = Polygon(((60, 300), (180, 300), (180, 420), (60, 420)))


@pytest.fixture
def checkpoint(tiny: Path) -> Checkpoint:
    """Calls every finding present that reaches 0.5."""
    return with_points(load_checkpoint(), present_from=0.5, opacity=0.3, frontal_chest=0.0)


@pytest.fixture
def seen(checkpoint: Checkpoint) -> Seen:
    """A film with two lungs, an opacity in the patient's right one, and a nodule's score there."""
    pixels = np.full((SIDE, SIDE), 0.3, dtype=np.float32)
    pixels[300:420, 60:180] = 0.7
    (own,) = look_at(checkpoint, [ImageInput(pixels, "film", "0" * 64, False)])
    cells = 64
    dense = np.zeros((3, cells, cells))
    rows, scale = slice(cells // 8, cells * 7 // 8), cells / SIDE
    dense[0, rows, round(40 * scale) : round(280 * scale)] = 0.9
    dense[1, rows, round(360 * scale) : round(600 * scale)] = 0.9
    place = [slice(round(a * scale), round(b * scale)) for a, b in ((300, 420), (60, 180))]
    dense[DENSE_OPACITY, place[0], place[1]] = 0.6
    maps = np.full((len(FINDINGS), cells, cells), -4.0)
    maps[FINDINGS.index("Nodule"), place[0], place[1]] = 4.0
    said = dict.fromkeys(FINDINGS, 0.01) | {"Lung_Opacity": 0.8, "Nodule": 0.6, "Mass": 0.01}
    said |= {"Cardiomegaly": 0.7}
    return replace(own, dense=dense, score_maps=maps, probabilities=said)


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("What is this?", "region"),
        ("Is this an opacity?", "region_presence"),
        ("Is there a nodule in this region?", "region_presence"),
        ("Does it show an effusion?", "region_presence"),
        ("Which zone is this?", "region_place"),
        ("Compare with the other side.", "other_side"),
        ("Is the contralateral lung alike?", "other_side"),
        ("Is there an effusion on the other side?", "other"),
        ("Is the mediastinum shifted to the opposite side?", "other"),
        ("What is in this region?", "region"),
        ("Describe the region.", "region"),
        ("What is the probability of malignancy?", "other"),
        ("What tube is this?", "other"),
        ("What should I do about this?", "other"),
        ("Is this a rib fracture?", "other"),
        ("Is this free of effusion?", "other"),
        ("Is this not a mass?", "other"),
        ("Is this a mass or a nodule?", "other"),
        ("Is this larger than on the prior film?", "other_comparison"),
    ],
)
def test_what_is_asked_of_a_region(question: str, kind: Kind) -> None:
    assert parse_question(question, region=True).kind == kind


def test_what_is_there_is_named_and_nothing_else(checkpoint: Checkpoint, seen: Seen) -> None:
    said = reply(checkpoint, seen, "What is this?", HERE).text
    assert said == "lung opacity (0.80), nodule (0.60); right mid zone"
    empty = reply(checkpoint, seen, "What is this?", THERE).text
    assert empty == f"{NOTHING_HERE}; left mid zone"


@pytest.mark.parametrize(
    ("question", "here", "there"),
    [("Is this an opacity?", "yes", "no"), ("Is this a nodule?", "yes", "no"),
     ("Is this a mass?", "no", "no")],
)  # fmt: skip
def test_yes_where_it_lies_and_no_elsewhere(
    checkpoint: Checkpoint, seen: Seen, question: str, here: str, there: str
) -> None:
    said, other = (reply(checkpoint, seen, question, box) for box in (HERE, THERE))
    assert (said.text, other.text) == (here, there)
    assert bool(said.regions) == (here == "yes")
    assert other.regions == []
    finding = parse_question(question, True).findings[0]
    assert said.probability == seen.probabilities[finding]
    if here == "yes":
        assert other.probability is None  # the film's is not the region's


def test_what_has_no_place_or_is_uncertain_goes_to_the_language_model(
    checkpoint: Checkpoint, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def margin(checkpoint: Checkpoint, trunk: object, turn: Turn) -> float:
        asked.append(turn.question)
        return 1.0

    monkeypatch.setattr(answer, "_margin", margin)
    doubtful = with_points(checkpoint, present_from=0.9, absent_below=dict.fromkeys(FINDINGS, 0.2))
    own = replace(seen, probabilities=seen.probabilities | {"Emphysema": 0.95})
    for question in ("Is this a nodule?", "Is this emphysema?", "Is it pretty?"):
        reply(doubtful, own, question, HERE)
        assert asked[-1] == question
    # The opacity map was taught where they lie, so its word stands, as doubtful as the draft's.
    assert reply(doubtful, own, "Is this an opacity?", THERE).text == "no"
    said = reply(doubtful, own, "Is this an opacity?", HERE)
    assert (said.text, said.probability) == ("possibly", 0.8)
    assert len(asked) == 3


def test_the_other_side(checkpoint: Checkpoint, seen: Seen) -> None:
    said = reply(checkpoint, seen, "Compare with the other side", HERE)
    assert said.text.startswith("denser than the same place on the other side (0.70 against 0.30")
    assert said.text.endswith("an opacity is marked here, none there")
    own, mirrored = said.regions
    assert (own.x, own.y, own.width, own.height) == pytest.approx((60, 300, 120, 120))
    assert (mirrored.y, mirrored.width, mirrored.height) == pytest.approx((300, 120, 120))
    assert mirrored.x == pytest.approx(460, abs=10)
    back = reply(checkpoint, seen, "Compare with the other side", THERE).text
    assert back.startswith("more lucent")
    assert back.endswith("marked there, none here")
    same = reply(checkpoint, seen, "Compare with the other side", Box(100, 150, 60, 60)).text
    assert same.startswith("about as dense")
    middle = Box(280, 150, 90, 60)
    assert reply(checkpoint, seen, "Compare with the other side", middle).text == ACROSS
    lungless = replace(seen, dense=np.zeros_like(seen.dense))
    assert reply(checkpoint, lungless, "Compare with the other side", HERE).text == NO_SIDES


def test_an_outline_reads_only_what_it_holds(checkpoint: Checkpoint, seen: Seen) -> None:
    around = Polygon(((20, 250), (50, 250), (50, 450), (300, 450), (300, 480), (20, 480)))
    assert around.box.contains(*HERE.centre)
    assert height(seen, around) == 0
    assert height(seen, around.box) == pytest.approx(0.6)
    assert reply(checkpoint, seen, "Is this an opacity?", around).text == "no"
    said = reply(checkpoint, seen, "Is this an opacity?", LESION)
    assert said.text == "yes"
    assert said.regions[0].polygon == list(LESION.points)
    side = reply(checkpoint, seen, "Compare with the other side", LESION)
    assert side.text.startswith("denser")
    assert side.regions[1].polygon is not None


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.7, 3.1])
@pytest.mark.parametrize("side", [0.5, 2.0, 6.0])
def test_a_region_below_a_cell_still_lies_in_one(seen: Seen, shift: float, side: float) -> None:
    assert height(seen, Box(110 + shift, 350 + shift, side, side)) == pytest.approx(0.6)
    assert height(seen, Box(500 + shift, 350 + shift, side, side)) == 0


def test_an_outline_is_cut_to_the_image(checkpoint: Checkpoint) -> None:
    image = ImageInput(np.random.default_rng(0).random((90, 120), np.float32), "x", "0" * 64, False)
    drawn = Polygon(((-20, 10), (60, 10), (60, 200)))
    said = answer_question(checkpoint, image, "What is this?", drawn)
    (region,) = said.regions
    assert (region.x, region.y) == (0, 10)
    assert region.x + region.width == 60
    assert region.y + region.height == 90
    assert region.polygon is not None
    with pytest.raises(UsageError, match="outside"):
        answer_question(checkpoint, image, "What is this?", Polygon(((130, 0), (140, 0), (130, 9))))


def test_a_line_or_a_scribble_without_end_is_no_region(checkpoint: Checkpoint) -> None:
    image = ImageInput(np.random.default_rng(0).random((90, 120), np.float32), "x", "0" * 64, False)
    line = Polygon(((0, 0), (20, 20), (40, 40)))
    with pytest.raises(UsageError):
        answer_question(checkpoint, image, "What is this?", line)
    many = Polygon(tuple((i % 50, i // 50) for i in range(MOST_POINTS + 1)))
    with pytest.raises(UsageError, match="points"):
        answer_question(checkpoint, image, "What is this?", many)


def test_what_an_outline_goes_around_is_not_in_it(checkpoint: Checkpoint, seen: Seen) -> None:
    around = Polygon(((20, 250), (50, 250), (50, 450), (300, 450), (300, 480), (20, 480)))
    assert reply(checkpoint, seen, "Is this a nodule?", around).text == "no"
    assert reply(checkpoint, seen, "Is this a nodule?", around.box).text == "yes"


# ---- scored on radiologists' boxes ----


def test_answers_over_true_boxes_and_their_mirror_images(
    checkpoint: Checkpoint, seen: Seen, tmp_path: Path
) -> None:
    film = replace(load_set(nih(tmp_path, 1)).films[0], reviewed=True)
    box = (HERE.x / SIDE, HERE.y / SIDE, HERE.width / SIDE, HERE.height / SIDE)
    with_box = replace(film, boxes=((OPACITY, box),))
    asked = ask_regions(checkpoint, with_box, seen)
    assert asked == ((True, True), (False, False))
    both = replace(film, boxes=((OPACITY, box), (OPACITY, (THERE.x / SIDE, *box[1:]))))
    assert ask_regions(checkpoint, both, seen) == ((True, True), (True, False))
    assert ask_regions(checkpoint, replace(with_box, reviewed=False), seen) == ()
    fixed = checkpoint.config.model_copy(update={"constant_boxes": ((box, 0.5),)})
    empty = ask_regions(replace(checkpoint, config=fixed), replace(film, boxes=()), seen)
    assert empty == ((False, True),)
    scores = region_scores([asked, *[empty] * 5], ["a", "b", "c", "d", "e", "f"])
    assert (scores["n_sensitivity"], scores["n_specificity"]) == (1, 6)
    assert scores["specificity"] == pytest.approx(1 / 6)
    assert scores["sensitivity"] is None  # one patient is too few
    assert region_scores([()], ["a"]) == {}
