"""The part of the gate that needs no model: what the header and the bare pixels already decide.

A file that says it is something else than the checkpoint was trained on is refused; one that says
nothing is left to the model's own part of the gate, which looks at the image.
"""

from __future__ import annotations

import re

import numpy as np

from medvlm.config import GateConfig
from medvlm.dicom.instance import Instance
from medvlm.dicom.stack import Stack
from medvlm.image.load import ImageInput
from medvlm.records import Reason

# Lateral, oblique and decubitus views (DICOM's defined terms).
NOT_FRONTAL = frozenset(
    ["LL", "RL", "LLD", "RLD", "LLO", "RLO", "LAO", "RAO", "LPO", "RPO", "LAT", "LATERAL"]
)
# How a secondary capture came to be: a workstation's screen, a scanned document, a video.
SCREENS = frozenset({"WSD", "SD", "SI", "DRW", "DV"})
DAY = 1 / 365
MIN_CONTRAST = 0.02
# A grey film saved as colour has hardly a coloured pixel; a screenshot's marks and menus have many.
MOST_COLOURED = 0.002
CHEST_FILMS = GateConfig()


def header_reasons(image: ImageInput, gate: GateConfig = CHEST_FILMS) -> list[Reason]:
    """Why this image gets no draft, as far as header and pixels tell; empty if nothing says so.

    Codes: wrong_modality, wrong_body_part, wrong_view, wrong_orientation, wrong_age,
    for_processing, burned_in_text, screenshot, colour_screenshot, too_small, blank.
    """
    reasons = _label_reasons(image, gate)
    reasons += _size_reasons(image.width, image.height, gate)
    if image.coloured > MOST_COLOURED:
        message = "The image has colours; this model reads grey films, not screenshots of them."
        reasons.append(Reason(code="colour_screenshot", message=message))
    low, high = np.percentile(image.pixels, (0.5, 99.5))
    if high - low < MIN_CONTRAST:
        reasons.append(Reason(code="blank", message="The image is blank."))
    return reasons


def instance_reasons(instance: Instance, gate: GateConfig = CHEST_FILMS) -> list[Reason]:
    """The same before anything is decoded: spares decoding a CT to refuse it.

    Without `blank` and `colour_screenshot`; one more code: multi_frame.
    """
    reasons = _label_reasons(instance, gate)
    if instance.frames > 1 and not gate.min_slices:
        message = f"The file holds {instance.frames} frames; this model reads single films."
        reasons.append(Reason(code="multi_frame", message=message))
    return reasons + _size_reasons(instance.columns, instance.rows, gate)


def stack_reasons(stack: Stack, gate: GateConfig = CHEST_FILMS) -> list[Reason]:
    """Why this volume gets no draft. Codes: those of an instance, wrong_dimensions, too_few_slices.

    A volume that was resampled is accepted: what was made up is said where it is shown.
    """
    if not gate.min_slices:
        message = "This is a volume; this model reads single films."
        return [Reason(code="wrong_dimensions", message=message)]
    reasons = instance_reasons(stack.volumes[0][0].instance, gate)
    if stack.depth < gate.min_slices:
        message = f"The volume has {stack.depth} slices; at least {gate.min_slices} are needed."
        reasons.append(Reason(code="too_few_slices", message=message))
    return reasons


def is_body_part(body_part: str, gate: GateConfig = CHEST_FILMS) -> bool:
    """Whether a body part's name means one of the gate's; unknown words do not."""
    return any(
        word.startswith(gate.body_parts) or word.endswith(gate.body_parts[:1])
        for word in re.split(r"[^A-Z]+", body_part.upper())
        if word
    )


def is_upright(row: str, column: str) -> bool:
    """Whether rows run to the patient's left and columns to the feet; unknown words do not count.

    ("L", "F") is how a frontal film is shown; finer letters ("LF", a slight turn) may follow.
    """
    return not (row[:1] in set("RAPHF") or column[:1] in set("HAPLR"))


def is_frontal(view: str) -> bool:
    """False for a view known not to be frontal; unknown words pass, the model looks at them."""
    words = re.split(r"[^A-Z]+", view.upper())
    return not any(word in NOT_FRONTAL or word in ("OBLIQUE", "DECUBITUS") for word in words)


def _label_reasons(item: ImageInput | Instance, gate: GateConfig) -> list[Reason]:
    def refuse(code: str, message: str) -> None:
        reasons.append(Reason(code=code, message=message))

    reasons: list[Reason] = []
    if item.is_dicom and (item.modality or "").upper() not in gate.modalities:
        said = (
            f"The modality is {item.modality}"
            if item.modality
            else "The file does not say its modality"
        )
        refuse("wrong_modality", f"{said}; this model reads {', '.join(gate.modalities)}.")
    if item.body_part and not is_body_part(item.body_part, gate):
        part = gate.body_parts[0].lower()
        message = f"The body part is {item.body_part}; this model reads {part} images."
        refuse("wrong_body_part", message)
    if gate.frontal_only and item.view_position and not is_frontal(item.view_position):
        message = f"The view is {item.view_position}; this model reads frontal films (PA, AP)."
        refuse("wrong_view", message)
    turned = len(item.patient_orientation) == 2 and not is_upright(*item.patient_orientation)
    if gate.frontal_only and turned:
        refuse(
            "wrong_orientation",
            "PatientOrientation is not L, F: the film is a side view, mirrored or turned, and left "
            "and right would be taken for each other.",
        )
    if item.age_years is not None and item.age_years < gate.min_age_years - DAY:
        message = (
            f"The patient is younger than {gate.min_age_years:g} years; this model learned from "
            "older ones."
        )
        refuse("wrong_age", message)
    if (item.presentation_intent or "").upper() == "FOR PROCESSING":
        message = "These are the detector's raw data (FOR PROCESSING), not an image to read."
        refuse("for_processing", message)
    if (item.burned_in_annotation or "").upper() == "YES":
        refuse("burned_in_text", "Text is burned into the image, by its own header's word.")
    if (item.conversion_type or "").upper() in SCREENS:
        refuse("screenshot", "The image was taken from a screen, a document or a video.")
    return reasons


def _size_reasons(width: int, height: int, gate: GateConfig) -> list[Reason]:
    if min(width, height) >= gate.min_pixels:
        return []
    message = f"The image has {width} x {height} pixels; at least {gate.min_pixels} are needed."
    return [Reason(code="too_small", message=message)]
