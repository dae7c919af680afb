"""The part of the gate that needs no model: what the header and the bare pixels already decide.

The checkpoint was trained on frontal chest radiographs. A file that says it is something else is
refused; one that says nothing is left to the model's own part of the gate.
"""

from __future__ import annotations

import re

import numpy as np

from medvlm.dicom.instance import Instance
from medvlm.image.load import ImageInput
from medvlm.records import Reason

RADIOGRAPHY = frozenset({"CR", "DX", "RG"})
CHEST = ("CHEST", "THORAX", "LUNG", "RIB", "CXR", "PULMON")
# Lateral, oblique and decubitus views (DICOM's defined terms).
NOT_FRONTAL = frozenset(
    ["LL", "RL", "LLD", "RLD", "LLO", "RLO", "LAO", "RAO", "LPO", "RPO", "LAT", "LATERAL"]
)
MIN_PIXELS = 128
MIN_CONTRAST = 0.02


def header_reasons(image: ImageInput) -> list[Reason]:
    """Why this image gets no draft, as far as header and pixels tell; empty if nothing says so.

    Codes: wrong_modality, wrong_body_part, wrong_view, wrong_orientation, for_processing,
    too_small, blank.
    """
    reasons = _label_reasons(image)
    reasons += _size_reasons(image.width, image.height)
    low, high = np.percentile(image.pixels, (0.5, 99.5))
    if high - low < MIN_CONTRAST:
        reasons.append(Reason(code="blank", message="The image is blank."))
    return reasons


def instance_reasons(instance: Instance) -> list[Reason]:
    """The same before anything is decoded (all but `blank`): spares decoding a CT to refuse it.

    One more code: multi_frame.
    """
    reasons = _label_reasons(instance)
    if instance.frames > 1:
        message = f"The file holds {instance.frames} frames; this model reads single films."
        reasons.append(Reason(code="multi_frame", message=message))
    return reasons + _size_reasons(instance.columns, instance.rows)


def is_chest(body_part: str) -> bool:
    """Whether a body part's name means the chest; unknown words do not."""
    return any(
        word.startswith(CHEST) or word.endswith("CHEST")
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


def _label_reasons(item: ImageInput | Instance) -> list[Reason]:
    reasons = []
    if item.is_dicom and (item.modality or "").upper() not in RADIOGRAPHY:
        modality = item.modality
        said = f"The modality is {modality}" if modality else "The file does not say its modality"
        message = f"{said}; this model reads radiographs (CR, DX)."
        reasons.append(Reason(code="wrong_modality", message=message))
    if item.body_part and not is_chest(item.body_part):
        message = f"The body part is {item.body_part}; this model reads chest films."
        reasons.append(Reason(code="wrong_body_part", message=message))
    if item.view_position and not is_frontal(item.view_position):
        message = f"The view is {item.view_position}; this model reads frontal films (PA, AP)."
        reasons.append(Reason(code="wrong_view", message=message))
    if len(item.patient_orientation) == 2 and not is_upright(*item.patient_orientation):
        message = (
            "PatientOrientation is not L, F: the film is a side view, mirrored or turned, and left "
            "and right would be taken for each other."
        )
        reasons.append(Reason(code="wrong_orientation", message=message))
    if (item.presentation_intent or "").upper() == "FOR PROCESSING":
        message = "These are the detector's raw data (FOR PROCESSING), not an image to read."
        reasons.append(Reason(code="for_processing", message=message))
    return reasons


def _size_reasons(width: int, height: int) -> list[Reason]:
    if min(width, height) >= MIN_PIXELS:
        return []
    message = f"The image has {width} x {height} pixels; at least {MIN_PIXELS} are needed."
    return [Reason(code="too_small", message=message)]
