"""Work for the drafting process: drafts and questions, through the database.

A worker claims a job for a while and renews its claim as it goes; a worker that died leaves a
claim that runs out, and the job is taken again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, case, func, or_, select
from sqlalchemy.orm import Session

from medvlm.errors import ReviewError
from medvlm.records import Answer, Region
from medvlm.review import audit
from medvlm.review import store as stores
from medvlm.review.records import Exchange, Person
from medvlm.review.store import Store, new_id
from medvlm.review.studies import MACHINE, draft_failed_of, no_longer_drafting, plain, study_of
from medvlm.review.tables import ExchangeTable, HeartbeatTable, ImageTable, JobTable, StudyTable
from medvlm.review.worklist import by_priority

TRIES = 3
DIED = f"the drafting process died {TRIES} times on it"
BEAT = timedelta(seconds=10)
"""How often a sign of life is written."""


@dataclass(frozen=True)
class Job:
    """Work that a worker has claimed; `kind` is "draft" or "question".

    A question's payload: exchange_id, image_id, frame, question, region (a Region as JSON, or
    None).
    """

    id: str
    kind: str
    study_id: str
    payload: dict[str, Any]


# ---- what people ask for ----


def ask_for_draft(store: Store, study_id: str, by: Person) -> str:
    """Queues a draft, unless one is on its way already; gives the job's id."""
    with store.transaction() as session:
        return ask_for_draft_of(session, study_id, by)


def ask_for_draft_of(session: Session, study_id: str, by: Person) -> str:
    """`ask_for_draft` inside of a transaction, such as the one that adds the study."""
    study = study_of(session, study_id)
    if study.status == "signed":
        raise ReviewError("the report is signed", remedy="Write an addendum to it.")
    on_its_way = session.scalars(
        select(JobTable.id).where(
            JobTable.study_id == study_id,
            JobTable.kind == "draft",
            JobTable.state.in_(("waiting", "running")),
        )
    ).first()
    if on_its_way is not None:
        return on_its_way
    study.problem = None
    job_id = _queue(session, "draft", study_id, {})
    audit.record(session, by.id, "asked for a draft", study_id, {}, {"job": job_id})
    return job_id


def ask(
    store: Store,
    study_id: str,
    image_id: str,
    frame: int,
    question: str,
    region: Region | None,
    by: Person,
) -> Exchange:
    """Queues a question about an image; the answer comes into the conversation."""
    with store.transaction() as session:
        study_of(session, study_id)
        image = session.get(ImageTable, image_id)
        if image is None or image.study_id != study_id:
            raise ReviewError(
                "the image is none of this study's",
                remedy="Ask about an image of the study.",
                code="unknown_image",
            )
        exchange = Exchange(
            id=new_id(),
            study_id=study_id,
            image_id=image_id,
            frame=frame,
            question=question,
            region=region,
            asked_by=by.id,
            asked_at=stores.now(),
        )
        record = _as_json(exchange)
        session.add(
            ExchangeTable(id=exchange.id, study_id=study_id, at=exchange.asked_at, record=record)
        )
        told = exchange.model_dump(mode="json", include={"image_id", "frame", "question", "region"})
        _queue(session, "question", study_id, {"exchange_id": exchange.id, **told})
        audit.record(session, by.id, "asked", study_id, {}, {"exchange": exchange.id, **told})
    return exchange


def conversation(store: Store, study_id: str) -> list[Exchange]:
    """The questions about a study, the oldest first."""
    with store.reading() as session:
        records = session.scalars(
            select(ExchangeTable.record)
            .where(ExchangeTable.study_id == study_id)
            .order_by(ExchangeTable.at, ExchangeTable.id)
        )
        return [Exchange.model_validate_json(record) for record in records]


def draft_waits(store: Store, study_id: str) -> bool:
    """Whether a draft of the study is on its way: asked for, or being made."""
    with store.reading() as session:
        query = select(JobTable.id).where(
            JobTable.study_id == study_id,
            JobTable.kind == "draft",
            JobTable.state.in_(("waiting", "running")),
        )
        return session.scalars(query.limit(1)).first() is not None


def waiting(store: Store) -> int:
    """How many jobs no worker has taken yet."""
    with store.reading() as session:
        query = select(func.count()).where(JobTable.state == "waiting")
        return session.scalar(query.select_from(JobTable)) or 0


def worker_seen(store: Store) -> datetime | None:
    """When a drafting process last gave a sign of life."""
    with store.reading() as session:
        beat = session.get(HeartbeatTable, 1)
    return beat.seen if beat else None


# ---- what the drafting process does ----


def claim(store: Store, worker: str, lease_s: float = 120) -> Job | None:
    """The next job, for `lease_s` seconds; None where there is none.

    Questions come before drafts (somebody waits for the answer), urgent studies before others.
    """
    _beat(store, worker)
    # Looked at first without a writer's lock: an idle worker asks often.
    with store.reading() as session:
        if session.scalars(select(JobTable.id).where(_claimable()).limit(1)).first() is None:
            return None
    with store.transaction() as session:
        for job in _next(session):
            if job.tries >= TRIES:
                _failed(session, job, DIED)
                continue
            job.state, job.worker, job.tries = "running", worker, job.tries + 1
            job.lease_until = stores.now() + timedelta(seconds=lease_s)
            job.progress = 0.0
            if job.kind == "draft":
                study = study_of(session, job.study_id)
                if study.status not in ("in_review", "signed"):
                    study.status = "drafting"
            return Job(job.id, job.kind, job.study_id, json.loads(job.payload))
    return None


def renew(store: Store, job_id: str, worker: str, progress: float, lease_s: float = 120) -> bool:
    """A sign of life, with the progress 0..1. False if the job is no longer this worker's."""
    _beat(store, worker)
    with store.transaction() as session:
        job = _held(session, job_id, worker)
        if job is not None:
            job.lease_until = stores.now() + timedelta(seconds=lease_s)
            job.progress = min(max(progress, 0.0), 1.0)
    return job is not None


def finish(store: Store, job_id: str, worker: str) -> bool:
    """The job is done, and its result written. False if it is no longer this worker's."""
    with store.transaction() as session:
        job = _held(session, job_id, worker)
        if job is not None:
            job.state, job.progress, job.lease_until = "done", 1.0, None
    return job is not None


def fail(store: Store, job_id: str, worker: str, problem: str) -> bool:
    """Nothing came of the job; the study or the question says why. False as in `finish`."""
    with store.transaction() as session:
        job = _held(session, job_id, worker)
        if job is not None:
            _failed(session, job, problem)
    return job is not None


def give_back(store: Store, job_id: str, worker: str) -> bool:
    """The worker is told to end: the job waits again, and the try does not count."""
    with store.transaction() as session:
        job = _held(session, job_id, worker)
        if job is not None:
            job.state, job.worker, job.lease_until = "waiting", None, None
            job.tries -= 1
            if job.kind == "draft":
                no_longer_drafting(session, job.study_id)
    return job is not None


def answered(store: Store, exchange_id: str, answer: Answer) -> None:
    """Puts an answer into the conversation."""
    with store.transaction() as session:
        row, exchange = _exchange(session, exchange_id)
        row.record = _as_json(exchange.model_copy(update={"answer": answer, "problem": None}))
        session.flush()
        after = {"exchange": exchange_id, "answer": answer.answer, "model": answer.model}
        audit.record(session, MACHINE, "answered", exchange.study_id, {}, after)


# ---- parts ----


def _queue(session: Session, kind: str, study_id: str, payload: dict[str, Any]) -> str:
    job_id = new_id()
    session.add(
        JobTable(
            id=job_id,
            kind=kind,
            study_id=study_id,
            payload=json.dumps(payload),
            state="waiting",
            at=stores.now(),
        )
    )
    session.flush()
    return job_id


def _claimable() -> ColumnElement[bool]:
    expired = (JobTable.state == "running") & (JobTable.lease_until <= stores.now())
    return or_(JobTable.state == "waiting", expired)


def _next(session: Session) -> Iterator[JobTable]:
    yield from session.scalars(
        select(JobTable)
        .join(StudyTable, StudyTable.id == JobTable.study_id)
        .where(_claimable())
        .order_by(
            case((JobTable.kind == "question", 0), else_=1), by_priority(), JobTable.at, JobTable.id
        )
    ).all()


def _held(session: Session, job_id: str, worker: str) -> JobTable | None:
    job = session.get(JobTable, job_id)
    held = job is not None and job.state == "running" and job.worker == worker
    return job if held else None


def _failed(session: Session, job: JobTable, problem: str) -> None:
    job.state, job.problem, job.lease_until = "failed", plain(problem), None
    if job.kind == "draft":
        draft_failed_of(session, job.study_id, problem)
    else:
        row, exchange = _exchange(session, json.loads(job.payload)["exchange_id"])
        row.record = _as_json(exchange.model_copy(update={"problem": problem}))


def _exchange(session: Session, exchange_id: str) -> tuple[ExchangeTable, Exchange]:
    row = session.get(ExchangeTable, exchange_id)
    if row is None:
        raise ReviewError("there is no such question on this desk", code="unknown_question")
    return row, Exchange.model_validate_json(row.record)


def _as_json(exchange: Exchange) -> str:
    """With what the answer's probability is of, which an answer leaves out of its own file."""
    content = exchange.model_dump(mode="json")
    if exchange.answer is not None:
        content["answer"]["probability_of"] = exchange.answer.probability_of
    return json.dumps(content)


def _beat(store: Store, worker: str) -> None:
    with store.reading() as session:
        beat = session.get(HeartbeatTable, 1)
    if beat is not None and beat.worker == worker and stores.now() - beat.seen < BEAT:
        return
    with store.transaction() as session:
        session.merge(HeartbeatTable(id=1, worker=worker, seen=stores.now()))
