"""Places that words name: a heat map, and regions, of a phrase on a film."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medvlm.draft.anatomy import Part, Side, known_part, part_masks
from medvlm.draft.ground import regions
from medvlm.draft.known import Reply
from medvlm.draft.locate import box_of_mask, map_boxes
from medvlm.draft.look import Seen
from medvlm.model.checkpoint import Checkpoint

FROM = 0.5
NOT_FOUND = "It was not found in this image."


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


def part_reply(checkpoint: Checkpoint, seen: Seen, phrase: str) -> Reply | None:
    """Where a part of the lungs is: from the lungs' masks where rules know its name, else where the
    head sees it; None if the checkpoint was taught no phrases."""
    part = known_part(phrase)
    size = seen.transform.size
    if part is not None:
        sides: tuple[Side, ...] = ("right", "left") if part.side == "both" else (part.side,)
        own = part_masks(seen.lung_masks)
        masks = [own[wanted] for side in sides if (wanted := Part(side, part.name)) in own]
        boxes = [box for mask in masks if mask.any() for box in [box_of_mask(mask, size)]]
    else:
        maps = phrase_maps(checkpoint, seen, [phrase])
        if maps is None:
            return None
        boxes = [item.box for item in map_boxes(maps[0], FROM, size)]
    if not boxes:
        return Reply(NOT_FOUND)
    return Reply("It is marked.", None, regions(seen, boxes))
