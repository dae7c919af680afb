"""Which of a few likely boxes fits best: a quadratic function of what is known of each.

Two hundred boxes are too few to learn shapes from pixels, but enough to learn which shapes occur
in a lung and how the maps tell them apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BoxScorer:
    """K candidate boxes and the weights of P features.

    `candidates` [K, 4]: (x, y, width, height) in fractions of a lung's box, from its top-left
    corner; the left lung mirrored, so that x runs from the side to the middle in both. `mean`,
    `scale` [P]: of the features. `weights` [P + P (P + 1) / 2], `bias` [1]: of the terms.
    """

    candidates: Floats
    mean: Floats
    scale: Floats
    weights: Floats
    bias: Floats

    def score(self, features: Floats) -> Floats:
        """The IoU with a true box to be expected, [N], of features [N, P]."""
        return terms((features - self.mean) / self.scale) @ self.weights + self.bias[0]


def terms(features: Floats) -> Floats:
    """Features [N, P] and all their products [N, P + P (P + 1) / 2], in the order of `pairs`."""
    first, second = pairs(features.shape[1])
    return np.concatenate([features, features[:, first] * features[:, second]], axis=1)


def pairs(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which two features each product is of."""
    return np.triu_indices(count)
