"""What one browser session has: the desk, who acts, which study is open, what to tell the user."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import streamlit as st

from app.words import bare, words
from medvlm.config.desk import DeskConfig, desk_config
from medvlm.errors import AlreadySigned, MedVLMError, Stale
from medvlm.records import Region
from medvlm.review.records import Person
from medvlm.review.store import Store, open_store

STUDY = "study"
_MESSAGES = "messages"
_SEEN = "last_seen"


@st.cache_resource
def settings() -> DeskConfig:
    """How this desk is set up."""
    return desk_config()


@st.cache_resource
def store() -> Store:
    """The desk's database and files, opened once for all sessions."""
    return open_store(settings().database_url, settings().files)


def person() -> Person:
    """Who acts; set by the log-in before any page is drawn."""
    acting: Person = st.session_state["person"]
    return acting


def study_id() -> str | None:
    """The open study: its id in the address, so that a reload opens it again. It says nothing."""
    return st.query_params.get(STUDY)


# ---- drawn regions and selection, of the open study ----


def selected() -> str | None:
    """The sentence that was last chosen."""
    return _of_study("selected")


def select(sentence: str | None, *, region: str | None = None) -> None:
    """Chooses a sentence; the viewer brings its first region, or `region`, into view."""
    st.session_state[_key("selected")] = sentence
    if region is None:
        st.session_state[_key("focus")] = {"sentence": sentence, "nonce": time.time_ns()}


def focus() -> dict[str, Any] | None:
    """What the viewer is to bring into view, with a number that grows."""
    found: dict[str, Any] | None = _of_study("focus")
    return found


def drawn() -> tuple[str, Region] | None:
    """(image id, region) that the user drew last and has not used yet."""
    found: tuple[str, Region] | None = _of_study("drawn")
    return found


def draw(image: str, region: Region) -> None:
    """Keeps what the user drew."""
    st.session_state[_key("drawn")] = (image, region)


def forget_drawn() -> None:
    """The drawn region was used, or is not wanted."""
    st.session_state.pop(_key("drawn"), None)


def _of_study(name: str) -> Any:
    return st.session_state.get(_key(name))


def _key(name: str) -> str:
    return f"{study_id()}-{name}"


# ---- acting ----


def attempt(action: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """Calls an action of the desk; an error of its own is told at the top of the next page.

    Returns what it returned, None after an error.
    """
    try:
        return action(*given, **named)
    except Stale:
        tell(bare("error.stale"))
    except AlreadySigned:
        tell(bare("error.signed"))
    except MedVLMError as error:
        tell(bare("error.did_not_work") + " " + str(error))
    return None


def act(action: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """An action on the open study by this person."""
    return attempt(partial(action, store(), study_id(), person()), *given, **named)


def tell(text: str) -> None:
    """Shows a text at the top of the next run."""
    st.session_state.setdefault(_MESSAGES, []).append(text)


def show_messages() -> None:
    """Shows what was to be told, once."""
    for text in st.session_state.pop(_MESSAGES, []):
        with st.container(key=f"message-{time.time_ns()}"):
            st.error(words("error.did_not_work"), icon=":material/error:")
            st.text(text)


# ---- idleness ----


def touch() -> None:
    """A sign of life of the user. A page that refreshes itself gives none."""
    if not st.session_state.pop("refreshed", False):
        st.session_state[_SEEN] = time.monotonic()


def refresh() -> None:
    """Draws the page again, by itself."""
    st.session_state["refreshed"] = True
    st.rerun()


def idle() -> bool:
    """Whether the user has been away for longer than the desk allows."""
    seen = st.session_state.get(_SEEN)
    return seen is not None and time.monotonic() - seen > 60 * settings().idle_minutes
