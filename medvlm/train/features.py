"""Features of the frozen encoder, computed once and read from disk while the connector trains."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from medvlm.draft.locate import lung_boxes
from medvlm.image.geometry import Box
from medvlm.model.encoder import Features
from medvlm.model.vision import VisionModel
from medvlm.train.films import FilmStore
from medvlm.train.progress import track


class FeatureStore(NamedTuple):
    """float16 maps of every film in several views; view 0 is the film as it is.

    `middle` [N, views, C, H, W] and `coarse`; `lungs`: boxes found by the dense head in view 0.
    """

    middle: np.ndarray
    coarse: np.ndarray
    lungs: list[dict[str, Box]]

    def batch(self, rows: np.ndarray, views: np.ndarray, device: torch.device) -> Features:
        """Features of (film, view) pairs; the finest map is not kept."""

        def read(maps: np.ndarray) -> Tensor:
            picked = np.stack([maps[row, view] for row, view in zip(rows, views, strict=True)])
            return torch.from_numpy(picked).to(device).float()

        coarse = read(self.coarse)
        return Features(coarse.new_empty(0), read(self.middle), coarse)


@torch.no_grad()
def feature_store(
    model: VisionModel,
    store: FilmStore,
    rows: np.ndarray,
    views: int,
    folder: Path,
    seed: int,
    key: str,
) -> FeatureStore:
    """Features of the films `rows`; rows of the result are films of the store, others stay zero.

    `key` names the weights, so features of another encoder are never taken for these.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = "|".join([key, str(views), str(seed), *(str(store.films[row].image) for row in rows)])
    stem = hashlib.sha256(parts.encode()).hexdigest()[:16]
    paths = [folder / f"{name}-{stem}.npy" for name in ("middle", "coarse", "lungs")]
    size = model.config.size
    if not all(path.exists() for path in paths):
        partial = [path.with_suffix(".partial") for path in paths[:2]]
        shapes = [
            (len(store.films), views, channels, size // stride, size // stride)
            for channels, stride in zip(model.encoder.channels[1:], (16, 32), strict=True)
        ]
        maps = [
            np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
            for path, shape in zip(partial, shapes, strict=True)
        ]
        lungs = np.full((len(store.films), 2, 4), np.nan, dtype=np.float32)
        device = next(model.parameters()).device
        generator = torch.Generator().manual_seed(seed)
        model.eval()
        for start in track(range(0, len(rows), 16), "features"):
            part = rows[start : start + 16]
            for view in range(views):
                images = (
                    store.batch(part, size, generator).images if view else store.plain(part, size)
                )
                look = model(images.to(device))
                maps[0][part, view] = look.features.middle.half().cpu().numpy()
                maps[1][part, view] = look.features.coarse.half().cpu().numpy()
                if view == 0:
                    dense = look.dense.sigmoid().cpu().numpy()
                    for row, own in zip(part, dense, strict=True):
                        for i, box in _sides(lung_boxes(own, size)):
                            lungs[row, i] = (box.x, box.y, box.width, box.height)
        for path, final in zip(partial, paths[:2], strict=True):
            path.replace(final)
        np.save(paths[2], lungs)
    middle, coarse, found = (np.load(path, mmap_mode="r") for path in paths)
    return FeatureStore(middle, coarse, [_boxes(row) for row in found])


def _sides(boxes: dict) -> list[tuple[int, Box]]:
    return [(i, boxes[side]) for i, side in enumerate(("right", "left")) if side in boxes]


def _boxes(row: np.ndarray) -> dict[str, Box]:
    sides = zip(("right", "left"), row, strict=True)
    return {side: Box(*map(float, box)) for side, box in sides if not np.isnan(box).any()}
