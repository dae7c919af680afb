"""The part of the gate that needs no model: what the header and the bare pixels already decide.

The checkpoint was trained on frontal chest radiographs. A file that says it is something else is
refused; one that says nothing is left to the model's own part of the gate.
"""

from __future__ import annotations

import re

import numpy as np

from medvlm.dicom.read import Instance
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

    Codes: wrong_modality, wrong_body_part, wrong_view, too_small, blank.
    """
    reasons = _label_reasons(image.is_dicom, image.modality, image.body_part, image.view)
    reasons += _size_reasons(image.width, image.height)
    low, high = np.percentile(image.pixels, (0.5, 99.5))
    if high - low < MIN_CONTRAST:
        reasons.append(Reason(code="blank", message="The image is blank."))
    return reasons


def instance_reasons(instance: Instance) -> list[Reason]:
    """The same before anything is decoded (all but `blank`): spares decoding a CT to refuse it."""
    reasons = _label_reasons(
        instance.is_dicom, instance.modality, instance.body_part, instance.view_position
    )
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


def is_frontal(view: str) -> bool:
    """False for a view known not to be frontal; unknown words pass, the model looks at them."""
    words = re.split(r"[^A-Z]+", view.upper())
    return not any(word in NOT_FRONTAL or word in ("OBLIQUE", "DECUBITUS") for word in words)


def _label_reasons(
    is_dicom: bool, modality: str | None, body_part: str | None, view: str | None
) -> list[Reason]:
    reasons = []
    if is_dicom and (modality or "").upper() not in RADIOGRAPHY:
        said = f"The modality is {modality}" if modality else "The file does not say its modality"
        message = f"{said}; this model reads radiographs (CR, DX)."
        reasons.append(Reason(code="wrong_modality", message=message))
    if body_part and not is_chest(body_part):
        message = f"The body part is {body_part}; this model reads chest films."
        reasons.append(Reason(code="wrong_body_part", message=message))
    if view and not is_frontal(view):
        message = f"The view is {view}; this model reads frontal films (PA, AP)."
        reasons.append(Reason(code="wrong_view", message=message))
    return reasons


def _size_reasons(width: int, height: int) -> list[Reason]:
    if min(width, height) >= MIN_PIXELS:
        return []
    message = f"The image has {width} x {height} pixels; at least {MIN_PIXELS} are needed."
    return [Reason(code="too_small", message=message)]
