"""What stands in the way of a signature, the signature, addenda and exports."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import streamlit as st

from app import login, session
from app.images import Opened
from app.words import bare, clock, finding_words, words
from medvlm.desk.exporting import export_report
from medvlm.export.files import MEDIA_TYPES, Made
from medvlm.review import people, signing
from medvlm.review.guards import WARNINGS, problems
from medvlm.review.records import Problem, Report, Review

_EXPORTED = "exported"


def panel(study: Opened, review: Review, may_change: bool) -> None:
    """Draws the signature's part of the report."""
    st.divider()
    if study.row.status == "signed":
        _signed(study, review)
    elif may_change:
        _before(study, review)
        _export(signing.preliminary_report(session.store(), study.row.id), review)
    elif review.sentences:
        _export(signing.preliminary_report(session.store(), study.row.id), review)


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
    blocking = [one for one in found if one.code not in WARNINGS]
    # While sentences wait, the impression cannot agree with them: that is no news yet.
    early = {"disagreement", "no_findings"} if any(p.code == "unresolved" for p in found) else set()
    warned = [one for one in found if one.code in WARNINGS and one.code not in early]
    for one in _grouped(blocking):
        st.text(f"✗  {in_words(one, review)}")
    confirmed = []
    for number, one in enumerate(warned):
        st.text(f"!  {in_words(one, review)}")
        confirmed.append(st.checkbox(words("sign.confirm"), key=_confirmation(one, number, review)))
    kept = not session.unkept(review.study_id)
    if not kept:
        st.text(f"✗  {bare('sign.not_kept')}")
    ready = not blocking and all(confirmed) and kept
    _sign(study, review, ready, frozenset(one.code for one in warned) if ready else frozenset())


def _confirmation(problem: Problem, number: int, review: Review) -> str:
    """The key of a box that confirms this problem and no other: of what it says, and of whom.

    A warning that comes later, or says something else, has a box of its own, which is empty.
    """
    about = [one.text for one in review.sentences if one.id == problem.sentence_id]
    told = repr((review.study_id, problem, about, review.fields.impression))
    return f"confirm-{number}-{hashlib.sha256(told.encode('utf-8', 'replace')).hexdigest()[:16]}"


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
    proof = login.proof()
    if proof is None and not people.has_pin(session.store(), session.person()):
        login.choose_pin()
        return
    if proof is not None and not login.fresh_log_in():
        st.button(words("sign.again"), on_click=st.login, args=("sign",))
        return
    with st.form("sign", border=False):
        if proof is None:
            st.text_input(words("pin.label"), type="password", key="sign-pin")
        # What is given here is what stands on the screen: another hand's changes are not signed.
        st.form_submit_button(
            words("sign.button"),
            type="primary",
            disabled=not ready,
            on_click=_do_sign,
            args=(study.row.id, review.version, proof, confirmed),
        )


def _do_sign(study_id: str, version: int, proof: str | None, confirmed: frozenset[str]) -> None:
    if session.unkept(study_id):  # a disabled button is the browser's affair
        session.tell(bare("sign.not_kept"))
        return
    session.attempt(
        signing.sign,
        session.store(),
        study_id,
        session.person(),
        version=version,
        pin=None if proof else st.session_state["sign-pin"],
        proof=proof,
        confirmed=confirmed,
    )


# ---- after ----


def _signed(study: Opened, review: Review) -> None:
    report = signing.report(session.store(), study.row.id)
    at = clock(report.signed_at)
    st.success(
        words("sign.done", name=report.signed_by, at=at, attestation=report.attestation),
        icon=":material/verified:",
    )
    for addendum in report.addenda:
        with st.container(border=True):
            st.caption(words("sign.addendum"))
            st.text(addendum.text)
    if session.person().role != "reader":
        _addendum(study, report)
    _export(report, review)


def _addendum(study: Opened, report: Report) -> None:
    """Its widgets' keys hold the report's version: what was signed is not there to sign again."""
    proof = login.proof()
    with st.expander(words("sign.addendum")):
        if proof is not None and not login.fresh_log_in():
            st.button(words("sign.again"), key="addendum-log-in", on_click=st.login, args=("sign",))
            return
        if proof is None and not people.has_pin(session.store(), session.person()):
            login.choose_pin()
            return
        key = f"addendum-{study.row.id}-{report.version}"
        with st.form(key, border=False):
            st.text_area(words("sign.addendum_text"), max_chars=4000, key=f"{key}-text")
            if proof is None:
                st.text_input(words("pin.label"), type="password", key=f"{key}-pin")
            st.form_submit_button(
                words("sign.addendum_button"),
                on_click=_do_addendum,
                args=(study.row.id, report.version, key, proof),
            )


def _do_addendum(study_id: str, version: int, key: str, proof: str | None) -> None:
    text = st.session_state[f"{key}-text"].strip()
    if text:
        session.attempt(
            signing.addendum,
            session.store(),
            study_id,
            session.person(),
            text,
            version=version,
            pin=None if proof else st.session_state[f"{key}-pin"],
            proof=proof,
        )


# ---- export ----


def _export(report: Report, review: Review) -> None:
    """Files made of a report are offered as long as that is what stands on the screen."""
    key = (report.study_id, report.version, report.status, review.version, review.draft_id)
    kept: tuple[object, Made] | None = st.session_state.get(_EXPORTED)
    made = kept[1] if kept is not None and kept[0] == key else None
    # A browser may show it closed again when the page is drawn anew.
    with st.expander(words("export.title"), icon=":material/download:", expanded=made is not None):
        if report.status == "preliminary":
            st.warning(words("export.preliminary"))
        st.button(words("export.make"), key="export-make", on_click=_make, args=(key, report))
        if made is None:
            return
        for name, content in made.files.items():
            st.download_button(
                words(f"export.{name}"),
                content,
                name,
                MEDIA_TYPES[name],
                key=f"download-{name}",
                on_click="ignore",
            )
        for name, why in made.skipped.items():
            st.text(f"{bare(f'export.{name}')}: {bare('export.skipped', why=why)}")


def _make(key: object, report: Report) -> None:
    """Before the page is drawn: a drawing that is cut short would lose what was made."""
    made = session.attempt(export_report, session.store(), report, session.settings())
    if made is not None:
        st.session_state[_EXPORTED] = (key, made)
