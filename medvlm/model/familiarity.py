"""Does an image look like those that the encoder learned from? A distance of its mean features.

Mahalanobis distance along the main axes of what training films look like (Lee et al., NeurIPS
2018), and what lies beside these axes (Wang et al., "ViM", CVPR 2022): a head that was taught some
other images need not know the rest, but hardly any of them lies where chest films lie in both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medvlm.model.encoder import Features
from medvlm.model.spatial import spatial_mean

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Familiarity:
    """Of C mean features, those of strides 16 and 32, and K axes.

    `mean`, `scale` [C]: of training films. `axes` [K, C], `variance` [K]: their principal axes.
    `beside` [1]: the median of their squared lengths beside the axes. `limit` [1]: the distance of
    the films that are just familiar.
    """

    mean: Floats
    scale: Floats
    axes: Floats
    variance: Floats
    beside: Floats
    limit: Floats

    def distances(self, features: Features) -> list[float]:
        """Of B images; over 1 is unfamiliar."""
        return [float(d) for d in self.raw(mean_features(features).numpy()) / self.limit]

    def raw(self, means: Floats) -> Floats:
        """Distances [B] of mean features [B, C]; a training film has about 2."""
        units = (means - self.mean) / self.scale
        along = units @ self.axes.T
        beside = (units**2).sum(axis=1) - (along**2).sum(axis=1)
        found: Floats = (along**2 / self.variance).mean(axis=1) + beside / self.beside
        return found


@torch.no_grad()
def mean_features(features: Features) -> Tensor:
    """[B, C]"""
    parts = (features.middle, features.coarse)
    return torch.cat([spatial_mean(maps).float().cpu() for maps in parts], dim=1)


def fit_familiarity(learned: Floats, others: Floats, axes: int, share: float) -> Familiarity:
    """From mean features of films that the encoder learned from [N, C], and of `others` [M, C] of
    the same kind, of which `share` are to be familiar."""
    mean, scale = learned.mean(axis=0), learned.std(axis=0) + 1e-6
    units = (learned - mean) / scale
    _, lengths, directions = np.linalg.svd(units.astype(np.float64), full_matrices=False)
    kept = directions[:axes].astype(np.float32)
    variance = (lengths[:axes] ** 2 / len(units)).astype(np.float32)
    beside = (units**2).sum(axis=1) - ((units @ kept.T) ** 2).sum(axis=1)
    one = np.ones(1, np.float32)
    found = Familiarity(
        mean.astype(np.float32),
        scale.astype(np.float32),
        kept,
        variance,
        one * np.float32(max(np.median(beside), 1e-6)),
        one,
    )
    limit = one * np.float32(np.quantile(found.raw(others), share))
    return Familiarity(**{**vars(found), "limit": limit})
