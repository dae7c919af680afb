"""Encoder features on disk: computed once per film and view, read while the connector trains."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from medvlm.data.cache import file_state
from medvlm.draft.locate import lung_boxes
from medvlm.image.geometry import Box
from medvlm.model.encoder import STRIDES, Features
from medvlm.model.vision import Look, VisionModel
from medvlm.train.films import FilmStore
from medvlm.train.progress import track

BATCH = 16
SIDES = ("right", "left")


class FeatureStore(NamedTuple):
    """float16 maps of films in several views; view 0 is the film as it is.

    `maps`: [films, views, C, H, W] by stride, of those strides that were kept; `lungs`: boxes found
    by the dense head in view 0.
    """

    maps: dict[int, np.ndarray]
    lungs: list[dict[str, Box]]

    def batch(self, rows: np.ndarray, views: np.ndarray) -> Features:
        """Features of (film, view) pairs, on the CPU; those that were not kept are empty."""
        return Features(*(self._read(stride, rows, views) for stride in STRIDES))

    def _read(self, stride: int, rows: np.ndarray, views: np.ndarray) -> Tensor:
        if stride not in self.maps:
            return torch.empty(0)
        maps = self.maps[stride]
        pairs = zip(rows, views, strict=True)
        return torch.from_numpy(np.stack([maps[row, view] for row, view in pairs])).float()


def feature_store(
    model: VisionModel,
    store: FilmStore,
    rows: np.ndarray,
    views: int,
    strides: Sequence[int],
    folder: Path,
    seed: int,
    key: str,
) -> FeatureStore:
    """Features of the films `rows`; rows of the result are films of the store, others stay zero.

    `key` names the weights, so features of another encoder are never taken for these. A second
    process that wants the same waits for the first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The place in the store too: it is where a film's features lie, and a seed of its views.
    images = (f"{row} {file_state(store.films[row].image)}" for row in rows)
    parts = [key, model.config.model_dump_json(), str(views), str(seed), *images]
    stem = hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]
    paths = {stride: folder / f"features-{stem}-{stride}.npy" for stride in sorted(strides)}
    lungs = folder / f"features-{stem}-lungs.npy"

    def kept() -> bool:
        return all(path.exists() for path in (*paths.values(), lungs))

    if not kept():
        with FileLock(lungs.with_suffix(".lock")):
            if not kept():
                _compute(model, store, rows, views, paths, lungs, seed)
    maps = {stride: np.load(path, mmap_mode="r") for stride, path in paths.items()}
    return FeatureStore(maps, [_boxes(row) for row in np.load(lungs)])


@torch.no_grad()
def _compute(
    model: VisionModel,
    store: FilmStore,
    rows: np.ndarray,
    views: int,
    paths: dict[int, Path],
    lungs: Path,
    seed: int,
) -> None:
    """Writes the files of `paths` (by stride) and `lungs`, each by a rename when it is whole."""
    device, size = next(model.parameters()).device, model.config.size
    partial = {stride: path.with_suffix(".partial") for stride, path in paths.items()}
    maps: dict[int, np.memmap] = {}
    found = np.full((len(store.films), len(SIDES), 4), np.nan, dtype=np.float32)
    model.eval()
    for start in track(range(0, len(rows), BATCH), "features"):
        part = rows[start : start + BATCH]
        for view in range(views):
            look: Look = model(view_of(store, part, view, size, seed).to(device))
            kept = dict(zip(STRIDES, look.features, strict=True))
            for stride, path in partial.items():
                own = kept[stride].half().cpu().numpy()
                if stride not in maps:
                    shape = (len(store.films), views, *own.shape[1:])
                    maps[stride] = np.lib.format.open_memmap(
                        path, mode="w+", dtype=np.float16, shape=shape
                    )
                maps[stride][part, view] = own
            if view == 0:
                dense = look.dense.sigmoid().cpu().numpy()
                for row, own in zip(part, dense, strict=True):
                    boxes = lung_boxes(own, size)
                    for i, side in enumerate(SIDES):
                        if side in boxes:
                            box = boxes[side]
                            found[row, i] = (box.x, box.y, box.width, box.height)
    for stride, path in partial.items():
        maps[stride].flush()
        path.replace(paths[stride])
    with (unfinished := lungs.with_suffix(".partial")).open("wb") as file:
        np.save(file, found)
    unfinished.replace(lungs)


def view_of(store: FilmStore, rows: np.ndarray, view: int, size: int, seed: int) -> Tensor:
    """Films [B, 1, size, size] in one view: as the product reads them, or changed at random.

    How a film is changed depends on the seed, the film and the view alone.
    """
    if view == 0:
        return store.plain(rows, size)
    seeds = (np.random.default_rng([seed, int(row), view]).integers(2**63) for row in rows)
    return store.batch(rows, size, [torch.Generator().manual_seed(int(s)) for s in seeds]).images


def _boxes(row: np.ndarray) -> dict[str, Box]:
    pairs = zip(SIDES, row, strict=True)
    return {side: Box(*map(float, box)) for side, box in pairs if not np.isnan(box).any()}
