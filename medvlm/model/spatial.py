"""The same layers over images [B, C, H, W] and over volumes [B, C, D, H, W]."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(dims: int, inputs: int, outputs: int, kernel: int, **options: Any) -> nn.Module:
    """A convolution over `dims` axes; kernels above 1 keep the size if padded by half."""
    kind = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
    return kind(inputs, outputs, kernel, **options)


def channel_dropout(dims: int, share: float) -> nn.Module:
    """Drops whole channels."""
    return {2: nn.Dropout2d, 3: nn.Dropout3d}[dims](share)


def linear_resize(x: Tensor, size: torch.Size) -> Tensor:
    """Bilinear or trilinear, to the spatial `size`; cells keep their place."""
    mode = "bilinear" if x.ndim == 4 else "trilinear"
    return F.interpolate(x, size=size, mode=mode, align_corners=False)


def spatial_mean(x: Tensor) -> Tensor:
    """[B, C, ...] -> [B, C]."""
    return x.mean(dim=tuple(range(2, x.ndim)))


def positions(x: Tensor) -> Tensor:
    """Where each cell lies, -1..1 along every axis: [B, axes, ...] for x [B, C, ...]."""
    axes = [torch.linspace(-1, 1, n, device=x.device, dtype=x.dtype) for n in x.shape[2:]]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    return grid.expand(x.shape[0], *grid.shape)
