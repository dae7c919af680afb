"""The record of every action: appended to, never changed, each entry sealed by the next.

An entry's hash is over its columns and the hash of the entry before it; the last one's is kept in
`audit_head` too. Whoever changes the database behind the program's back breaks the chain, unless
the whole rest of it is computed anew: against that, note the head's hash elsewhere from time to
time (`medvlm audit verify` prints it).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Row, insert, select, text, update
from sqlalchemy.orm import Session

from medvlm.review import store as stores
from medvlm.review.store import Store
from medvlm.review.tables import AuditHeadTable, AuditTable

START = "0" * 64
SIGNATURES = ("signed", "addendum")
"""Actions whose `after` holds the `version` and the `sha256` of a row of `signed`."""
_COLUMNS = ("number", "at", "person", "action", "study_id", "before", "after", "previous")


@dataclass(frozen=True)
class Broken:
    """What is wrong with an entry; `number` is None where no entry is left to blame."""

    number: int | None
    why: str


@dataclass(frozen=True)
class Verdict:
    """What `verify` found. `head`: the last entry's hash as the chain gives it."""

    entries: int
    broken: tuple[Broken, ...]
    head: str

    @property
    def holds(self) -> bool:
        """Whether everything is as it was written."""
        return not self.broken


def digest(content: str) -> str:
    """The sha256 of a text as it is stored; `signed.sha256` is the digest of `signed.record`."""
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def record(
    session: Session,
    person_id: str,
    action: str,
    study_id: str | None,
    before: dict[str, Any],
    after: dict[str, Any],
) -> None:
    """Appends an entry in the caller's transaction; `before` and `after` say what changed.

    They hold JSON, and records of the desk; never who the patient is.
    """
    # Locked on PostgreSQL, so that a writer outside of `Store.transaction` waits as well.
    head = session.execute(
        select(AuditHeadTable.number, AuditHeadTable.hash).with_for_update()
    ).one()
    at = stores.now()
    entry: dict[str, Any] = {
        "number": head.number + 1,
        "at": at.astimezone(UTC).isoformat(timespec="microseconds"),
        "person": person_id,
        "action": action,
        "study_id": study_id,
        "before": _json(before),
        "after": _json(after),
        "previous": head.hash,
    }
    seal = _seal(entry)
    session.execute(insert(AuditTable).values({**entry, "at": at, "hash": seal}))
    session.execute(update(AuditHeadTable).values(number=head.number + 1, hash=seal))


def verify(store: Store) -> Verdict:
    """Reads the whole audit, and what was signed, and tells what is not as it was written."""
    with store.reading() as session:
        chain = _Chain()
        # As the database holds them: a type would refuse what somebody put in by hand.
        rows = session.execute(
            text(f"SELECT {', '.join(_COLUMNS)}, hash FROM audit ORDER BY number"),
            execution_options={"yield_per": 1000},
        )
        for row in rows:
            chain.follow(row)
        head = session.execute(text("SELECT number, hash FROM audit_head")).all()
        chain.end(head)
        signed = session.execute(
            text("SELECT study_id, version, person, record, review, sha256 FROM signed")
        )
        broken = [*chain.broken, *_signed(signed, chain.signatures)]
    return Verdict(chain.entries, tuple(broken), chain.hash)


@dataclass
class _Chain:
    """The entries so far: the last one's number and hash, what is broken, what was signed."""

    entries: int = 0
    number: int = 0
    hash: str = START
    broken: list[Broken] = field(default_factory=list)
    signatures: dict[tuple[str, int], _Signature] = field(default_factory=dict)

    def follow(self, row: Row[Any]) -> None:
        entry = dict(row._mapping)
        stored = entry.pop("hash")
        number = entry["number"]
        intact = stored == _seal(entry)
        if number != self.number + 1:
            until = f" to {number - 1}" if number > self.number + 2 else ""
            self._say(self.number + 1, f"removed: there is no entry {self.number + 1}{until}")
        elif intact and entry["previous"] != self.hash:
            self._say(max(self.number, 1), "replaced: the entry after it holds another hash")
        if not intact:
            self._say(number, "changed: its hash is another than its content's")
        elif entry["action"] in SIGNATURES:
            self._signature(entry)
        self.entries += 1
        self.number, self.hash = number, stored

    def end(self, head: Iterable[Row[Any]]) -> None:
        """Compares the last entry with what `audit_head` says of it."""
        told = [(row.number, row.hash) for row in head]
        if len(told) != 1:
            self._say(None, "the audit's head is missing or is there twice")
            return
        number, seal = told[0]
        if number > self.number:
            self._say(self.number + 1, f"removed: the head says that the last entry is {number}")
        elif number < self.number:
            self._say(number + 1, f"inserted: the head says that the last entry is {number}")
        elif seal != self.hash:
            self._say(self.number or None, "replaced: the head holds another hash")

    def _signature(self, entry: dict[str, Any]) -> None:
        after = json.loads(entry["after"])
        place = (entry["study_id"], after.get("version"))
        self.signatures[place] = _Signature(entry["number"], entry["person"], after)

    def _say(self, number: int | None, why: str) -> None:
        if all(one.number != number or number is None for one in self.broken):
            self.broken.append(Broken(number, why))


@dataclass(frozen=True)
class _Signature:
    number: int
    person: str
    after: dict[str, Any]


def _signed(
    rows: Iterable[Row[Any]], signatures: dict[tuple[str, int], _Signature]
) -> Iterator[Broken]:
    """Signed reports that are not what the audit says was signed."""
    left = dict(signatures)
    for row in rows:
        entry = left.pop((row.study_id, row.version), None)
        what = f"report of study {row.study_id}, version {row.version}"
        if entry is None:
            yield Broken(None, f"the signed {what}, is in no entry")
        elif entry.after.get("sha256") != row.sha256 or entry.person != row.person:
            yield Broken(entry.number, f"the signed {what}, is not the one that was signed")
        elif digest(str(row.record)) != row.sha256:
            yield Broken(entry.number, f"the signed {what}, was changed")
        elif entry.after.get("review_sha256", digest(str(row.review))) != digest(str(row.review)):
            yield Broken(entry.number, f"the review kept with the signed {what}, was changed")
    for (study_id, version), entry in left.items():
        why = f"the signed report of study {study_id}, version {version}, was removed"
        yield Broken(entry.number, why)


def _seal(entry: dict[str, Any]) -> str:
    return digest(_json({name: entry[name] for name in _COLUMNS}))


def _json(content: dict[str, Any]) -> str:
    """One way to write a content, so that its hash is one."""
    return json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=_plain
    )


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, frozenset | set):
        return sorted(value)
    if isinstance(value, bytes):  # what somebody put into a text column by hand
        return value.hex()
    raise TypeError(f"{type(value).__name__} is not for the audit")
