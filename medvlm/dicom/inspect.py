"""Says what an input is: patients, studies, series, volumes, and what is wrong with them."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from medvlm.dicom.instance import Instance
from medvlm.dicom.read import Reading
from medvlm.dicom.study import Study, group_studies

VOLUME_MODALITIES = frozenset({"CT", "MR", "PT"})
ANGLE_TOLERANCE = 1e-3  # of direction cosines, about 0.06 degrees
SPACING_TOLERANCE = 0.05  # of the distance between slices


def inspect_reading(reading: Reading) -> dict[str, Any]:
    """The contract's `inspect --json`.

    Each volume gives `shape` [slices, rows, columns], `spacing_mm` in that order, and
    `orientation`: for each axis of `shape`, the patient's side its index grows towards (one of
    L R, P A, S I), such as "SPL".
    """
    collisions = _uid_collisions(reading.instances)
    return {
        "patients": sorted({i.patient_key for i in reading.instances if i.patient_key}),
        "studies": [_study(study, collisions) for study in group_studies(reading)],
        "refused": [
            {"file": refused.file, "code": refused.code, "message": refused.message}
            for refused in reading.refused
        ],
    }


def summarise(inspection: dict[str, Any]) -> str:
    """What `inspect_reading` found, in a few lines for people."""
    studies, refused = inspection["studies"], inspection["refused"]
    images = sum(series["instances"] for study in studies for series in study["series"])
    lines = [
        f"{_count(images, 'image')} in {_count(len(studies), 'study', 'studies')} of "
        f"{_count(len(inspection['patients']), 'patient')}; {_count(len(refused), 'file')} refused"
    ]
    for study in studies:
        lines.append(f"study {study['study_instance_uid'] or '(no UID)'}")
        for series in study["series"]:
            text = (
                f"  {series['modality'] or '(no modality)'}: {_count(series['instances'], 'image')}"
            )
            if volume := series["volume"]:
                shape = " x ".join(str(length) for length in volume["shape"])
                spacing = " x ".join(f"{length:.3g}" for length in volume["spacing_mm"])
                text += f", volume {shape}, {spacing} mm, {volume['orientation']}"
            lines.append(text)
            for problem in series["problems"]:
                lines.append(f"    {problem['code']} ({problem['action']}): {problem['message']}")
    lines += [f"refused {item['file']}: {item['message']} [{item['code']}]" for item in refused]
    return "\n".join(lines)


def _study(study: Study, collisions: set[str]) -> dict[str, Any]:
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
                **_volume_and_problems(instances, collisions),
            }
            for (uid, modality), instances in series.items()
        ],
    }


def _volume_and_problems(instances: list[Instance], collisions: set[str]) -> dict[str, Any]:
    problems: list[dict[str, str]] = []
    colliding = sum(instance.sop_instance_uid in collisions for instance in instances)
    if colliding:
        message = f"{colliding} files share their SOP Instance UID with one of other content."
        problems.append(_problem("uid_collision", message, "accepted"))
    volume = None
    if not instances[0].is_dicom:
        message = "A PNG or JPEG picture: it says nothing about patient, position or size."
        problems.append(_problem("non_dicom", message, "accepted"))
    if instances[0].modality in VOLUME_MODALITIES and not colliding:
        slices = [one for one in instances if "LOCALIZER" not in one.image_type]
        if len(slices) < len(instances):
            message = f"{_count(len(instances) - len(slices), 'localizer')} kept out of the volume."
            problems.append(_problem("localizer", message, "split"))
        if any(one.frames > 1 for one in slices):
            message = "Multi-frame images are not assembled into a volume yet."
            problems.append(_problem("multi_frame", message, "accepted"))
        elif len(slices) > 1:
            volume, found = _volume(slices)
            problems += found
    return {"volume": volume, "problems": problems}


def _volume(slices: list[Instance]) -> tuple[dict[str, Any] | None, list[dict[str, str]]]:
    """The regular volume the slices make, or None and the reasons why they make none."""

    def refuse(code: str, message: str) -> tuple[None, list[dict[str, str]]]:
        return None, [_problem(code, message, "refused")]

    if len({(one.rows, one.columns) for one in slices}) > 1:
        return refuse("mixed_size", "The slices differ in size.")
    lost = sum(one.position_mm is None or one.orientation is None for one in slices)
    if lost:
        return refuse("missing_position", f"{_count(lost, 'slice')} without position.")
    orientations = np.array([one.orientation for one in slices])
    if np.ptp(orientations, axis=0).max() > ANGLE_TOLERANCE:
        return refuse("mixed_orientation", "The slices are not parallel.")
    row, column = orientations[0, :3], orientations[0, 3:]
    normal = np.cross(row, column)
    if abs(np.linalg.norm(normal) - 1) > 10 * ANGLE_TOLERANCE:
        return refuse("missing_position", "The orientation is no pair of perpendicular directions.")
    if len({one.pixel_spacing_mm for one in slices}) > 1 or slices[0].pixel_spacing_mm is None:
        return refuse("mixed_spacing", "The slices differ in pixel spacing, or do not give it.")

    positions = np.array([one.position_mm for one in slices])
    positions = positions[np.argsort(positions @ normal, kind="stable")]
    gaps = np.diff(positions @ normal)
    if gaps.min() < 1e-3:
        return refuse("duplicate_position", f"{(gaps < 1e-3).sum() + 1} slices share a position.")
    step = float(np.median(gaps))
    # The smallest gap is the distance of neighbours even where most slices are missing.
    if gaps.max() > (1 + SPACING_TOLERANCE) * gaps.min():
        steps = gaps / gaps.min()
        if np.abs(steps - np.round(steps)).max() > SPACING_TOLERANCE * steps.max():
            return refuse("irregular_spacing", "The distance between slices varies.")
        lost = int(np.round(steps).sum()) - len(steps)
        return refuse("missing_slice", f"{_count(lost, 'slice')} missing between the others.")
    shift = positions[-1] - positions[0]
    slant = shift - (shift @ normal) * normal
    if np.linalg.norm(slant) > 0.01 * np.linalg.norm(shift):
        angle = np.degrees(np.arctan2(np.linalg.norm(slant), shift @ normal))
        return refuse("gantry_tilt", f"The slices are sheared by {angle:.1f} degrees.")
    return {
        "shape": [len(slices), slices[0].rows, slices[0].columns],
        "spacing_mm": [step, *slices[0].pixel_spacing_mm],
        # Rows are counted along a column's direction, columns along a row's.
        "orientation": "".join(_side(axis) for axis in (normal, column, row)),
    }, []


def _side(direction: np.ndarray) -> str:
    """The side of the patient that a direction in DICOM's patient coordinates points to."""
    axis = int(np.argmax(np.abs(direction)))
    return ("LR", "PA", "SI")[axis][int(direction[axis] < 0)]


def _uid_collisions(instances: list[Instance]) -> set[str]:
    """SOP Instance UIDs that files of different content share."""
    contents: dict[str, set[str]] = defaultdict(set)
    for instance in instances:
        if instance.sop_instance_uid:
            contents[instance.sop_instance_uid].add(instance.sha256)
    return {uid for uid, digests in contents.items() if len(digests) > 1}


def _problem(code: str, message: str, action: str) -> dict[str, str]:
    return {"code": code, "message": message, "action": action}


def _count(number: int, word: str, plural: str | None = None) -> str:
    return f"{number} {word if number == 1 else plural or word + 's'}"
