"""The worklist: what came in, what waits, what cannot wait."""

from __future__ import annotations

import math
from typing import Any, get_args

import streamlit as st

from app.session import attempt, person, refresh, store, tell
from app.words import bare, clock, finding_words, words
from medvlm.desk.intake import Intake, load_sample, take_uploads
from medvlm.desk.service import drafting_state
from medvlm.review.jobs import waiting
from medvlm.review.records import Priority, Status, StudyRow
from medvlm.review.studies import set_priority
from medvlm.review.worklist import Filter, modalities, worklist

STATUSES: tuple[Status, ...] = get_args(Status)
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
PER_PAGE = 25


def page() -> None:
    """Draws the worklist."""
    told = drafting_state(store())
    if told != "running":
        st.info(words(f"drafting.{told}"))
    chosen = _filters()
    found = worklist(store(), chosen)
    if person().role != "reader":
        with st.expander(words("worklist.add"), expanded=found.total == 0, icon=":material/add:"):
            _add()
    if not found.total:
        empty = worklist(store(), Filter(limit=1)).total == 0
        st.info(words("worklist.empty" if empty else "worklist.none_match"))
    else:
        _heading()
    for number, row in enumerate(found.rows, 1):
        _line(chosen.offset + number, row)
    _turn_pages(found.total)
    queued = told == "running" and waiting(store()) > 0
    if queued or any(one.status == "drafting" or one.progress is not None for one in found.rows):
        _watch()


@st.fragment(run_every=3)
def _watch() -> None:
    """Draws the worklist again every three seconds while something is being drafted."""
    if st.session_state.get("watched", 0):
        st.session_state["watched"] = 0
        refresh()
    st.session_state["watched"] = 1


def _filters() -> Filter:
    text, status, modality, priority, again = st.columns(
        [3, 5, 1.5, 1.5, 2], vertical_alignment="bottom"
    )
    searched = text.text_input(
        words("worklist.search"), key="search", help=words("worklist.search_help"), max_chars=100
    )
    statuses = status.pills(
        words("worklist.status"),
        STATUSES,
        selection_mode="multi",
        format_func=lambda one: words(f"status.{one}"),
        key="statuses",
    )
    kinds = [None, *modalities(store())]
    kind = modality.selectbox(
        words("worklist.modality"),
        kinds,
        format_func=lambda one: one or words("worklist.any"),
        key="modality",
    )
    urgency = priority.selectbox(
        words("worklist.priority"),
        [None, *PRIORITIES],
        format_func=lambda one: words(f"priority.{one}") if one else words("worklist.any"),
        key="priority",
    )
    again.button(words("worklist.refresh"), icon=":material/refresh:", shortcut="Alt+L")
    return Filter(
        statuses=frozenset(statuses or STATUSES),
        modality=kind,
        priority=urgency,
        text=searched.strip(),
        limit=PER_PAGE,
        offset=PER_PAGE * st.session_state.get("page", 0),
    )


def _turn_pages(total: int) -> None:
    pages, now = max(1, math.ceil(total / PER_PAGE)), st.session_state.get("page", 0)
    if now >= pages:
        st.session_state["page"] = 0
        st.rerun()
    if pages == 1:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(words("worklist.previous"), disabled=now == 0, on_click=_turn, args=(now - 1,))
        st.text(bare("worklist.count", total=total, page=now + 1, pages=pages))
        st.button(
            words("worklist.next"), disabled=now + 1 >= pages, on_click=_turn, args=(now + 1,)
        )


def _turn(number: int) -> None:
    st.session_state["page"] = number


# ---- one line ----

_COLUMNS = (4, 4, 2, 3, 2, 1)


def _heading() -> None:
    names = ("patient", "study", "taken", "status", "priority")
    for column, name in zip(st.columns(_COLUMNS), names, strict=False):
        column.caption(words(f"worklist.{name}"))


def _line(number: int, row: StudyRow) -> None:
    with st.container(key=f"row-{row.id}"):
        who, what, when, state, urgency, button = st.columns(_COLUMNS, vertical_alignment="center")
        who.text(patient_line(row))
        what.text(study_line(row))
        when.text(moment(row.taken) or clock(row.received))
        with state:
            _state(row)
        # With the priority in its key it shows what others have set meanwhile.
        key = f"priority-{row.id}-{row.priority}"
        urgency.selectbox(
            words("worklist.priority"),
            PRIORITIES,
            index=PRIORITIES.index(row.priority),
            format_func=lambda one: words(f"priority.{one}"),
            key=key,
            label_visibility="collapsed",
            disabled=person().role == "reader" or row.status == "signed",
            on_change=_prioritise,
            args=(row.id, key),
        )
        if button.button(
            words("worklist.open"),
            key=f"open-{row.id}",
            help=words("worklist.open_help", number=number),
            type="primary" if row.urgent else "secondary",
        ):
            st.switch_page(st.session_state["pages"]["study"], query_params={"study": row.id})


def _prioritise(study: str, key: str) -> None:
    attempt(set_priority, store(), study, st.session_state[key], person())


def _state(row: StudyRow) -> None:
    if row.urgent:
        named = ", ".join(finding_words(one) for one in row.urgent)
        st.badge(
            words("worklist.urgent", findings=named), icon=":material/priority_high:", color="red"
        )
    st.text(words(f"status.{row.status}"))
    if row.lock:
        st.caption(words("worklist.locked", name=row.lock.name))
    if row.progress is not None:
        st.progress(row.progress)
    if row.problem:
        st.text(row.problem)


def patient_line(row: StudyRow) -> str:
    """Who, for people: name, identifier, sex and age."""
    patient = row.patient
    name = (patient.name or "").replace("^", " ").replace("=", "  ").strip()
    facts = [name or words("worklist.unnamed"), patient.patient_id]
    if patient.sex:
        facts.append(words(f"sex.{patient.sex}"))
    if patient.age_years is not None:
        facts.append(bare("study.years", age=int(patient.age_years)))
    return "  ·  ".join(fact for fact in facts if fact)


def study_line(row: StudyRow) -> str:
    """What, for people: modality, body part, description, number of images."""
    count = bare("worklist.image") if row.images == 1 else bare("worklist.images", count=row.images)
    facts = [row.modality, row.body_part, row.view, row.description, count]
    return "  ·  ".join(fact for fact in facts if fact)


def moment(taken: str) -> str:
    """YYYYMMDD[HHMM[SS]] as 2026-11-30 14:05; as it is where it is no date."""
    if len(taken) < 8 or not taken.isdigit():
        return taken
    day = f"{taken[:4]}-{taken[4:6]}-{taken[6:8]}"
    return f"{day} {taken[8:10]}:{taken[10:12]}" if len(taken) >= 12 else day


# ---- adding ----


def _add() -> None:
    with st.form("add", clear_on_submit=True, border=False):
        files = st.file_uploader(words("worklist.files"), accept_multiple_files=True)
        folder = st.file_uploader(words("worklist.folder"), accept_multiple_files="directory")
        if st.form_submit_button(words("worklist.take_in"), type="primary"):
            uploads: list[Any] = [*(files or []), *(folder or [])]
            if uploads:
                _take_in(uploads)
    if st.button(words("worklist.sample"), key="sample"):
        attempt(load_sample, store(), person())
        st.rerun()


def _take_in(uploads: list[Any]) -> None:
    bar = st.progress(0.0)

    def progress(done: int, total: int) -> None:
        bar.progress(done / max(total, 1), words("worklist.reading", done=done, total=total))

    taken: Intake | None = attempt(take_uploads, store(), uploads, person(), progress=progress)
    if taken is None:
        return
    if taken.refused:
        counted = bare(
            "worklist.added",
            count=len(taken.added),
            known=len(taken.known),
            refused=len(taken.refused),
        )
        messages = dict.fromkeys(f"{one.message} {one.remedy or ''}" for one in taken.refused)
        tell("\n".join([counted, *messages]))
    else:
        st.toast(words("worklist.added", count=len(taken.added), known=len(taken.known), refused=0))
    st.rerun()
