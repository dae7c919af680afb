"""The page of one study: images on the left, report and questions on the right."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import ask, history, images, report, session
from app.images import Opened
from app.viewer.viewer import ViewerEvents
from app.words import bare, words
from app.worklist import moment, patient_line, study_line
from medvlm.desk.service import drafting_state
from medvlm.errors import MedVLMError, StudyLocked
from medvlm.records import Region
from medvlm.review import jobs, locks
from medvlm.review.records import Lock, Review
from medvlm.review.review import displayed, load


def page() -> None:
    """Draws the open study."""
    study_id = session.open_study()
    if study_id is None:
        # The viewer may have spoken up just as the user was leaving, and called the page again.
        st.switch_page(st.session_state["pages"]["worklist"])
    try:
        study = images.opened(study_id)
        review = load(session.store(), study_id)
    except MedVLMError as error:
        st.error(words("error.did_not_work"))
        st.text(str(error))
        return
    _header(study)
    may_change = _take_hold(study)
    stacks = images.stacks_of(study)
    review = _react(study, review, images.events(study, stacks), may_change)
    exchanges = jobs.conversation(session.store(), study_id)
    picture, words_side = st.columns([3, 2], gap="small")
    with picture:
        images.show(study, stacks, review, exchanges)
    with words_side, st.container(key="panel"):
        report_tab, ask_tab, history_tab = st.tabs(
            [words("tab.report"), words("tab.ask"), words("tab.history")]
        )
        with report_tab:
            report.panel(study, review, may_change)
        with ask_tab:
            ask.panel(study, review, exchanges, may_change)
        with history_tab:
            history.panel(study)
    if _is_drafted_soon(study):
        _wait_for_draft(study_id, study.row.status)


def _is_drafted_soon(study: Opened) -> bool:
    desk, row = session.store(), study.row
    if row.status == "drafting" or row.progress is not None:
        return row.status in ("new", "drafting")
    return (
        row.status == "new" and jobs.draft_waits(desk, row.id) and drafting_state(desk) == "running"
    )


def _header(study: Opened) -> None:
    row = study.row
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button(words("study.back"), icon=":material/arrow_back:", shortcut="Alt+W"):
            session.attempt(locks.release, session.store(), row.id, session.person())
            session.close_study()
            st.switch_page(st.session_state["pages"]["worklist"])
        st.text(patient_line(row))
        st.text(" · ".join(filter(None, [study_line(row), moment(row.taken)])))
        st.badge(words(f"status.{row.status}"))
    if row.problem and row.status == "refused":
        st.warning(words("study.refused"))
        st.text(row.problem)
    elif row.problem:
        st.warning(words("study.problem"))
        st.text(row.problem)


def _take_hold(study: Opened) -> bool:
    """Whether this person may change the report: holds the study, and says who does if not."""
    person, row = session.person(), study.row
    if person.role == "reader":
        st.info(words("study.read_only_role"))
        return False
    if row.status == "signed":
        return False
    try:
        locks.hold(session.store(), row.id, person, session.settings().lock_minutes)
    except StudyLocked:
        if row.lock is not None:
            _locked(row.lock)
        return False
    return True


def _locked(lock: Lock) -> None:
    until = lock.until.astimezone().strftime("%H:%M")
    st.warning(words("study.read_only", name=lock.name, until=until))
    if session.person().role == "admin":
        st.button(
            words("study.break_lock"),
            on_click=session.act,
            args=(_break_lock,),
        )


def _break_lock(store: Any, study_id: str, person: Any) -> None:
    locks.break_lock(store, study_id, person)


def _react(study: Opened, review: Review, events: ViewerEvents, may_change: bool) -> Review:
    """What the user did in the viewer: images seen, a region drawn, a region chosen."""
    new = {image.id for image in study.images} & set(events.displayed) - review.displayed
    if may_change and new:
        review = session.act(displayed, sorted(new)) or review
    drawn = events.drawn
    uids = {image.id: image.sop_instance_uid for image in study.images}
    if drawn is not None and drawn.image in uids:
        region = Region(
            sop_instance_uid=uids[drawn.image],
            frame=drawn.frame,
            x=drawn.x,
            y=drawn.y,
            width=drawn.width,
            height=drawn.height,
            polygon=drawn.polygon,
        )
        session.draw(drawn.image, region)
    if events.error is not None and events.error.code == "error_session":
        session.refresh()  # the viewer's token has run out while nothing was drawn anew
    picked = events.picked
    if picked is not None and any(one.id == picked.sentence for one in review.sentences):
        session.select(picked.sentence, region=picked.region)
    return review


@st.fragment(run_every=2)
def _wait_for_draft(study_id: str, status: str) -> None:
    """Draws the page again once the draft is there or has come further."""
    row = images.opened(study_id).row
    if row.status != status:
        session.refresh()
    st.progress(row.progress or 0.0)
    st.text(bare("study.drafting" if row.status == "drafting" else "study.waiting"))
