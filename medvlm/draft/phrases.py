"""Places that words name: a heat map of a phrase on a film. Measured; no answer uses it yet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medvlm.draft.look import Seen
from medvlm.model.checkpoint import Checkpoint

FROM = 0.5


def phrase_maps(
    checkpoint: Checkpoint, seen: Seen, phrases: Sequence[str]
) -> NDArray[np.floating] | None:
    """Probabilities [P, H, W] of the grid's cells; None if the checkpoint was taught no phrases."""
    if checkpoint.extras.phrases is None:
        return None
    return maps_of(checkpoint, seen, checkpoint.model.language.phrases(phrases))


@torch.no_grad()
def maps_of(checkpoint: Checkpoint, seen: Seen, read: Tensor) -> NDArray[np.floating]:
    """The same of phrases that were read before [P, D]. Raises ValueError without a head."""
    head, model = checkpoint.extras.phrases, checkpoint.model
    if head is None:
        raise ValueError("the checkpoint was taught no phrases")
    grid, _ = seen.image.grid(model.config.encoder.size)
    features = model.vision.encoder(torch.from_numpy(grid)[None, None])
    lungs = torch.from_numpy(seen.dense[None, :2])
    maps: NDArray[np.floating] = head(features, lungs, read)[0].sigmoid().numpy()
    return maps
