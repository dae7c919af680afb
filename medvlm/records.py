"""The files that medvlm writes about a study: ``draft.json`` and the answer to a question.

Other programs rely on these fields (``schemas/draft.schema.json``). Unknown fields are refused,
numbers are finite. Coordinates are source pixels: x to the right (columns), y down (rows), the
origin at the top-left corner of the top-left pixel.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Probability = Annotated[float, Field(ge=0, le=1)]
Change = Literal["new", "unchanged", "larger", "smaller", "resolved", "not_comparable"]


class _Record(BaseModel):
    model_config = ConfigDict(
        extra="forbid", allow_inf_nan=False, json_schema_serialization_defaults_required=True
    )


class Reason(_Record):
    """Why something was refused: ``code`` for programs, ``message`` for people."""

    code: str
    message: str


class ImageCheck(_Record):
    """The gate's word on one image; ``file`` is the start of its sha256, never a path."""

    file: str | None = None
    sop_instance_uid: str | None = None
    accepted: bool
    reasons: list[Reason] = []


class InputCheck(_Record):
    """The gate's word on the study."""

    accepted: bool
    reasons: list[Reason] = []
    images: list[ImageCheck] = []


class Region(_Record):
    """A box in source pixels, and its outline (``[x, y]`` points) where there is one."""

    sop_instance_uid: str | None = None
    frame: Annotated[int, Field(ge=0)] = 0
    x: float
    y: float
    width: Annotated[float, Field(gt=0)]
    height: Annotated[float, Field(gt=0)]
    polygon: Annotated[
        list[tuple[float, float]] | None,
        Field(default=None, exclude_if=lambda value: value is None),
    ]


class Evidence(_Record):
    """The finding's probability on the image, with its region erased, blank, on another image."""

    status: Literal["supported", "weak", "unsupported"]
    p_image: Probability
    p_erased: Probability
    p_blank: Probability
    p_other: Probability


class Finding(_Record):
    """One sentence. ``probability``: that the finding is present, whatever the polarity.

    ``change``: since the study that the draft is compared with; null without one. ``flags``: why
    the site's policy holds it for doubtful.
    """

    text: str
    finding: str
    polarity: Literal["present", "absent", "uncertain"]
    probability: Probability
    evidence: Evidence | None = None
    regions: list[Region] = []
    change: Change | None = None
    flags: Annotated[list[Reason], Field(default=[], exclude_if=lambda value: not value)]

    @model_validator(mode="after")
    def _absent_is_nowhere(self) -> Self:
        if self.polarity == "absent" and self.regions:
            raise ValueError("a finding that is absent has no region")
        return self


class PriorFinding(_Record):
    """What the model sees of a finding in the earlier study, as it would draft it today."""

    finding: str
    polarity: Literal["present", "absent", "uncertain"]
    probability: Probability
    regions: list[Region] = []


class Comparison(_Record):
    """The earlier study that a draft was compared with.

    ``input_check``: the gate's word on it; refused, nothing is compared. ``reservations``: what
    could not be checked about it.
    """

    study_instance_uid: str | None = None
    input_check: InputCheck
    reservations: list[Reason] = []
    findings: list[PriorFinding] = []


class Withheld(_Record):
    """A sentence that was written and then kept back, and why."""

    finding: str
    text: str
    probability: Probability
    reason: str


class StudyRecord(_Record):
    """Which study; all null for a picture that is not DICOM."""

    study_instance_uid: str | None = None
    modality: str | None = None
    body_part: str | None = None
    view: str | None = None


class ModelRecord(_Record):
    """Which checkpoint spoke. ``policy_sha256``: under which policy of a site, if there is one."""

    name: str
    version: str
    weights_sha256: str
    policy_sha256: Annotated[
        str | None, Field(default=None, exclude_if=lambda value: value is None)
    ]


class Draft(_Record):
    """A machine's draft of one study; a refused study has one too, without findings.

    ``stability``: the share of findings that stay as they are when the images hardly change; null
    where it was not measured.
    """

    schema_version: Literal["1.0"] = "1.0"
    status: Literal["preliminary"] = "preliminary"
    study: StudyRecord
    model: ModelRecord
    input_check: InputCheck
    findings: list[Finding] = []
    impression: str = ""
    withheld: list[Withheld] = []
    comparison: Comparison | None = None
    stability: Probability | None = None
    timings_s: dict[str, Annotated[float, Field(ge=0)]] = {}

    @model_validator(mode="after")
    def _refused_says_nothing(self) -> Self:
        if not self.input_check.accepted and (self.findings or self.impression or self.withheld):
            raise ValueError("a refused study has no findings, impression or withheld sentences")
        return self

    @model_validator(mode="after")
    def _only_a_prior_shows_change(self) -> Self:
        if any((finding.change is None) != (self.comparison is None) for finding in self.findings):
            raise ValueError("a finding has a change if, and only if, a prior study was given")
        return self


class Answer(_Record):
    """An answer to a question; the gate's word goes with it and does not block it.

    ``probability_of``: what ``probability`` is of: a finding (calibrated), "answer" (a head's, of
    the answer itself), "yes" (the language model's own, not calibrated). For people, not written.
    """

    question: str
    answer: str
    probability: Probability | None = None
    probability_of: str | None = Field(default=None, exclude=True)
    regions: list[Region] = []
    evidence: Evidence | None = None
    input_check: InputCheck
    model: ModelRecord


def answer_words(answer: Answer) -> str:
    """An answer for people: its words, and what its probability is of."""
    if answer.probability is None:
        return answer.answer
    of = {"answer": "", "yes": " of yes", None: ""}.get(
        answer.probability_of, f" of {answer.probability_of}"
    )
    doubt = ", not calibrated" if answer.probability_of == "yes" else ""
    return f"{answer.answer} (probability{of} {answer.probability:.2f}{doubt})"


def draft_schema() -> dict[str, Any]:
    """The JSON schema of ``draft.json`` as written; ``schemas/draft.schema.json`` holds a copy."""
    schema = Draft.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
