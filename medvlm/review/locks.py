"""Who reviews a study: one person at a time, as long as there are signs of life."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.orm import Session

from medvlm.errors import NotAllowed, StudyLocked
from medvlm.review import audit
from medvlm.review import store as stores
from medvlm.review.records import Lock, Person
from medvlm.review.store import Store
from medvlm.review.studies import study_of
from medvlm.review.tables import StudyTable
from medvlm.review.worklist import lock_of

MINUTES = 15.0
"""How long a lock lasts after the last sign of life."""


def hold(store: Store, study_id: str, by: Person, minutes: float = MINUTES) -> Lock:
    """Takes the study for review, or renews what `by` holds.

    Raises StudyLocked if somebody else holds it, NotAllowed for a reader.
    """
    _may_review(by)
    with store.transaction() as session:
        study = study_of(session, study_id)
        lock = lock_of(study)
        if lock is not None and lock.person_id != by.id:
            raise _theirs(lock)
        return _renew(study, by, minutes)


def renew(session: Session, study_id: str, by: Person, minutes: float = MINUTES) -> Lock:
    """In the transaction of an action: the study must be held by `by`, and so it stays.

    Raises StudyLocked if it is not, NotAllowed for a reader.
    """
    _may_review(by)
    study = study_of(session, study_id)
    lock = lock_of(study)
    if lock is None:
        raise StudyLocked("you do not hold the study any more", remedy="Open it again.")
    if lock.person_id != by.id:
        raise _theirs(lock)
    return _renew(study, by, minutes)


def release(store: Store, study_id: str, by: Person) -> None:
    """Gives the study free for others; nothing happens where `by` does not hold it."""
    with store.transaction() as session:
        study = study_of(session, study_id)
        if study.lock_person == by.id:
            clear(study)


def break_lock(store: Store, study_id: str, by: Person) -> None:
    """Takes the study away from whoever holds it. Raises NotAllowed if `by` is no admin."""
    if by.role != "admin":
        raise NotAllowed("only an admin breaks a lock", remedy="Ask whoever holds the study.")
    with store.transaction() as session:
        study = study_of(session, study_id)
        lock = lock_of(study)
        if lock is not None:
            clear(study)
            session.flush()
            audit.record(session, by.id, "lock broken", study_id, {"held_by": lock.person_id}, {})


def clear(study: StudyTable) -> None:
    """Nobody holds the study."""
    study.lock_person = study.lock_name = study.lock_until = None


def _renew(study: StudyTable, by: Person, minutes: float) -> Lock:
    until = stores.now() + timedelta(minutes=minutes)
    study.lock_person, study.lock_name, study.lock_until = by.id, by.name, until
    return Lock(person_id=by.id, name=by.name, until=until)


def _may_review(by: Person) -> None:
    if by.role == "reader":
        raise NotAllowed("a reader does not review", remedy="Ask an admin for another role.")


def _theirs(lock: Lock) -> StudyLocked:
    return StudyLocked(
        f"{lock.name} reviews the study until {lock.until:%H:%M} UTC",
        remedy="Choose another study, or ask for it.",
    )
