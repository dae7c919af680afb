"""From a study to its draft: gate, look, decide, locate, write."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from medvlm.config import GateConfig
from medvlm.dicom.instance import Instance
from medvlm.dicom.read import Refused
from medvlm.dicom.study import Study
from medvlm.draft.ground import OPACITIES, OPACITY, finding_boxes, place, regions
from medvlm.draft.locate import ScoredBox
from medvlm.draft.look import Seen, file_mark, look_at
from medvlm.draft.overlay import beside, draw_overlay
from medvlm.draft.parse import Polarity
from medvlm.draft.sentences import impression
from medvlm.draft.write import Statement, write_sentences
from medvlm.errors import InputError
from medvlm.findings import FINDINGS, PHRASES
from medvlm.image.gate import instance_reasons
from medvlm.image.load import ImageInput, load_image
from medvlm.model.checkpoint import Checkpoint
from medvlm.records import (
    Draft,
    Finding,
    ImageCheck,
    InputCheck,
    ModelRecord,
    Reason,
    Region,
    StudyRecord,
    Withheld,
)

ORDER: dict[Polarity, int] = {"present": 0, "uncertain": 1, "absent": 2}


@dataclass(frozen=True)
class DraftResult:
    """A draft, its picture (None for a refused study), and the files that could not be decoded."""

    draft: Draft
    overlay: Image.Image | None
    failed: tuple[Refused, ...]


def draft_study(checkpoint: Checkpoint, study: Study) -> DraftResult:
    """Drafts a study from its accepted frontal images; a refused study gets a draft that says so.

    Raises InputError if none of the images that the gate let through can be decoded.
    """
    start = time.perf_counter()
    images, checks, failed = _admit(study, checkpoint.config.gate)
    loaded = time.perf_counter()
    seen = list(look_at(checkpoint, images))
    _refuse_repeated_uids(seen)
    checks += [item.check for item in seen]
    order = {instance.sop_instance_uid: i for i, instance in enumerate(study.instances)}
    checks.sort(key=lambda check: order[check.sop_instance_uid])
    accepted = [item for item in seen if item.check.accepted]
    looked = time.perf_counter()
    findings, withheld = without_contradiction(describe(checkpoint, accepted) if accepted else [])
    written = time.perf_counter()
    draft = Draft(
        study=StudyRecord(
            study_instance_uid=study.study_instance_uid,
            modality=study.modality,
            body_part=study.body_part,
            view=_view(accepted) or study.view,
        ),
        model=model_record(checkpoint),
        input_check=_study_check(checks),
        findings=findings,
        impression=impression(findings) if accepted else "",
        withheld=withheld,
        timings_s={
            "load": round(loaded - start, 3),
            "look": round(looked - loaded, 3),
            "write": round(written - looked, 3),
        },
    )
    return DraftResult(draft, _overlay(accepted, findings), tuple(failed))


def describe(checkpoint: Checkpoint, seen: Sequence[Seen]) -> list[Finding]:
    """The findings of accepted images of one study: present first, then uncertain, then absent.

    A finding's probability is the mean over the images; its place comes from the image that shows
    it best.
    """
    statements, probabilities, places = [], [], []
    for name in FINDINGS:
        own = [item.probabilities[name] for item in seen]
        probability = float(np.mean(own))
        polarity = decide(checkpoint, name, probability)
        best = seen[int(np.argmax(own))]
        boxes = released_boxes(checkpoint, best, name, probability)
        statements.append(Statement(name, polarity, place(best, name, boxes)))
        probabilities.append(probability)
        places.append(regions(best, [item.box for item in boxes]))
    written = write_sentences(checkpoint, seen[0].sight, statements)
    findings = [
        Finding(
            text=text.text,
            finding=statement.finding,
            polarity=statement.polarity,
            probability=round(probability, 4),
            regions=own_regions,
        )
        for text, statement, probability, own_regions in zip(
            written, statements, probabilities, places, strict=True
        )
    ]
    return sorted(findings, key=lambda f: (ORDER[f.polarity], -f.probability))


def without_contradiction(findings: list[Finding]) -> tuple[list[Finding], list[Withheld]]:
    """Withholds "no lung opacity" where something that shows as an opacity is not ruled out."""
    shown = [f for f in findings if f.finding in OPACITIES and f.polarity != "absent"]
    kept, withheld = [], []
    for finding in findings:
        if shown and finding.finding == OPACITY and finding.polarity == "absent":
            reason = f'It would contradict "{shown[0].text}"'
            withheld.append(
                Withheld(
                    finding=finding.finding,
                    text=finding.text,
                    probability=finding.probability,
                    reason=reason,
                )
            )
        else:
            kept.append(finding)
    return kept, withheld


def released_boxes(
    checkpoint: Checkpoint, seen: Seen, finding: str, probability: float | None = None
) -> list[ScoredBox]:
    """The boxes a draft shows for a finding, in grid pixels; a negated finding has none.

    `probability`: that of the study, where it is not this image's own.
    """
    own = seen.probabilities[finding] if probability is None else probability
    if decide(checkpoint, finding, own) == "absent":
        return []
    return finding_boxes(checkpoint, seen, finding)


def decide(checkpoint: Checkpoint, finding: str, probability: float) -> Polarity:
    """Present, absent or uncertain, by the checkpoint's operating points."""
    points = checkpoint.config.operating_points
    if probability >= points.present_from:
        return "present"
    return "absent" if probability < points.absent_below.get(finding, 0.5) else "uncertain"


def model_record(checkpoint: Checkpoint) -> ModelRecord:
    """Which checkpoint speaks."""
    config = checkpoint.config
    return ModelRecord(
        name=config.name, version=config.version, weights_sha256=config.weights_sha256
    )


def _admit(
    study: Study, gate: GateConfig
) -> tuple[list[ImageInput], list[ImageCheck], list[Refused]]:
    """Decodes what the headers admit: images, checks of those refused, files that failed."""
    images, checks, failed, seen = [], [], [], set()
    error: InputError | None = None

    def refuse(instance: Instance, mark: str | None, reasons: list[Reason]) -> None:
        uid = instance.sop_instance_uid
        check = ImageCheck(file=mark, sop_instance_uid=uid, accepted=False, reasons=reasons)
        checks.append(check)

    for instance in study.instances:
        mark = None
        try:
            mark = file_mark(instance.sha256)
            if mark in seen:
                continue
            seen.add(mark)
            if reasons := instance_reasons(instance, gate):
                refuse(instance, mark, reasons)
            else:
                images.append(load_image(instance))
        except InputError as caught:
            error = caught
            failed.append(Refused.because(caught, instance.file))
            refuse(instance, mark, [Reason(code=caught.code, message=caught.message)])
    if error is not None and not images and len(checks) == len(failed):
        raise error
    return images, checks, failed


def _refuse_repeated_uids(seen: list[Seen]) -> None:
    """A region names its image by UID: images that share one, or lack it, cannot be told apart."""
    counts = Counter(item.image.sop_instance_uid for item in seen)
    for item in seen:
        if counts[item.image.sop_instance_uid] > 1:
            message = "Several images of the study share a SOPInstanceUID, or have none."
            item.check.reasons.append(Reason(code="uid_collision", message=message))
            item.check.accepted = False


def _study_check(checks: list[ImageCheck]) -> InputCheck:
    if any(check.accepted for check in checks):
        return InputCheck(accepted=True, images=checks)
    reasons = {(r.code, r.message): r for check in checks for r in check.reasons}
    missing = Reason(code="no_image", message="The study holds no image that could be read.")
    return InputCheck(accepted=False, reasons=list(reasons.values()) or [missing], images=checks)


def _view(seen: list[Seen]) -> str | None:
    """The one view of the accepted images."""
    views = {item.image.view_position for item in seen}
    return views.pop() if len(views) == 1 else None


def _overlay(seen: list[Seen], findings: list[Finding]) -> Image.Image | None:
    """The accepted images side by side, each with the regions that lie on it."""
    if not seen:
        return None
    return beside(
        [draw_overlay(item.image.pixels, labelled_regions(item, findings)) for item in seen]
    )


def labelled_regions(seen: Seen, findings: list[Finding]) -> list[tuple[str, Region]]:
    """The regions on one image; findings that share one are named together."""
    own = (seen.image.sop_instance_uid, seen.image.frame)
    labels: dict[tuple[float, ...], list[str]] = {}
    boxes: dict[tuple[float, ...], Region] = {}
    for finding in findings:
        for region in finding.regions:
            if (region.sop_instance_uid, region.frame) == own:
                key = (region.x, region.y, region.width, region.height)
                boxes[key] = region
                labels.setdefault(key, []).append(label(finding))
    return [(", ".join(labels[key]), region) for key, region in boxes.items()]


def label(finding: Finding) -> str:
    """A finding's name on the picture; a question mark where it is uncertain."""
    return PHRASES[finding.finding] + ("?" if finding.polarity == "uncertain" else "")
