"""Questions about the open study, answered by the worker; answers light up in the viewer."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from app import session
from app.images import Opened
from app.words import bare, words
from medvlm.draft.parse import parse_sentence
from medvlm.review import jobs
from medvlm.review import review as actions
from medvlm.review.changes import OTHER
from medvlm.review.records import Exchange, Review

LIT = "lit"
LONGEST = 300


def panel(study: Opened, review: Review, exchanges: Sequence[Exchange], may_change: bool) -> None:
    """Draws the conversation and the field below it."""
    with st.container(height=420, key="conversation", autoscroll=True):
        if not exchanges:
            st.caption(words("ask.none"))
            st.caption(words("ask.examples"))
        for exchange in exchanges:
            _show(exchange, review, may_change)
    kept = session.drawn()
    about = False
    if kept is not None:
        about = st.checkbox(words("ask.about_region"), value=True, key="ask-region")
    image = _image(study, kept[0] if about and kept else None)
    question = st.chat_input(words("ask.placeholder"), key="question", max_chars=LONGEST)
    if question and image is not None:
        region = kept[1] if about and kept else None
        asked = session.attempt(
            jobs.ask,
            session.store(),
            study.row.id,
            image,
            region.frame if region else 0,
            question.strip(),
            region,
            session.person(),
        )
        if asked is not None:
            st.session_state[LIT] = asked.id
            session.forget_drawn()
        st.rerun()
    waiting = [one.id for one in exchanges if one.answer is None and one.problem is None]
    if waiting:
        _wait(study.row.id, len(waiting))


def _image(study: Opened, drawn_on: str | None) -> str | None:
    """The image that the question is about: where the region is, else the one chosen."""
    ids = [image.id for image in study.images]
    if drawn_on in ids:
        return drawn_on
    if len(ids) < 2:
        return ids[0] if ids else None
    labels = {
        image.id: f"{number}  {image.view_position or image.modality or ''}"
        for number, image in enumerate(study.images, 1)
    }
    return st.selectbox(words("ask.image"), ids, format_func=labels.__getitem__, key="ask-image")


def _show(exchange: Exchange, review: Review, may_change: bool) -> None:
    with st.chat_message("user"):
        st.text(exchange.question)
        if exchange.region is not None:
            st.caption(words("ask.region"))
    with st.chat_message("assistant"):
        if exchange.problem is not None:
            st.text(bare("ask.failed", why=exchange.problem))
            return
        answer = exchange.answer
        if answer is None:
            st.caption(words("ask.waiting"))
            return
        st.text(answer.answer)
        if answer.probability is not None:
            st.caption(words("ask.probability", value=f"{answer.probability:.2f}"))
        for reason in answer.input_check.reasons if not answer.input_check.accepted else []:
            st.text(bare("ask.outside", why=reason.message))
        with st.container(horizontal=True):
            if answer.regions:
                st.button(
                    words("ask.light"),
                    key=f"light-{exchange.id}",
                    icon=":material/my_location:",
                    on_click=_light,
                    args=(exchange.id,),
                )
            if may_change:
                st.button(
                    words("ask.insert"),
                    key=f"insert-{exchange.id}",
                    on_click=_insert,
                    args=(exchange, review),
                )


def _light(exchange: str) -> None:
    st.session_state[LIT] = exchange
    session.select(exchange)


def _insert(exchange: Exchange, review: Review) -> None:
    """The answer as a sentence of the reviewer's; what it speaks of is read from its words."""
    if exchange.answer is None:
        return
    text = " ".join(exchange.answer.answer.split())
    said = parse_sentence(text)
    finding, polarity = (said[0].finding, said[0].polarity) if said else (OTHER, "present")
    regions = exchange.answer.regions or ([exchange.region] if exchange.region else [])
    made = session.act(
        actions.add,
        text,
        finding,
        polarity,
        [] if polarity == "absent" else regions,
        version=review.version,
    )
    if made is not None:
        session.select(made.sentences[-1].id)


@st.fragment(run_every=1)
def _wait(study_id: str, waiting: int) -> None:
    """Draws the page again when an answer has come."""
    now = jobs.conversation(session.store(), study_id)
    if sum(one.answer is None and one.problem is None for one in now) != waiting:
        session.refresh()
