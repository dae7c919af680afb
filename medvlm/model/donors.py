"""Other patients' films as the model sees them: what would it say without this patient's image?

A few films of training patients without any finding travel in the checkpoint, as features and
readings, not as pictures. Whatever a model still says with their features in the place of the
patient's, it does not say because of the image.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from medvlm.model.encoder import Features


@dataclass(frozen=True)
class Donors:
    """D films (letters as in `medvlm.model.encoder`).

    `findings` [D, F]: logits, the mean of all readings, before calibration. `lacking` [D, F]: which
    findings a film has not, by its labels. `features`: the maps that the connector reads, the
    others empty.
    """

    findings: Tensor
    lacking: Tensor
    features: Features
