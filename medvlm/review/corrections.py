"""What reviewers made of drafts, written as `medvlm finetune` reads it (docs/reports.md)."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from medvlm.findings import FINDINGS
from medvlm.records import Finding
from medvlm.reports.corrections import Reason, ReviewedSentence, ReviewedStudy
from medvlm.review.records import ImageRow, Review, Sentence
from medvlm.review.store import Store
from medvlm.review.tables import SignedTable, StudyTable
from medvlm.review.worklist import images_of

_REASONS: Mapping[str | None, Reason] = {
    "not there": "not there",
    "wrong place": "wrong place",
}


# As the format has it.
_UID = re.compile(r"(?=.{1,64}\Z)[0-9]+(?:\.[0-9]+)+")


@dataclass(frozen=True)
class Corrections:
    """The reviews, in the order of their signatures, and how many studies were left out.

    `no_uid`: pictures, which nothing joins to their images again; `no_draft`: written without one.
    """

    reviews: list[ReviewedStudy]
    no_uid: int = 0
    no_draft: int = 0

    @property
    def left_out(self) -> int:
        """Signed studies that teach nothing."""
        return self.no_uid + self.no_draft


def corrections(store: Store, pseudonym_key: bytes | None = None) -> Corrections:
    """All signed reviews as data to learn from.

    Args:
        pseudonym_key: makes the same pseudonym of a reviewer each time, here and elsewhere; left
            out, they are numbered by their first signature on this desk.
    """
    with store.reading() as session:
        rows = session.execute(
            select(SignedTable, StudyTable.study_instance_uid)
            .join(StudyTable, StudyTable.id == SignedTable.study_id)
            .where(SignedTable.version == 1)
            .order_by(SignedTable.at, SignedTable.study_id)
        ).all()
        images = {row.study_id: images_of(session, row.study_id) for row, _ in rows}
    names: dict[str, str] = {}
    left: Counter[str] = Counter()
    reviews = []
    for row, uid in rows:
        name = names.setdefault(row.person, _pseudonym(row.person, pseudonym_key, len(names) + 1))
        review = Review.model_validate_json(row.review)
        if not uid or not _UID.fullmatch(uid):
            left["no_uid"] += 1
        elif review.model is None:
            left["no_draft"] += 1
        else:
            reviews.append(
                ReviewedStudy(
                    study_instance_uid=uid,
                    sop_instance_uids=_uids(images[row.study_id]),
                    model=review.model,
                    sentences=tuple(
                        said for one in review.sentences if (said := reviewed(one)) is not None
                    ),
                    reviewer=name,
                    signed_at=row.at,
                )
            )
    return Corrections(reviews, left["no_uid"], left["no_draft"])


def reviewed(sentence: Sentence) -> ReviewedSentence | None:
    """One sentence as data; None where it teaches nothing about any of the lexicon's findings."""
    machine = sentence.machine
    if machine is None:
        if sentence.decision != "added" or sentence.finding not in FINDINGS:
            return None
        return ReviewedSentence(
            text=sentence.text,
            finding=sentence.finding,
            polarity=sentence.polarity,
            action="added",
            regions=sentence.regions,
        )
    if machine.finding not in FINDINGS or sentence.decision == "unresolved":
        return None
    if sentence.decision == "accepted":
        return ReviewedSentence(**_drafted(machine), action="accepted", regions=sentence.regions)
    if sentence.decision == "edited" and sentence.finding in FINDINGS:
        return ReviewedSentence(
            **_drafted(machine),
            action="edited",
            text_after=sentence.text if sentence.text != machine.text else None,
            finding_after=sentence.finding if sentence.finding != machine.finding else None,
            polarity_after=sentence.polarity if sentence.polarity != machine.polarity else None,
            regions=sentence.regions,
        )
    # What an edit made of it is none of the findings: of the machine's, nothing is known.
    reason = _REASONS.get(sentence.reason, "other")
    if machine.polarity == "absent":
        reason = "other"
    moved = reason == "wrong place" and sentence.regions != tuple(machine.regions)
    return ReviewedSentence(
        **_drafted(machine),
        action="rejected",
        reason=reason,
        regions=sentence.regions if moved else (),
    )


def _drafted(machine: Finding) -> dict[str, str]:
    return {"text": machine.text, "finding": machine.finding, "polarity": machine.polarity}


def _uids(images: Sequence[ImageRow]) -> tuple[str, ...]:
    uids = (one.sop_instance_uid for one in images)
    return tuple(dict.fromkeys(uid for uid in uids if uid and _UID.fullmatch(uid)))


def _pseudonym(person: str, key: bytes | None, number: int) -> str:
    if key is None:
        return f"reviewer-{number}"
    return hmac.new(key, f"reviewer\0{person}".encode(), hashlib.sha256).hexdigest()[:16]
