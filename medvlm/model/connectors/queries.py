"""Connectors of learned queries: each token may look at all of the picture.

Both read the local map as a sequence, with sine positions of its cells. Cells of padding are never
attended to.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvlm.config import ConnectorConfig
from medvlm.model.connectors.interface import Cell, Connector, Visual, to_sequence, word_norm
from medvlm.model.encoder import Features

# Waves over the picture's width: the slowest and the fastest.
WAVES = (0.25, 16.0)


class Attention(nn.Module):
    """Multi-head attention of x [B, N, C] to a memory [B, M, C], but not where it is blank."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.memory = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor, blank: Tensor | None = None) -> Tensor:
        keys, values = self.memory(memory).chunk(2, dim=-1)
        query, key, value = (
            y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (self.query(x), keys, values)
        )
        mask = None if blank is None else ~blank[:, None, None]
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        out: Tensor = self.out(seen.transpose(1, 2).flatten(2))
        return out


def feed_forward(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
    )


class QFormerLayer(nn.Module):
    """Self-attention among the queries; in every second layer attention to the picture."""

    def __init__(self, width: int, heads: int, index: int) -> None:
        super().__init__()
        self.own_norm = nn.LayerNorm(width)
        self.own = Attention(width, heads)
        self.crosses = index % 2 == 0
        if self.crosses:
            self.cross_norm = nn.LayerNorm(width)
            self.cross = Attention(width, heads)
        self.feed = feed_forward(width)

    def forward(self, x: Tensor, memory: Tensor, blank: Tensor | None) -> Tensor:
        own = self.own_norm(x)
        x = x + self.own(own, own)
        if self.crosses:
            x = x + self.cross(self.cross_norm(x), memory, blank)
        return x + self.feed(x)


class ResamplerLayer(nn.Module):
    """Latents attend to the picture and to one another in one attention."""

    def __init__(self, width: int, heads: int, index: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed = feed_forward(width)

    def forward(self, x: Tensor, memory: Tensor, blank: Tensor | None) -> Tensor:
        own = self.norm(x)
        if blank is not None:
            blank = F.pad(blank, (0, x.shape[1]), value=False)
        x = x + self.attention(own, torch.cat([memory, own], dim=1), blank)
        return x + self.feed(x)


class QueryConnector(Connector):
    """Learned queries, as many as the token grid has cells, that read the fused maps."""

    layer: type[QFormerLayer | ResamplerLayer]

    def __init__(
        self, config: ConnectorConfig, channels: tuple[int, ...], out: int, dims: int = 2
    ) -> None:
        super().__init__(config, channels, out, dims)
        width = config.width
        self.queries = nn.Parameter(0.02 * torch.randn(1, math.prod(config.tokens), width))
        self.memory_norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(self.layer(width, config.heads, i) for i in range(config.depth))
        self.last_norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, out)
        # A query is no place, so regions have a projection of their own.
        self.project_region = nn.Linear(width, out)
        self.norm = word_norm(out)

    def forward(self, features: Features, padding: Tensor | None = None) -> Visual:
        local, blank = self.fuse(features, padding)
        memory = self.memory_norm(to_sequence(local)) + to_sequence(sine_positions(local))
        hidden = None
        if blank is not None:
            hidden = blank.flatten(1)
            # Attention to nothing is not a number; without a picture all that is left is zeros.
            hidden = hidden & ~hidden.all(dim=1, keepdim=True)
        x = self.queries.expand(len(local), -1, -1)
        for layer in self.layers:
            x = layer(x, memory, hidden)
        return Visual(self.norm(self.project(self.last_norm(x))), local)

    @property
    def cells(self) -> tuple[Cell | None, ...]:
        return (None,) * math.prod(self.config.tokens)

    def read_regions(self, regions: Tensor) -> Tensor:
        tokens: Tensor = self.norm(self.project_region(self.memory_norm(to_sequence(regions))))
        return tokens


class QFormer(QueryConnector):
    """BLIP-2's Q-Former (Li et al., ICML 2023), the half that reads pictures.

    Norms come before the layers, not after them as in BERT, since it starts from no BERT's weights.
    """

    layer = QFormerLayer


class Resampler(QueryConnector):
    """Flamingo's Perceiver resampler (Alayrac et al., NeurIPS 2022)."""

    layer = ResamplerLayer


def sine_positions(x: Tensor) -> Tensor:
    """[1, C, (D,) H, W]: sines and cosines of the place of each cell of `x`, in C channels.

    As in DETR (Carion et al., ECCV 2020), an equal part of the channels for each axis; a place is
    a fraction of the axis, so that the same place has the same code on every grid.
    """
    grid, channels = x.shape[2:], x.shape[1]
    count = channels // (2 * len(grid))
    slowest, fastest = map(math.log10, WAVES)
    waves = torch.logspace(slowest, fastest, count, device=x.device)
    codes = []
    for axis, n in enumerate(grid):
        place = (torch.arange(n, device=x.device) + 0.5) / n
        angles = 2 * math.pi * waves[:, None] * place
        code = torch.cat([angles.sin(), angles.cos()])
        shape = [1, 2 * count] + [n if i == axis else 1 for i in range(len(grid))]
        codes.append(code.reshape(shape).expand(1, 2 * count, *grid))
    rest = channels - 2 * count * len(grid)
    codes.append(x.new_zeros(1, rest, *grid))
    return torch.cat(codes, dim=1).to(x.dtype)
