"""The signature: what was reviewed becomes a report that nobody changes any more.

A signed report's sha256 is that of its canonical JSON without the field `sha256` itself
(`canonical`); the audit's entry of the signature holds it, too.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from medvlm.errors import AlreadySigned, NotAllowed, NotReady, ReviewError, Stale
from medvlm.review import audit
from medvlm.review import store as stores
from medvlm.review.guards import WARNINGS, problems
from medvlm.review.locks import clear
from medvlm.review.patches import as_json
from medvlm.review.people import check_pin
from medvlm.review.records import Addendum, Person, Report, Review, Sentence, SignedSentence
from medvlm.review.review import review_of, to_change
from medvlm.review.spacing import spacing_known as spacing_known
from medvlm.review.store import Store, new_id
from medvlm.review.studies import study_of
from medvlm.review.tables import SignedTable
from medvlm.review.texts import some_lines
from medvlm.review.worklist import images_of, study_row_of

LOCALLY_ATTESTED = "locally attested"

_ORIGINS: dict[str, Literal["machine", "edited", "human"]] = {
    "edited": "edited",
    "added": "human",
}


def sign(
    store: Store,
    study_id: str,
    by: Person,
    *,
    version: int,
    pin: str | None = None,
    proof: str | None = None,
    confirmed: frozenset[str] = frozenset(),
) -> Report:
    """Signs the review as it is at `version`; afterwards only an addendum can be written.

    Args:
        pin: the person's PIN on this desk; or
        proof: the name of the log-in that has just asked them again who they are.
        confirmed: codes among `guards.WARNINGS` that they have seen and stand by.

    Raises:
        NotReady: problems are left that are not confirmed.
        WrongPin, NotAllowed, StudyLocked, Stale, AlreadySigned: nothing is signed.
    """
    attestation = _attested(store, by, pin, proof)
    spacing = spacing_known(store, study_id)
    with store.transaction() as session:
        review = to_change(session, study_id, by, version)
        row, images = study_row_of(session, study_id), images_of(session, study_id)
        found = {one.code for one in problems(review, row, images, spacing)}
        left = found - (confirmed & WARNINGS)
        if left:
            raise NotReady(
                f"The report is not ready to be signed: {', '.join(sorted(left))}.",
                remedy="Settle what is listed, or confirm what you stand by.",
            )
        now = stores.now()
        study = study_of(session, study_id)
        before = {"status": study.status}
        study.status = "signed"
        clear(study)
        session.flush()
        report = _contents(session, review).model_copy(
            update={
                "status": "final",
                "version": 1,
                "signed_by": by.name,
                "signed_at": now,
                "attestation": attestation,
            }
        )
        told = {"review_version": version, "confirmed": sorted(found & confirmed)}
        return _keep(session, by, "signed", report, _as_text(review), before, told)


def addendum(
    store: Store,
    study_id: str,
    by: Person,
    text: str,
    *,
    version: int | None = None,
    pin: str | None = None,
    proof: str | None = None,
) -> Report:
    """Adds words to a signed report: the next version, whose older content is unchanged.

    `version`: of the signed report that the person saw; None for whichever is the last.
    Raises ReviewError if there is nothing signed to add to, or the words are empty, and Stale if
    the report is not at `version` any more.
    """
    if not (words := some_lines(text)):
        raise ReviewError("The addendum is empty.", remedy="Write what there is to add.")
    attestation = _attested(store, by, pin, proof)
    with store.transaction() as session:
        last = _signed(session, study_id)
        if version is not None and last.version != version:
            raise Stale(
                "The report was amended in the meantime; nothing of yours was written.",
                remedy="Read it as it is now, then do it again.",
            )
        new = Addendum(
            text=words, signed_by=by.name, signed_at=stores.now(), attestation=attestation
        )
        old = _report(last)
        report = old.model_copy(
            update={
                "status": "amended",
                "version": old.version + 1,
                "addenda": (*old.addenda, new),
                "sha256": None,
            }
        )
        before = {"version": last.version, "sha256": last.sha256}
        return _keep(session, by, "addendum", report, last.review, before, {})


def report(store: Store, study_id: str, version: int | None = None) -> Report:
    """What was signed: the latest version, or the one asked for. Raises ReviewError."""
    with store.reading() as session:
        study_of(session, study_id)
        return _report(_signed(session, study_id, version))


def versions(store: Store, study_id: str) -> list[Report]:
    """All signed versions, the first first; none of a study that is not signed."""
    with store.reading() as session:
        rows = session.scalars(
            select(SignedTable)
            .where(SignedTable.study_id == study_id)
            .order_by(SignedTable.version)
        )
        return [_report(row) for row in rows]


def preliminary_report(store: Store, study_id: str) -> Report:
    """The report as it stands, unsigned, with what is not resolved yet: version 0.

    Raises AlreadySigned: then there is a final one.
    """
    with store.reading() as session:
        if study_of(session, study_id).status == "signed":
            raise AlreadySigned(
                "The report is signed; there is nothing preliminary about it any more.",
                remedy="Export the signed report.",
            )
        return _contents(session, review_of(session, study_id), unresolved=True)


def canonical(report: Report) -> str:
    """The JSON over which a report's sha256 is made: keys sorted, no spaces, no `sha256`."""
    content = report.model_dump(mode="json", exclude={"sha256"})
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


# ---- parts ----


def _attested(store: Store, by: Person, pin: str | None, proof: str | None) -> str:
    """How the person has shown that it is them, just now. Raises WrongPin, NotAllowed."""
    if by.role == "reader":
        raise NotAllowed("a reader does not sign", remedy="Ask an admin for another role.")
    if proof and not by.local:
        return proof
    if pin is None:
        how = "PIN" if by.local else "PIN, or log in again"
        raise NotAllowed("nothing shows that it is you who signs", remedy=f"Give your {how}.")
    # A transaction of its own: a wrong PIN is counted, whatever becomes of the signature.
    check_pin(store, by, pin)
    return LOCALLY_ATTESTED


def _contents(session: Session, review: Review, unresolved: bool = False) -> Report:
    fields = review.fields
    return Report(
        status="preliminary",
        study_id=review.study_id,
        version=0,
        study=study_row_of(session, review.study_id),
        images=tuple(images_of(session, review.study_id)),
        model=review.model,
        sentences=tuple(
            _sentence(one)
            for one in review.sentences
            if one.stands or (unresolved and one.decision == "unresolved")
        ),
        indication=fields.indication,
        comparison=fields.comparison,
        impression=fields.impression,
    )


def _sentence(one: Sentence) -> SignedSentence:
    return SignedSentence(
        text=one.text,
        finding=one.finding,
        polarity=one.polarity,
        origin=_ORIGINS.get(one.decision, "machine"),
        probability=one.probability,
        regions=one.regions,
    )


def _keep(
    session: Session,
    by: Person,
    action: str,
    report: Report,
    review: str,
    before: dict[str, Any],
    told: dict[str, Any],
) -> Report:
    record = canonical(report)
    sha256 = audit.digest(record)
    session.add(
        SignedTable(
            id=new_id(),
            study_id=report.study_id,
            version=report.version,
            at=stores.now(),
            person=by.id,
            record=record,
            sha256=sha256,
            review=review,
        )
    )
    session.flush()
    after = {
        "version": report.version,
        "sha256": sha256,
        "review_sha256": audit.digest(review),
        "attestation": report.addenda[-1].attestation if report.addenda else report.attestation,
        **told,
    }
    audit.record(session, by.id, action, report.study_id, before, after)
    return report.model_copy(update={"sha256": sha256})


def _as_text(review: Review) -> str:
    return json.dumps(as_json(review), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _signed(session: Session, study_id: str, version: int | None = None) -> SignedTable:
    query = select(SignedTable).where(SignedTable.study_id == study_id)
    if version is not None:
        query = query.where(SignedTable.version == version)
    row = session.scalars(query.order_by(SignedTable.version.desc()).limit(1)).first()
    if row is None:
        raise ReviewError(
            "There is no such signed report.", remedy="Sign the report first.", code="not_signed"
        )
    return row


def _report(row: SignedTable) -> Report:
    return Report.model_validate_json(row.record).model_copy(update={"sha256": row.sha256})
