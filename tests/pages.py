"""The page in a test without a browser: a desk of its own, one study's page, texts and buttons.

A test module asks for the fixture with ``pytest_plugins = ["tests.pages"]``, and imports the rest.
PYTEST_DONT_REWRITE: pytest would warn of the one before the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from medvlm.config.desk import DATABASE
from medvlm.review.store import Store, open_store


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The desk that the page opens."""
    monkeypatch.setenv("MEDVLM_DESK", str(tmp_path / "desk"))
    monkeypatch.delenv(DATABASE, raising=False)
    monkeypatch.setenv("MEDVLM_DESK_DRAFTING", "false")
    st.cache_resource.clear()
    with open_store() as store:
        yield store
    st.cache_resource.clear()


def study_page() -> None:
    """The page of one study alone, as the navigation shows it."""
    from app import study
    from app.login import signed_in
    from app.session import show_messages

    if signed_in() is not None:
        show_messages()
        study.page()


def page_of(study_id: str) -> AppTest:
    """The page of a study, not drawn yet."""
    page = AppTest.from_function(study_page, default_timeout=60)
    page.query_params["study"] = study_id
    return page


def opened(study_id: str) -> AppTest:
    """The page of a study, drawn."""
    return page_of(study_id).run()


def texts(page: AppTest) -> str:
    """All that is shown as text."""
    return "\n".join(str(one.value) for one in page.text)


def press(page: AppTest, name: str) -> AppTest:
    """Clicks the button of that label or key."""
    (found,) = [one for one in page.button if name in (one.label, one.key)]
    return found.click().run()
