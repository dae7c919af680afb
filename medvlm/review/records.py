"""What the desk keeps and shows: studies, reviews of their drafts, questions, signed reports.

A machine's draft (`medvlm.records.Draft`) and what people make of it (`Review`) are different
types: a review starts from a draft and never changes it. Coordinates are source pixels, as in
`draft.json`. Times are UTC.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from medvlm.dicom.patient import Sex
from medvlm.findings import Polarity
from medvlm.records import (
    Answer,
    Change,
    Evidence,
    Finding,
    ModelRecord,
    Probability,
    Reason,
    Region,
)

Role = Literal["reader", "reviewer", "admin"]
"""A reader looks and asks, a reviewer edits and signs, an admin also sets up."""
Status = Literal["new", "drafting", "drafted", "in_review", "signed", "refused"]
Priority = Literal["urgent", "high", "routine"]
Decision = Literal["unresolved", "accepted", "edited", "rejected", "added"]
Rejection = Literal["not there", "wrong place", "wrong severity", "missing", "wording"]
"""`missing`: the sentence leaves out something that is there."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Person(_Record):
    """Who acts. `local`: the one reviewer of a desk without accounts."""

    id: str
    name: str
    role: Role
    local: bool = False


class Patient(_Record):
    """Who the patient is: for worklist, review and export, never for a prompt, log, URL or path.

    `birth_date` is YYYYMMDD.
    """

    name: str | None = None
    patient_id: str | None = None
    issuer: str | None = None
    birth_date: str | None = None
    sex: Sex | None = None
    age_years: float | None = None


class Lock(_Record):
    """Who reviews a study, and until when without a sign of life."""

    person_id: str
    name: str
    until: AwareDatetime


class StudyRow(_Record):
    """A line of the worklist.

    Attributes:
        id: of the desk's own making (32 hexadecimal digits); says nothing, so that it may stand in
            a URL.
        taken: YYYYMMDD or YYYYMMDDHHMMSS as the files tell, "" where they do not.
        urgent: findings of the draft that cannot wait, unless acknowledged.
        problem: why drafting failed or the gate refused, in words.
        progress: of a draft in the making, 0..1.
        version: of the review, 0 before it began.
    """

    id: str
    study_instance_uid: str | None
    patient: Patient
    accession_number: str | None = None
    modality: str | None = None
    body_part: str | None = None
    view: str | None = None
    description: str | None = None
    taken: str = ""
    received: AwareDatetime
    status: Status
    priority: Priority
    urgent: tuple[str, ...] = ()
    problem: str | None = None
    progress: Probability | None = None
    lock: Lock | None = None
    images: int = 0
    version: int = 0


class ImageRow(_Record):
    """One image file of a study. `id` says nothing, as a study's; `stack` numbers its series."""

    id: str
    study_id: str
    stack: int
    number: int
    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None
    series_instance_uid: str | None = None
    description: str | None = None
    modality: str | None = None
    view_position: str | None = None
    rows: int
    columns: int
    frames: int = 1
    sha256: str


class Sentence(_Record):
    """A sentence of the report, and what became of it.

    `machine`: what the draft said, None for one that a person added. `withheld`: why the draft had
    kept it back, where a person took it in.
    """

    id: str
    text: str
    finding: str
    polarity: Polarity
    probability: Probability | None = None
    evidence: Evidence | None = None
    regions: tuple[Region, ...] = ()
    change: Change | None = None
    flags: tuple[Reason, ...] = ()
    decision: Decision = "unresolved"
    reason: Rejection | None = None
    machine: Finding | None = None
    withheld: str | None = None

    @property
    def stands(self) -> bool:
        """Whether it would be in the report if that were signed now."""
        return self.decision in ("accepted", "edited", "added")


class Kept(_Record):
    """A sentence that the draft withheld; `taken`: a person took it into the report."""

    id: str
    text: str
    finding: str
    probability: Probability
    reason: str
    taken: bool = False


class Fields(_Record):
    """The parts of a report beside its findings. `machine_impression`: as the draft had it."""

    indication: str = ""
    comparison: str = ""
    impression: str = ""
    template: str = ""
    machine_impression: str = ""


class Review(_Record):
    """A report in the making. `version` grows by one with every action.

    `displayed`: ids of the images that were shown; `acknowledged`: urgent findings that a person
    has taken note of.
    """

    study_id: str
    version: int = 0
    draft_id: str | None = None
    model: ModelRecord | None = None
    sentences: tuple[Sentence, ...] = ()
    withheld: tuple[Kept, ...] = ()
    fields: Fields = Fields()
    displayed: frozenset[str] = frozenset()
    acknowledged: frozenset[str] = frozenset()

    def sentence(self, sentence_id: str) -> Sentence:
        """Raises KeyError."""
        for one in self.sentences:
            if one.id == sentence_id:
                return one
        raise KeyError(sentence_id)


class Problem(_Record):
    """Why a report cannot be signed yet; `code` for programs and for the page's catalogue.

    `values` fill the catalogue's words; `message` is English.
    """

    code: str
    message: str
    sentence_id: str | None = None
    values: dict[str, str] = {}


class Exchange(_Record):
    """A question about a study, and its answer (None until it is there, or `problem`)."""

    id: str
    study_id: str
    image_id: str
    frame: Annotated[int, Field(ge=0)] = 0
    question: str
    region: Region | None = None
    asked_by: str
    asked_at: AwareDatetime
    answer: Answer | None = None
    problem: str | None = None


class SignedSentence(_Record):
    """A sentence as signed; `origin`: by the machine, by it and edited, or by a person."""

    text: str
    finding: str
    polarity: Polarity
    origin: Literal["machine", "edited", "human"]
    probability: Probability | None = None
    regions: tuple[Region, ...] = ()


class Report(_Record):
    """What is exported. `status`: only a signed one is final; an addendum leaves what it amends.

    `attestation`: "locally attested" (a PIN of this desk), or the log-in's name. `sha256`: of the
    signed content, over which the audit log holds its hand.
    """

    schema_version: Literal["1.0"] = "1.0"
    status: Literal["preliminary", "final", "amended"]
    study_id: str
    version: int
    study: StudyRow
    images: tuple[ImageRow, ...] = ()
    model: ModelRecord | None = None
    sentences: tuple[SignedSentence, ...]
    indication: str = ""
    comparison: str = ""
    impression: str = ""
    addenda: tuple[Addendum, ...] = ()
    signed_by: str | None = None
    signed_at: AwareDatetime | None = None
    attestation: str | None = None
    sha256: str | None = None


class Addendum(_Record):
    """Words added after the signature."""

    text: str
    signed_by: str
    signed_at: AwareDatetime
    attestation: str


Report.model_rebuild()
