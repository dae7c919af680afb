"""How drafts fare with reviewers: by finding, by model version, over time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from app.session import person, store
from app.words import bare, finding_words, words
from medvlm.reports.corrections import to_jsonl
from medvlm.review.corrections import corrections
from medvlm.review.statistics import Rates, statistics

RATES = ("accepted", "edited", "rejected", "added")
# Told apart by shape and dash as well: colour alone says nothing to some.
_DASHES = {"accepted": [1, 0], "edited": [6, 3], "rejected": [2, 2], "added": [8, 2, 2, 2]}


def page() -> None:
    """Draws the dashboard."""
    since, until = _period()
    found = statistics(store(), since=since, until=until)
    if not found.studies:
        st.info(words("dashboard.none"))
        return
    _totals(found.total, found.studies, found.median_minutes)
    left, right = st.columns(2)
    with left:
        st.subheader(words("dashboard.by_finding"))
        _table({finding_words(name): rates for name, rates in found.by_finding.items()}, "finding")
    with right:
        st.subheader(words("dashboard.by_model"))
        _table(found.by_model, "model")
        st.subheader(words("dashboard.reasons"))
        reasons = {words(f"rejection.{name}"): count for name, count in found.reasons.items()}
        st.dataframe(
            pd.DataFrame(
                {
                    words("dashboard.reason"): list(reasons),
                    words("dashboard.count"): reasons.values(),
                }
            ),
            hide_index=True,
        )
    st.subheader(words("dashboard.by_week"))
    _drift(found.by_week)
    if person().role != "reader":
        _corrections()


def _period() -> tuple[datetime | None, datetime | None]:
    today = date.today()
    chosen = st.date_input(words("dashboard.period"), (today - timedelta(days=90), today))
    if not isinstance(chosen, tuple) or len(chosen) != 2:
        return None, None
    start = datetime.combine(chosen[0], time.min).astimezone(UTC)
    end = datetime.combine(chosen[1], time.max).astimezone(UTC)
    return start, end


def _totals(total: Rates, studies: int, minutes: float | None) -> None:
    shown = {name: _percent(getattr(total, name)) for name in RATES}
    figures = [
        ("studies", str(studies)),
        *shown.items(),
        ("distance", f"{total.edit_distance:.2f}" if total.edit_distance is not None else "-"),
        ("minutes", f"{minutes:.1f}" if minutes is not None else "-"),
    ]
    for column, (name, value) in zip(st.columns(len(figures)), figures, strict=True):
        column.metric(words(f"dashboard.{name}"), value)


def _table(rates: Mapping[str, Rates], head: str) -> None:
    rows: list[dict[str, Any]] = [
        {
            words(f"dashboard.{head}"): name,
            words("dashboard.sentences"): one.sentences,
            **{words(f"dashboard.{rate}"): _percent(getattr(one, rate)) for rate in RATES},
            words("dashboard.distance"): one.edit_distance,
        }
        for name, one in rates.items()
    ]
    st.dataframe(pd.DataFrame(rows), hide_index=True)


def _drift(weeks: Mapping[date, Rates]) -> None:
    rows = [
        {"week": week.isoformat(), "kind": words(f"dashboard.{name}"), "rate": getattr(one, name)}
        for week, one in weeks.items()
        for name in RATES
    ]
    names = [words(f"dashboard.{name}") for name in RATES]
    dashes = [_DASHES[name] for name in RATES]
    chart = (
        alt.Chart(pd.DataFrame(rows))
        .mark_line(point=True)
        .encode(
            x=alt.X("week:T", title=bare("dashboard.week")),
            y=alt.Y("rate:Q", title=bare("dashboard.rate"), scale=alt.Scale(domain=[0, 1])),
            color=alt.Color("kind:N", title=None, sort=names),
            strokeDash=alt.StrokeDash("kind:N", scale=alt.Scale(domain=names, range=dashes)),
            shape=alt.Shape("kind:N"),
        )
    )
    st.altair_chart(chart)


def _corrections() -> None:
    """Made when they are asked for: there may be many."""
    st.download_button(
        words("dashboard.corrections"),
        lambda: to_jsonl(corrections(store()).reviews),
        "corrections.jsonl",
        "application/jsonl",
        help=words("dashboard.left_out"),
        on_click="ignore",
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"
