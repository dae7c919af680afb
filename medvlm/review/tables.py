"""The tables of the desk's database (SQLite or PostgreSQL); `migrations/` makes them.

Records are kept as JSON texts of `medvlm.review.records` beside the columns that are searched.
Times are UTC, ids 32 hexadecimal digits that say nothing. What files or a log-in tell has no
limit of length here: they do not keep to theirs, and PostgreSQL would refuse the row.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Utc(TypeDecorator[datetime]):
    """A time as ISO 8601 text in UTC, the same in every database, and sortable."""

    impl = String(32)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> str | None:
        if value is None:
            return None
        return value.astimezone(UTC).isoformat(timespec="microseconds")

    def process_result_value(self, value: str | None, dialect: Any) -> datetime | None:
        return None if value is None else datetime.fromisoformat(value)


class Base(DeclarativeBase):
    """All tables."""


class StudyTable(Base):
    """A study: what the worklist shows. `patient` is a `Patient`, `search` what is searched in."""

    __tablename__ = "studies"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    # Of the files' digests: the same files are not taken in twice.
    content_key: Mapped[str] = mapped_column(String(64), unique=True)
    study_instance_uid: Mapped[str | None] = mapped_column(Text, index=True)
    patient_key: Mapped[str | None] = mapped_column(Text, index=True)
    patient: Mapped[str] = mapped_column(Text)
    search: Mapped[str] = mapped_column(Text, default="")
    accession_number: Mapped[str | None] = mapped_column(Text)
    modality: Mapped[str | None] = mapped_column(Text)
    body_part: Mapped[str | None] = mapped_column(Text)
    view: Mapped[str | None] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    taken: Mapped[str] = mapped_column(String(14), default="")
    received: Mapped[datetime] = mapped_column(Utc)
    status: Mapped[str] = mapped_column(String(16), index=True)
    priority: Mapped[str] = mapped_column(String(16))
    urgent: Mapped[str] = mapped_column(Text, default="[]")
    problem: Mapped[str | None] = mapped_column(Text)
    lock_person: Mapped[str | None] = mapped_column(Text)
    lock_name: Mapped[str | None] = mapped_column(Text)
    lock_until: Mapped[datetime | None] = mapped_column(Utc)


class ImageTable(Base):
    """An image file; `path` is relative to the desk's folder of files."""

    __tablename__ = "images"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id"), index=True)
    path: Mapped[str] = mapped_column(Text)
    stack: Mapped[int]
    number: Mapped[int]
    record: Mapped[str] = mapped_column(Text)


class DraftTable(Base):
    """A machine's draft (`medvlm.records.Draft`) with the hash of the weights that made it."""

    __tablename__ = "drafts"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id"), index=True)
    at: Mapped[datetime] = mapped_column(Utc)
    model: Mapped[str] = mapped_column(Text)
    weights_sha256: Mapped[str] = mapped_column(String(64))
    record: Mapped[str] = mapped_column(Text)


class JobTable(Base):
    """Work for the drafting process: `kind` is draft or question, `payload` JSON.

    A worker that dies leaves a lease that runs out, and the job is taken again.
    """

    __tablename__ = "jobs"
    __table_args__ = (Index("jobs_waiting", "state", "at"),)
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id"), index=True)
    payload: Mapped[str] = mapped_column(Text, default="{}")
    state: Mapped[str] = mapped_column(String(16))  # waiting, running, done, failed
    at: Mapped[datetime] = mapped_column(Utc)
    worker: Mapped[str | None] = mapped_column(Text)
    lease_until: Mapped[datetime | None] = mapped_column(Utc)
    tries: Mapped[int] = mapped_column(default=0)
    progress: Mapped[float] = mapped_column(Double, default=0.0)
    problem: Mapped[str | None] = mapped_column(Text)


class ExchangeTable(Base):
    """A question and its answer, `record` an `Exchange`."""

    __tablename__ = "exchanges"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id"), index=True)
    at: Mapped[datetime] = mapped_column(Utc)
    record: Mapped[str] = mapped_column(Text)


class ReviewTable(Base):
    """A report in the making, `record` a `Review`; `started` when its first action came."""

    __tablename__ = "reviews"
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id"), primary_key=True)
    version: Mapped[int]
    started: Mapped[datetime] = mapped_column(Utc)
    changed: Mapped[datetime] = mapped_column(Utc)
    record: Mapped[str] = mapped_column(Text)


class SignedTable(Base):
    """A signed version of a report, never changed; version 1 is the first signature."""

    __tablename__ = "signed"
    __table_args__ = (UniqueConstraint("study_id", "version", name="signed_version"),)
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id"), index=True)
    version: Mapped[int]
    at: Mapped[datetime] = mapped_column(Utc)
    person: Mapped[str] = mapped_column(Text)
    record: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64))
    # The whole review, with what was rejected: for statistics and fine-tuning.
    review: Mapped[str] = mapped_column(Text)


class PersonTable(Base):
    """Who may act; `pin` is a salted hash, None until a PIN is set."""

    __tablename__ = "people"
    id: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(String(16))
    pin: Mapped[bytes | None] = mapped_column(LargeBinary)
    wrong_pins: Mapped[int] = mapped_column(default=0)
    barred_until: Mapped[datetime | None] = mapped_column(Utc)


class AuditTable(Base):
    """Every action, in order, each entry holding the hash of the one before it."""

    __tablename__ = "audit"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(Utc)
    person: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(String(32))
    study_id: Mapped[str | None] = mapped_column(String(32), index=True)
    before: Mapped[str] = mapped_column(Text)
    after: Mapped[str] = mapped_column(Text)
    previous: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))


class AuditHeadTable(Base):
    """The last entry's number and hash, so that an audit cut short is found. One row."""

    __tablename__ = "audit_head"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int]
    hash: Mapped[str] = mapped_column(String(64))


class HeartbeatTable(Base):
    """When a drafting process last gave a sign of life. One row."""

    __tablename__ = "heartbeat"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    worker: Mapped[str] = mapped_column(Text)
    seen: Mapped[datetime] = mapped_column(Utc)
