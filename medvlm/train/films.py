"""Films as training batches, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from medvlm.config import DataConfig
from medvlm.data.cache import cached_pixels, dense_labels
from medvlm.data.cards import require_card
from medvlm.data.sets import DataSet, Film, load_set
from medvlm.image.load import resize_grid
from medvlm.image.pixels import render_picture
from medvlm.train.augment import random_affine, random_exposure, warp

CACHE_SIZE = 384
DENSE_SIZE = 96


class FilmBatch(NamedTuple):
    """`images` [B, 1, size, size] in 0..1; labels hold NaN where unknown.

    `dense` [B, 3, size/8, size/8] in 0..1, `dense_known` [B, 3] bool.
    """

    images: Tensor
    findings: Tensor
    attributes: Tensor
    dense: Tensor
    dense_known: Tensor


@dataclass
class FilmStore:
    """Films of all sets with their pixels and labels in memory maps."""

    films: list[Film]
    kinds: np.ndarray
    pixels: np.ndarray
    findings: Tensor
    attributes: Tensor
    dense: Tensor
    dense_known: Tensor

    @classmethod
    def build(cls, sets: Sequence[DataSet], cache: Path) -> FilmStore:
        films = [film for data in sets for film in data.films]
        kinds = np.array([data.kind for data in sets for _ in data.films])
        labels = [dense_labels(film, DENSE_SIZE) for film in films]
        return cls(
            films=films,
            kinds=kinds,
            pixels=cached_pixels(films, CACHE_SIZE, cache),
            findings=torch.from_numpy(np.stack([film.findings for film in films])),
            attributes=torch.from_numpy(np.stack([film.attributes for film in films])),
            dense=torch.from_numpy(np.stack([bits for bits, _ in labels])),
            dense_known=torch.from_numpy(np.stack([known for _, known in labels])),
        )

    def rows(self, kind: str, validation: bool) -> np.ndarray:
        """Indices of one set's films on one side of the split."""
        side = np.array([film.validation == validation for film in self.films])
        return np.flatnonzero((self.kinds == kind) & side)

    def plain(self, rows: np.ndarray, size: int) -> Tensor:
        """Films [B, 1, size, size] exactly as the product reads them, decoded anew."""
        grids = []
        for row in rows:
            with Image.open(self.films[row].image) as picture:
                grids.append(resize_grid(render_picture(picture), size)[0])
        return torch.from_numpy(np.stack(grids)).unsqueeze(1)

    def batch(self, rows: np.ndarray, size: int, generator: torch.Generator | None) -> FilmBatch:
        """A batch at `size`; augmented if a generator is given."""
        images = torch.from_numpy(self.pixels[rows]).float().div_(255).unsqueeze(1)
        bits = self.dense[rows]
        dense = torch.stack([(bits >> bit & 1).float() for bit in range(3)], dim=1)
        if generator is None:
            affine = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).expand(len(rows), -1, -1)
        else:
            affine = random_affine(len(rows), generator)
        images = warp(images, affine, size)
        if generator is not None:
            images = random_exposure(images, generator)
        return FilmBatch(
            images=images,
            findings=self.findings[rows],
            attributes=self.attributes[rows],
            dense=warp(dense, affine, size // 8),
            dense_known=self.dense_known[rows],
        )


def load_sets(data: DataConfig) -> list[DataSet]:
    """The sets an epoch draws from. Raises DataCardError for a set without a card."""
    sets = []
    for kind in data.per_epoch:
        require_card(kind)
        sets.append(load_set(data.root / kind))
    return sets


def epoch_rows(store: FilmStore, per_epoch: dict[str, int], seed: int, epoch: int) -> np.ndarray:
    """A shuffled epoch: `per_epoch` training films of each set, walking through the whole set.

    Successive epochs take successive parts of one fixed shuffle, so that every film comes up.
    """
    chosen = []
    for kind, count in per_epoch.items():
        rows = store.rows(kind, validation=False)
        order = np.random.default_rng([seed, len(rows)]).permutation(rows)
        start = epoch * count
        chosen.append(order[np.arange(start, start + count) % len(order)])
    return np.random.default_rng([seed, epoch, 1]).permutation(np.concatenate(chosen))


def batches(rows: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Consecutive full batches; a rest smaller than a batch is dropped."""
    for start in range(0, len(rows) - batch_size + 1, batch_size):
        yield rows[start : start + batch_size]
