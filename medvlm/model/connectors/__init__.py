"""Connectors: feature maps -> visual tokens that a language model reads. `docs/connectors.md`."""

from __future__ import annotations

from medvlm.config import ConnectorConfig
from medvlm.errors import ConfigError
from medvlm.model.connectors.c_abstractor import CAbstractor
from medvlm.model.connectors.interface import (
    LOCAL_STRIDE,
    Cell,
    Connector,
    GridConnector,
    Visual,
    check_grid,
    times,
)
from medvlm.model.connectors.projectors import AverageProjector, LinearProjector, MLPProjector
from medvlm.model.connectors.queries import QFormer, QueryConnector, Resampler
from medvlm.model.encoder import STRIDES

__all__ = ["Cell", "Connector", "Visual", "build_connector"]

KINDS: dict[str, type[CAbstractor | LinearProjector | QueryConnector]] = {
    "c_abstractor": CAbstractor,
    "linear": LinearProjector,
    "mlp": MLPProjector,
    "average": AverageProjector,
    "qformer": QFormer,
    "resampler": Resampler,
}


def build_connector(
    config: ConnectorConfig,
    channels: tuple[int, ...],
    out: int,
    dims: int = 2,
    image: tuple[int, ...] | None = None,
    single: int | None = None,
) -> Connector:
    """The connector that `config` names.

    Args:
        config: kind, token grid, strides, width.
        channels: of the encoder's maps at strides 8, 16 and 32, 0 where it has none.
        out: the language model's width.
        dims: 2 for images, 3 for volumes.
        image: rows and columns of the input in pixels, so that a token grid finer than the map is
            refused now; left out, it is refused when it first meets a map.
        single: stride of the encoder's only map, where the others are resized copies of it.

    Raises:
        ConfigError: an option does not fit the others or the encoder.
    """
    kind = KINDS[config.kind]
    if len(config.tokens) != dims:
        wanted = "slices, rows and columns" if dims == 3 else "rows and columns"
        raise ConfigError(
            f"connector.tokens: a {dims}-D encoder needs {wanted}, not {times(config.tokens)}",
            remedy=f"give {dims} numbers",
        )
    there = [stride for stride, count in zip(STRIDES, channels, strict=True) if count]
    if lacking := [stride for stride in config.strides if stride not in there]:
        raise ConfigError(
            f"connector.strides: the encoder has no map at stride {lacking[0]}",
            remedy=f"choose among {', '.join(map(str, there))}",
        )
    if issubclass(kind, QueryConnector) and config.width % config.heads:
        raise ConfigError(
            f"connector.heads: {config.heads} heads do not divide connector.width {config.width}",
            remedy="choose a number of heads that does",
        )
    if kind is AverageProjector and config.tokens != (1,) * dims:
        raise ConfigError(
            f"connector.tokens: the average is one token, not {times(config.tokens)}",
            remedy=f"set tokens to {[1] * dims}; a grid of averages is the kind linear",
        )
    if image is not None and issubclass(kind, GridConnector):
        stride = max(LOCAL_STRIDE, min(config.strides), single or 0)
        check_grid(config.tokens[-2:], tuple(n // stride for n in image[-2:]))
    return kind(config, channels, out, dims)
