"""Reviewing a study: every action in one transaction with its entry in the audit.

Whoever acts holds the study's lock and names the version that they saw. Where another action came
between, nothing is changed (`Stale`). An action that changes nothing leaves no trace.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from medvlm.errors import AlreadySigned, NotAllowed, ReviewError, Stale
from medvlm.findings import Polarity
from medvlm.records import Region
from medvlm.review import audit, changes
from medvlm.review import store as stores
from medvlm.review.locks import renew
from medvlm.review.patches import as_json, difference, patched
from medvlm.review.records import ImageRow, Person, Rejection, Review
from medvlm.review.store import Store
from medvlm.review.studies import latest_draft_of, study_of
from medvlm.review.tables import AuditTable, ReviewTable, StudyTable
from medvlm.review.worklist import images, images_of, lock_of

UNDOABLE = frozenset(
    {
        "accept",
        "edit",
        "reject",
        "reopen",
        "add",
        "move",
        "take_in",
        "accept_all",
        "set_fields",
        "acknowledge",
    }
)
"""Actions in the audit that `undo` takes back; that an image was displayed stays true."""

Change = Callable[[Review], Review]


def load(store: Store, study_id: str) -> Review:
    """The review as it stands; before anybody has acted, that of the latest draft."""
    with store.reading() as session:
        study_of(session, study_id)
        return review_of(session, study_id)


def accept(store: Store, study_id: str, by: Person, sentence_id: str, *, version: int) -> Review:
    """The sentence stands as drafted."""
    change = partial(changes.accept, sentence_id=sentence_id)
    return _act(store, study_id, by, version, "accept", change)


def edit(
    store: Store,
    study_id: str,
    by: Person,
    sentence_id: str,
    text: str,
    finding: str | None = None,
    polarity: Polarity | None = None,
    regions: Sequence[Region] | None = None,
    *,
    version: int,
) -> Review:
    """The sentence stands in these words; what is left out stays as it is."""
    change = partial(
        changes.edit,
        sentence_id=sentence_id,
        text=text,
        finding=finding,
        polarity=polarity,
        regions=regions,
    )
    return _act(store, study_id, by, version, "edit", change, regions or ())


def reject(
    store: Store, study_id: str, by: Person, sentence_id: str, reason: Rejection, *, version: int
) -> Review:
    """The machine's sentence goes out of the report."""
    change = partial(changes.reject, sentence_id=sentence_id, reason=reason)
    return _act(store, study_id, by, version, "reject", change)


def reopen(store: Store, study_id: str, by: Person, sentence_id: str, *, version: int) -> Review:
    """The sentence is unresolved again, as drafted; one that a person added is removed."""
    change = partial(changes.reopen, sentence_id=sentence_id)
    return _act(store, study_id, by, version, "reopen", change)


def add(
    store: Store,
    study_id: str,
    by: Person,
    text: str,
    finding: str,
    polarity: Polarity,
    regions: Sequence[Region] = (),
    *,
    version: int,
) -> Review:
    """A person's own sentence at the end; `finding` is one of the lexicon, or `changes.OTHER`."""
    change = partial(changes.add, text=text, finding=finding, polarity=polarity, regions=regions)
    return _act(store, study_id, by, version, "add", change, regions)


def move(
    store: Store,
    study_id: str,
    by: Person,
    sentence_id: str,
    regions: Sequence[Region],
    *,
    version: int,
) -> Review:
    """The right place of a sentence, also of one that was rejected for a wrong place."""
    change = partial(changes.move, sentence_id=sentence_id, regions=regions)
    return _act(store, study_id, by, version, "move", change, regions)


def take_in(store: Store, study_id: str, by: Person, withheld_id: str, *, version: int) -> Review:
    """A sentence that the draft withheld is to be resolved as the others are."""
    change = partial(changes.take_in, withheld_id=withheld_id)
    return _act(store, study_id, by, version, "take_in", change)


def accept_all(store: Store, study_id: str, by: Person, *, version: int) -> Review:
    """All that is unresolved stands. Raises NotReady unless all images were displayed."""
    change = partial(changes.accept_all, image_ids=[one.id for one in images(store, study_id)])
    return _act(store, study_id, by, version, "accept_all", change)


def set_fields(
    store: Store,
    study_id: str,
    by: Person,
    *,
    version: int,
    indication: str | None = None,
    comparison: str | None = None,
    impression: str | None = None,
    template: str | None = None,
) -> Review:
    """The parts of the report beside its findings; None leaves one as it is."""
    change = partial(
        changes.set_fields,
        indication=indication,
        comparison=comparison,
        impression=impression,
        template=template,
    )
    return _act(store, study_id, by, version, "set_fields", change)


def acknowledge(store: Store, study_id: str, by: Person, finding: str, *, version: int) -> Review:
    """A person has taken note of an urgent finding."""
    change = partial(changes.acknowledge, finding=finding)
    return _act(store, study_id, by, version, "acknowledge", change)


def undo(store: Store, study_id: str, by: Person, *, version: int) -> Review:
    """Takes back the last action on the study that was not taken back yet, whoever did it."""
    with store.transaction() as session:
        review = to_change(session, study_id, by, version)
        entry = _last_action(session, review)
        if entry is None:
            raise ReviewError("There is nothing to undo.", remedy="Go on with the review.")
        after = patched(review, json.loads(entry.before))
        return _keep(session, by, "undo", review, after, undone=entry.number)


def can_undo(store: Store, study_id: str) -> bool:
    """Whether there is an action to take back."""
    with store.reading() as session:
        signed = study_of(session, study_id).status == "signed"
        return not signed and _last_action(session, review_of(session, study_id)) is not None


def displayed(store: Store, study_id: str, by: Person, image_ids: Collection[str]) -> Review:
    """Keeps that images of the study were shown in full to whoever reviews it.

    Of anybody else, of other studies' images and of a signed study nothing is kept. The version
    stays: that a picture was seen is no change that another could overwrite.
    """
    with store.reading() as session:
        study = study_of(session, study_id)
        review = review_of(session, study_id)
    if set(image_ids) <= review.displayed or not _reviews(study, by):
        return review
    with store.transaction() as session:
        study, review = study_of(session, study_id), review_of(session, study_id)
        own = {one.id for one in images_of(session, study_id)}
        after = changes.display(review, own.intersection(image_ids))
        if after == review or not _reviews(study, by):
            return review
        return _keep(session, by, "displayed", review, after, counts=False)


# ---- within a transaction ----


def review_of(session: Session, study_id: str) -> Review:
    """`load` inside of a transaction."""
    row = session.get(ReviewTable, study_id)
    if row is not None:
        return Review.model_validate_json(row.record)
    latest = latest_draft_of(session, study_id)
    return changes.begin(study_id, *latest) if latest else changes.begin(study_id)


def to_change(session: Session, study_id: str, by: Person, version: int) -> Review:
    """The review for whoever may change or sign it now; renews their lock.

    Raises NotAllowed, AlreadySigned, StudyLocked, or Stale if it is not at `version` any more.
    """
    if by.role == "reader":
        raise NotAllowed("a reader does not review", remedy="Ask an admin for another role.")
    if study_of(session, study_id).status == "signed":
        raise AlreadySigned(
            "The report is signed and stays as it is.", remedy="Write an addendum to it."
        )
    renew(session, study_id, by)
    review = review_of(session, study_id)
    if review.version != version:
        raise Stale(
            "The review was changed in the meantime; nothing of yours was written.",
            remedy="Look at it as it is now, then do it again.",
        )
    return review


def _act(
    store: Store,
    study_id: str,
    by: Person,
    version: int,
    action: str,
    change: Change,
    regions: Sequence[Region] = (),
) -> Review:
    with store.transaction() as session:
        review = to_change(session, study_id, by, version)
        _on_images(regions, images_of(session, study_id))
        after = change(review)
        return review if after == review else _keep(session, by, action, review, after)


def _keep(
    session: Session,
    by: Person,
    action: str,
    before: Review,
    after: Review,
    *,
    counts: bool = True,
    **told: Any,
) -> Review:
    """Writes the review, that the study is in review, and what was done by whom."""
    now = stores.now()
    first = False
    if counts:
        after = after.model_copy(update={"version": before.version + 1})
        study = study_of(session, before.study_id)
        first, study.status = study.status != "in_review", "in_review"
    row = session.get(ReviewTable, before.study_id)
    if row is None:
        row = ReviewTable(study_id=before.study_id, started=now)
        session.add(row)
    if first:
        row.started = now
    row.version, row.changed, row.record = after.version, now, json.dumps(as_json(after))
    session.flush()
    back, forth = difference(before, after)
    audit.record(session, by.id, action, before.study_id, back, {**forth, **told})
    return after


def _last_action(session: Session, review: Review) -> AuditTable | None:
    """The last action that was not taken back, of those on the review's own draft."""
    undone = set()
    entries = session.scalars(
        select(AuditTable)
        .where(AuditTable.study_id == review.study_id)
        .order_by(AuditTable.number.desc())
    )
    for entry in entries:
        if entry.action == "undo":
            undone.add(json.loads(entry.after)["undone"])
        elif entry.action in UNDOABLE and entry.number not in undone:
            return entry
        elif entry.action == "drafted" and json.loads(entry.after)["draft"] == review.draft_id:
            return None
    return None


def _reviews(study: StudyTable, by: Person) -> bool:
    lock = lock_of(study)
    return study.status != "signed" and lock is not None and lock.person_id == by.id


def _on_images(regions: Sequence[Region], images: Sequence[ImageRow]) -> None:
    """Raises ReviewError for a region that lies on none of the study's images."""
    for region in regions:
        if not any(_lies_on(region, image) for image in images):
            raise ReviewError(
                "The region lies on none of the study's images.",
                remedy="Draw it on an image of this study.",
            )


def _lies_on(region: Region, image: ImageRow) -> bool:
    return (
        region.sop_instance_uid == image.sop_instance_uid
        and region.frame < image.frames
        and region.x < image.columns
        and region.y < image.rows
        and region.x + region.width > 0
        and region.y + region.height > 0
    )
