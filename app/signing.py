"""What stands in the way of a signature, the signature, addenda and exports."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from app import login, session
from app.images import Opened
from app.words import bare, finding_words, words
from medvlm.desk.exporting import export_report
from medvlm.errors import MedVLMError
from medvlm.export.files import MEDIA_TYPES, Made
from medvlm.review import people, signing
from medvlm.review.guards import WARNINGS, problems
from medvlm.review.records import Problem, Report, Review

_EXPORTED = "exported"


def panel(study: Opened, review: Review, may_change: bool) -> None:
    """Draws the signature's part of the report."""
    st.divider()
    if study.row.status == "signed":
        _signed(study)
    elif may_change:
        _before(study, review)
        _export(study, signing.preliminary_report(session.store(), study.row.id))
    elif review.sentences:
        _export(study, signing.preliminary_report(session.store(), study.row.id))


# ---- before ----


def _before(study: Opened, review: Review) -> None:
    st.subheader(words("sign.title"))
    found = problems(
        review, study.row, study.images, signing.spacing_known(session.store(), study.row.id)
    )
    if not found:
        st.text(bare("sign.ready"))
    else:
        st.text(bare("sign.not_ready"))
    warned = [one for one in found if one.code in WARNINGS]
    blocking = [one for one in found if one.code not in WARNINGS]
    for one in _grouped(blocking):
        st.text(f"✗  {in_words(one, review)}")
    confirmed = set()
    for number, one in enumerate(warned):
        st.text(f"!  {in_words(one, review)}")
        if st.checkbox(words("sign.confirm"), key=f"confirm-{one.code}-{one.sentence_id}-{number}"):
            confirmed.add((one.code, number))
    ready = not blocking and len(confirmed) == len(warned)
    _sign(study, review, ready, frozenset(one.code for one in warned) if ready else frozenset())


def _grouped(found: Sequence[Problem]) -> list[Problem]:
    """Unresolved sentences are marked in the list above: they are told once, with their number."""
    first = next((one for one in found if one.code == "unresolved"), None)
    rest = [one for one in found if one.code != "unresolved"]
    return ([first] if first else []) + rest


def in_words(problem: Problem, review: Review) -> str:
    """A problem in the page's language, with the number of its sentence."""
    values = dict(problem.values)
    if "finding" in values:
        values["finding"] = finding_words(values["finding"])
    for name in ("said", "other"):
        if name in values and problem.code == "laterality":
            values[name] = bare(f"side.{values[name]}")
    if "against" in values:
        values["against"] = bare(f"against.{values['against']}")
    if problem.code == "unresolved":
        count = sum(one.decision == "unresolved" for one in review.sentences)
        return bare("report.unresolved", count=count)
    try:
        text = bare(f"problem.{problem.code}", **values)
    except KeyError:
        text = problem.message
    numbers = {one.id: number for number, one in enumerate(review.sentences, 1)}
    if problem.sentence_id in numbers:
        return f"{bare('sentence.number', number=numbers[problem.sentence_id])}: {text}"
    return f"{bare('field.' + values['field'])}: {text}" if "field" in values else text


def _sign(study: Opened, review: Review, ready: bool, confirmed: frozenset[str]) -> None:
    pin, proof = None, login.proof()
    if proof is None and not people.has_pin(session.store(), session.person()):
        login.choose_pin()
        return
    if proof is not None and not login.fresh_log_in():
        st.button(words("sign.again"), on_click=st.login, args=("sign",))
        return
    with st.form("sign", border=False):
        if proof is None:
            pin = st.text_input(words("pin.label"), type="password", key="sign-pin")
        done = st.form_submit_button(
            words("sign.button"), type="primary", disabled=not ready, shortcut="Alt+S"
        )
    if done:
        session.attempt(
            signing.sign,
            session.store(),
            study.row.id,
            session.person(),
            version=review.version,
            pin=pin,
            proof=proof,
            confirmed=confirmed,
        )
        st.rerun()


# ---- after ----


def _signed(study: Opened) -> None:
    report = signing.report(session.store(), study.row.id)
    at = report.signed_at.astimezone().strftime("%Y-%m-%d %H:%M") if report.signed_at else ""
    st.success(
        words("sign.done", name=report.signed_by, at=at, attestation=report.attestation),
        icon=":material/verified:",
    )
    for addendum in report.addenda:
        with st.container(border=True):
            st.caption(words("sign.addendum"))
            st.text(addendum.text)
    if session.person().role != "reader":
        _addendum(study)
    _export(study, report)


def _addendum(study: Opened) -> None:
    pin, proof = None, login.proof()
    with st.expander(words("sign.addendum")):
        if proof is not None and not login.fresh_log_in():
            st.button(words("sign.again"), key="addendum-log-in", on_click=st.login, args=("sign",))
            return
        if proof is None and not people.has_pin(session.store(), session.person()):
            login.choose_pin()
            return
        with st.form("addendum", border=False):
            text = st.text_area(words("sign.addendum_text"), max_chars=4000, key="addendum-text")
            if proof is None:
                pin = st.text_input(words("pin.label"), type="password", key="addendum-pin")
            done = st.form_submit_button(words("sign.addendum_button"))
        if done and text.strip():
            session.attempt(
                signing.addendum,
                session.store(),
                study.row.id,
                session.person(),
                text.strip(),
                pin=pin,
                proof=proof,
            )
            st.rerun()


# ---- export ----


def _export(study: Opened, report: Report) -> None:
    with st.expander(words("export.title"), icon=":material/download:"):
        if report.status == "preliminary":
            st.warning(words("export.preliminary"))
        key = (report.study_id, report.version, report.status)
        if st.button(words("export.make"), key="export-make"):
            try:
                made = export_report(session.store(), report, session.settings())
            except MedVLMError as error:
                st.text(str(error))
                return
            st.session_state[_EXPORTED] = (key, made)
        kept: tuple[object, Made] | None = st.session_state.get(_EXPORTED)
        if kept is None or kept[0] != key:
            return
        for name, content in kept[1].files.items():
            st.download_button(
                words(f"export.{name}"),
                content,
                name,
                MEDIA_TYPES[name],
                key=f"download-{name}",
                on_click="ignore",
            )
        for name, why in kept[1].skipped.items():
            st.text(f"{bare(f'export.{name}')}: {bare('export.skipped', why=why)}")
