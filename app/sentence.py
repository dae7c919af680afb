"""One sentence of the report: what it says, how sure and why, what the reviewer does with it."""

from __future__ import annotations

from functools import partial
from typing import Literal

import streamlit as st

from app.session import act, drawn, forget_drawn, select, selected, study_id
from app.words import CHOICES, POLARITIES, REJECTIONS, bare, finding_words, words
from medvlm.review import review as actions
from medvlm.review.changes import OTHER
from medvlm.review.records import Review, Sentence

OPENED = "opened"
"""(study, sentence, "edit" or "reject"): the one whose form is open."""
_SIGNS = {
    "unresolved": ":material/pending:",
    "accepted": ":material/check:",
    "edited": ":material/edit:",
    "rejected": ":material/close:",
    "added": ":material/person_add:",
}
_COLOURS: dict[str, Literal["orange", "blue", "violet", "gray", "green"]] = {
    "unresolved": "orange",
    "accepted": "blue",
    "edited": "violet",
    "rejected": "gray",
    "added": "green",
}


def line(number: int, one: Sentence, review: Review, may_change: bool) -> None:
    """Draws the sentence; the chosen one has the keys."""
    chosen = one.id == selected()
    mark = "-chosen" if chosen else ""
    with st.container(key=f"sentence-{one.decision}-{one.id}{mark}", gap="small"):
        st.text(f"{number}.  {one.text}")
        _facts(one)
        if _is_open(one, "edit") and may_change:
            _edit(one, review)
        else:
            _buttons(number, one, review, chosen, may_change)
            if _is_open(one, "reject") and may_change:
                _reasons(one, review)


def _is_open(one: Sentence, form: str) -> bool:
    return bool(st.session_state.get(OPENED) == (study_id(), one.id, form))


def _facts(one: Sentence) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        reason = words(f"rejection.{one.reason}") if one.reason else ""
        decided = words(f"decision.{one.decision}", reason=reason)
        st.badge(decided, icon=_SIGNS[one.decision], color=_COLOURS[one.decision])
        st.badge(_origin(one), color="gray")
        st.caption("  ·  ".join(_told(one)), help=_measured(one), width="content")
    for flag in one.flags:
        st.text(bare("sentence.doubtful", why=flag.message))
    if one.withheld:
        st.text(bare("report.withheld_why", reason=one.withheld))
    if one.machine is not None and one.decision == "edited":
        st.text(bare("sentence.machine_said", text=one.machine.text))


def _told(one: Sentence) -> list[str]:
    told = [f"{finding_words(one.finding)}: {words(f'polarity.{one.polarity}')}"]
    if one.probability is not None:
        told.append(words("sentence.probability", value=f"{one.probability:.2f}"))
    if one.evidence is not None:
        told.append(words(f"evidence.{one.evidence.status}"))
    elif one.machine is not None and one.polarity != "absent":
        told.append(words("evidence.none"))
    if one.change:
        told.append(words(f"change.{one.change}"))
    count = len(one.regions)
    if count:
        several = words("sentence.regions", count=count)
        told.append(words("sentence.region") if count == 1 else several)
    elif one.polarity != "absent":
        told.append(words("sentence.no_region"))
    return told


def _measured(one: Sentence) -> str | None:
    if one.evidence is None:
        return None
    evidence = one.evidence
    values = {
        "image": evidence.p_image,
        "erased": evidence.p_erased,
        "blank": evidence.p_blank,
        "other": evidence.p_other,
    }
    return words("evidence.help", **{name: f"{value:.2f}" for name, value in values.items()})


def _origin(one: Sentence) -> str:
    if one.withheld:
        return words("origin.withheld")
    if one.machine is None:
        return words("origin.human")
    return words("origin.edited" if one.decision == "edited" else "origin.machine")


def _buttons(number: int, one: Sentence, review: Review, chosen: bool, may_change: bool) -> None:
    """The chosen sentence's buttons answer to keys; there is only one of each."""
    with st.container(horizontal=True, gap="small"):
        st.button(
            words("sentence.show"),
            key=f"show-{one.id}",
            help=words("sentence.show_help", number=number),
            icon=":material/my_location:",
            type="primary" if chosen else "secondary",
            on_click=select,
            args=(one.id,),
        )
        if not may_change:
            return
        button = partial(_button, one, chosen)
        if one.decision == "unresolved":
            button("accept", "Alt+A", _decide, actions.accept, one.id, review)
        if one.decision != "rejected":
            button("edit", "Alt+E", _open, one.id, "edit")
        if one.decision == "added":
            button("remove", "Alt+X", act_on, actions.reopen, one.id, review)
        elif one.decision != "rejected":
            button("reject", "Alt+X", _open, one.id, "reject")
        if one.decision in ("accepted", "edited", "rejected"):
            button("reopen", "Alt+O", act_on, actions.reopen, one.id, review)
        kept = drawn()
        misplaced = one.reason == "wrong place"
        movable = one.polarity != "absent" and (misplaced or one.decision != "rejected")
        if kept is not None and movable:
            button("move", "Alt+M", _move, one.id, review)


def _button(
    one: Sentence, chosen: bool, name: str, key: str, action: object, *given: object
) -> None:
    st.button(
        words(f"sentence.{name}"),
        key=f"{name}-{one.id}",
        shortcut=key if chosen else None,
        on_click=action,  # type: ignore[arg-type]
        args=given,
    )


def act_on(action: object, sentence: str, review: Review) -> None:
    """An action that needs only the sentence."""
    act(action, sentence, version=review.version)  # type: ignore[arg-type]


def _decide(action: object, sentence: str, review: Review) -> None:
    """The same, and on to the next sentence that waits."""
    act_on(action, sentence, review)
    _go_on(sentence, review)


def _go_on(sentence: str, review: Review) -> None:
    waiting = [s.id for s in review.sentences if s.decision == "unresolved" and s.id != sentence]
    ids = [s.id for s in review.sentences]
    later = [one for one in waiting if ids.index(one) > ids.index(sentence)]
    select((later or waiting or [sentence])[0])


def _open(sentence: str, form: str) -> None:
    st.session_state[OPENED] = (study_id(), sentence, form)
    select(sentence)


def _close() -> None:
    st.session_state.pop(OPENED, None)


def _move(sentence: str, review: Review) -> None:
    kept = drawn()
    if kept is not None and act(actions.move, sentence, [kept[1]], version=review.version):
        forget_drawn()
        select(sentence)


def _reasons(one: Sentence, review: Review) -> None:
    with st.container(horizontal=True, gap="small"):
        for reason in REJECTIONS:
            st.button(
                words(f"rejection.{reason}"),
                key=f"reject-{reason}-{one.id}",
                disabled=reason == "not there" and one.polarity == "absent",
                on_click=_reject,
                args=(one.id, reason, review),
            )
        st.button(words("sentence.cancel"), key=f"keep-{one.id}", on_click=_close)


def _reject(sentence: str, reason: str, review: Review) -> None:
    act(actions.reject, sentence, reason, version=review.version)
    _close()
    _go_on(sentence, review)


def _edit(one: Sentence, review: Review) -> None:
    with st.form(f"edit-form-{one.id}", border=False):
        st.text_area(words("sentence.text"), one.text, max_chars=1000, key=f"edit-text-{one.id}")
        st.selectbox(
            words("sentence.finding"),
            CHOICES,
            index=CHOICES.index(one.finding if one.finding in CHOICES else OTHER),
            format_func=finding_words,
            key=f"edit-finding-{one.id}",
        )
        st.segmented_control(
            words("sentence.polarity"),
            POLARITIES,
            default=one.polarity,
            format_func=lambda value: words(f"polarity.{value}"),
            required=True,
            key=f"edit-polarity-{one.id}",
        )
        with st.container(horizontal=True):
            st.form_submit_button(
                words("sentence.save"), type="primary", on_click=_save, args=(one.id, review)
            )
            st.form_submit_button(words("sentence.cancel"), on_click=_close)


def _save(sentence: str, review: Review) -> None:
    """`review`: as it stood when the form was shown; another hand's edit is not written over."""
    polarity = st.session_state[f"edit-polarity-{sentence}"]
    changed = act(
        actions.edit,
        sentence,
        " ".join(st.session_state[f"edit-text-{sentence}"].split()),
        finding=st.session_state[f"edit-finding-{sentence}"],
        polarity=polarity,
        regions=() if polarity == "absent" else None,
        version=review.version,
    )
    if changed is not None:
        _close()
        _go_on(sentence, changed)
