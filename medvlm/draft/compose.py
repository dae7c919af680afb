"""From a study to its draft: gate, look, decide, locate, compare, write."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from medvlm.dicom.prior import Prior
from medvlm.dicom.read import Refused
from medvlm.dicom.study import Study
from medvlm.draft.admit import Admission, Loaded, look_at_study
from medvlm.draft.claims import NOTHING, Given
from medvlm.draft.comparison import Read, change, read_findings
from medvlm.draft.evidence import Probabilities, image_was_used, look_at_nothing, measure
from medvlm.draft.ground import regions
from medvlm.draft.illustrate import crops, overlay
from medvlm.draft.look import Seen
from medvlm.draft.parse import Polarity
from medvlm.draft.stability import stability
from medvlm.draft.trunk import best_views, read_together
from medvlm.draft.withhold import withhold
from medvlm.draft.write import Statement, write_sentences
from medvlm.errors import InputError
from medvlm.model.checkpoint import Checkpoint
from medvlm.records import (
    Comparison,
    Draft,
    Finding,
    InputCheck,
    ModelRecord,
    PriorFinding,
    Reason,
    Region,
    StudyRecord,
)

ORDER: dict[Polarity, int] = {"present": 0, "uncertain": 1, "absent": 2}


@dataclass(frozen=True)
class DraftResult:
    """A draft, its picture (None for a refused study), and the files that could not be decoded.

    `crops`: for each finding with a region, what it points at, by the finding's name.
    """

    draft: Draft
    overlay: Image.Image | None
    crops: dict[str, Image.Image]
    failed: tuple[Refused, ...]


def draft_study(
    checkpoint: Checkpoint,
    study: Study,
    prior: Prior | None = None,
    *,
    loaded: Loaded | None = None,
    loaded_prior: Loaded | None = None,
) -> DraftResult:
    """Drafts a study from its accepted frontal images; a refused study gets a draft that says so.

    `prior`: the earlier study that it is compared with, which passes the same gate; refused there,
    nothing is compared, and the draft says so. `loaded`, `loaded_prior`: their images, where they
    were decoded beforehand.

    Raises InputError if none of the images that the gate let through can be decoded.
    """
    own = look_at_study(checkpoint, study, loaded)
    accepted, check = own.accepted, own.check
    start = time.perf_counter()
    before = _look_at_prior(checkpoint, prior, loaded_prior) if prior and accepted else None
    looked = time.perf_counter()
    earlier = before.accepted if before else None
    nothing = look_at_nothing(checkpoint, accepted)
    if accepted and not image_was_used(accepted, nothing):
        accepted, check, before = [], _not_used(check), None
    given = _given(study, accepted, prior=before is not None)
    told = describe(checkpoint, accepted, earlier, given, nothing) if accepted else []
    report = withhold(told, given, checkpoint.policy)
    written = time.perf_counter()
    steady = round(stability(checkpoint, accepted), 4) if accepted else None
    tried = time.perf_counter()
    seconds = own.seconds | ({"prior": looked - start} if before else {})
    draft = Draft(
        study=StudyRecord(
            study_instance_uid=study.study_instance_uid,
            modality=study.modality,
            body_part=study.body_part,
            view=_view(accepted) or study.view,
        ),
        model=model_record(checkpoint),
        input_check=check,
        findings=report.findings,
        impression=report.impression if accepted else "",
        withheld=report.withheld,
        comparison=_comparison(checkpoint, prior, before) if prior and before else None,
        stability=steady,
        timings_s={
            name: round(took, 3)
            for name, took in (
                seconds | {"write": written - looked, "stability": tried - written}
            ).items()
        },
    )
    failed = (*own.failed, *(before.failed if before else ()))
    return DraftResult(
        draft, overlay(accepted, draft, earlier or []), crops(accepted, draft.findings), failed
    )


def describe(
    checkpoint: Checkpoint,
    seen: Sequence[Seen],
    earlier: Sequence[Seen] | None = None,
    given: Given = NOTHING,
    nothing: Sequence[Probabilities] | None = None,
) -> list[Finding]:
    """The findings of accepted images of one study: present first, then uncertain, then absent.

    `earlier`: the accepted images of a prior study; with it, each finding has a change. An empty
    list is a prior of which no image was accepted. `given`: what else the words may speak of.
    `nothing`: what is read of the images over even grey; with it, evidence is measured.
    """
    reads = read_findings(checkpoint, seen)
    before = read_findings(checkpoint, earlier) if earlier else None
    changes = [
        None if earlier is None else change(now, before[i]) if before else "not_comparable"
        for i, now in enumerate(reads)
    ]
    statements = [
        Statement(read.finding, read.polarity, read.location, changed)
        for read, changed in zip(reads, changes, strict=True)
    ]
    trunk = read_together(checkpoint, best_views(seen, len(seen)), earlier or ())
    proof = {} if nothing is None else measure(checkpoint, seen, nothing, reads)
    written = write_sentences(checkpoint, trunk.sight, statements, given)
    findings = [
        Finding(
            text=text.text,
            finding=read.finding,
            polarity=read.polarity,
            probability=round(read.probability, 4),
            evidence=proof.get(read.finding),
            regions=_regions(read),
            change=changed,
            flags=[],
        )
        for text, read, changed in zip(written, reads, changes, strict=True)
    ]
    return sorted(findings, key=lambda f: (ORDER[f.polarity], -f.probability))


def model_record(checkpoint: Checkpoint) -> ModelRecord:
    """Which checkpoint speaks, whether it is only a candidate, and under which policy."""
    config = checkpoint.config
    version = config.version + ("-candidate" if config.status == "candidate" else "")
    return ModelRecord(
        name=config.name,
        version=version,
        weights_sha256=config.weights_sha256,
        policy_sha256=checkpoint.policy.sha256,
    )


def _look_at_prior(checkpoint: Checkpoint, prior: Prior, loaded: Loaded | None) -> Admission:
    """A prior none of whose images can be decoded harms only the comparison."""
    try:
        return look_at_study(checkpoint, prior.study, loaded)
    except InputError as error:
        failed = Refused.because(error, prior.study.instances[0].file)
        return Admission([], [], [failed], {})


def _comparison(checkpoint: Checkpoint, prior: Prior, before: Admission) -> Comparison:
    """The record of the study compared with, and of what could not be checked about it."""
    reservations = []
    if not prior.same_patient:
        message = "Neither study names a patient: that they are of one is the caller's word."
        reservations.append(Reason(code="patient_unknown", message=message))
    if not prior.earlier:
        message = "The studies' dates do not tell which came first: that is the caller's word."
        reservations.append(Reason(code="order_unknown", message=message))
    reads = read_findings(checkpoint, before.accepted) if before.accepted else []
    return Comparison(
        study_instance_uid=prior.study.study_instance_uid,
        input_check=before.check,
        reservations=reservations,
        findings=[
            PriorFinding(
                finding=read.finding,
                polarity=read.polarity,
                probability=round(read.probability, 4),
                regions=_regions(read),
            )
            for read in reads
        ],
    )


def _regions(read: Read) -> list[Region]:
    return regions(read.best, [item.box for item in read.boxes])


def _not_used(check: InputCheck) -> InputCheck:
    message = "The model says the same over an empty image: its readings do not come from this one."
    return InputCheck(
        accepted=False,
        reasons=[Reason(code="image_not_used", message=message)],
        images=check.images,
    )


def _given(study: Study, seen: list[Seen], prior: bool) -> Given:
    return Given(
        views=frozenset((item.image.view_position or "").upper() for item in seen),
        sex=study.sex,
        spacing=all(item.image.spacing for item in seen),
        prior=prior,
    )


def _view(seen: list[Seen]) -> str | None:
    """The one view of the accepted images."""
    views = {item.image.view_position for item in seen}
    return views.pop() if len(views) == 1 else None
