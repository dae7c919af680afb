"""The page without a browser: catalogue, worklist, review, and where a drawn box ends up."""

from __future__ import annotations

import re
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app.words import LANGUAGES, REJECTIONS, catalogue, plain
from medvlm.desk.drafter import ModelDrafter
from medvlm.desk.intake import take_in
from medvlm.desk.worker import work_off
from medvlm.draft.trunk import Trunk
from medvlm.findings import FINDINGS
from medvlm.image.geometry import Box
from medvlm.records import Region
from medvlm.review.guards import BLOCKING, WARNINGS
from medvlm.review.jobs import conversation
from medvlm.review.people import local_person
from medvlm.review.review import load
from medvlm.review.store import Store
from medvlm.review.studies import record_draft
from medvlm.review.worklist import images, worklist
from tests.desk import a_draft, a_pneumothorax, a_study
from tests.dicoms import save, synthetic
from tests.pages import opened, page_of, press, texts

pytest_plugins = ["tests.pages"]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def page(root: Path, desk: Store) -> AppTest:
    return AppTest.from_file(str(root / "app" / "main.py"), default_timeout=60)


# ---- the catalogue ----


def test_the_languages_have_the_same_texts_with_the_same_placeholders() -> None:
    english = catalogue("en")
    for language in LANGUAGES:
        other = catalogue(language)
        assert other.keys() == english.keys()
        for key, text in english.items():
            assert _placeholders(other[key]) == _placeholders(text), key


def _placeholders(text: str) -> set[str | None]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_text_that_the_pages_ask_for_is_there(root: Path) -> None:
    known = catalogue("en")
    for path in (root / "app").glob("*.py"):
        for key in re.findall(r'\b(?:words|bare)\(\s*"([^"{]+)"', path.read_text("utf-8")):
            assert key in known, f"{path.name}: {key}"
    keys = [f"finding.{name}" for name in FINDINGS]
    keys += [f"rejection.{reason}" for reason in REJECTIONS]
    keys += [f"problem.{code}" for code in BLOCKING | WARNINGS if code != "unresolved"]
    assert not [key for key in keys if key not in known]


@pytest.mark.parametrize("value", ["**bold**", "[a](http://b)", "<b>", ":red[x]", "$x$", "a_b `c`"])
def test_values_are_no_markup(value: str) -> None:
    marks = set("*[]()<>:$_`") & set(value)
    escaped = plain(value)
    assert all(f"\\{mark}" in escaped for mark in marks)


# ---- the worklist ----


def test_an_empty_desk_says_what_it_is_and_offers_a_sample(page: AppTest) -> None:
    page.run()
    assert not page.exception
    assert "No study here yet" in page.info[-1].value
    assert [one for one in page.button if one.key == "sample"]


def test_urgent_studies_are_named_on_the_worklist(page: AppTest, desk: Store) -> None:
    study = a_study(desk)
    record_draft(desk, study, a_draft(a_pneumothorax(), impression="Right pneumothorax."))
    page.run()
    assert not page.exception
    assert "Yamada Taro" in texts(page)
    assert any("URGENT" in str(one.value) for one in page.markdown)


# ---- the review ----


def test_sentences_are_accepted_rejected_and_taken_back(desk: Store) -> None:
    study = a_study(desk)
    record_draft(desk, study, a_draft())
    page = opened(study)
    assert not page.exception
    assert "1.  Possible left pleural effusion." in texts(page)
    press(page, "accept-s01")
    assert [one.decision for one in load(desk, study).sentences] == ["accepted", "unresolved"]
    press(page, "reject-s02")
    press(page, "reject-wording-s02")
    assert load(desk, study).sentences[1].decision == "rejected"
    press(page, "Undo")
    assert load(desk, study).sentences[1].decision == "unresolved"


def test_a_change_by_another_hand_is_told_and_nothing_is_overwritten(desk: Store) -> None:
    study = a_study(desk)
    record_draft(desk, study, a_draft())
    first, second = opened(study), opened(study)
    press(first, "accept-s01")
    press(second, "accept-s02")
    assert "Somebody changed this report" in texts(second)
    assert load(desk, study).sentences[1].decision == "unresolved"
    press(second, "accept-s02")
    assert load(desk, study).sentences[1].decision == "accepted"


def test_a_review_without_a_draft_is_written_by_hand(desk: Store) -> None:
    study = a_study(desk)
    page = opened(study)
    (field,) = [one for one in page.text_input if one.key == "add-text"]
    field.set_value("The lungs are clear.")
    press(page, "Add")
    assert not page.exception
    (made,) = load(desk, study).sentences
    assert (made.text, made.decision) == ("The lungs are clear.", "added")


def test_a_study_that_is_not_there_is_told(desk: Store) -> None:
    page = opened("0" * 32)
    assert not page.exception
    assert page.error


# ---- where a drawn box ends up ----


@pytest.mark.parametrize(
    ("rows", "columns", "elements"),
    [
        (3001, 257, {}),
        (200, 1999, {}),
        (301, 299, {"PhotometricInterpretation": "MONOCHROME1", "PixelSpacing": [0.4, 0.1]}),
        (128, 129, {}),
    ],
)
def test_a_box_drawn_in_the_page_comes_back_to_the_same_pixels(
    rows: int,
    columns: int,
    elements: dict[str, Any],
    tiny: Path,
    desk: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From what the viewer reports to the model's grid and back, and in the answer: one pixel.

    That the viewer reports what was drawn to one pixel is tests/test_viewer_browser.py's part.
    """
    values = np.random.default_rng(0).integers(0, 4000, (rows, columns)).astype(np.uint16)
    film = save(synthetic(values, **elements), tmp_path / "film.dcm")
    (study,) = take_in(desk, [film], local_person(desk)).added
    (image,) = images(desk, study)
    asked, turn = [], Trunk.turn

    def listening(self: Trunk, question: str, region: Any = None) -> Any:
        made = turn(self, question, region)
        if made.region is not None:
            place = self.places[made.picture][0]
            asked.append(place.to_source(Box.from_corners(*made.region)))
        return made

    monkeypatch.setattr(Trunk, "turn", listening)
    box = Box(columns * 0.3, rows * 0.6, columns * 0.25, rows * 0.2)
    region = Region(
        sop_instance_uid=image.sop_instance_uid,
        x=box.x,
        y=box.y,
        width=box.width,
        height=box.height,
    )
    page = page_of(study)
    page.session_state[f"{study}-drawn"] = (image.id, region)
    page.run()
    page.chat_input[0].set_value("How dense is it?").run()
    assert not page.exception
    work_off(desk, ModelDrafter())
    (exchange,) = conversation(desk, study)
    assert exchange.answer is not None, exchange.problem
    assert asked
    (answered,) = exchange.answer.regions
    for found in (asked[-1], answered):
        assert (found.x, found.y) == pytest.approx((box.x, box.y), abs=1)
        assert (found.width, found.height) == pytest.approx((box.width, box.height), abs=1)
    assert worklist(desk).total == 1
