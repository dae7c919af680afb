"""What was done with a study, for people to read: the audit's entries with names."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from medvlm.review.store import Store
from medvlm.review.studies import MACHINE
from medvlm.review.tables import AuditTable, PersonTable


@dataclass(frozen=True)
class Entry:
    """Who did what. `name`: None where the software did it."""

    at: datetime
    name: str | None
    action: str


def history(store: Store, study_id: str, limit: int = 200) -> list[Entry]:
    """The last actions on a study, the newest first."""
    query = (
        select(AuditTable.at, AuditTable.person, AuditTable.action, PersonTable.name)
        .outerjoin(PersonTable, PersonTable.id == AuditTable.person)
        .where(AuditTable.study_id == study_id)
        .order_by(AuditTable.number.desc())
        .limit(limit)
    )
    with store.reading() as session:
        rows = session.execute(query).all()
    return [
        Entry(at, None if person == MACHINE else name or person, action)
        for at, person, action, name in rows
    ]
