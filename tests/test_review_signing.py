"""The signature: what it needs, what it makes, and that nothing is changed afterwards."""

from __future__ import annotations

import hashlib
import json
import threading
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from medvlm.errors import (
    AlreadySigned,
    MedVLMError,
    NotAllowed,
    NotReady,
    ReviewError,
    Stale,
    StudyLocked,
    WrongPin,
)
from medvlm.review import review as actions
from medvlm.review.audit import verify
from medvlm.review.guards import suggested_impression
from medvlm.review.locks import hold
from medvlm.review.people import local_person, set_pin
from medvlm.review.records import Person, Report, Review
from medvlm.review.signing import (
    addendum,
    canonical,
    preliminary_report,
    report,
    sign,
    spacing_known,
    versions,
)
from medvlm.review.store import Store
from medvlm.review.tables import AuditTable, SignedTable
from medvlm.review.worklist import images, record_draft, study_row
from tests.desk import a_draft, a_pneumothorax, a_study, no_pneumothorax, somebody
from tests.dicoms import save, synthetic
from tests.test_review_review import ACTIONS, BOX, JAPANESE, opened

pytest_plugins = ["tests.desk"]
PIN = "4711"


def ready(store: Store, by: Person | None = None) -> tuple[str, Person, Review]:
    """A study whose review has nothing left to settle, and somebody with a PIN who holds it."""
    by = by or local_person(store)
    if by.local:
        set_pin(store, by, PIN)
    study, by = opened(store, by)
    actions.displayed(store, study, by, [one.id for one in images(store, study)])
    return study, by, actions.accept_all(store, study, by, version=0)


def signed(store: Store) -> tuple[str, Person, Report]:
    study, by, review = ready(store)
    return study, by, sign(store, study, by, version=review.version, pin=PIN)


def rows(store: Store) -> list[SignedTable]:
    with store.reading() as session:
        return list(session.scalars(select(SignedTable).order_by(SignedTable.version)))


def last_entry(store: Store, study: str) -> AuditTable:
    with store.reading() as session:
        own = select(AuditTable).where(AuditTable.study_id == study)
        return session.scalars(own.order_by(AuditTable.number.desc()).limit(1)).one()


# ---- the signature ----


def test_a_signed_report(store: Store) -> None:
    study, by, made = signed(store)
    assert (made.status, made.version, made.signed_by) == ("final", 1, by.name)
    assert made.attestation == "locally attested"
    assert made.signed_at is not None
    assert [(one.text, one.origin) for one in made.sentences] == [
        ("Possible left pleural effusion.", "machine"),
        ("No pneumothorax.", "machine"),
    ]
    assert made.impression == "Possible left pleural effusion."
    assert made.model is not None
    assert made.model.name == "by-hand"
    assert [one.id for one in made.images] == [one.id for one in images(store, study)]
    row = study_row(store, study)
    assert (row.status, row.lock) == ("signed", None)
    assert (made.study.status, made.study.lock, made.study.version) == ("signed", None, 1)
    assert report(store, study) == report(store, study, 1) == made
    assert verify(store).holds


def test_the_sha256_is_of_the_canonical_json(store: Store) -> None:
    study, _, made = signed(store)
    content = json.loads(made.model_dump_json())
    told = content.pop("sha256")
    again = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(again.encode()).hexdigest() == told
    assert canonical(made) == again
    entry = last_entry(store, study)
    assert entry.action == "signed"
    after = json.loads(entry.after)
    assert (after["sha256"], after["version"], after["review_version"]) == (told, 1, 1)
    (row,) = rows(store)
    assert (row.sha256, row.record) == (told, again)
    assert Review.model_validate_json(row.review) == actions.load(store, study)


def test_where_each_sentence_comes_from(store: Store) -> None:
    study, by, review = ready(store)
    review = actions.reopen(store, study, by, "s01", version=review.version)
    review = actions.edit(
        store, study, by, "s01", "Left pleural effusion.", polarity="present", version=2
    )
    review = actions.add(store, study, by, JAPANESE, "other", "present", [BOX], version=3)
    review = actions.take_in(store, study, by, "w01", version=4)
    review = actions.reject(store, study, by, "w01", "not there", version=5)
    review = actions.set_fields(
        store,
        study,
        by,
        impression=suggested_impression(review),
        indication="咳嗽",
        comparison="None.",
        version=6,
    )
    made = sign(store, study, by, version=7, pin=PIN)
    assert [(one.text, one.origin, one.probability) for one in made.sentences] == [
        ("Left pleural effusion.", "edited", 0.62),
        ("No pneumothorax.", "machine", 0.02),
        (JAPANESE, "human", None),
    ]
    assert made.sentences[2].regions == (BOX,)
    assert (made.indication, made.comparison) == ("咳嗽", "None.")
    assert report(store, study) == made
    assert verify(store).holds


def test_a_report_without_a_draft(store: Store) -> None:
    by = local_person(store)
    set_pin(store, by, PIN)
    study = a_study(store)
    hold(store, study, by)
    actions.displayed(store, study, by, [one.id for one in images(store, study)])
    actions.add(store, study, by, "左胸水。", "Effusion", "present", version=0)
    actions.set_fields(store, study, by, impression="左胸水。", version=1)
    made = sign(store, study, by, version=2, pin=PIN)
    assert made.model is None
    assert [one.origin for one in made.sentences] == ["human"]


def test_a_log_in_attests_by_its_name(store: Store) -> None:
    by = somebody(store)
    study, by, _ = ready(store, by)
    made = sign(store, study, by, version=1, proof="https://id.example.org")
    assert made.attestation == "https://id.example.org"
    more = addendum(store, study, by, "Called the ward.", proof="https://id.example.org")
    assert more.addenda[0].attestation == "https://id.example.org"


# ---- what it needs ----


def not_signed(
    store: Store, study: str, by: Person, kind: type[MedVLMError], **given: Any
) -> MedVLMError:
    """The signature is refused and nothing is changed."""
    before = actions.load(store, study)
    with pytest.raises(kind) as refused:
        sign(store, study, by, **{"version": before.version, **given})
    assert actions.load(store, study) == before
    assert study_row(store, study).status != "signed"
    assert rows(store) == []
    with pytest.raises(ReviewError) as nothing:
        report(store, study)
    assert nothing.value.code == "not_signed"
    return refused.value


@pytest.mark.parametrize("pin", ["4712", "", "47111", "abcd", "47 11"])
def test_a_wrong_pin_signs_nothing(store: Store, pin: str) -> None:
    study, by, _ = ready(store)
    not_signed(store, study, by, WrongPin, pin=pin)
    assert sign(store, study, by, version=1, pin=PIN).status == "final"


def test_wrong_pins_are_counted_although_nothing_is_signed(store: Store) -> None:
    study, by, _ = ready(store)
    for _ in range(5):
        not_signed(store, study, by, WrongPin, pin="0000")
    assert not_signed(store, study, by, WrongPin, pin=PIN).code == "pin_barred"


def test_nobody_signs_unasked(store: Store) -> None:
    study, by, _ = ready(store)
    not_signed(store, study, by, NotAllowed)
    # Whoever has no account has no log-in that could vouch for them.
    not_signed(store, study, by, NotAllowed, proof="https://id.example.org")


def test_without_a_pin_nothing_is_signed(store: Store) -> None:
    study, by = opened(store, local_person(store))
    assert not_signed(store, study, by, WrongPin, pin=PIN).code == "no_pin"


def test_a_reader_signs_nothing(store: Store) -> None:
    study, _, _ = ready(store)
    reader = somebody(store, "reader", "reader")
    not_signed(store, study, reader, NotAllowed, proof="https://id.example.org")


def test_only_who_holds_the_study_signs(store: Store) -> None:
    study, _, _ = ready(store)
    other = somebody(store)
    not_signed(store, study, other, StudyLocked, proof="https://id.example.org")


def test_only_what_was_seen_is_signed(store: Store) -> None:
    study, by, _ = ready(store)
    not_signed(store, study, by, Stale, pin=PIN, version=0)
    not_signed(store, study, by, Stale, pin=PIN, version=2)


def test_what_is_not_settled_is_not_signed(store: Store) -> None:
    study, by, _ = ready(store)
    actions.reopen(store, study, by, "s01", version=1)
    refused = not_signed(store, study, by, NotReady, pin=PIN)
    assert "unresolved" in str(refused)
    # What nobody may confirm is not confirmed away.
    confirmed = frozenset({"unresolved", "disagreement"})
    not_signed(store, study, by, NotReady, pin=PIN, confirmed=confirmed)


def test_an_urgent_finding_is_taken_note_of_first(store: Store) -> None:
    by = local_person(store)
    set_pin(store, by, PIN)
    study = a_study(store)
    record_draft(store, study, a_draft(a_pneumothorax(), impression="Right pneumothorax."))
    hold(store, study, by)
    actions.displayed(store, study, by, [one.id for one in images(store, study)])
    actions.accept(store, study, by, "s01", version=0)
    assert "urgent" in str(not_signed(store, study, by, NotReady, pin=PIN))
    actions.acknowledge(store, study, by, "Pneumothorax", version=1)
    assert sign(store, study, by, version=2, pin=PIN).status == "final"


def test_what_rules_found_may_be_confirmed_and_that_is_kept(store: Store) -> None:
    study, by, _ = ready(store)
    actions.set_fields(store, study, by, impression="Possible right pleural effusion.", version=1)
    assert "laterality" in str(not_signed(store, study, by, NotReady, pin=PIN))
    not_signed(store, study, by, NotReady, pin=PIN, confirmed=frozenset({"sex"}))
    sign(store, study, by, version=2, pin=PIN, confirmed=frozenset({"laterality", "sex"}))
    assert json.loads(last_entry(store, study).after)["confirmed"] == ["laterality"]


def test_the_files_tell_whether_a_size_can_be_known(store: Store) -> None:
    study, by, _ = ready(store)
    assert not spacing_known(store, study)  # the files of this desk are no images
    actions.add(store, study, by, "A nipple ring of 12 mm.", "other", "present", version=1)
    assert "measurement" in str(not_signed(store, study, by, NotReady, pin=PIN))


@pytest.mark.parametrize(
    ("told", "known"),
    [
        ({"PixelSpacing": [0.2, 0.2]}, True),
        ({"ImagerPixelSpacing": [0.2, 0.2]}, True),
        ({"PixelSpacing": [0, 0]}, False),
        ({}, False),
    ],
)
def test_the_size_of_a_pixel(store: Store, told: dict[str, Any], known: bool) -> None:
    study = a_study(store, images=2)
    for number, one in enumerate(images(store, study)):
        content = synthetic(
            np.zeros((4, 4), np.uint16), **(told if number else {"PixelSpacing": [1, 1]})
        )
        save(content, store.files / study / f"{one.id}.dcm")
    # Two images of one stack and size are of one kind; the last stands for both.
    assert spacing_known(store, study) is known


# ---- afterwards ----


def test_nothing_but_an_addendum_changes_a_signed_report(store: Store) -> None:
    study, by, made = signed(store)
    hold(store, study, by)
    for action in ACTIONS:
        with pytest.raises(AlreadySigned):
            action(store, study, by, 1)
    with pytest.raises(AlreadySigned):
        sign(store, study, by, version=1, pin=PIN)
    ids = [one.id for one in images(store, study)]
    before = actions.load(store, study)
    assert actions.displayed(store, study, by, ids) == before == actions.load(store, study)
    assert not actions.can_undo(store, study)
    record_draft(store, study, a_draft(no_pneumothorax()))
    assert actions.load(store, study) == before
    assert report(store, study) == made
    assert study_row(store, study).status == "signed"
    assert verify(store).holds


def test_the_database_itself_refuses_to_change_what_was_signed(any_store: Store) -> None:
    signed(any_store)
    for change in ("UPDATE signed SET record = '{}'", "DELETE FROM signed"):
        with (
            pytest.raises(DBAPIError, match=r"signed|append|never"),
            any_store.transaction() as session,
        ):
            session.execute(text(change))
    assert verify(any_store).holds


def test_an_addendum_leaves_what_it_amends(store: Store) -> None:
    study, by, first = signed(store)
    second = addendum(store, study, by, " Called the ward.\r\nAt 10:15. ", pin=PIN)
    assert (second.status, second.version) == ("amended", 2)
    assert second.addenda[0].text == "Called the ward.\nAt 10:15."
    assert second.addenda[0].signed_by == by.name
    assert second.sha256 != first.sha256
    same = {"status", "version", "addenda", "sha256"}
    assert second.model_dump(exclude=same) == first.model_dump(exclude=same)
    other = somebody(store)
    third = addendum(store, study, other, "追記。", proof="https://id.example.org")
    assert [one.text for one in third.addenda][1] == "追記。"
    assert (third.signed_by, third.addenda[1].signed_by) == (by.name, other.name)
    assert versions(store, study) == [first, second, third]
    assert report(store, study, 1) == first
    assert report(store, study) == third
    assert len({one.review for one in rows(store)}) == 1
    entry = last_entry(store, study)
    assert (entry.action, entry.person) == ("addendum", other.id)
    assert json.loads(entry.after)["sha256"] == third.sha256
    assert verify(store).holds


def test_what_an_addendum_needs(store: Store) -> None:
    study, by, _ = signed(store)
    reader = somebody(store, "reader", "reader")
    for kind, given in (
        (ReviewError, {"text": " \n ", "pin": PIN}),
        (ReviewError, {"text": "a\x00", "pin": PIN}),
        (WrongPin, {"text": "More.", "pin": "0000"}),
        (NotAllowed, {"text": "More."}),
    ):
        with pytest.raises(kind):
            addendum(store, study, by, **given)  # type: ignore[arg-type]
    with pytest.raises(NotAllowed):
        addendum(store, study, reader, "More.", proof="https://id.example.org")
    other = a_study(store)
    with pytest.raises(ReviewError) as early:
        addendum(store, other, by, "More.", pin=PIN)
    assert early.value.code == "not_signed"
    assert len(rows(store)) == 1


def test_of_two_signatures_at_once_one_counts(any_store: Store) -> None:
    store = any_store
    study, by, _ = ready(store)
    start = threading.Barrier(4)
    ends: list[str] = []

    def act() -> None:
        start.wait()
        try:
            ends.append(sign(store, study, by, version=1, pin=PIN).status)
        except AlreadySigned:
            ends.append("too late")

    threads = [threading.Thread(target=act) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == ["final", "too late", "too late", "too late"]
    assert len(rows(store)) == 1
    assert verify(store).holds


def test_addenda_at_once_all_count(any_store: Store) -> None:
    study, by, _ = signed(any_store)

    def act(number: int) -> None:
        addendum(any_store, study, by, f"Words {number}.", pin=PIN)

    threads = [threading.Thread(target=act, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = report(any_store, study)
    assert last.version == 5
    assert sorted(one.text for one in last.addenda) == [f"Words {n}." for n in range(4)]
    assert verify(any_store).holds


# ---- before ----


def test_a_preliminary_report_says_what_is_not_rejected(store: Store) -> None:
    study, by = opened(store)
    made = preliminary_report(store, study)
    assert (made.status, made.version, made.sha256) == ("preliminary", 0, None)
    assert (made.signed_by, made.signed_at, made.attestation) == (None, None, None)
    assert len(made.sentences) == 2
    actions.reject(store, study, by, "s01", "not there", version=0)
    actions.add(store, study, by, "Left nodule.", "Nodule", "present", version=1)
    assert [(one.text, one.origin) for one in preliminary_report(store, study).sentences] == [
        ("No pneumothorax.", "machine"),
        ("Left nodule.", "human"),
    ]


def test_of_what_was_refused_or_signed_there_is_none(store: Store) -> None:
    refused = a_study(store)
    record_draft(store, refused, a_draft(accepted=False))
    assert preliminary_report(store, refused).sentences == ()
    study, _, _ = signed(store)
    with pytest.raises(AlreadySigned):
        preliminary_report(store, study)
    with pytest.raises(ReviewError):
        preliminary_report(store, "0" * 32)
    with pytest.raises(ReviewError):
        report(store, study, 2)
