"""Do a draft's findings and boxes stay put when its images hardly change?

A few pixels' shift, a little exposure and a JPEG of good quality change nothing that a reader would
see. What changes a statement all the same is close to its limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medvlm.draft.decide import decide, released_boxes
from medvlm.draft.ground import regions
from medvlm.draft.look import Seen, look_at
from medvlm.findings import FINDINGS
from medvlm.image.geometry import Box
from medvlm.image.load import ImageInput
from medvlm.model.checkpoint import Checkpoint

SHIFT = 0.004
"""Of the longer side: 4 pixels of a film of a thousand."""
GAMMA = 1.05
QUALITY = 90
SAME_BOX = 0.5
"""The IoU from which a box has stayed where it was."""


class Disturbed(NamedTuple):
    """An image that hardly changed, and by how many source pixels it moved right and down."""

    image: ImageInput
    right: int = 0
    down: int = 0


def disturbed(image: ImageInput) -> list[Disturbed]:
    """Shifted both ways, lighter, darker, and through a JPEG file."""
    by = max(1, round(SHIFT * max(image.width, image.height)))
    pixels = image.pixels
    changed = [pixels**GAMMA, pixels ** (1 / GAMMA), _through_jpeg(pixels)]
    moved = [
        Disturbed(replace(image, pixels=_moved(pixels, right, down)), right, down)
        for right, down in ((by, -by), (-by, by))
    ]
    return [*moved, *(Disturbed(replace(image, pixels=own)) for own in changed)]


def stability(checkpoint: Checkpoint, seen: Sequence[Seen]) -> float:
    """The share of findings that keep their polarity, and their first box where they have one; the
    mean over images and disturbances, 0..1."""
    kept: list[bool] = []
    for item in seen:
        others = disturbed(item.image)
        before = _said(checkpoint, item)
        looks = look_at(checkpoint, [other.image for other in others])
        for look, other in zip(looks, others, strict=True):
            after = _said(checkpoint, look, -other.right, -other.down)
            kept += [_same(a, b) for a, b in zip(before, after, strict=True)]
    return float(np.mean(kept)) if kept else 1.0


class _Said(NamedTuple):
    polarity: str
    box: Box | None


def _said(checkpoint: Checkpoint, seen: Seen, right: int = 0, down: int = 0) -> list[_Said]:
    """Of each finding, on this image alone: polarity and first box, moved by so many pixels."""
    out = []
    for name in FINDINGS:
        shown = regions(seen, [item.box for item in released_boxes(checkpoint, seen, name)][:1])
        boxes = [Box(r.x + right, r.y + down, r.width, r.height) for r in shown]
        polarity = decide(checkpoint, name, seen.probabilities[name])
        out.append(_Said(polarity, boxes[0] if boxes else None))
    return out


def _same(before: _Said, after: _Said) -> bool:
    if before.polarity != after.polarity or (before.box is None) != (after.box is None):
        return False
    return before.box is None or after.box is None or before.box.iou(after.box) >= SAME_BOX


def _moved(pixels: NDArray[np.float32], right: int, down: int) -> NDArray[np.float32]:
    """The image moved; what comes in at the edges repeats them."""
    height, width = pixels.shape
    pad = max(abs(right), abs(down))
    wide = np.pad(pixels, pad, mode="edge")
    return wide[pad - down : pad - down + height, pad - right : pad - right + width]


def _through_jpeg(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    file = BytesIO()
    grey = np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)
    Image.fromarray(grey).save(file, format="JPEG", quality=QUALITY)
    return np.asarray(Image.open(file), np.float32) / np.float32(255)
