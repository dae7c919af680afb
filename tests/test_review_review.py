"""A reviewer's actions: what each makes of a review, undo, and who may act when."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from sqlalchemy import select

from medvlm.errors import MedVLMError, NotAllowed, NotReady, ReviewError, Stale, StudyLocked
from medvlm.findings import FINDINGS
from medvlm.records import Region, Withheld
from medvlm.review import changes
from medvlm.review import review as actions
from medvlm.review import store as stores
from medvlm.review.audit import verify
from medvlm.review.locks import break_lock, hold, release
from medvlm.review.patches import as_json, difference, patched
from medvlm.review.people import local_person
from medvlm.review.records import Person, Review
from medvlm.review.store import Store
from medvlm.review.tables import AuditTable, ReviewTable
from medvlm.review.templates import templates_for
from medvlm.review.worklist import images, record_draft, study_row
from tests.desk import a_draft, a_pneumothorax, a_study, effusion, no_pneumothorax, somebody

pytest_plugins = ["tests.desk"]

UID = "1.2.826.0.1.3680043.8.498.1.1.1"
BOX = Region(sop_instance_uid=UID, x=100, y=200, width=50, height=60)
OTHER_BOX = Region(sop_instance_uid=UID, x=900, y=200, width=50, height=60)
JAPANESE = "左下肺野に結節を認める。"


def opened(store: Store, by: Person | None = None, **draft: Any) -> tuple[str, Person]:
    """A drafted study that somebody holds."""
    by = by or somebody(store)
    study = a_study(store)
    record_draft(store, study, a_draft(**draft))
    hold(store, study, by)
    return study, by


def entries(store: Store, study: str) -> list[AuditTable]:
    with store.reading() as session:
        own = select(AuditTable).where(AuditTable.study_id == study).order_by(AuditTable.number)
        return list(session.scalars(own))


def begun(**draft: Any) -> Review:
    return changes.begin("0" * 32, "1" * 32, a_draft(**draft))


# ---- what a review begins with ----


def test_a_review_begins_with_the_draft_and_ids_that_stay(store: Store) -> None:
    study, _ = opened(store)
    first, again = actions.load(store, study), actions.load(store, study)
    assert first == again
    assert first.version == 0
    assert [one.id for one in first.sentences] == ["s01", "s02"]
    assert [one.id for one in first.withheld] == ["w01"]
    assert {one.decision for one in first.sentences} == {"unresolved"}
    assert first.sentences[0].machine == effusion()
    assert first.fields.impression == first.fields.machine_impression != ""


def test_a_study_without_a_draft_is_written_by_hand(store: Store) -> None:
    study, by = a_study(store), somebody(store)
    hold(store, study, by)
    assert actions.load(store, study).sentences == ()
    made = actions.add(store, study, by, JAPANESE, changes.OTHER, "present", version=0)
    assert [(one.text, one.decision, one.machine) for one in made.sentences] == [
        (JAPANESE, "added", None)
    ]
    assert (made.version, made.model) == (1, None)
    assert study_row(store, study).status == "in_review"


def test_a_draft_that_comes_after_the_first_action_replaces_nothing(store: Store) -> None:
    study, by = a_study(store), somebody(store)
    hold(store, study, by)
    made = actions.add(store, study, by, "Left nodule.", "Nodule", "present", version=0)
    record_draft(store, study, a_draft())
    assert actions.load(store, study) == made


def test_a_draft_that_comes_before_it_does_and_what_was_displayed_stays(store: Store) -> None:
    study, by = a_study(store), somebody(store)
    hold(store, study, by)
    image = images(store, study)[0].id
    actions.displayed(store, study, by, [image])
    record_draft(store, study, a_draft())
    review = actions.load(store, study)
    assert len(review.sentences) == 2
    assert review.displayed == {image}


def test_undo_never_reaches_behind_the_draft(store: Store) -> None:
    """An action on an earlier draft has no place in the review of a later one."""
    study, by = opened(store)
    review = actions.add(store, study, by, "Left nodule.", "Nodule", "present", version=0)
    review = actions.reopen(store, study, by, review.sentences[-1].id, version=1)
    record_draft(store, study, a_draft(effusion()))
    review = actions.load(store, study)
    assert [one.id for one in review.sentences] == ["s01"]
    assert not actions.can_undo(store, study)
    with pytest.raises(ReviewError, match="nothing to undo"):
        actions.undo(store, study, by, version=review.version)


# ---- what each action does ----


def test_accept_edit_reject_reopen() -> None:
    start = begun()
    accepted = changes.accept(start, "s01").sentence("s01")
    assert (accepted.decision, accepted.stands) == ("accepted", True)
    edited = changes.edit(start, "s01", "Small left effusion.", polarity="present")
    one = edited.sentence("s01")
    assert (one.decision, one.text, one.polarity) == ("edited", "Small left effusion.", "present")
    assert one.regions == tuple(effusion().regions)
    assert (one.probability, one.evidence) == (0.62, effusion().evidence)
    assert one.machine == effusion()
    rejected = changes.reject(edited, "s01", "not there").sentence("s01")
    assert (rejected.decision, rejected.reason, rejected.stands) == ("rejected", "not there", False)
    assert rejected.text == effusion().text
    assert changes.reopen(edited, "s01") == start
    assert (
        changes.accept(changes.reject(start, "s01", "wording"), "s01").sentence("s01").reason
        is None
    )


def test_an_edit_to_what_was_drafted_accepts_it() -> None:
    start = begun()
    edited = changes.edit(start, "s01", "Left effusion.")
    assert changes.edit(edited, "s01", effusion().text) == changes.accept(start, "s01")


def test_an_edit_keeps_what_was_measured_with_what_it_was_measured_of() -> None:
    start = begun()
    other = changes.edit(start, "s01", "Left mass.", finding="Mass").sentence("s01")
    assert (other.probability, other.evidence) == (None, None)
    moved = changes.edit(start, "s01", "Effusion.", regions=[BOX]).sentence("s01")
    assert (moved.probability, moved.evidence, moved.regions) == (0.62, None, (BOX,))
    denied = changes.edit(start, "s01", "No effusion.", polarity="absent").sentence("s01")
    assert denied.regions == ()


def test_an_edited_sentence_is_not_accepted_by_the_way() -> None:
    edited = changes.edit(begun(), "s01", "Left effusion.")
    with pytest.raises(ReviewError, match="a person's words"):
        changes.accept(edited, "s01")


def test_added_sentences_are_edited_and_removed_but_not_rejected() -> None:
    added = changes.add(begun(), " Left nodule. ", "Nodule", "present", [BOX])
    one = added.sentences[-1]
    assert (one.text, one.regions, one.decision) == ("Left nodule.", (BOX,), "added")
    edited = changes.edit(added, one.id, "Left mass.", finding="Mass")
    assert edited.sentence(one.id).decision == "added"
    assert changes.reopen(edited, one.id) == begun()
    with pytest.raises(ReviewError, match="not rejected"):
        changes.reject(added, one.id, "wording")


def test_the_right_place_of_a_sentence() -> None:
    moved = changes.move(begun(), "s01", [BOX]).sentence("s01")
    assert (moved.decision, moved.regions) == ("edited", (BOX,))
    rejected = changes.reject(begun(), "s01", "wrong place")
    kept = changes.move(rejected, "s01", [BOX]).sentence("s01")
    assert (kept.decision, kept.reason, kept.regions) == ("rejected", "wrong place", (BOX,))
    with pytest.raises(ReviewError, match="not in the report"):
        changes.move(changes.reject(begun(), "s01", "wording"), "s01", [BOX])
    with pytest.raises(ReviewError, match="no region"):
        changes.move(begun(), "s02", [BOX])


def test_a_withheld_sentence_is_taken_in_once() -> None:
    taken = changes.take_in(begun(), "w01")
    one = taken.sentences[-1]
    assert (one.id, one.decision, one.polarity) == ("w01", "unresolved", "uncertain")
    assert one.withheld == "erasing the region changes nothing"
    assert taken.withheld[0].taken
    for wrong in ("w01", "w02", "s01"):
        with pytest.raises(ReviewError, match="No such sentence is withheld"):
            changes.take_in(taken, wrong)


def test_accept_all_leaves_what_was_decided() -> None:
    review = changes.reject(begun(), "s01", "wording")
    ids = ["1", "2"]
    for seen in ([], ["1"]):
        with pytest.raises(NotReady, match=f"{2 - len(seen)} of 2"):
            changes.accept_all(changes.display(review, seen), ids)
    decided = changes.accept_all(changes.display(review, ids), ids)
    assert [one.decision for one in decided.sentences] == ["rejected", "accepted"]


@pytest.mark.parametrize(
    "text", ["", "  ", "a\nb", "a\x00b", "a\u202eb", "a\u2028b", "\ud800", "x" * 1001]
)
def test_a_sentence_is_one_plain_line(text: str) -> None:
    for action in (
        lambda: changes.edit(begun(), "s01", text),
        lambda: changes.add(begun(), text, "Mass", "present"),
    ):
        with pytest.raises(ReviewError):
            action()


def test_fields_are_plain_lines() -> None:
    review = changes.set_fields(begun(), impression=" a\r\nb\tc \n", indication="咳嗽")
    assert (review.fields.impression, review.fields.indication) == ("a\nb c", "咳嗽")
    assert review.fields.comparison == ""
    assert changes.set_fields(review, impression="").fields.impression == ""
    assert review.fields.machine_impression == begun().fields.machine_impression
    for wrong in ("a\x07", "x" * 10_001):
        with pytest.raises(ReviewError):
            changes.set_fields(review, comparison=wrong)


@pytest.mark.parametrize(
    "action",
    [
        lambda review: changes.accept(review, "s99"),
        lambda review: changes.reject(review, "s01", "dislike"),
        lambda review: changes.add(review, "Rash.", "Rash", "present"),
        lambda review: changes.add(review, "Mass.", "Mass", "perhaps"),
        lambda review: changes.add(review, "No mass.", "Mass", "absent", [BOX]),
        lambda review: changes.edit(review, "s02", "No mass.", regions=[BOX]),
        lambda review: changes.acknowledge(review, "Rash"),
    ],
)
def test_what_makes_no_sense_is_refused(action: Callable[[Review], Review]) -> None:
    with pytest.raises(ReviewError) as refused:
        action(begun())
    assert refused.value.remedy


def test_regions_lie_on_images_of_the_study(store: Store) -> None:
    study, by = opened(store)
    wrong = (
        BOX.model_copy(update={"sop_instance_uid": "1.2.3"}),
        BOX.model_copy(update={"sop_instance_uid": None}),
        BOX.model_copy(update={"frame": 1}),
        BOX.model_copy(update={"x": 2000.0}),
        BOX.model_copy(update={"y": -60.0}),
    )
    for region in wrong:
        with pytest.raises(ReviewError, match="none of the study's images"):
            actions.move(store, study, by, "s01", [region], version=0)
        with pytest.raises(ReviewError, match="none of the study's images"):
            actions.add(store, study, by, "Mass.", "Mass", "present", [region], version=0)
    assert actions.load(store, study).version == 0
    assert actions.move(store, study, by, "s01", [BOX], version=0).version == 1


# ---- undo and patches: any actions, any order ----

_ids = some.sampled_from(["s01", "s02", "s03", "w01", "w02", "a01", "a02", "a03", "s99"])
_texts = some.sampled_from(["Left nodule.", "No effusion.", JAPANESE, "Mass, 3 cm.", "Plain."])
_polarities = some.sampled_from(["present", "absent", "uncertain"])
_regions = some.lists(some.sampled_from([BOX, OTHER_BOX]), max_size=2)
_findings = some.sampled_from(["Nodule", "Effusion", changes.OTHER])
_fields = some.sampled_from(["", "Cough.", "咳嗽"])
STEPS = some.one_of(
    some.tuples(some.just("accept"), some.tuples(_ids)),
    some.tuples(some.just("reopen"), some.tuples(_ids)),
    some.tuples(some.just("take_in"), some.tuples(_ids)),
    some.tuples(
        some.just("reject"),
        some.tuples(_ids, some.sampled_from(["not there", "wrong place", "wording"])),
    ),
    some.tuples(
        some.just("edit"),
        some.tuples(
            _ids, _texts, some.none() | _findings, some.none() | _polarities, some.none() | _regions
        ),
    ),
    some.tuples(some.just("add"), some.tuples(_texts, _findings, _polarities, _regions)),
    some.tuples(some.just("move"), some.tuples(_ids, _regions)),
    some.tuples(some.just("set_fields"), some.fixed_dictionaries({"impression": _fields})),
    some.tuples(some.just("acknowledge"), some.tuples(some.sampled_from(FINDINGS[:3]))),
    some.tuples(some.just("undo"), some.just(())),
)
FULL = {
    "withheld": (
        Withheld(finding="Nodule", text="Left nodule.", probability=0.4, reason="weak"),
        Withheld(finding="Mass", text="Possible mass.", probability=0.3, reason="weak"),
    )
}
FINDINGS_OF_FULL = (effusion(), no_pneumothorax(), a_pneumothorax())


def _full_draft() -> Any:
    return a_draft(*FINDINGS_OF_FULL, **FULL)


@given(some.lists(STEPS, max_size=12))
def test_a_patch_back_and_forth_is_the_identity(steps: list[tuple[str, Any]]) -> None:
    review = changes.begin("0" * 32, "1" * 32, _full_draft())
    seen = [review]
    for name, given_ in steps:
        if name == "undo":
            continue
        try:
            new = (
                changes.set_fields(review, **given_)
                if isinstance(given_, dict)
                else getattr(changes, name)(review, *given_)
            )
        except ReviewError:
            continue
        back, forth = difference(review, new)
        assert patched(review, forth) == new
        assert patched(new, back) == review
        # As the audit keeps them.
        assert patched(review, json.loads(json.dumps(forth))) == new
        review = new.model_copy(update={"version": review.version + 1})
        seen.append(review)
    for one in (seen[0], seen[len(seen) // 2]):
        back, forth = difference(one, review)
        assert patched(patched(one, forth), back) == one
        assert as_json(patched(one, forth)) == as_json(review)
    assert Review.model_validate_json(json.dumps(as_json(review))) == review


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some.lists(STEPS, max_size=9))
def test_as_many_undos_as_actions_give_the_start_again(
    store: Store, steps: list[tuple[str, Any]]
) -> None:
    study, by = a_study(store), somebody(store)  # another study of the same desk each time
    record_draft(store, study, _full_draft())
    hold(store, study, by)
    start = review = actions.load(store, study)
    states = [start]
    for name, given_ in steps:
        act = getattr(actions, name)
        try:
            if isinstance(given_, dict):
                new = act(store, study, by, version=review.version, **given_)
            else:
                new = act(store, study, by, *given_, version=review.version)
        except ReviewError:
            assert actions.load(store, study) == review
            continue
        assert actions.load(store, study) == new
        if new.version == review.version:  # it changed nothing
            assert new == review
            continue
        assert new.version == review.version + 1
        if name == "undo":
            states.pop()
            assert _same(new, states[-1])
        else:
            states.append(new)
        review = new
    while len(states) > 1:
        states.pop()
        review = actions.undo(store, study, by, version=review.version)
        assert _same(review, states[-1])
    assert _same(review, start)
    assert not actions.can_undo(store, study)
    with pytest.raises(ReviewError, match="nothing to undo"):
        actions.undo(store, study, by, version=review.version)


def _same(one: Review, other: Review) -> bool:
    return one.model_copy(update={"version": 0}) == other.model_copy(update={"version": 0})


def test_undo_leaves_what_was_displayed(store: Store) -> None:
    study, by = opened(store)
    actions.accept(store, study, by, "s01", version=0)
    ids = {one.id for one in images(store, study)}
    actions.displayed(store, study, by, ids)
    undone = actions.undo(store, study, by, version=1)
    assert undone.displayed == ids
    assert undone.sentence("s01").decision == "unresolved"


def test_undo_takes_back_what_somebody_else_did(store: Store) -> None:
    study, by = opened(store)
    actions.accept(store, study, by, "s01", version=0)
    release(store, study, by)
    other = somebody(store, "tanaka")
    hold(store, study, other)
    undone = actions.undo(store, study, other, version=1)
    assert undone.sentence("s01").decision == "unresolved"
    last = entries(store, study)[-1]
    assert (last.action, last.person) == ("undo", "tanaka")


# ---- what is kept ----


def test_the_audit_says_exactly_what_changed(store: Store) -> None:
    study, by = opened(store)
    actions.accept(store, study, by, "s01", version=0)
    entry = entries(store, study)[-1]
    assert (entry.action, entry.person) == ("accept", by.id)
    assert json.loads(entry.before) == {
        "sentences": {"s01": {"decision": "unresolved"}},
        "version": 0,
    }
    assert json.loads(entry.after) == {
        "sentences": {"s01": {"decision": "accepted"}},
        "version": 1,
    }


def test_what_changes_nothing_leaves_no_trace(store: Store) -> None:
    study, by = opened(store)
    review = actions.accept(store, study, by, "s01", version=0)
    count = len(entries(store, study))
    assert actions.accept(store, study, by, "s01", version=1) == review
    assert actions.set_fields(store, study, by, indication="", version=1) == review
    ids = [one.id for one in images(store, study)]
    shown = actions.displayed(store, study, by, ids)
    assert actions.displayed(store, study, by, ids) == shown
    assert len(entries(store, study)) == count + 1


def test_time_begins_with_the_first_action(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [datetime(2026, 3, 1, 9, 0, tzinfo=UTC)]
    monkeypatch.setattr(stores, "now", lambda: clock[0])
    study, by = opened(store)
    actions.displayed(store, study, by, [images(store, study)[0].id])
    clock[0] += timedelta(minutes=5)
    actions.accept(store, study, by, "s01", version=0)
    clock[0] += timedelta(minutes=5)
    actions.accept(store, study, by, "s02", version=1)
    with store.reading() as session:
        row = session.get(ReviewTable, study)
    assert row is not None
    assert (row.started, row.changed) == (clock[0] - timedelta(minutes=5), clock[0])


# ---- who may act when ----

ACTIONS: list[Callable[[Store, str, Person, int], Review]] = [
    lambda store, study, by, version: actions.accept(store, study, by, "s01", version=version),
    lambda store, study, by, version: actions.edit(
        store, study, by, "s01", "Left effusion.", version=version
    ),
    lambda store, study, by, version: actions.reject(
        store, study, by, "s01", "wording", version=version
    ),
    lambda store, study, by, version: actions.reopen(store, study, by, "s01", version=version),
    lambda store, study, by, version: actions.add(
        store, study, by, "Mass.", "Mass", "present", version=version
    ),
    lambda store, study, by, version: actions.move(store, study, by, "s01", [BOX], version=version),
    lambda store, study, by, version: actions.take_in(store, study, by, "w01", version=version),
    lambda store, study, by, version: actions.accept_all(store, study, by, version=version),
    lambda store, study, by, version: actions.set_fields(
        store, study, by, indication="Cough.", version=version
    ),
    lambda store, study, by, version: actions.acknowledge(
        store, study, by, "Pneumothorax", version=version
    ),
    lambda store, study, by, version: actions.undo(store, study, by, version=version),
]


def refused(
    store: Store, study: str, by: Person, kind: type[MedVLMError], version: int = 0
) -> None:
    """Every action is refused and changes nothing."""
    before, count = actions.load(store, study), len(entries(store, study))
    for action in ACTIONS:
        with pytest.raises(kind):
            action(store, study, by, version)
    assert actions.load(store, study) == before
    assert len(entries(store, study)) == count


def test_a_reader_does_not_act(store: Store) -> None:
    study, _ = opened(store)
    refused(store, study, somebody(store, "reader", "reader"), NotAllowed)


def test_only_who_holds_the_study_acts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    study, by = opened(store)
    other = somebody(store, "tanaka")
    refused(store, study, other, StudyLocked)
    admin = somebody(store, "admin", "admin")
    refused(store, study, admin, StudyLocked)
    later = stores.now() + timedelta(minutes=16)
    monkeypatch.setattr(stores, "now", lambda: later)
    refused(store, study, by, StudyLocked)
    break_lock(store, study, admin)
    hold(store, study, other)
    assert ACTIONS[0](store, study, other, 0).version == 1


def test_acting_renews_the_lock(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [stores.now()]
    monkeypatch.setattr(stores, "now", lambda: clock[0])
    study, by = opened(store)
    for version in range(4):
        clock[0] += timedelta(minutes=10)
        actions.set_fields(store, study, by, indication=str(version), version=version)


def test_what_was_changed_in_between_is_not_overwritten(store: Store) -> None:
    study, by = opened(store)
    actions.accept(store, study, by, "s01", version=0)
    refused(store, study, by, Stale, version=0)
    refused(store, study, by, Stale, version=2)


def test_of_two_at_once_one_wins(any_store: Store) -> None:
    store = any_store
    study, by = opened(store)
    start = threading.Barrier(8)
    won: list[int] = []
    lost: list[int] = []

    def act(number: int) -> None:
        start.wait()
        try:
            actions.set_fields(store, study, by, indication=f"{number}", version=0)
            won.append(number)
        except Stale:
            lost.append(number)

    threads = [threading.Thread(target=act, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    review = actions.load(store, study)
    assert (review.version, review.fields.indication) == (1, str(won[0]))
    assert verify(store).holds


def test_displaying_and_acting_at_once_loses_nothing(any_store: Store) -> None:
    store = any_store
    by = somebody(store)
    study = a_study(store, images=12)
    record_draft(store, study, a_draft())
    hold(store, study, by)
    ids = [one.id for one in images(store, study)]

    def show() -> None:
        for one in ids:
            actions.displayed(store, study, by, [one])

    thread = threading.Thread(target=show)
    thread.start()
    for version in range(12):
        actions.set_fields(store, study, by, indication=str(version), version=version)
    thread.join()
    review = actions.load(store, study)
    assert review.displayed == set(ids)
    assert (review.version, review.fields.indication) == (12, "11")


def test_only_who_reviews_displays(store: Store) -> None:
    study, by = opened(store)
    ids = {one.id for one in images(store, study)}
    for stranger in (somebody(store, "reader", "reader"), somebody(store, "tanaka")):
        assert actions.displayed(store, study, stranger, ids).displayed == frozenset()
    seen = actions.displayed(store, study, by, [*ids, "0" * 32])
    assert (seen.displayed, seen.version) == (ids, 0)
    assert actions.accept_all(store, study, by, version=0).version == 1


def test_accept_all_waits_for_all_images(store: Store) -> None:
    study, by = opened(store)
    first, second = (one.id for one in images(store, study))
    actions.displayed(store, study, by, [first])
    with pytest.raises(NotReady, match="1 of 2"):
        actions.accept_all(store, study, by, version=0)
    actions.displayed(store, study, by, [second])
    review = actions.accept_all(store, study, by, version=0)
    assert {one.decision for one in review.sentences} == {"accepted"}


def test_an_unknown_study_is_an_error(store: Store) -> None:
    by = somebody(store)
    for action in (
        lambda: actions.load(store, "0" * 32),
        lambda: actions.accept(store, "0" * 32, by, "s01", version=0),
        lambda: actions.displayed(store, "0" * 32, by, ["1"]),
    ):
        with pytest.raises(ReviewError) as unknown:
            action()
        assert unknown.value.code == "unknown_study"


def test_what_was_taken_note_of_is_no_longer_urgent(store: Store) -> None:
    by = local_person(store)
    study = a_study(store)
    record_draft(store, study, a_draft(a_pneumothorax()))
    hold(store, study, by)
    assert study_row(store, study).urgent == ("Pneumothorax",)
    actions.acknowledge(store, study, by, "Pneumothorax", version=0)
    assert study_row(store, study).urgent == ()
    actions.undo(store, study, by, version=1)
    assert study_row(store, study).urgent == ("Pneumothorax",)


def test_templates_fit_their_studies() -> None:
    films = [one.name for one in templates_for("DX", "CHEST")]
    assert "Chest radiograph" in films
    assert "Chest CT" not in films
    assert "Chest CT" in [one.name for one in templates_for("CT", "CHEST_ABDOMEN")]
    assert [one.name for one in templates_for("MR", "KNEE")] == ["Plain report"]
    assert len(templates_for(None, None)) >= len(films)
