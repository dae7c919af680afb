"""What is read from the encoder's features without a language model.

`FindingClassifier` and `DenseHead` share the features with the connector, so a draft's
probabilities, its boxes and its words come from one look at the image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvlm.model.encoder import Features
from medvlm.model.spatial import channel_dropout, conv, linear_resize, positions

ATTRIBUTES = ("ap_view", "male", "frontal_chest", "head", "abdomen")
DENSE_MAPS = ("right_lung", "left_lung", "opacity")


class FindingClassifier(nn.Module):
    """Class-specific residual attention (CSRA; Zhu and Wu, ICCV 2021) over two strides.

    Each finding's logit is the average of its map of scores plus `residual` times the average
    weighted by where the scores are high. The maps double as a first localisation.
    """

    def __init__(
        self, channels: tuple[int, ...], classes: int, residual: float = 0.3, dims: int = 2
    ) -> None:
        super().__init__()
        self.residual = residual
        self.coarse = conv(dims, channels[2], classes, 1)
        self.middle = conv(dims, channels[1], classes, 1)
        self.dropout = channel_dropout(dims, 0.1)

    def forward(self, features: Features) -> tuple[Tensor, Tensor]:
        """Returns logits [B, classes] and score maps [B, classes, (D,) H, W] at stride 16."""
        coarse = self.coarse(self.dropout(features.coarse))
        middle = self.middle(self.dropout(features.middle))
        logits = self._pool(coarse) + self._pool(middle)
        return logits, middle + linear_resize(coarse, middle.shape[2:])

    def _pool(self, scores: Tensor) -> Tensor:
        flat = scores.flatten(2)
        attention = flat.softmax(dim=-1)
        return flat.mean(dim=-1) + self.residual * (flat * attention).sum(dim=-1)


class DenseHead(nn.Module):
    """A feature pyramid (Lin et al., CVPR 2017) down to stride 8, one map per `DENSE_MAPS`."""

    def __init__(self, channels: tuple[int, ...], width: int, dims: int = 2) -> None:
        super().__init__()
        self.channels = channels
        self.lateral = nn.ModuleList(conv(dims, c, width, 1) for c in channels)
        self.smooth = nn.Sequential(
            conv(dims, width, width, 3, padding=1, groups=width),
            conv(dims, width, width, 1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            conv(dims, width, width, 5, padding=2, groups=width),
            conv(dims, width, width, 1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
        )
        # Lungs are told apart by where they are, which convolutions alone do not know.
        self.out = conv(dims, width + dims, len(DENSE_MAPS), 1)

    def forward(self, features: Features) -> Tensor:
        """Returns logits [B, len(DENSE_MAPS), (D,) size/8, size/8]."""
        merged = self.lateral[2](features.coarse)
        for lateral, finer in (
            (self.lateral[1], features.middle),
            (self.lateral[0], features.fine),
        ):
            merged = lateral(finer) + F.interpolate(merged, size=finer.shape[2:], mode="nearest")
        fine = self.smooth(merged)
        return self.out(torch.cat([fine, positions(fine)], dim=1))


def dense_head_of(weights: dict[str, Tensor]) -> DenseHead:
    """The head over images whose state these are. Raises ValueError for anything else."""
    try:
        laterals = [weights[f"lateral.{i}.weight"] for i in range(3)]
        head = DenseHead(tuple(own.shape[1] for own in laterals), len(laterals[0]))
        head.load_state_dict(weights)
    except (KeyError, RuntimeError, IndexError) as error:
        raise ValueError("other weights") from error
    return head.eval().requires_grad_(False)
