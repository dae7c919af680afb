"""People and their PINs; who holds a study."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest
import sqlalchemy as sa

from medvlm.errors import NotAllowed, ReviewError, StudyLocked, WrongPin
from medvlm.review import audit
from medvlm.review.locks import break_lock, hold, release, renew
from medvlm.review.people import (
    change_pin,
    check_pin,
    has_pin,
    local_person,
    person,
    set_pin,
    signed_in,
)
from medvlm.review.records import Person
from medvlm.review.store import Store
from medvlm.review.tables import AuditTable, PersonTable
from medvlm.review.worklist import study_row
from tests.desk import Clock, a_study, somebody

pytest_plugins = ["tests.desk"]


def test_a_desk_without_accounts_has_one_reviewer(any_store: Store) -> None:
    local = local_person(any_store)
    assert local == Person(id="local", name="Local reviewer", role="admin", local=True)
    assert local_person(any_store) == local == person(any_store, "local")
    assert audit.verify(any_store).entries == 1


def test_who_logs_in_is_kept_as_the_log_in_says(any_store: Store) -> None:
    assert signed_in(any_store, "sato", "Sato", "reader").role == "reader"
    assert signed_in(any_store, "sato", "Sato", "reader") == person(any_store, "sato")
    assert audit.verify(any_store).entries == 1
    promoted = signed_in(any_store, "sato", "Dr Sato", "reviewer")
    assert person(any_store, "sato") == promoted
    assert not promoted.local
    with any_store.reading() as session:
        entry = session.get_one(AuditTable, 2)
    assert '"role":"reader"' in entry.before
    assert '"role":"reviewer"' in entry.after


def test_a_long_name_from_a_log_in_fits(any_store: Store) -> None:
    signed_in(any_store, "s" * 300, "佐藤" * 200, "reviewer")
    assert person(any_store, "s" * 300).name == "佐藤" * 200


@pytest.mark.parametrize("name", ["local", "machine", "", "local\0", " local"])
def test_no_log_in_becomes_the_desk_itself(store: Store, name: str) -> None:
    local_person(store)
    with pytest.raises(NotAllowed):
        signed_in(store, name, "Mallory", "admin")


def test_nobody_is_made_up(store: Store) -> None:
    with pytest.raises(NotAllowed, match="nobody"):
        person(store, "sato")


# ---- PINs ----


def test_a_pin_is_set_once_and_changed_with_the_old_one(any_store: Store) -> None:
    sato = somebody(any_store)
    assert not has_pin(any_store, sato)
    with pytest.raises(WrongPin, match="no PIN"):
        check_pin(any_store, sato, "1234")
    set_pin(any_store, sato, "1234")
    assert has_pin(any_store, sato)
    check_pin(any_store, sato, "1234")
    with pytest.raises(NotAllowed):
        set_pin(any_store, sato, "5678")
    with pytest.raises(WrongPin):
        change_pin(any_store, sato, "0000", "5678")
    check_pin(any_store, sato, "1234")
    change_pin(any_store, sato, "1234", "5678")
    check_pin(any_store, sato, "5678")
    with pytest.raises(WrongPin):
        check_pin(any_store, sato, "1234")


def test_wide_digits_are_the_same_pin(store: Store) -> None:
    sato = somebody(store)
    wide = "".join(chr(ord(digit) + 0xFEE0) for digit in "1234")
    set_pin(store, sato, wide)
    check_pin(store, sato, "1234")
    check_pin(store, sato, wide)


@pytest.mark.parametrize("pin", ["", "123", "1234567890123", "12a4", "12 34", "١٢٣٤", "1234\n"])
def test_a_pin_is_4_to_12_digits(store: Store, pin: str) -> None:
    sato = somebody(store)
    with pytest.raises(WrongPin) as caught:
        set_pin(store, sato, pin)
    assert caught.value.code == "bad_pin"
    assert not has_pin(store, sato)


def test_any_text_may_be_tried_as_a_pin(store: Store) -> None:
    sato = somebody(store)
    set_pin(store, sato, "1234")
    for pin in ("", "\ud800", "x" * 100_000):
        with pytest.raises(WrongPin):
            check_pin(store, sato, pin)


def test_five_wrong_pins_bar_for_five_minutes(any_store: Store, clock: Clock) -> None:
    sato, suzuki = somebody(any_store), somebody(any_store, "suzuki")
    set_pin(any_store, sato, "1234")
    set_pin(any_store, suzuki, "1234")
    for left in (4, 3, 2, 1):
        with pytest.raises(WrongPin) as caught:
            check_pin(any_store, sato, "0000")
        assert f"{left} more" in (caught.value.remedy or "")
    with pytest.raises(WrongPin, match="too often"):
        check_pin(any_store, sato, "0000")
    clock.pass_by(minutes=4, seconds=59)
    with pytest.raises(WrongPin, match="too often"):
        check_pin(any_store, sato, "1234")
    check_pin(any_store, suzuki, "1234")
    clock.pass_by(seconds=1)
    check_pin(any_store, sato, "1234")
    with any_store.reading() as session:
        actions = session.scalars(sa.select(AuditTable.action)).all()
    assert actions.count("PIN barred") == 1


def test_a_right_pin_forgives_the_wrong_ones(store: Store) -> None:
    sato = somebody(store)
    set_pin(store, sato, "1234")
    for _ in range(2):
        for _ in range(4):
            with pytest.raises(WrongPin):
                check_pin(store, sato, "0000")
        check_pin(store, sato, "1234")


def test_a_pin_is_kept_salted(store: Store) -> None:
    sato, suzuki = somebody(store), somebody(store, "suzuki")
    set_pin(store, sato, "1234")
    set_pin(store, suzuki, "1234")
    with store.reading() as session:
        kept = [session.get_one(PersonTable, one.id).pin for one in (sato, suzuki)]
        told = " ".join(session.scalars(sa.select(AuditTable.after)))
    assert kept[0] != kept[1]
    assert all(
        one is not None and b"1234" not in one and hashlib.sha256(b"1234").digest() not in one
        for one in kept
    )
    assert "1234" not in told


# ---- locks ----


def test_one_person_reviews_at_a_time(any_store: Store, clock: Clock) -> None:
    study = a_study(any_store)
    sato, suzuki = somebody(any_store), somebody(any_store, "suzuki")
    lock = hold(any_store, study, sato)
    assert lock.until == clock.time + timedelta(minutes=15)
    assert study_row(any_store, study).lock == lock
    with pytest.raises(StudyLocked, match=f"Dr Sato reviews the study until {lock.until:%H:%M}"):
        hold(any_store, study, suzuki)
    clock.pass_by(minutes=10)
    assert hold(any_store, study, sato, minutes=1).until == clock.time + timedelta(minutes=1)
    clock.pass_by(minutes=1)
    assert study_row(any_store, study).lock is None
    assert hold(any_store, study, suzuki).person_id == "suzuki"
    release(any_store, study, sato)  # it is not theirs
    assert study_row(any_store, study).lock is not None
    release(any_store, study, suzuki)
    assert study_row(any_store, study).lock is None


def test_an_action_needs_and_renews_the_lock(store: Store, clock: Clock) -> None:
    study, sato, suzuki = a_study(store), somebody(store), somebody(store, "suzuki")
    with store.transaction() as session, pytest.raises(StudyLocked):
        renew(session, study, sato)
    hold(store, study, sato)
    clock.pass_by(minutes=14)
    with store.transaction() as session:
        renew(session, study, sato)
    clock.pass_by(minutes=14)
    with store.transaction() as session, pytest.raises(StudyLocked, match="Dr Sato"):
        renew(session, study, suzuki)
    clock.pass_by(minutes=1)
    with store.transaction() as session, pytest.raises(StudyLocked, match="not hold"):
        renew(session, study, sato)


def test_a_reader_holds_nothing(store: Store) -> None:
    study, reader = a_study(store), somebody(store, "aoki", "reader")
    with pytest.raises(NotAllowed):
        hold(store, study, reader)


def test_only_an_admin_breaks_a_lock(store: Store) -> None:
    study = a_study(store)
    sato, suzuki = somebody(store), somebody(store, "suzuki")
    hold(store, study, sato)
    with pytest.raises(NotAllowed):
        break_lock(store, study, suzuki)
    break_lock(store, study, somebody(store, "admin", "admin"))
    assert hold(store, study, suzuki).person_id == "suzuki"
    with store.reading() as session:
        entry = session.scalars(
            sa.select(AuditTable).where(AuditTable.action == "lock broken")
        ).one()
    assert (entry.person, entry.before) == ("admin", '{"held_by":"sato"}')


def test_no_lock_on_what_is_not_there(store: Store) -> None:
    with pytest.raises(ReviewError, match="no such study"):
        hold(store, "0" * 32, somebody(store))
