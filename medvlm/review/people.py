"""Who may act, and the PIN with which a person of a desk without accounts signs."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import unicodedata
from datetime import timedelta

from sqlalchemy.orm import Session

from medvlm.errors import NotAllowed, WrongPin
from medvlm.review import audit
from medvlm.review import store as stores
from medvlm.review.records import Person, Role
from medvlm.review.store import Store
from medvlm.review.studies import MACHINE, plain
from medvlm.review.tables import PersonTable

LOCAL = "local"
TRIES = 5
BARRED = timedelta(minutes=5)
_PIN = re.compile(r"[0-9]{4,12}")
_SALT = 16


def local_person(store: Store) -> Person:
    """The one reviewer of a desk without accounts, made on first use."""
    with store.reading() as session:
        found = session.get(PersonTable, LOCAL)
    return _person(found) if found else _written(store, LOCAL, "Local reviewer", "admin")


def signed_in(store: Store, id: str, name: str, role: Role) -> Person:
    """The person whom a log-in names; name and role are kept as they are now.

    Raises NotAllowed for an id that the desk itself uses, or that is no plain text.
    """
    if not id or id in (LOCAL, MACHINE) or id != plain(id):
        raise NotAllowed(
            "the log-in gives a name that the desk keeps for itself, or cannot keep",
            remedy="Change the account's name, or which claim of the log-in is taken for it.",
        )
    name = plain(name) or id
    with store.reading() as session:
        found = session.get(PersonTable, id)
    if found and (found.name, found.role) == (name, role):
        return _person(found)
    return _written(store, id, name, role)


def person(store: Store, id: str) -> Person:
    """Raises NotAllowed if nobody is known by that id."""
    with store.reading() as session:
        return _person(_known(session, id))


def has_pin(store: Store, person: Person) -> bool:
    """Whether the person has chosen a PIN."""
    with store.reading() as session:
        return _known(session, person.id).pin is not None


def set_pin(store: Store, person: Person, pin: str) -> None:
    """The first PIN, 4 to 12 digits. Raises WrongPin (bad_pin), NotAllowed where there is one."""
    sealed = _sealed(_digits(pin))
    with store.transaction() as session:
        row = _known(session, person.id)
        if row.pin is not None:
            raise NotAllowed("a PIN is set", remedy="Change it with the old one.")
        row.pin = sealed
        session.flush()
        audit.record(session, person.id, "PIN set", None, {}, {})


def change_pin(store: Store, person: Person, old: str, new: str) -> None:
    """Another PIN. Raises WrongPin if `old` is not the one that is set."""
    sealed = _sealed(_digits(new))
    check_pin(store, person, old)
    with store.transaction() as session:
        _known(session, person.id).pin = sealed
        session.flush()
        audit.record(session, person.id, "PIN changed", None, {}, {})


def check_pin(store: Store, person: Person, pin: str) -> None:
    """Raises WrongPin; after five wrong ones in a row none is looked at for five minutes."""
    with store.transaction() as session:
        problem = _checked(session, person, pin)
    # Raised here, where the count of wrong ones is written.
    if problem is not None:
        raise problem


def _checked(session: Session, person: Person, pin: str) -> WrongPin | None:
    row = _known(session, person.id)
    if row.pin is None:
        return WrongPin("no PIN is set", remedy="Choose one.", code="no_pin")
    if row.barred_until is not None:
        if stores.now() < row.barred_until:
            return _barred()
        row.wrong_pins, row.barred_until = 0, None
    if hmac.compare_digest(_sealed(_folded(pin), row.pin[:_SALT]), row.pin):
        row.wrong_pins = 0
        return None
    row.wrong_pins += 1
    if row.wrong_pins < TRIES:
        left = TRIES - row.wrong_pins
        return WrongPin("the PIN is wrong", remedy=f"Try again; {left} more tries are left.")
    row.barred_until = stores.now() + BARRED
    session.flush()
    audit.record(session, person.id, "PIN barred", None, {}, {"wrong": row.wrong_pins})
    return _barred()


def _barred() -> WrongPin:
    minutes = BARRED.seconds // 60
    return WrongPin(
        "the PIN was wrong too often",
        remedy=f"Wait {minutes} minutes, then try again.",
        code="pin_barred",
    )


def _digits(pin: str) -> str:
    folded = _folded(pin)
    if not _PIN.fullmatch(folded):
        raise WrongPin("a PIN is 4 to 12 digits", remedy="Choose another.", code="bad_pin")
    return folded


def _folded(pin: str) -> str:
    """A Japanese keyboard may write wide digits."""
    return unicodedata.normalize("NFKC", pin)


def _sealed(pin: str, salt: bytes | None = None) -> bytes:
    salt = salt or secrets.token_bytes(_SALT)
    return salt + hashlib.scrypt(pin.encode("utf-8", "replace"), salt=salt, n=2**14, r=8, p=1)


def _written(store: Store, id: str, name: str, role: Role) -> Person:
    with store.transaction() as session:
        row = session.get(PersonTable, id)
        before = {} if row is None else {"name": row.name, "role": row.role}
        after = {"name": name, "role": role}
        if row is None:
            row = PersonTable(id=id, name=name, role=role)
            session.add(row)
        row.name, row.role = name, role
        session.flush()
        if before != after:
            audit.record(session, id, "person", None, before, after)
    return _person(row)


def _known(session: Session, id: str) -> PersonTable:
    row = session.get(PersonTable, id)
    if row is None:
        raise NotAllowed("nobody is known by that name here", remedy="Sign in again.")
    return row


def _person(row: PersonTable) -> Person:
    return Person.model_validate(
        {"id": row.id, "name": row.name, "role": row.role, "local": row.id == LOCAL}
    )
