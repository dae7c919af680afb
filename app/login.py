"""Who acts: the desk's one local reviewer, or whoever the hospital's log-in names."""

from __future__ import annotations

import time

import streamlit as st

from app.session import CLOSED, attempt, back, idle, refresh, settings, store, touch
from app.words import bare, words
from medvlm.config.desk import Oidc
from medvlm.errors import WrongPin
from medvlm.review import people
from medvlm.review.records import Person

_LOADED = "loaded"
"""Set from a page's first run on."""


def signed_in() -> Person | None:
    """Puts the person into the session; None where the page must not be shown (it says why)."""
    oidc = settings().oidc
    acting = _by_log_in(oidc) if oidc else people.local_person(store())
    if acting is None:
        return None
    st.session_state["person"] = acting
    if oidc and st.session_state.get(_LOADED) is None and _logged_in_since_idle():
        back()
    st.session_state[_LOADED] = True
    if idle():
        st.session_state[CLOSED] = True
    if st.session_state.get(CLOSED) and not _opened_again(acting):
        return None
    touch()
    _close_in_time()
    return acting


@st.fragment(run_every=20)
def _close_in_time() -> None:
    """Takes the page off the screen when it was left idle, also if nobody touches it."""
    if idle():
        refresh()


def _logged_in_since_idle() -> bool:
    """Whether the log-in is younger than the time after which a page is closed."""
    return fresh_log_in(60 * settings().idle_minutes)


def proof() -> str | None:
    """The log-in that has just vouched for the person again, None for a desk with PINs."""
    if not settings().oidc:
        return None
    return str(st.user.get("iss", "")) or None


def fresh_log_in(seconds: float = 120) -> bool:
    """Whether the person was asked who they are within the last seconds, as a signature needs.

    By `auth_time`, which a provider must give where it was asked to identify anew: the age of a
    token says nothing, since one may be made for a person who was asked hours ago.
    """
    asked = st.user.get("auth_time")
    return asked is not None and time.time() - float(str(asked)) <= seconds


def _by_log_in(oidc: Oidc) -> Person | None:
    if not st.user.is_logged_in:
        st.info(words("login.needed"))
        st.button(words("login.button"), type="primary", on_click=st.login)
        return None
    claims = dict(st.user)
    role = oidc.roles.role(claims)
    if role is None:
        st.error(words("login.none"))
        st.button(words("logout.button"), on_click=st.logout)
        return None
    name = str(claims.get("name") or claims.get("email") or claims["sub"])
    return people.signed_in(store(), str(claims["sub"]), name, role)


def _opened_again(acting: Person) -> bool:
    """After idleness: a log-in, or the PIN where there is one; else a click."""
    if settings().oidc:
        st.session_state.clear()
        st.logout()
        return False
    st.info(words("idle.title"), icon=":material/lock:")
    with st.form("unlock"):
        has_pin = people.has_pin(store(), acting)
        pin = st.text_input(words("pin.label"), type="password") if has_pin else ""
        if not st.form_submit_button(words("idle.unlock"), type="primary"):
            return False
    if has_pin:
        try:
            people.check_pin(store(), acting, pin)
        except WrongPin as error:
            st.text(str(error))
            return False
    back()
    st.rerun()


def choose_pin() -> None:
    """A form for the first PIN of a person who has none."""
    st.text(bare("pin.set"))
    with st.form("choose-pin"):
        first = st.text_input(words("pin.new"), type="password", key="pin-first")
        second = st.text_input(words("pin.repeat"), type="password", key="pin-second")
        if not st.form_submit_button(words("sentence.save")):
            return
    if first != second:
        st.error(words("pin.differ"))
        return
    attempt(people.set_pin, store(), st.session_state["person"], first)
    st.rerun()
