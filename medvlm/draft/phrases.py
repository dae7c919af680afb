"""Places that words name: which part of the lungs a phrase means, and where the head sees it.

Measured; no answer uses it yet.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medvlm.draft.anatomy import PARTS, SIDES, WHOLE, Part
from medvlm.draft.look import Seen
from medvlm.model.checkpoint import Checkpoint
from medvlm.model.phrase_head import KINDS

FROM = 0.5
FAMILIAR_FROM = 0.8
"""The least familiarity of a phrase that is read: about one in twenty words for anything but
the lungs reaches it when it was not taught (docs/drafts.md)."""
SURE_FROM = 0.8
"""The least share of a phrase's side, and of its part."""


def read_part(checkpoint: Checkpoint, phrase: str) -> Part | None:
    """The part of a lung that a phrase means, in any words.

    None where one of its words is strange, where they leave a choice, and in a checkpoint that was
    taught no phrases. Never a whole lung: that is what is left of words that say nothing else.
    """
    head, language = checkpoint.extras.phrases, checkpoint.model.language
    words = phrase.lower().split()
    if head is None or not words:
        return None
    if head.familiarity(language.phrases(words)) < FAMILIAR_FROM:
        return None
    side, part, kind = (own[0] for own in head.read(language.phrases([" ".join(words)])))
    if min(float(side.max()), float(part.max())) < SURE_FROM:
        return None
    if KINDS[int(kind.argmax())] != "part":
        return None
    name = list(PARTS)[int(part.argmax())]
    return None if name == WHOLE else Part(SIDES[int(side.argmax())], name)


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
    features = model.vision.encoder(torch.from_numpy(grid)[None, None].to(model.device))
    lungs = torch.from_numpy(seen.dense[None, :2]).to(model.device)
    maps: NDArray[np.floating] = head(features, lungs, read)[0].sigmoid().cpu().numpy()
    return maps
