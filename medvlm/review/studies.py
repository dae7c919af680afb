"""How studies and drafts come onto the desk, and what they are called in a search."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from medvlm.errors import NotAllowed, ReviewError
from medvlm.records import Draft
from medvlm.review import audit
from medvlm.review import store as stores
from medvlm.review.changes import begin
from medvlm.review.records import (
    Fields,
    ImageRow,
    Patient,
    Person,
    Priority,
    Review,
    Status,
)
from medvlm.review.store import Store, new_id
from medvlm.review.tables import DraftTable, ImageTable, ReviewTable, StudyTable

URGENT = frozenset({"Pneumothorax"})
"""Findings that cannot wait, where the draft says present or uncertain."""
MACHINE = "machine"
"""Who acts, in the audit, where the program does so by itself."""
_KATAKANA = {katakana: katakana - 0x60 for katakana in range(0x30A1, 0x30F7)}  # to hiragana


@dataclass(frozen=True)
class NewStudy:
    """A study to add; `id` is made here, so that its files can be put in place before.

    `content_key` is the same for the same files; `patient_key` for the same patient. `taken` is
    YYYYMMDD or YYYYMMDDHHMMSS, or "".
    """

    content_key: str
    patient: Patient = field(default_factory=Patient, repr=False)
    study_instance_uid: str | None = None
    patient_key: str | None = None
    accession_number: str | None = field(default=None, repr=False)
    modality: str | None = None
    body_part: str | None = None
    view: str | None = None
    description: str | None = field(default=None, repr=False)
    taken: str = ""
    priority: Priority = "routine"
    id: str = field(default_factory=new_id)


@dataclass(frozen=True)
class NewImage:
    """An image of a study to add; `path` is relative to the desk's folder of files."""

    path: str
    rows: int
    columns: int
    sha256: str
    frames: int = 1
    stack: int = 0
    number: int = 0
    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None
    series_instance_uid: str | None = None
    description: str | None = field(default=None, repr=False)
    modality: str | None = None
    view_position: str | None = None
    id: str = field(default_factory=new_id)


def add_study(
    session: Session, row: NewStudy, images: list[NewImage], by: Person | None = None
) -> tuple[str, bool]:
    """Puts a study on the worklist, in the caller's transaction.

    Gives its id, and whether it is new: the same files are not added twice.
    """
    known = session.scalar(select(StudyTable.id).where(StudyTable.content_key == row.content_key))
    if known is not None:
        return known, False
    patient = Patient.model_validate(
        {
            name: plain(value) if isinstance(value, str) else value
            for name, value in row.patient.model_dump().items()
        }
    )
    words = (patient.name, patient.patient_id, row.accession_number, row.description)
    session.add(
        StudyTable(
            id=row.id,
            content_key=row.content_key,
            study_instance_uid=plain(row.study_instance_uid),
            patient_key=row.patient_key,
            patient=patient.model_dump_json(),
            search="\n".join(searchable(plain(value) or "") for value in words),
            accession_number=plain(row.accession_number),
            modality=plain(row.modality),
            body_part=plain(row.body_part),
            view=plain(row.view),
            description=plain(row.description),
            taken=(plain(row.taken) or "")[:14],
            received=stores.now(),
            status="new",
            priority=row.priority,
        )
    )
    session.flush()
    for image in images:
        told = {name: value for name, value in vars(image).items() if name != "path"}
        told["description"] = plain(image.description)
        session.add(
            ImageTable(
                id=image.id,
                study_id=row.id,
                path=image.path,
                stack=image.stack,
                number=image.number,
                record=ImageRow(study_id=row.id, **told).model_dump_json(),
            )
        )
    session.flush()
    after = {"content_key": row.content_key, "images": [image.sha256 for image in images]}
    audit.record(session, by.id if by else MACHINE, "added", row.id, {}, after)
    return row.id, True


def set_priority(store: Store, study_id: str, priority: Priority, by: Person) -> None:
    """Raises NotAllowed for a reader."""
    if by.role == "reader":
        raise NotAllowed(
            "a reader does not set a study's priority", remedy="Ask a reviewer to do so."
        )
    with store.transaction() as session:
        study = study_of(session, study_id)
        if study.priority != priority:
            before, study.priority = study.priority, priority
            changed = {"priority": before}, {"priority": priority}
            audit.record(session, by.id, "priority", study_id, *changed)


def record_draft(
    store: Store, study_id: str, draft: Draft, urgent: Collection[str] = URGENT
) -> str:
    """Keeps a draft, and gives its id. The study is then drafted, or refused by the gate.

    A review that somebody has begun, or a signed one, stays as it is. `urgent`: the findings that
    cannot wait.
    """
    with store.transaction() as session:
        study = study_of(session, study_id)
        before = {"status": study.status}
        draft_id = new_id()
        if study.status != "signed":
            first = latest_draft_of(session, study_id) is None
            begins = _begins(session, study_id, draft_id, draft)
            if begins:
                if study.status != "in_review":
                    study.status = _status(draft)
                study.problem = _refusal(draft)
            # What cannot wait is told even if a review that began without a draft stays so.
            if begins or first:
                said = (one.finding for one in draft.findings if one.polarity != "absent")
                study.urgent = json.dumps([one for one in dict.fromkeys(said) if one in urgent])
        session.add(
            DraftTable(
                id=draft_id,
                study_id=study_id,
                at=stores.now(),
                model=f"{draft.model.name} {draft.model.version}",
                weights_sha256=draft.model.weights_sha256,
                record=draft.model_dump_json(),
            )
        )
        after = {
            "status": study.status,
            "draft": draft_id,
            "model": draft.model,
            "sentences": len(draft.findings),
            "refused": not draft.input_check.accepted,
        }
        session.flush()
        audit.record(session, MACHINE, "drafted", study_id, before, after)
    return draft_id


def _begins(session: Session, study_id: str, draft_id: str, draft: Draft) -> bool:
    """Whether the review is about this draft from now on: nobody has made anything of it yet.

    Whoever opened the study before its draft was there has only displayed images.
    """
    row = session.get(ReviewTable, study_id)
    again = latest_draft_of(session, study_id) is not None
    if row is None and not again:
        return True  # the review is made from the draft when it is first wanted
    old = Review.model_validate_json(row.record) if row else Review(study_id=study_id)
    if not _untouched(old):
        return False
    # Sentences of two drafts have the same ids: who saw those of the other one is told so.
    new = begin(study_id, draft_id, draft).model_copy(
        update={"version": old.version + again, "displayed": old.displayed}
    )
    if row is None:
        row = ReviewTable(study_id=study_id, started=stores.now())
        session.add(row)
    row.version, row.changed, row.record = new.version, stores.now(), new.model_dump_json()
    return True


def _untouched(review: Review) -> bool:
    impression = review.fields.machine_impression
    drafted = Fields(impression=impression, machine_impression=impression)
    decided = any(one.decision != "unresolved" for one in review.sentences)
    taken = any(one.taken for one in review.withheld)
    return not (decided or taken or review.acknowledged or review.fields != drafted)


def latest_draft(store: Store, study_id: str) -> tuple[str, Draft] | None:
    """The last draft's id and content."""
    with store.reading() as session:
        return latest_draft_of(session, study_id)


def latest_draft_of(session: Session, study_id: str) -> tuple[str, Draft] | None:
    """`latest_draft` inside of a transaction."""
    row = session.scalars(
        select(DraftTable)
        .where(DraftTable.study_id == study_id)
        .order_by(DraftTable.at.desc(), DraftTable.id)
        .limit(1)
    ).first()
    return None if row is None else (row.id, Draft.model_validate_json(row.record))


def draft_failed(store: Store, study_id: str, problem: str) -> None:
    """No draft came of it; `problem` says why, for people."""
    with store.transaction() as session:
        draft_failed_of(session, study_id, problem)


def draft_failed_of(session: Session, study_id: str, problem: str) -> None:
    """`draft_failed` inside of a transaction: an earlier draft still stands."""
    study = no_longer_drafting(session, study_id)
    study.problem = plain(problem)
    session.flush()
    audit.record(session, MACHINE, "draft failed", study_id, {}, {"problem": study.problem})


def no_longer_drafting(session: Session, study_id: str) -> StudyTable:
    """The study, with the status that its drafts so far give it."""
    study = study_of(session, study_id)
    if study.status not in ("in_review", "signed"):
        earlier = latest_draft_of(session, study_id)
        study.status = "new" if earlier is None else _status(earlier[1])
    return study


def study_of(session: Session, study_id: str) -> StudyTable:
    """Raises ReviewError if the desk has no such study."""
    study = session.get(StudyTable, study_id)
    if study is None:
        raise ReviewError(
            "there is no such study on this desk",
            remedy="Choose one from the worklist.",
            code="unknown_study",
        )
    return study


def folded(words: str) -> str:
    """A text in which case, width and kind of kana make no difference."""
    return unicodedata.normalize("NFKC", words).casefold().translate(_KATAKANA)


def searchable(words: str) -> str:
    """What a search looks into: a name's parts stand apart and, as some write them, together."""
    groups = [" ".join(group.split("^")) for group in folded(words).split("=")]
    return " ".join(dict.fromkeys([*groups, *(group.replace(" ", "") for group in groups)]))


def plain(words: str | None) -> str | None:
    """What files tell, on one line, without what a database refuses or a page cannot show."""
    if words is None:
        return None
    line = " ".join(words.split())
    return "".join(one for one in line if unicodedata.category(one) not in ("Cc", "Cs"))


def _status(draft: Draft) -> Status:
    return "drafted" if draft.input_check.accepted else "refused"


def _refusal(draft: Draft) -> str | None:
    check = draft.input_check
    if check.accepted:
        return None
    reasons = [*check.reasons, *(reason for image in check.images for reason in image.reasons)]
    return " ".join(dict.fromkeys(reason.message for reason in reasons)) or "The gate refused it."
