"""The page: it opens with its notice, and drafts and answers through the product's functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from medvlm.draft import answer as answers
from medvlm.draft.trunk import Trunk
from medvlm.image.geometry import Box
from tests.dicoms import save, synthetic

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def page(root: Path) -> AppTest:
    return AppTest.from_file(str(root / "app" / "main.py"), default_timeout=300)


def test_the_page_opens_with_the_notice_and_waits_for_a_study(page: AppTest) -> None:
    page.run()
    assert not page.exception
    assert "research only" in page.warning[0].value
    assert "Choose a study" in page.info[0].value


@pytest.mark.slow
def test_the_sample_is_drafted_and_asked_about(page: AppTest) -> None:
    page.run()
    page.sidebar.radio[0].set_value("Sample film").run()
    assert not page.exception
    assert not page.error
    assert "Impression" in [one.value for one in page.subheader]
    before = len(page.text)
    page.checkbox[0].check().run()
    assert [one.label for one in page.number_input] == ["x", "y", "width", "height"]
    page.text_input[0].set_value("What is this?").run()
    page.button[0].click().run()
    assert not page.exception
    assert len(page.text) > before


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
    page: AppTest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To the model's grid and back, and in the answer, to one source pixel."""
    values = np.random.default_rng(0).integers(0, 4000, (rows, columns)).astype(np.uint16)
    film = save(synthetic(values, **elements), tmp_path / "film.dcm")
    monkeypatch.setattr("medvlm.resources.sample_film", lambda: film)
    st.cache_resource.clear()
    asked, told = [], []
    ask, turn = answers.answer_question, Trunk.turn

    def listening(self: Trunk, question: str, region: Any = None) -> Any:
        made = turn(self, question, region)
        if made.region is not None:
            place = self.places[made.picture][0]
            asked.append(place.to_source(Box.from_corners(*made.region)))
        return made

    def telling(*given: Any, **named: Any) -> Any:
        told.append(ask(*given, **named))
        return told[-1]

    monkeypatch.setattr(Trunk, "turn", listening)
    monkeypatch.setattr(answers, "answer_question", telling)
    page.run()
    page.sidebar.radio[0].set_value("Sample film").run()
    page.checkbox[0].check().run()
    drawn = Box(columns * 0.3, rows * 0.6, columns * 0.25, rows * 0.2)
    for number, value in zip(
        page.number_input, (drawn.x, drawn.y, drawn.width, drawn.height), strict=True
    ):
        number.set_value(value)
    page.text_input[0].set_value("How dense is it?").run()
    page.button[0].click().run()
    assert not page.exception
    assert asked
    (region,) = told[-1].regions
    for box in (asked[-1], region):
        assert (box.x, box.y) == pytest.approx((drawn.x, drawn.y), abs=1)
        assert (box.width, box.height) == pytest.approx((drawn.width, drawn.height), abs=1)
