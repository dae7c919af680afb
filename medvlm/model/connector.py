"""The C-Abstractor: feature maps -> visual tokens that a language model reads.

Cha et al., "Honeybee: Locality-enhanced Projector for Multimodal LLM", CVPR 2024: a RegNet stage,
adaptive average pooling to the token grid, a second RegNet stage, a two-layer MLP. Here it reads
two strides of the encoder instead of one map, takes any H x W (positions are interpolated), and
hands out tokens of a region beside those of the whole.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation, roi_align

from medvlm.config import ConnectorConfig
from medvlm.model.encoder import Features

POSITION_GRID = 20
REGION_GRID = 2
MIDDLE_STRIDE = 16


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of [B, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Bottleneck(nn.Module):
    """RegNet's residual block (Radosavovic et al., CVPR 2020) with a depthwise 3x3 and SE 0.25."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 1, bias=False),
            LayerNorm2d(width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            LayerNorm2d(width),
            nn.SiLU(),
            SqueezeExcitation(width, width // 4, activation=nn.SiLU),
            nn.Conv2d(width, width, 1, bias=False),
            LayerNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x + self.body(x))


class CAbstractor(nn.Module):
    """Two strides of the encoder -> `tokens` visual tokens of the language model's width."""

    def __init__(self, config: ConnectorConfig, channels: tuple[int, ...], out: int) -> None:
        super().__init__()
        self.config = config
        self.middle = nn.Conv2d(channels[1], config.width, 1)
        self.coarse = nn.Conv2d(channels[2], config.width, 1)
        self.positions = nn.Parameter(
            0.02 * torch.randn(1, config.width, POSITION_GRID, POSITION_GRID)
        )
        self.before = nn.Sequential(*(Bottleneck(config.width) for _ in range(config.depth)))
        self.after = nn.Sequential(*(Bottleneck(config.width) for _ in range(config.depth)))
        self.project = nn.Sequential(nn.Linear(config.width, out), nn.SiLU(), nn.Linear(out, out))
        # A token has the length of a word's embedding when training begins.
        self.norm = nn.LayerNorm(out)
        nn.init.constant_(self.norm.weight, 0.1)

    def forward(self, features: Features) -> tuple[Tensor, Tensor]:
        """Returns tokens [B, N, D], row by row from the top left, and the local map.

        The local map [B, width, H, W] lies at stride 16 and feeds `region_tokens`.
        """
        local = self.middle(features.middle) + F.interpolate(
            self.coarse(features.coarse), size=features.middle.shape[-2:], mode="nearest"
        )
        local = self.before(local + self._positions_at(local))
        pooled = self.after(F.adaptive_avg_pool2d(local, self.config.tokens))
        return self._to_language(pooled), local

    def region_tokens(self, local: Tensor, boxes: Tensor) -> Tensor:
        """Tokens [R, 4, D] of `boxes` [R, 5]: (image index, left, top, right, bottom) grid pixels.

        RoIAlign (He et al., ICCV 2017) over the local map.
        """
        regions = roi_align(
            local, boxes.to(local.dtype), REGION_GRID, spatial_scale=1 / MIDDLE_STRIDE, aligned=True
        )
        return self._to_language(self.after(regions))

    def _to_language(self, x: Tensor) -> Tensor:
        return self.norm(self.project(x.flatten(2).transpose(1, 2)))

    def _positions_at(self, x: Tensor) -> Tensor:
        if x.shape[-2:] == self.positions.shape[-2:]:
            return self.positions
        return F.interpolate(self.positions, size=x.shape[-2:], mode="bicubic", align_corners=False)
