"""Says what an input is: patients, studies, series, volumes, and what is wrong with them."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from medvlm.dicom.assemble import assemble
from medvlm.dicom.instance import Instance
from medvlm.dicom.read import Reading
from medvlm.dicom.stack import Problem, Stack, count
from medvlm.dicom.study import Study, group_studies

VOLUME_MODALITIES = frozenset({"CT", "MR", "PT"})


def inspect_reading(reading: Reading) -> dict[str, Any]:
    """The contract's `inspect --json`.

    Each volume gives `shape` [slices, rows, columns], `spacing_mm` in that order, and
    `orientation`: for each axis of `shape`, the patient's side its index grows towards (one of
    L R, P A, S I), such as "SPL". A series' `volume` is the first and largest of its `volumes`;
    `repeats` counts how often a volume was taken (times, echoes). What has to be resampled is
    described as it lies in the files, by its planes.
    """
    studies = group_studies(reading)
    shared = Counter(study.study_instance_uid for study in studies if study.study_instance_uid)
    return {
        "patients": sorted({i.patient_key for i in reading.instances if i.patient_key}),
        "studies": [_study(one, shared.get(one.study_instance_uid or "", 1)) for one in studies],
        "refused": [
            {"file": refused.file, "code": refused.code, "message": refused.message}
            for refused in reading.refused
        ],
    }


def _study(study: Study, patients: int) -> dict[str, Any]:
    series: dict[tuple[str | None, str | None], list[Instance]] = defaultdict(list)
    for instance in study.instances:
        series[instance.series_instance_uid, instance.modality].append(instance)
    return {
        "study_instance_uid": study.study_instance_uid,
        "patient": study.patient,
        "series": [
            {
                "series_instance_uid": uid,
                "modality": modality,
                "instances": len(instances),
                **_volumes_and_problems(instances, patients),
            }
            for (uid, modality), instances in series.items()
        ],
    }


def _volumes_and_problems(instances: list[Instance], patients: int) -> dict[str, Any]:
    problems: list[Problem] = []
    if patients > 1:
        message = f"{patients} patients share the Study Instance UID; each has a study of his own."
        problems.append(Problem("uid_collision", message, "split"))
    stacks: tuple[Stack, ...] = ()
    if not instances[0].is_dicom:
        message = "A PNG or JPEG picture: it says nothing about patient, position or size."
        problems.append(Problem("non_dicom", message, "accepted"))
    elif instances[0].modality in VOLUME_MODALITIES:
        assembly = assemble(instances)
        stacks = assembly.stacks
        problems += assembly.problems
    else:
        problems += _repeated(instances)
    volumes = [_volume(stack) for stack in stacks]
    shown = ("shape", "spacing_mm", "orientation")
    return {
        "volume": {name: volumes[0][name] for name in shown} if volumes else None,
        "volumes": volumes,
        "problems": [
            {"code": one.code, "message": one.message, "action": one.action} for one in problems
        ],
    }


def _volume(stack: Stack) -> dict[str, Any]:
    return {
        "shape": list(stack.shape),
        "spacing_mm": [round(length, 6) for length in stack.spacing_mm],
        "orientation": stack.orientation,
        "repeats": len(stack.volumes),
    }


def _repeated(instances: list[Instance]) -> list[Problem]:
    """Files that share a SOP Instance UID: copies, and others that only their files tell apart."""
    by_uid: dict[str, list[str]] = defaultdict(list)
    for uid, several in Counter(one.sop_instance_uid for one in instances).items():
        if uid and several > 1:
            by_uid[uid] = [one.sha256 for one in instances if one.sop_instance_uid == uid]
    copies = sum(len(same) - len(set(same)) for same in by_uid.values())
    colliding = sum(len(set(same)) for same in by_uid.values() if len(set(same)) > 1)
    problems = []
    if copies:
        message = f"{count(copies, 'copy', 'copies')} of a file that is there."
        problems.append(Problem("duplicate_file", message, "accepted"))
    if colliding:
        message = f"{count(colliding, 'file')} of other content share a SOP Instance UID."
        problems.append(Problem("uid_collision", message, "accepted"))
    return problems
