"""Films as training batches, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from medvlm.config import DataConfig
from medvlm.data.cache import cached_pixels, dense_labels
from medvlm.data.cards import require_card
from medvlm.data.sets import DataSet, Film, load_set
from medvlm.errors import ConfigError
from medvlm.image.load import resize_grid
from medvlm.image.pixels import render_picture
from medvlm.train.augment import random_affine, random_crop, random_exposure, warp

CACHE_SIZE = 384
DENSE_SIZE = 96

Side = Literal["training", "tuning", "validation", "unused"]


class FilmBatch(NamedTuple):
    """`images` [B, 1, size, size] in 0..1; labels hold NaN where unknown.

    `dense` [B, 3, size/8, size/8] in 0..1, `dense_known` [B, 3] bool.
    """

    images: Tensor
    findings: Tensor
    attributes: Tensor
    dense: Tensor
    dense_known: Tensor


def in_tuning(kind: str, group: str) -> bool:
    """A tenth of the training patients, to stop or choose by, chosen as validation is: for good."""
    digest = hashlib.sha256(f"medvlm:tuning:{kind}:{group}".encode()).hexdigest()
    return int(digest[:8], 16) % 10 == 0


@dataclass
class FilmStore:
    """N films of all sets with their pixels and labels; `sides` [N] holds the `Side` of each."""

    films: list[Film]
    kinds: np.ndarray
    sides: np.ndarray
    pixels: np.ndarray
    findings: Tensor
    attributes: Tensor
    dense: Tensor
    dense_known: Tensor

    @classmethod
    def build(
        cls, sets: Sequence[DataSet], cache: Path, tuning: bool = False, share: float = 1.0
    ) -> FilmStore:
        """`tuning`: whether a part of the training patients is kept apart as `tuning`. `share`: of
        the others that stay training; the rest is `unused`."""
        films = [film for data in sets for film in data.films]
        kinds = np.array([data.kind for data in sets for _ in data.films])
        pairs = zip(kinds, films, strict=True)
        sides = [_side(str(kind), film, tuning, share) for kind, film in pairs]
        labels = [dense_labels(film, DENSE_SIZE) for film in films]
        return cls(
            films=films,
            kinds=kinds,
            sides=np.array(sides),
            pixels=cached_pixels(films, CACHE_SIZE, cache),
            findings=torch.from_numpy(np.stack([film.findings for film in films])),
            attributes=torch.from_numpy(np.stack([film.attributes for film in films])),
            dense=torch.from_numpy(np.stack([bits for bits, _ in labels])),
            dense_known=torch.from_numpy(np.stack([known for _, known in labels])),
        )

    def rows(self, kind: str, side: Side) -> np.ndarray:
        """Indices of one set's films on one side of the split."""
        return np.flatnonzero((self.kinds == kind) & (self.sides == side))

    def plain(self, rows: np.ndarray, size: int) -> Tensor:
        """Films [B, 1, size, size] exactly as the product reads them, decoded anew."""
        grids = []
        for row in rows:
            with Image.open(self.films[row].image) as picture:
                grids.append(resize_grid(render_picture(picture), size)[0])
        return torch.from_numpy(np.stack(grids)).unsqueeze(1)

    def batch(
        self, rows: np.ndarray, size: int, generators: Sequence[torch.Generator] | None
    ) -> FilmBatch:
        """A batch at `size`; each film is changed at random if there are generators for them."""
        images = torch.from_numpy(self.pixels[rows]).float().div_(255).unsqueeze(1)
        bits = self.dense[rows]
        dense = torch.stack([(bits >> bit & 1).float() for bit in range(3)], dim=1)
        if generators is None:
            affine = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).expand(len(rows), -1, -1)
        else:
            affine = torch.cat([random_affine(1, own) for own in generators])
        images = warp(images, affine, size)
        if generators is not None:
            images = _exposed(images, generators)
        return FilmBatch(
            images=images,
            findings=self.findings[rows],
            attributes=self.attributes[rows],
            dense=warp(dense, affine, size // 8),
            dense_known=self.dense_known[rows],
        )

    def crops(self, rows: np.ndarray, size: int, generators: Sequence[torch.Generator]) -> Tensor:
        """[B, 1, size, size]: a random piece of each film, for learning without labels."""
        images = torch.from_numpy(self.pixels[rows]).float().div_(255).unsqueeze(1)
        affine = torch.cat([random_crop(1, own) for own in generators])
        return _exposed(warp(images, affine, size), generators)


def _exposed(images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    each = zip(images.split(1), generators, strict=True)
    return torch.cat([random_exposure(image, own) for image, own in each])


def in_share(kind: str, group: str, share: float) -> bool:
    """Whether a training patient is among the given share; those of a smaller share are too."""
    digest = hashlib.sha256(f"medvlm:share:{kind}:{group}".encode()).hexdigest()
    return int(digest[:8], 16) < share * 2**32


def _side(kind: str, film: Film, tuning: bool, share: float) -> Side:
    if film.validation:
        return "validation"
    if tuning and in_tuning(kind, film.group):
        return "tuning"
    return "training" if in_share(kind, film.group, share) else "unused"


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
    Raises ConfigError if films of a set are wanted that has none to train on.
    """
    chosen = []
    for kind, count in per_epoch.items():
        rows = store.rows(kind, "training")
        if not count:
            continue
        if not len(rows):
            raise ConfigError(
                f"data.per_epoch: no film of {kind} is left to train on",
                remedy="leave the set out, or raise data.share",
            )
        order = np.random.default_rng([seed, len(rows)]).permutation(rows)
        start = epoch * count
        chosen.append(order[np.arange(start, start + count) % len(order)])
    together = np.concatenate([*chosen, np.zeros(0, int)])
    return np.random.default_rng([seed, epoch, 1]).permutation(together)
