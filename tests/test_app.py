"""The page: it opens with its notice, and drafts and answers through the product's functions."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

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
