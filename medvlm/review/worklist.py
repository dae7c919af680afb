"""The worklist: which studies there are, in the order in which they should be read.

What changes it lies in `studies.py`, and is had from here as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from sqlalchemy import ColumnElement, Select, case, func, select
from sqlalchemy.orm import Session

from medvlm.errors import ReviewError, StoreError
from medvlm.review import store as stores
from medvlm.review.records import ImageRow, Lock, Patient, Priority, Status, StudyRow
from medvlm.review.store import Store
from medvlm.review.studies import URGENT as URGENT
from medvlm.review.studies import NewImage as NewImage
from medvlm.review.studies import NewStudy as NewStudy
from medvlm.review.studies import add_study as add_study
from medvlm.review.studies import draft_failed as draft_failed
from medvlm.review.studies import folded, study_of
from medvlm.review.studies import latest_draft as latest_draft
from medvlm.review.studies import record_draft as record_draft
from medvlm.review.studies import set_priority as set_priority
from medvlm.review.tables import ImageTable, JobTable, ReviewTable, StudyTable

STATUSES: frozenset[Status] = frozenset(get_args(Status))
RANKS: dict[Priority, int] = {"urgent": 0, "high": 1, "routine": 2}


@dataclass(frozen=True)
class Filter:
    """Which studies to show. `text` is looked for in name, id, accession number, description."""

    statuses: frozenset[Status] = STATUSES
    modality: str | None = None
    priority: Priority | None = None
    text: str = ""
    limit: int = 200
    offset: int = 0


@dataclass(frozen=True)
class Worklist:
    """`total`: how many studies fit the filter, of which `rows` are some."""

    rows: list[StudyRow]
    total: int


def worklist(store: Store, filter: Filter = Filter()) -> Worklist:
    """The studies that fit.

    Those with an urgent finding that nobody took note of come first, then unsigned before signed,
    then by priority, then the one that waits longest.
    """
    fits = _conditions(filter)
    with store.reading() as session:
        total = session.scalar(select(func.count()).select_from(StudyTable).where(*fits)) or 0
        order = (
            case((StudyTable.id.in_(_alarming(session)), 0), else_=1),
            case((StudyTable.status == "signed", 1), else_=0),
            by_priority(),
            StudyTable.received,
            StudyTable.id,
        )
        query = _studies().where(*fits).order_by(*order)
        rows = session.execute(query.limit(filter.limit).offset(filter.offset)).all()
    return Worklist([_row(*row) for row in rows], total)


def by_priority() -> ColumnElement[int]:
    """To sort by: urgent, high, routine."""
    return case(RANKS, value=StudyTable.priority, else_=len(RANKS))


def modalities(store: Store) -> list[str]:
    """Those that occur, sorted."""
    with store.reading() as session:
        return sorted(filter(None, session.scalars(select(StudyTable.modality).distinct())))


def study_row(store: Store, study_id: str) -> StudyRow:
    """One study's line. Raises ReviewError if there is none."""
    with store.reading() as session:
        return study_row_of(session, study_id)


def study_row_of(session: Session, study_id: str) -> StudyRow:
    """`study_row` inside of a transaction."""
    study_of(session, study_id)
    return _row(*session.execute(_studies().where(StudyTable.id == study_id)).one())


def images(store: Store, study_id: str) -> list[ImageRow]:
    """The study's images by stack and number."""
    with store.reading() as session:
        return images_of(session, study_id)


def images_of(session: Session, study_id: str) -> list[ImageRow]:
    """`images` inside of a transaction."""
    records = session.scalars(
        select(ImageTable.record)
        .where(ImageTable.study_id == study_id)
        .order_by(ImageTable.stack, ImageTable.number, ImageTable.id)
    )
    return [ImageRow.model_validate_json(record) for record in records]


def image_path(store: Store, image_id: str) -> tuple[ImageRow, Path]:
    """An image and its file. Raises ReviewError if the desk has no such image."""
    with store.reading() as session:
        found = session.get(ImageTable, image_id)
    if found is None:
        raise ReviewError(
            "there is no such image on this desk",
            remedy="Open the study from the worklist.",
            code="unknown_image",
        )
    path = store.files / found.path
    if not path.resolve().is_relative_to(store.files.resolve()):
        raise StoreError(
            "an image is said to lie outside of the desk's folder",
            remedy="Run `medvlm audit verify`: somebody changed the database.",
        )
    return ImageRow.model_validate_json(found.record), path


def priors(store: Store, study_id: str) -> list[StudyRow]:
    """The same patient's studies that were taken before, the newest first.

    None where the files name no patient, or do not tell when the study was taken.
    """
    with store.reading() as session:
        study = session.get(StudyTable, study_id)
        if study is None or not study.patient_key or not study.taken:
            return []
        own = _studies().where(
            StudyTable.patient_key == study.patient_key, StudyTable.id != study_id
        )
        rows = [_row(*row) for row in session.execute(own)]
    before = [row for row in rows if row.taken and _earlier(row.taken, study.taken)]
    return sorted(before, key=lambda row: (row.taken, row.id), reverse=True)


def _earlier(one: str, other: str) -> bool:
    """Two times of which one may be told to the day only."""
    length = min(len(one), len(other))
    return one[:length] < other[:length]


def _conditions(filter: Filter) -> list[ColumnElement[bool]]:
    fits: list[ColumnElement[bool]] = []
    if filter.statuses != STATUSES:
        fits.append(StudyTable.status.in_(sorted(filter.statuses)))
    if filter.modality is not None:
        fits.append(StudyTable.modality == filter.modality)
    if filter.priority is not None:
        fits.append(StudyTable.priority == filter.priority)
    words = re.sub(r"[\^=\0]", " ", folded(filter.text)).split()
    return [*fits, *(StudyTable.search.contains(word, autoescape=True) for word in words)]


def _alarming(session: Session) -> list[str]:
    """Unsigned studies with an urgent finding that nobody took note of yet."""
    rows = session.execute(
        select(StudyTable.id, StudyTable.urgent, ReviewTable.record)
        .outerjoin(ReviewTable, ReviewTable.study_id == StudyTable.id)
        .where(StudyTable.urgent != "[]", StudyTable.status != "signed")
    )
    return [id for id, urgent, review in rows if _open(urgent, review)]


def _open(urgent: str, review: str | None) -> tuple[str, ...]:
    noted: Collection[str] = json.loads(review)["acknowledged"] if review else ()
    return tuple(finding for finding in json.loads(urgent) if finding not in noted)


def _studies() -> Select[Any]:
    """A study, its number of images, its review's version and content, its draft's progress."""
    number = (
        select(func.count())
        .where(ImageTable.study_id == StudyTable.id)
        .correlate(StudyTable)
        .scalar_subquery()
    )
    progress = (
        select(func.max(JobTable.progress))
        .where(
            JobTable.study_id == StudyTable.id,
            JobTable.kind == "draft",
            JobTable.state == "running",
        )
        .correlate(StudyTable)
        .scalar_subquery()
    )
    # The content is read for what was taken note of, and for no more.
    content = case((StudyTable.urgent != "[]", ReviewTable.record))
    return select(StudyTable, number, ReviewTable.version, content, progress).outerjoin(
        ReviewTable, ReviewTable.study_id == StudyTable.id
    )


def _row(
    study: StudyTable,
    images: int,
    version: int | None,
    review: str | None,
    progress: float | None,
) -> StudyRow:
    return StudyRow(
        id=study.id,
        study_instance_uid=study.study_instance_uid,
        patient=Patient.model_validate_json(study.patient),
        accession_number=study.accession_number,
        modality=study.modality,
        body_part=study.body_part,
        view=study.view,
        description=study.description,
        taken=study.taken,
        received=study.received,
        status=study.status,
        priority=study.priority,
        urgent=_open(study.urgent, review),
        problem=study.problem,
        progress=progress,
        lock=lock_of(study),
        images=images,
        version=version or 0,
    )


def lock_of(study: StudyTable) -> Lock | None:
    """Who holds a study, None where nobody does or the time is up."""
    if study.lock_person is None or study.lock_until is None or study.lock_until <= stores.now():
        return None
    return Lock(
        person_id=study.lock_person,
        name=study.lock_name or study.lock_person,
        until=study.lock_until,
    )
