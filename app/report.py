"""The report in the making: fields, sentences, what was withheld, impression."""

from __future__ import annotations

import streamlit as st

from app import sentence, signing
from app.images import Opened
from app.session import (
    act,
    attempt,
    drawn,
    forget_drawn,
    mark,
    person,
    select,
    selected,
    store,
)
from app.words import CHOICES, POLARITIES, bare, finding_words, words
from medvlm.records import Region
from medvlm.review import jobs, templates
from medvlm.review import review as actions
from medvlm.review.guards import suggested_impression
from medvlm.review.records import Review
from medvlm.review.studies import latest_draft


def panel(study: Opened, review: Review, may_change: bool) -> None:
    """Draws the report and, below it, its signature."""
    _made_by(study, review, may_change)
    _urgent(study, review, may_change)
    _fields(study, review, may_change, before=True)
    _toolbar(study, review, may_change)
    if not review.sentences:
        st.text(bare("report.none"))
    for number, one in enumerate(review.sentences, 1):
        sentence.line(number, one, review, may_change)
    _withheld(review, may_change)
    if may_change:
        _add(review)
    _fields(study, review, may_change, before=False)
    signing.panel(study, review, may_change)


def _made_by(study: Opened, review: Review, may_change: bool) -> None:
    latest = latest_draft(store(), study.row.id)
    with st.container(horizontal=True, vertical_alignment="center"):
        if review.model is None or latest is None:
            st.caption(words("report.no_model"))
        else:
            stability = latest[1].stability
            shown = "-" if stability is None else f"{stability:.2f}"
            name, version = review.model.name, review.model.version
            st.caption(words("report.model", name=name, version=version, stability=shown))
        if may_change and study.row.progress is None and study.row.status in ("new", "refused"):
            st.button(
                words("study.draft_now"),
                on_click=attempt,
                args=(jobs.ask_for_draft, store(), study.row.id, person()),
            )


def _urgent(study: Opened, review: Review, may_change: bool) -> None:
    for finding in study.row.urgent:
        with st.container(key=f"urgent-{finding}"):
            st.error(
                words("report.urgent", finding=finding_words(finding)),
                icon=":material/priority_high:",
            )
            st.button(
                words("report.acknowledge"),
                key=f"acknowledge-{finding}",
                disabled=not may_change,
                on_click=act,
                args=(actions.acknowledge, finding),
                kwargs={"version": review.version},
            )
    for finding in sorted(review.acknowledged):
        st.caption(words("report.acknowledged", finding=finding_words(finding)))


# ---- fields ----


def _fields(study: Opened, review: Review, may_change: bool, *, before: bool) -> None:
    fields = review.fields
    if before:
        _template(study, review, may_change)
        left, right = st.columns(2)
        with left:
            _field("indication", fields.indication, review, may_change)
        with right:
            _field("comparison", fields.comparison, review, may_change)
        return
    _field("impression", fields.impression, review, may_change, tall=True)
    if may_change:
        suggestion = suggested_impression(review)
        st.button(
            words("report.suggest"),
            disabled=not suggestion or suggestion == fields.impression,
            on_click=_set_field,
            args=("impression", review, suggestion),
        )


def _template(study: Opened, review: Review, may_change: bool) -> None:
    known = templates.templates_for(study.row.modality, study.row.body_part)
    if not may_change or not known:
        return
    names = ["", *(one.name for one in known)]
    now = review.fields.template
    # As with a field's key: an undo must show the old one again, and not choose it anew.
    key = f"template-{review.study_id}-{now}"
    st.selectbox(
        words("report.template"),
        names,
        index=names.index(now) if now in names else 0,
        key=key,
        on_change=_use_template,
        args=(key, known, review),
    )


def _use_template(key: str, known: list[templates.Template], review: Review) -> None:
    chosen = st.session_state[key]
    template = next((one for one in known if one.name == chosen), None)
    act(
        actions.set_fields,
        indication=review.fields.indication or (template.indication if template else ""),
        comparison=review.fields.comparison or (template.comparison if template else ""),
        template=template.name if template else "",
        version=review.version,
    )


def _field(name: str, text: str, review: Review, may_change: bool, *, tall: bool = False) -> None:
    """A text that is kept as soon as the user leaves it; one that could not be kept says so.

    The widget's key holds the text's own hash: an undo must show the old text again.
    """
    key = f"{name}-{review.study_id}-{hash(text)}"
    shown = st.text_area(
        words(f"report.{name}"),
        text,
        key=key,
        height=100 if tall else 68,
        max_chars=4000,
        disabled=not may_change,
        on_change=_keep_field,
        args=(name, key, review),
    )
    kept = not may_change or text in (shown, shown.replace("\t", " ").strip())
    mark(review.study_id, name, kept=kept)
    if not kept:
        st.error(words("report.not_kept"), icon=":material/error:")
        st.button(
            words("report.keep"),
            key=f"keep-field-{name}",
            on_click=_keep_field,
            args=(name, key, review),
        )


def _keep_field(name: str, key: str, review: Review) -> None:
    _set_field(name, review, st.session_state[key])


def _set_field(name: str, review: Review, text: str) -> None:
    act(actions.set_fields, **{name: text.strip()}, version=review.version)


# ---- sentences ----


def _toolbar(study: Opened, review: Review, may_change: bool) -> None:
    open_ones = [one.id for one in review.sentences if one.decision == "unresolved"]
    st.subheader(words("report.findings"))
    with st.container(horizontal=True, vertical_alignment="center"):
        if open_ones:
            st.badge(
                words("report.unresolved", count=len(open_ones)),
                icon=":material/pending:",
                color="orange",
            )
        elif review.sentences:
            st.badge(words("report.all_resolved"), icon=":material/check:", color="green")
        if not may_change:
            return
        st.button(
            words("report.next"),
            shortcut="Alt+N",
            disabled=not open_ones,
            on_click=_next,
            args=(open_ones,),
        )
        st.button(
            words("report.undo"),
            shortcut="Alt+Z",
            disabled=not actions.can_undo(store(), study.row.id),
            on_click=act,
            args=(actions.undo,),
            kwargs={"version": review.version},
        )
        shown = len(review.displayed & {image.id for image in study.images})
        st.button(
            words("report.accept_all"),
            disabled=not open_ones or shown < len(study.images),
            help=words("report.accept_all_help", shown=shown, total=len(study.images)),
            on_click=act,
            args=(actions.accept_all,),
            kwargs={"version": review.version},
        )


def _next(open_ones: list[str]) -> None:
    now = selected()
    later = open_ones[open_ones.index(now) + 1 :] if now in open_ones else []
    select((later or open_ones)[0])


def _withheld(review: Review, may_change: bool) -> None:
    if not review.withheld:
        return
    with st.expander(words("report.withheld", count=len(review.withheld))):
        for one in review.withheld:
            with st.container(border=True):
                st.text(one.text)
                st.text(bare("report.withheld_why", reason=one.reason))
                st.caption(words("sentence.probability", value=f"{one.probability:.2f}"))
                if one.taken:
                    st.caption(words("report.taken_in"))
                elif may_change:
                    st.button(
                        words("report.take_in"),
                        key=f"take-{one.id}",
                        on_click=act,
                        args=(actions.take_in, one.id),
                        kwargs={"version": review.version},
                    )


def _add(review: Review) -> None:
    kept = drawn()
    with st.expander(words("add.title"), icon=":material/add:", expanded=kept is not None):
        if kept is None:
            st.caption(words("add.no_region"))
        else:
            region = kept[1]
            size = {"width": round(region.width), "height": round(region.height)}
            st.caption(words("add.with_region", **size))
            st.button(words("add.drop"), on_click=forget_drawn)
        with st.form("add-finding", border=False):
            st.text_input(words("sentence.text"), max_chars=1000, key="add-text")
            st.selectbox(
                words("sentence.finding"),
                CHOICES,
                format_func=finding_words,
                key="add-finding-name",
            )
            st.segmented_control(
                words("sentence.polarity"),
                POLARITIES,
                default="present",
                format_func=lambda one: words(f"polarity.{one}"),
                required=True,
                key="add-polarity",
            )
            st.form_submit_button(
                words("add.button"),
                type="primary",
                on_click=_do_add,
                args=(review, kept[1] if kept else None),
            )


def _do_add(review: Review, region: Region | None) -> None:
    """The form is emptied once its sentence is kept, and not before."""
    text = " ".join(st.session_state["add-text"].split())
    polarity = st.session_state["add-polarity"] or "present"
    if not text:
        return
    made = act(
        actions.add,
        text,
        st.session_state["add-finding-name"],
        polarity,
        [region] if region and polarity != "absent" else [],
        version=review.version,
    )
    if made is not None:
        for key in ("add-text", "add-finding-name", "add-polarity"):
            del st.session_state[key]
        st.session_state["add-text"] = ""
        forget_drawn()
        select(made.sentences[-1].id)
