"""Letterboxed films on disk: decoded once, read many times.

An epoch must not wait for JPEG decoding. The cache holds what the product's own path makes of a
picture, as uint8 at a fixed size; training warps it further, to the size of its epoch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image
from rich.console import Console
from rich.progress import track

from medvlm.data.sets import Film
from medvlm.image.geometry import Box, GridTransform, letterbox
from medvlm.image.load import resize_grid
from medvlm.image.pixels import render_picture

BIT_RIGHT_LUNG, BIT_LEFT_LUNG, BIT_OPACITY = 1, 2, 4


def cached_pixels(films: Sequence[Film], size: int, folder: Path) -> np.ndarray:
    """uint8 [len(films), size, size], a read-only memory map in the order of `films`.

    Of several processes that want the same films one decodes, and the others wait for it.
    """
    key = hashlib.sha256(
        "\n".join([str(size), *(file_state(film.image) for film in films)]).encode()
    ).hexdigest()[:16]
    path = folder / f"films-{size}-{key}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                _decode(films, size, path)
    return np.load(path, mmap_mode="r")


def _decode(films: Sequence[Film], size: int, path: Path) -> None:
    partial = path.with_suffix(".partial")
    out = np.lib.format.open_memmap(
        partial, mode="w+", dtype=np.uint8, shape=(len(films), size, size)
    )
    for row, film in track(
        enumerate(films), "caching films", len(films), console=Console(stderr=True)
    ):
        with Image.open(film.image) as picture:
            grid, _ = resize_grid(render_picture(picture), size)
        out[row] = np.round(grid * 255)
    out.flush()
    partial.replace(path)


def file_state(path: Path) -> str:
    """Names a file as it is now: one that was replaced is another, though its path be the same."""
    status = path.stat()
    return f"{path} {status.st_size} {status.st_mtime_ns}"


def film_transform(film: Film, size: int) -> GridTransform:
    """The letterbox of a film into `size` x `size`, from its header alone."""
    with Image.open(film.image) as picture:
        return letterbox(*picture.size, size)


def dense_labels(film: Film, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Bits of lungs and opacities per grid cell, uint8 [size, size], and which maps are known.

    `known` is bool [3] in the order of `DENSE_MAPS`. Masks are filled by nearest neighbour.
    """
    transform = film_transform(film, size)
    bits = np.zeros((size, size), dtype=np.uint8)
    known = np.array([film.lung_mask is not None] * 2 + [film.reviewed])
    if film.lung_mask is not None:
        content = transform.content_box()
        left, top = round(content.x), round(content.y)
        width, height = round(content.width), round(content.height)
        with Image.open(film.lung_mask) as picture:
            mask = np.asarray(picture.resize((width, height), Image.Resampling.NEAREST))
        bits[top : top + height, left : left + width] |= mask.astype(np.uint8) & 3
    if film.reviewed:
        for finding, fractions in film.boxes:
            if finding == "Lung_Opacity":
                box = transform.to_grid(
                    Box.from_fractions(*fractions, transform.source_width, transform.source_height)
                )
                rows = slice(round(box.y), round(box.y + box.height))
                columns = slice(round(box.x), round(box.x + box.width))
                bits[rows, columns] |= BIT_OPACITY
    return bits, known
