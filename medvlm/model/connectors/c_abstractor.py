"""The C-Abstractor: convolutions that keep each token to its place.

Cha et al., "Honeybee: Locality-enhanced Projector for Multimodal LLM", CVPR 2024: a RegNet stage,
adaptive average pooling to the token grid, a second RegNet stage, a two-layer MLP. Here it reads
several strides of the encoder instead of one map, takes any H x W (positions are interpolated), any
token grid, volumes, and a mask of the letterbox's padding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvlm.config import ConnectorConfig
from medvlm.model.connectors.interface import (
    GridConnector,
    Visual,
    pool,
    to_sequence,
    wipe,
    word_norm,
)
from medvlm.model.encoder import Features
from medvlm.model.spatial import conv

POSITION_GRID = 20
POSITION_SLICES = 8


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of [B, C, (D,) H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class SqueezeExcite(nn.Module):
    """Channels weighted by what the whole map holds (Hu et al., CVPR 2018), padding left out."""

    def __init__(self, width: int, squeezed: int, dims: int) -> None:
        super().__init__()
        self.fc1 = conv(dims, width, squeezed, 1)
        self.fc2 = conv(dims, squeezed, width, 1)

    def forward(self, x: Tensor, blank: Tensor | None = None) -> Tensor:
        mean, _ = pool(x, (1,) * (x.ndim - 2), blank)
        return torch.sigmoid(self.fc2(F.silu(self.fc1(mean)))) * x


class Bottleneck(nn.Module):
    """RegNet's residual block (Radosavovic et al., CVPR 2020) with a depthwise 3x3 and SE 0.25.

    Where the map is blank it stays zero before each layer that looks around, so padding is to a
    block what the edge of the picture is.
    """

    def __init__(self, width: int, dims: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(dims, width, width, 1, bias=False),
            ChannelNorm(width),
            nn.SiLU(),
            conv(dims, width, width, 3, padding=1, groups=width, bias=False),
            ChannelNorm(width),
            nn.SiLU(),
            SqueezeExcite(width, width // 4, dims),
            conv(dims, width, width, 1, bias=False),
            ChannelNorm(width),
        )

    def forward(self, x: Tensor, blank: Tensor | None = None) -> Tensor:
        around = self.body[3:6](wipe(self.body[:3](x), blank))
        return wipe(F.silu(x + self.body[7:](self.body[6](around, blank))), blank)


class CAbstractor(GridConnector):
    """The encoder's maps -> a grid of visual tokens; the local map has passed the first stage."""

    def __init__(
        self, config: ConnectorConfig, channels: tuple[int, ...], out: int, dims: int = 2
    ) -> None:
        super().__init__(config, channels, out, dims)
        width = config.width
        self.positions = nn.Parameter(0.02 * torch.randn(1, width, POSITION_GRID, POSITION_GRID))
        if dims == 3:
            self.slices = nn.Parameter(0.02 * torch.randn(1, width, POSITION_SLICES))
        self.before = nn.ModuleList(Bottleneck(width, dims) for _ in range(config.depth))
        self.after = nn.ModuleList(Bottleneck(width, dims) for _ in range(config.depth))
        self.project = nn.Sequential(nn.Linear(width, out), nn.SiLU(), nn.Linear(out, out))
        self.norm = word_norm(out)

    def forward(self, features: Features, padding: Tensor | None = None) -> Visual:
        fused, blank = self.fuse(features, padding)
        local = wipe(fused + self._positions_at(fused), blank)
        for block in self.before:
            local = block(local, blank)
        x, blank = pool(local, self.config.tokens, blank)
        for block in self.after:
            x = block(x, blank)
        tokens = self._to_language(x)
        return Visual(tokens if blank is None else wipe(tokens, to_sequence(blank)), local)

    def read_regions(self, regions: Tensor) -> Tensor:
        for block in self.after:
            regions = block(regions)
        return self._to_language(regions)

    def _to_language(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.norm(self.project(to_sequence(x)))
        return tokens

    def _positions_at(self, x: Tensor) -> Tensor:
        """[1, width, (D,) H, W]: of a volume the sum of its slice's and its place in the slice."""
        plane: Tensor = self.positions
        if x.shape[-2:] != plane.shape[-2:]:
            plane = F.interpolate(plane, size=x.shape[-2:], mode="bicubic", align_corners=False)
        if self.dims == 2:
            return plane
        slices = F.interpolate(self.slices, size=x.shape[2], mode="linear", align_corners=False)
        return plane[:, :, None] + slices[..., None, None]
