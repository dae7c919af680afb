"""What every connector is: the encoder's maps in, visual tokens and a local map out.

All kinds begin alike: the maps that the configuration names are laid over one another on the grid
of stride 16 (`fuse`), which gives the local map, and regions are read from that map. They differ in
how the local map becomes tokens. Shapes as in `medvlm.model.encoder`; a volume has D before H.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from medvlm.config import ConnectorConfig
from medvlm.errors import ConfigError
from medvlm.model.encoder import STRIDES, Features
from medvlm.model.spatial import conv

LOCAL_STRIDE = 16
# Of a region of an image, two by two.
REGION_TOKENS = 4
REGION_GRID = 2
LEAST_SHARE = 1e-3


class Visual(NamedTuple):
    """B images as a connector gives them.

    `tokens` [B, N, D]; `local` [B, width, (D,) H, W] at stride 16, which `region_tokens` reads.
    """

    tokens: Tensor
    local: Tensor


class Cell(NamedTuple):
    """Where a token comes from, as fractions of the picture, origin at its top left.

    `first` and `last` bound the slices of a volume in the same way; an image is one slice thick.
    """

    left: float
    top: float
    right: float
    bottom: float
    first: float = 0.0
    last: float = 1.0


class Connector(nn.Module):
    """Base of all connectors; `build_connector` makes one.

    Args:
        config: kind, token grid, strides, width.
        channels: of the encoder's maps at strides 8, 16 and 32, 0 where it has none.
        out: the language model's width D.
        dims: 2 for images, 3 for volumes.
    """

    def __init__(
        self, config: ConnectorConfig, channels: tuple[int, ...], out: int, dims: int
    ) -> None:
        super().__init__()
        self.config = config
        self.dims = dims
        self.maps = tuple(
            name for name, s in zip(Features._fields, STRIDES, strict=True) if s in config.strides
        )
        for name, count in zip(Features._fields, channels, strict=True):
            if name in self.maps:
                self.add_module(name, conv(dims, count, config.width, 1))

    def forward(self, features: Features, padding: Tensor | None = None) -> Visual:
        """The visual tokens and the local map of B images.

        `padding`: bool [B, (D,) H, W], true where the letterbox added what is no picture, at any
        resolution; a cell counts as padding when all of it is. Raises ConfigError if the token grid
        has more cells than the maps.
        """
        raise NotImplementedError

    @property
    def cells(self) -> tuple[Cell | None, ...]:
        """The place of each of the N tokens; None for a token that may look everywhere."""
        raise NotImplementedError

    def region_tokens(self, local: Tensor, boxes: Tensor, covers: Tensor | None = None) -> Tensor:
        """Tokens [R, 4, D] of `boxes` [R, 5]: (image index, left, top, right, bottom).

        In pixels of the input grid, origin at its top left. RoIAlign (He et al., ICCV 2017) over
        the local map, two by two. In a volume a region is the mean of its slices: all of them, or
        with `boxes` [R, 7] those from `first` to `last`, as fractions of the volume. `covers`
        [R, H, W]: the share of each cell of the local map that a region takes, 1 for a box; of an
        outline only what lies inside is read, and a quarter without any of it is its mean.
        """
        # Also under autocast: in bfloat16 a box would be some pixels off.
        local, boxes = local.float(), boxes.float()
        if self.dims == 3:
            local, boxes = _flatten_slices(local, boxes)
        regions = _cut_out(local, boxes)
        if covers is not None:
            outlined = (covers < 1).flatten(1).any(dim=1)
            regions[outlined] = _outlined(local, boxes[outlined], covers[outlined])
        return self.read_regions(regions.unsqueeze(2) if self.dims == 3 else regions)

    def read_regions(self, regions: Tensor) -> Tensor:
        """Tokens [R, 4, D] of cut-outs [R, width, (1,) 2, 2] of the local map."""
        raise NotImplementedError

    def fuse(self, features: Features, padding: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The sum of the maps, projected to one width [B, width, (D,) H, W], and its padding.

        The padding [B, 1, (D,) H, W] is true where there is no picture, and the sum is zero there.
        """
        grid = self._local_grid(features)
        fused: Tensor | None = None
        for name in self.maps:
            x, project = getattr(features, name), self.get_submodule(name)
            if name == "fine":
                x, _ = pool(x, grid, _at(padding, x.shape[2:]))
            x = project(x)
            if x.shape[2:] != grid:
                x = F.interpolate(x, size=grid, mode="nearest")
            fused = x if fused is None else fused + x
        blank = _at(padding, grid)
        return wipe(cast(Tensor, fused), blank), blank

    def _local_grid(self, features: Features) -> tuple[int, ...]:
        """Rows and columns (of a volume slices first) at stride 16."""
        missing = [s for s, x in zip(STRIDES, features, strict=True) if self._reads(s) and _void(x)]
        if missing:
            raise ConfigError(
                f"connector.strides: there is no feature map at stride {missing[0]}",
                remedy="read other strides, or features that were kept at this one",
            )
        if not _void(features.middle):
            return tuple(features.middle.shape[2:])
        if self._reads(8):
            return tuple((n + 1) // 2 for n in features.fine.shape[2:])
        return tuple(2 * n for n in features.coarse.shape[2:])

    def _reads(self, stride: int) -> bool:
        return stride in self.config.strides


class GridConnector(Connector):
    """A connector whose tokens stand for the cells of a grid, row by row from the top left."""

    def fuse(self, features: Features, padding: Tensor | None) -> tuple[Tensor, Tensor | None]:
        fused, blank = super().fuse(features, padding)
        finest = getattr(features, self.maps[0]).shape[2:]
        check_grid(
            self.config.tokens,
            tuple(min(a, b) for a, b in zip(fused.shape[2:], finest, strict=True)),
        )
        return fused, blank

    @property
    def cells(self) -> tuple[Cell | None, ...]:
        edges = [[(i / n, (i + 1) / n) for i in range(n)] for n in self.config.tokens]
        return tuple(
            Cell(columns[0], rows[0], columns[1], rows[1], *itertools.chain(*slices))
            for *slices, rows, columns in itertools.product(*edges)
        )


def check_grid(tokens: tuple[int, ...], cells: tuple[int, ...]) -> None:
    """Raises ConfigError where the token grid is finer than the map: that would be upsampling."""
    if any(wanted > there for wanted, there in zip(tokens, cells, strict=True)):
        raise ConfigError(
            f"connector.tokens: a grid of {times(tokens)} has more cells than the map it is read"
            f" from, {times(cells)}",
            remedy="choose fewer tokens, a larger encoder.size or a finer stride",
        )


def times(numbers: tuple[int, ...]) -> str:
    """(8, 8) -> "8 x 8"."""
    return " x ".join(map(str, numbers))


def to_sequence(x: Tensor) -> Tensor:
    """[B, C, (D,) H, W] -> [B, N, C]."""
    return x.flatten(2).transpose(1, 2)


def word_norm(out: int) -> nn.LayerNorm:
    """The last layer of every kind: a token has a word embedding's length when training begins."""
    norm = nn.LayerNorm(out)
    nn.init.constant_(norm.weight, 0.1)
    return norm


def wipe(x: Tensor, blank: Tensor | None) -> Tensor:
    """`x` with zeros where there is no picture."""
    return x if blank is None else x.masked_fill(blank, 0)


def pool(
    x: Tensor, grid: tuple[int, ...], blank: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Adaptive average pooling of [B, C, (D,) H, W] to `grid`, over cells that are not `blank`.

    Returns the pooled map, and where it is blank in its turn.
    """
    average: Any = F.adaptive_avg_pool3d if x.ndim == 5 else F.adaptive_avg_pool2d
    if blank is None:
        return average(x, grid), None
    share = average((~blank).to(x.dtype), grid)
    empty = share == 0
    return average(wipe(x, blank), grid) / share.masked_fill(empty, 1), empty


def _at(padding: Tensor | None, grid: tuple[int, ...]) -> Tensor | None:
    """[B, 1, (D,) H, W] on `grid`: true for cells that hold nothing but padding."""
    if padding is None:
        return None
    largest = F.adaptive_max_pool3d if padding.ndim == 4 else F.adaptive_max_pool2d
    return largest((~padding).float().unsqueeze(1), grid) == 0


def _cut_out(local: Tensor, boxes: Tensor) -> Tensor:
    return roi_align(local, boxes, REGION_GRID, spatial_scale=1 / LOCAL_STRIDE, aligned=True)


def _outlined(local: Tensor, boxes: Tensor, covers: Tensor) -> Tensor:
    """Cut-outs [R, C, 2, 2] in which each cell counts by its share in `covers` [R, H, W]."""
    share = covers.unsqueeze(1)
    parts = local[boxes[:, 0].long()] * share
    order = torch.arange(len(boxes), device=boxes.device, dtype=boxes.dtype)
    own = torch.cat([order[:, None], boxes[:, 1:]], dim=1)
    cut, weight = _cut_out(parts, own), _cut_out(share, own)
    mean = parts.sum(dim=(2, 3)) / share.sum(dim=(2, 3)).clamp_min(LEAST_SHARE)
    weighted = cut / weight.clamp_min(LEAST_SHARE)
    return torch.where(weight > LEAST_SHARE, weighted, mean[..., None, None])


def _void(x: Tensor | None) -> bool:
    return x is None or x.ndim < 4


def _flatten_slices(local: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """A map [R, C, H, W] of each region's own slices, and boxes [R, 5] that index it."""
    depth = local.shape[2]
    whole = boxes.new_tensor([0.0, 1.0]).expand(len(boxes), 2)
    first, last = (boxes[:, 5:7] if boxes.shape[1] == 7 else whole).unbind(dim=1)
    # A range without width, even at the far end, is a thin slice.
    first = first.clamp(max=1 - 0.01 / depth)
    last = torch.maximum(last, first + 0.01 / depth)
    edges = torch.arange(depth + 1, device=local.device, dtype=local.dtype) / depth
    share = torch.minimum(edges[1:], last[:, None]) - torch.maximum(edges[:-1], first[:, None])
    share = share.clamp_min(0)
    share = share / share.sum(dim=1, keepdim=True)
    maps = torch.einsum("rd,rcdhw->rchw", share, local[boxes[:, 0].long()])
    order = torch.arange(len(boxes), device=local.device, dtype=local.dtype)
    return maps, torch.cat([order[:, None], boxes[:, 1:5]], dim=1)
