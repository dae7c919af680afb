"""An image with less to see: blank, or with a place erased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medvlm.image.geometry import Box
from medvlm.image.load import ImageInput

BLANK_GREY = 0.5
_RIM = 0.02
"""Of the image's longer side: how thick the rim is whose grey a fill takes up."""


def blank(image: ImageInput) -> ImageInput:
    """The same header and size over even grey."""
    return replace(image, pixels=np.full_like(image.pixels, BLANK_GREY))


def erase(image: ImageInput, boxes: Sequence[Box]) -> ImageInput:
    """The image with `boxes` (source pixels, origin top-left) filled from what lies around each.

    The fill runs smoothly from rim to rim and leaves little edge; grain and texture are gone.
    A box that covers the whole image leaves the image's mean.
    """
    pixels = image.pixels.copy()
    for box in boxes:
        own = box.clip(image.width, image.height)
        left, top = int(own.x), int(own.y)
        right, bottom = int(np.ceil(own.right)), int(np.ceil(own.bottom))
        if right > left and bottom > top:
            pixels[top:bottom, left:right] = _fill(pixels, left, top, right, bottom)
    return replace(image, pixels=pixels)


def mirrored(box: Box, width: float) -> Box:
    """The box of the same size at the same height on the other side of an image `width` wide."""
    return Box(width - box.right, box.y, box.width, box.height)


def _fill(
    pixels: NDArray[np.float32], left: int, top: int, right: int, bottom: int
) -> NDArray[np.float64]:
    """[bottom - top, right - left]: the grey of the four rims, each by the inverse of its distance.

    A side on the image's border has no rim.
    """
    rim = max(1, round(_RIM * max(pixels.shape)))
    rows, columns = np.arange(bottom - top)[:, None] + 0.5, np.arange(right - left)[None] + 0.5
    sides = (
        (pixels[max(0, top - rim) : top, left:right], 0, rows),
        (pixels[bottom : bottom + rim, left:right], 0, bottom - top - rows),
        (pixels[top:bottom, max(0, left - rim) : left], 1, columns),
        (pixels[top:bottom, right : right + rim], 1, right - left - columns),
    )
    filled, weights = np.zeros((2, bottom - top, right - left))
    for side, axis, distance in sides:
        if side.shape[axis]:
            grey = side.mean(axis=axis, keepdims=True, dtype=np.float64)
            grey = ndimage.gaussian_filter1d(grey, max(1.0, grey.size / 16), axis=1 - axis)
            filled += grey / distance
            weights += 1 / distance
    return filled / weights if weights.any() else np.full_like(filled, pixels.mean())
