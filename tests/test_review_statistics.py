"""What becomes of drafts, counted."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as some

from medvlm.records import ModelRecord
from medvlm.review import changes
from medvlm.review import review as actions
from medvlm.review import store as stores
from medvlm.review.locks import hold
from medvlm.review.people import local_person, set_pin
from medvlm.review.records import Review
from medvlm.review.signing import addendum, sign
from medvlm.review.statistics import (
    NO_MODEL,
    Rates,
    Reviewed,
    edit_distance,
    levenshtein,
    of_reviews,
    statistics,
)
from medvlm.review.store import Store
from medvlm.review.worklist import images
from tests.desk import a_draft, effusion
from tests.test_review_review import opened

pytest_plugins = ["tests.desk"]

MONDAY = datetime(2026, 3, 2, 9, tzinfo=UTC)


def by_the_table(one: str, other: str) -> int:
    """The textbook's table of distances, row by row."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        previous, row[0] = row[0], i
        for j, second in enumerate(other, 1):
            cost = min(row[j] + 1, row[j - 1] + 1, previous + (letter != second))
            previous, row[j] = row[j], cost
    return row[-1]


@given(some.text("ab左 ", max_size=80), some.text("ab左 ", max_size=80))
def test_the_distance_is_that_of_the_table(one: str, other: str) -> None:
    assert levenshtein(one, other) == by_the_table(one, other) == levenshtein(other, one)


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        ("", "", 0),
        ("a", "", 1),
        ("", "abc", 1),
        ("kitten", "sitting", 3 / 7),
        ("左胸水", "右胸水", 1 / 3),
        ("Left.", "Left.", 0),
        ("abc", "xyz", 1),
    ],
)
def test_the_distance_is_a_share_of_the_longer_text(one: str, other: str, distance: float) -> None:
    assert edit_distance(one, other) == pytest.approx(distance)


def begun() -> Review:
    return changes.begin("0" * 32, "1" * 32, a_draft())


def accepted() -> Review:
    return changes.accept(changes.accept(begun(), "s01"), "s02")


def corrected() -> Review:
    """One edited by three letters of 31, one rejected, one of 2 signed was added."""
    review = changes.edit(begun(), "s01", "Possible rig pleural effusion.")
    review = changes.reject(review, "s02", "not there")
    return changes.add(review, "Left nodule.", "Nodule", "present")


def test_nothing_to_count() -> None:
    nothing = of_reviews([])
    assert nothing.total == Rates()
    assert nothing.total.accepted is None
    assert (nothing.by_finding, nothing.by_model, nothing.by_week) == ({}, {}, {})


def test_rates_of_the_whole() -> None:
    total = of_reviews(
        [
            Reviewed(MONDAY, accepted(), MONDAY - timedelta(minutes=2)),
            Reviewed(MONDAY, corrected(), MONDAY - timedelta(minutes=8)),
        ]
    ).total
    assert (total.studies, total.sentences) == (2, 4)
    assert (total.accepted, total.edited, total.rejected) == (0.5, 0.25, 0.25)
    assert total.added == 0.25  # of four that were signed
    assert total.minutes == 5
    assert total.reasons == {"not there": 1}
    whole = effusion().text
    assert total.edit_distance == pytest.approx(
        by_the_table(whole, "Possible rig pleural effusion.") / len(whole)
    )


def test_rates_by_finding_model_and_week() -> None:
    newer = accepted().model_copy(
        update={"model": ModelRecord(name="by-hand", version="2", weights_sha256="cd" * 32)}
    )
    by_hand = changes.add(changes.begin("0" * 32), "Left mass.", "Mass", "present")
    found = of_reviews(
        [
            Reviewed(MONDAY, corrected()),
            Reviewed(MONDAY + timedelta(days=6, hours=14), newer),
            Reviewed(MONDAY + timedelta(days=7), by_hand),
        ]
    )
    assert list(found.by_model) == [NO_MODEL, "by-hand 1.2.3", "by-hand 2"]
    assert found.by_model["by-hand 2"].accepted == 1
    assert found.by_model["by-hand 1.2.3"].rejected == 0.5
    assert found.by_model[NO_MODEL].sentences == 0
    assert found.by_model[NO_MODEL].added == 1
    assert list(found.by_finding) == ["Effusion", "Mass", "Nodule", "Pneumothorax"]
    assert found.by_finding["Effusion"].edited == 0.5
    assert found.by_finding["Effusion"].studies == 2
    assert found.by_finding["Pneumothorax"].reasons == {"not there": 1}
    assert {week: one.studies for week, one in found.by_week.items()} == {
        date(2026, 3, 2): 2,
        date(2026, 3, 9): 1,
    }
    assert found.studies == 3
    assert found.median_minutes is None


def test_an_edit_counts_for_the_finding_that_the_machine_saw() -> None:
    review = changes.edit(begun(), "s01", "Left mass.", finding="Mass")
    found = of_reviews([Reviewed(MONDAY, review)]).by_finding
    assert found["Effusion"].edited == 1
    assert "Mass" not in found


def test_of_the_desk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [MONDAY]
    monkeypatch.setattr(stores, "now", lambda: clock[0])
    by = local_person(store)
    set_pin(store, by, "4711")
    for minutes in (1, 3, 20):
        study, _ = opened(store, by)
        clock[0] += timedelta(minutes=5)  # looked at before anything was done
        actions.displayed(store, study, by, [one.id for one in images(store, study)])
        clock[0] += timedelta(minutes=5)
        actions.accept_all(store, study, by, version=0)
        clock[0] += timedelta(minutes=minutes)
        hold(store, study, by)
        sign(store, study, by, version=1, pin="4711")
        # Words added later are no second review.
        addendum(store, study, by, "More.", pin="4711")
        clock[0] += timedelta(days=7)
    opened(store, by)
    found = statistics(store)
    assert (found.studies, found.median_minutes) == (3, 3)
    assert found.total.accepted == 1
    assert len(found.by_week) == 3
    assert statistics(store, since=MONDAY + timedelta(days=3)).studies == 2
    assert statistics(store, until=MONDAY + timedelta(days=3)).studies == 1
    # The same moment in another zone.
    tokyo = (MONDAY + timedelta(days=3)).astimezone(ZoneInfo("Asia/Tokyo"))
    assert statistics(store, since=tokyo, until=clock[0]).studies == 2
