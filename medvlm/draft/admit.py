"""A study at the gate: which of its images are looked at, and which a draft may speak from."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from medvlm.config import GateConfig
from medvlm.dicom.instance import Instance
from medvlm.dicom.read import Refused
from medvlm.dicom.study import Study
from medvlm.draft.look import Seen, file_mark, look_at
from medvlm.errors import InputError
from medvlm.image.gate import instance_reasons
from medvlm.image.load import ImageInput, load_image
from medvlm.model.checkpoint import Checkpoint
from medvlm.records import ImageCheck, InputCheck, Reason


@dataclass(frozen=True)
class Admission:
    """A study's accepted images, the gate's word on each of its images, and what failed.

    `seconds`: how long loading and looking took.
    """

    accepted: list[Seen] = field(repr=False)
    checks: list[ImageCheck]
    failed: list[Refused]
    seconds: dict[str, float]

    @property
    def check(self) -> InputCheck:
        """The gate's word on the study."""
        if any(check.accepted for check in self.checks):
            return InputCheck(accepted=True, images=self.checks)
        reasons = {(r.code, r.message): r for check in self.checks for r in check.reasons}
        missing = Reason(code="no_image", message="The study holds no image that could be read.")
        return InputCheck(
            accepted=False, reasons=list(reasons.values()) or [missing], images=self.checks
        )


class Loaded(NamedTuple):
    """A study's images in memory: the part of a look that needs no model.

    `images`: those that the headers admit; `checks`: of the others; `seconds`: how long it took.
    """

    images: list[ImageInput]
    checks: list[ImageCheck]
    failed: list[Refused]
    seconds: float


def load_study(study: Study, gate: GateConfig) -> Loaded:
    """Decodes the images that the headers admit.

    Raises InputError if none of the images that the gate let through can be decoded.
    """
    start = time.perf_counter()
    images, checks, failed = admit(study, gate)
    return Loaded(images, checks, failed, time.perf_counter() - start)


def look_at_study(checkpoint: Checkpoint, study: Study, loaded: Loaded | None = None) -> Admission:
    """Looks at the images that the headers admit, and lets the model's own part of the gate judge.

    `loaded`: the study's images where they were decoded beforehand.

    Raises InputError if none of the images that the gate let through can be decoded.
    """
    loaded = loaded or load_study(study, checkpoint.config.gate)
    start = time.perf_counter()
    seen = list(look_at(checkpoint, loaded.images))
    _refuse_repeated_uids(seen)
    checks = [*loaded.checks, *(item.check for item in seen)]
    order = {instance.sop_instance_uid: i for i, instance in enumerate(study.instances)}
    checks.sort(key=lambda check: order[check.sop_instance_uid])
    seconds = {"load": loaded.seconds, "look": time.perf_counter() - start}
    accepted = [item for item in seen if item.check.accepted]
    return Admission(accepted, checks, loaded.failed, seconds)


def admit(
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
