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
CLOSED = "closed"
"""Set while the page is closed for idleness."""
_MESSAGES = "messages"
_SEEN = "last_seen"
_UNKEPT = "unkept"


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


def open_study() -> str | None:
    """Opens the study of the address, so that a reload opens it again; else the one last open.

    The id says nothing.
    """
    st.session_state[STUDY] = st.query_params.get(STUDY) or study_id()
    return study_id()


def close_study() -> None:
    """No study is open any more."""
    st.session_state[STUDY] = None


def study_id() -> str | None:
    """The study that this session was shown last: what its buttons act on, whatever the address."""
    found: str | None = st.session_state.get(STUDY)
    return found


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


# ---- what is on the screen and not in the report ----


def mark(study: str, field: str, *, kept: bool) -> None:
    """Notes whether a field of the report shows just what is kept of it."""
    open_ones: set[tuple[str, str]] = st.session_state.setdefault(_UNKEPT, set())
    (open_ones.discard if kept else open_ones.add)((study, field))


def unkept(study: str) -> bool:
    """Whether the study's report shows words that were not kept, and must not be signed so."""
    return any(one == study for one, _ in st.session_state.get(_UNKEPT, ()))


# ---- acting ----


def attempt(action: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """Calls an action of the desk; an error of its own is told at the top of the next page.

    Returns what it returned, None after an error. Nothing is done on a page that was left idle:
    what a button does comes before the page is drawn, and with it before it is closed.
    """
    if idle() or st.session_state.get(CLOSED):
        st.session_state[CLOSED] = True
        return None
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
    """An action on the open study by this person; nothing where none is open."""
    if study_id() is None:
        return None
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
        st.session_state[_SEEN] = _everybody()[person().id] = time.monotonic()


def refresh() -> None:
    """Draws the page again, by itself."""
    st.session_state["refreshed"] = True
    st.rerun()


def idle() -> bool:
    """Whether the user has been away for longer than the desk allows.

    A page that was just loaded goes by the person's other pages: a reload is no way around.
    """
    acting = st.session_state.get("person")
    seen = st.session_state.get(_SEEN)
    if seen is None and acting is not None:
        seen = _everybody().get(acting.id)
    return seen is not None and time.monotonic() - seen > 60 * settings().idle_minutes


def back() -> None:
    """The person has just shown that it is them."""
    st.session_state.pop(CLOSED, None)
    st.session_state[_SEEN] = _everybody()[person().id] = time.monotonic()


@st.cache_resource
def _everybody() -> dict[str, float]:
    """When each person last gave a sign of life, in any of their pages."""
    return {}
