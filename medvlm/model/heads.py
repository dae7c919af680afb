"""What is read from the encoder's features without a language model.

`FindingClassifier` and `DenseHead` share the features with the connector, so a draft's
probabilities, its boxes and its words come from one look at the image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvlm.model.encoder import Features

ATTRIBUTES = ("ap_view", "male", "frontal_chest", "head", "abdomen")
DENSE_MAPS = ("right_lung", "left_lung", "opacity")


class FindingClassifier(nn.Module):
    """Class-specific residual attention (CSRA; Zhu and Wu, ICCV 2021) over two strides.

    Each finding's logit is the average of its map of scores plus `residual` times the average
    weighted by where the scores are high. The maps double as a first localisation.
    """

    def __init__(self, channels: tuple[int, ...], classes: int, residual: float = 0.3) -> None:
        super().__init__()
        self.residual = residual
        self.coarse = nn.Conv2d(channels[2], classes, 1)
        self.middle = nn.Conv2d(channels[1], classes, 1)
        self.dropout = nn.Dropout2d(0.1)

    def forward(self, features: Features) -> tuple[Tensor, Tensor]:
        """Returns logits [B, classes] and score maps [B, classes, H, W] at stride 16."""
        coarse = self.coarse(self.dropout(features.coarse))
        middle = self.middle(self.dropout(features.middle))
        logits = self._pool(coarse) + self._pool(middle)
        maps = middle + F.interpolate(
            coarse, size=middle.shape[-2:], mode="bilinear", align_corners=False
        )
        return logits, maps

    def _pool(self, scores: Tensor) -> Tensor:
        flat = scores.flatten(2)
        attention = flat.softmax(dim=-1)
        return flat.mean(dim=-1) + self.residual * (flat * attention).sum(dim=-1)


class DenseHead(nn.Module):
    """A feature pyramid (Lin et al., CVPR 2017) down to stride 8, one map per `DENSE_MAPS`."""

    def __init__(self, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.smooth = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width),
            nn.Conv2d(width, width, 1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 5, padding=2, groups=width),
            nn.Conv2d(width, width, 1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
        )
        # Lungs are told apart by where they are, which convolutions alone do not know.
        self.out = nn.Conv2d(width + 2, len(DENSE_MAPS), 1)

    def forward(self, features: Features) -> Tensor:
        """Returns logits [B, len(DENSE_MAPS), size/8, size/8]."""
        coarse = self.lateral[2](features.coarse)
        middle = self.lateral[1](features.middle) + _upsample(coarse)
        fine = self.smooth(self.lateral[0](features.fine) + _upsample(middle))
        return self.out(torch.cat([fine, _positions(fine)], dim=1))


def _upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def _positions(x: Tensor) -> Tensor:
    rows = torch.linspace(-1, 1, x.shape[-2], device=x.device, dtype=x.dtype)
    columns = torch.linspace(-1, 1, x.shape[-1], device=x.device, dtype=x.dtype)
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    return grid.expand(x.shape[0], -1, -1, -1)
