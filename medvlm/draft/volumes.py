"""One look at a volume: pictures of its slices, or the whole of it, for the language model.

The gate admits no volumes to a draft unless a checkpoint was trained on them; this is how such a
checkpoint, and training, see one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from medvlm.draft.trunk import Trunk
from medvlm.errors import UsageError
from medvlm.image.slices import block_of, spread, take_slices
from medvlm.image.volume import Volume
from medvlm.image.window import Window
from medvlm.model.checkpoint import Checkpoint
from medvlm.model.pictures import Picture, Sight, together


@torch.no_grad()
def look_at_volume(
    checkpoint: Checkpoint,
    volume: Volume,
    numbers: Sequence[int] | None = None,
    *,
    window: Window | str | None = None,
) -> Trunk:
    """What the language model reads of a volume; every token knows its slice.

    A 3-D encoder sees all of it in one picture. For a 2-D encoder, slices stand as pictures: those
    named by `numbers` (planes, from 0), else as many as the checkpoint was trained with, evenly.

    Raises UsageError if the checkpoint reads single images and no slices are named.
    """
    model, config = checkpoint.model, checkpoint.config.model
    size = config.encoder.size
    if config.encoder.slices:
        block = block_of(volume, size, config.encoder.slices, window=window)
        sight = model.glimpse(torch.from_numpy(block.grid)[None, None].to(model.device))
        return Trunk(sight, model.sources(sight), (block.places,))
    if numbers is None and not config.pictures.slices:
        raise UsageError(
            "this checkpoint reads single images", remedy="name the slices that it should look at"
        )
    depth = len(volume.voxels)
    chosen = spread(depth, config.pictures.slices) if numbers is None else numbers
    slices = take_slices(volume, chosen, size, window=window)
    grids = torch.from_numpy(np.stack([own.grid for own in slices])).unsqueeze(1)
    seen = model.glimpse(grids.to(model.device))
    sight = together(
        [
            (Sight(seen.tokens[i : i + 1], seen.local[i : i + 1]), Picture("slice", own.number))
            for i, own in enumerate(slices)
        ]
    )
    return Trunk(sight, model.sources(sight), tuple((own.place,) for own in slices))
