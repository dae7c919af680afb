"""Projectors: each token is one cell of the map, seen by itself."""

from __future__ import annotations

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


class LinearProjector(GridConnector):
    """The first LLaVA's projector (Liu et al., NeurIPS 2023): one linear map per cell.

    Where the map has more cells than there are tokens, they are averaged first. The map is the
    product of two matrices, so its rank is at most `width`.
    """

    activation: type[nn.Module] = nn.Identity

    def __init__(
        self, config: ConnectorConfig, channels: tuple[int, ...], out: int, dims: int = 2
    ) -> None:
        super().__init__(config, channels, out, dims)
        self.project = nn.Sequential(self.activation(), nn.Linear(config.width, out))
        self.norm = word_norm(out)

    def forward(self, features: Features, padding: Tensor | None = None) -> Visual:
        local, blank = self.fuse(features, padding)
        x, blank = pool(local, self.config.tokens, blank)
        tokens = self.read_regions(x)
        return Visual(tokens if blank is None else wipe(tokens, to_sequence(blank)), local)

    def read_regions(self, regions: Tensor) -> Tensor:
        tokens: Tensor = self.norm(self.project(to_sequence(regions)))
        return tokens


class MLPProjector(LinearProjector):
    """LLaVA-1.5's projector (Liu et al., CVPR 2024): two layers with a GELU between them.

    The first layer is the projection of the maps to `width`.
    """

    activation = nn.GELU


class AverageProjector(LinearProjector):
    """The control: one token, the mean of the whole picture, with nothing of where things are."""
