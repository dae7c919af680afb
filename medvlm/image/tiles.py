"""A film in full resolution: cut into tiles, each of the size that the model sees."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medvlm.image.geometry import Box, GridTransform
from medvlm.image.load import ImageInput
from medvlm.image.places import Place


class Tile(NamedTuple):
    """One tile: its `row` and `column` from the top left, its `grid` [size, size], its place."""

    row: int
    column: int
    grid: NDArray[np.float32]
    place: Place


def tile_transforms(
    width: int, height: int, size: int, tiles: tuple[int, int]
) -> list[tuple[int, int, GridTransform]]:
    """(row, column, source pixels -> the tile's grid) of an image of `width` x `height`.

    The image is fitted, centred, into a canvas of rows x columns tiles of `size` pixels a side; a
    tile's grid is its part of the canvas. Tiles that hold nothing of the image are left out.
    """
    rows, columns = tiles
    scale = min(columns * size / width, rows * size / height)
    content = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (columns * size - content[0]) // 2, (rows * size - content[1]) // 2
    out = []
    for row in range(rows):
        for column in range(columns):
            x, y = left - column * size, top - row * size
            if x < size and y < size and x + content[0] > 0 and y + content[1] > 0:
                transform = GridTransform(
                    source_width=width,
                    source_height=height,
                    size=size,
                    scale_x=content[0] / width,
                    scale_y=content[1] / height,
                    offset_x=float(x),
                    offset_y=float(y),
                )
                out.append((row, column, transform))
    return out


def cut_tiles(image: ImageInput, size: int, tiles: tuple[int, int]) -> list[Tile]:
    """The tiles of an image, row by row from the top left, antialiased, padded with black."""
    transforms = tile_transforms(image.width, image.height, size, tiles)
    first = transforms[0][2]
    content = round(first.scale_x * image.width), round(first.scale_y * image.height)
    source = Image.fromarray(np.ascontiguousarray(image.pixels, dtype=np.float32))
    resized = np.clip(np.asarray(source.resize(content, Image.Resampling.BICUBIC)), 0.0, 1.0)
    out = []
    for row, column, transform in transforms:
        x, y = int(transform.offset_x), int(transform.offset_y)
        part = resized[max(0, -y) : size - y, max(0, -x) : size - x]
        grid = np.zeros((size, size), dtype=np.float32)
        grid[max(0, y) : max(0, y) + part.shape[0], max(0, x) : max(0, x) + part.shape[1]] = part
        whole = Box(0.0, 0.0, float(image.width), float(image.height))
        shown = transform.to_source(Box(0.0, 0.0, float(size), float(size))).intersection(whole)
        place = Place(transform, shown, image.sop_instance_uid, image.frame)
        out.append(Tile(row, column, grid, place))
    return out
