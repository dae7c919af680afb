"""What reviewers made of drafts, as data to learn from: one JSON object a line (JSONL).

A line is one signed review of one study: each sentence of the draft and what became of it.
`schemas/corrections.schema.json` holds the JSON schema; `docs/reports.md` says what each action
teaches. Coordinates are source pixels, as in `draft.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from medvlm.findings import FINDINGS, Polarity
from medvlm.records import ModelRecord, Region
from medvlm.reports.labels import Labels, combine
from medvlm.reports.report import UnusableReport
from medvlm.reports.statements import Statement

Action = Literal["accepted", "edited", "rejected", "added"]
Reason = Literal["not there", "wrong place", "other"]
FindingName = Annotated[str, Field(json_schema_extra={"enum": list(FINDINGS)})]
Uid = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)+$", max_length=64)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ReviewedSentence(_Strict):
    """One sentence of the draft (`text`, `finding`, `polarity`) and the reviewer's decision.

    `text_after`, `finding_after`, `polarity_after`: of an edited sentence; what is left out stays.
    An added sentence has its words in `text`. `regions`: where the reviewer left the finding; for
    "wrong place" the right places, or none.
    """

    text: str
    finding: FindingName
    polarity: Polarity
    action: Action
    reason: Reason | None = None
    text_after: str | None = None
    finding_after: FindingName | None = None
    polarity_after: Polarity | None = None
    regions: tuple[Region, ...] = ()

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        for name in (self.finding, self.finding_after):
            if name is not None and name not in FINDINGS:
                raise ValueError("a finding is none of the fifteen")
        after = (self.text_after, self.finding_after, self.polarity_after)
        if self.action != "edited" and any(value is not None for value in after):
            raise ValueError("only an edited sentence has an after")
        if (self.action == "rejected") != (self.reason is not None):
            raise ValueError("a rejected sentence, and only that, has a reason")
        if self.reason == "not there" and (self.polarity == "absent" or self.regions):
            raise ValueError("'not there' is said of what the draft saw, and has no region")
        if self.stated is not None and self.stated[1] == "absent" and self.regions:
            raise ValueError("a finding that is absent has no region")
        return self

    @property
    def stated(self) -> tuple[str, Polarity] | None:
        """(finding, polarity) after the review; None where a rejection leaves nothing known."""
        if self.action == "rejected":
            if self.reason == "not there":
                return self.finding, "absent"
            return (self.finding, self.polarity) if self.reason == "wrong place" else None
        return self.finding_after or self.finding, self.polarity_after or self.polarity

    @property
    def text_left(self) -> str | None:
        """The sentence as signed, None for one that was rejected."""
        return None if self.action == "rejected" else self.text_after or self.text


class ReviewedStudy(_Strict):
    """One signed review. `reviewer` is a pseudonym; `signed_at` has a time zone."""

    schema_version: Literal["1.0"] = "1.0"
    study_instance_uid: Uid
    sop_instance_uids: tuple[Uid, ...] = ()
    model: ModelRecord
    sentences: tuple[ReviewedSentence, ...]
    reviewer: Annotated[str, Field(min_length=1)]
    signed_at: AwareDatetime


@dataclass(frozen=True)
class ReviewedBox:
    """A finding's box in source pixels of one image; `action` says how it came to be."""

    finding: str
    region: Region
    action: Action


def review_of(content: Any) -> ReviewedStudy:
    """A review from parsed JSON. Raises UnusableReport that names the fields that are wrong."""
    try:
        # Not `model_validate`: dates and tuples are strings and lists here.
        return ReviewedStudy.model_validate_json(json.dumps(content))
    except ValidationError as error:
        # A field that the schema lacks may be called anything, after a patient too.
        fields = {
            ".".join(map(str, (*item["loc"][:-1], "unknown")))
            if item["type"] == "extra_forbidden"
            else ".".join(map(str, item["loc"]))
            for item in error.errors()
        }
        raise UnusableReport(
            f"A review does not fit its schema: {', '.join(sorted(fields))}.", code="bad_review"
        ) from None


def to_jsonl(reviews: Iterable[ReviewedStudy]) -> str:
    """The reviews, one a line, as `review_of` reads them."""
    return "".join(review.model_dump_json() + "\n" for review in reviews)


def latest(reviews: Sequence[ReviewedStudy]) -> ReviewedStudy:
    """The one signed last."""
    return max(reviews, key=lambda review: review.signed_at)


def labels_of(review: ReviewedStudy) -> Labels:
    """What the review says of each finding, None where it says nothing.

    Of several sentences on one finding the strongest counts: present, uncertain, absent. Nothing
    is concluded from one finding for another, as it is from a report's words.
    """
    said = [Statement(*stated) for one in review.sentences if (stated := one.stated)]
    named = {statement.finding for statement in said}
    labels = combine(said)
    return {finding: label if finding in named else None for finding, label in labels.items()}


def unsettled(review: ReviewedStudy) -> frozenset[str]:
    """Findings whose sentence was rejected for another reason, with nothing in its place."""
    settled = {stated[0] for one in review.sentences if (stated := one.stated)}
    return frozenset(one.finding for one in review.sentences if one.stated is None) - settled


def boxes_of(review: ReviewedStudy) -> list[ReviewedBox]:
    """The regions that the review leaves standing."""
    return [
        ReviewedBox(stated[0], region, one.action)
        for one in review.sentences
        if (stated := one.stated) and stated[1] == "present"
        for region in one.regions
    ]


def corrections_schema() -> dict[str, Any]:
    """The JSON schema of one line; `schemas/corrections.schema.json` holds a copy."""
    schema = ReviewedStudy.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
