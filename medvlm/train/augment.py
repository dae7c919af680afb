"""Random changes a film could have had: another position, size, exposure, grain.

Never a left-right flip: it would teach the wrong side. Training only.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def random_affine(count: int, generator: torch.Generator) -> Tensor:
    """Affine maps [count, 2, 3] for `grid_sample`: +-8 degrees, 0.85-1.15 per axis, +-6 % shift.

    The axes scale apart, since part of the Kermany films were squashed to a square.
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    angle = uniform(-8, 8) * math.pi / 180
    scale_x, scale_y = uniform(0.85, 1.15), uniform(0.85, 1.15)
    rows = torch.stack(
        [
            torch.stack([angle.cos() * scale_x, -angle.sin() * scale_y, uniform(-0.12, 0.12)], 1),
            torch.stack([angle.sin() * scale_x, angle.cos() * scale_y, uniform(-0.12, 0.12)], 1),
        ],
        dim=1,
    )
    return rows


def random_crop(count: int, generator: torch.Generator) -> Tensor:
    """Affine maps [count, 2, 3] to an upright piece of the film: 0.5-1 of either side, anywhere."""
    share = 0.5 + 0.5 * torch.rand(count, 2, generator=generator)
    centre = (2 * torch.rand(count, 2, generator=generator) - 1) * (1 - share)
    return torch.cat([torch.diag_embed(share), centre.unsqueeze(2)], dim=2)


def warp(images: Tensor, affine: Tensor, size: int) -> Tensor:
    """Samples [B, C, H, H] in 0..1 through `affine` into [B, C, size, size]; outside is 0.

    What is made smaller is sampled at its own resolution first and then shrunk antialiased, as
    `resize_grid` shrinks: fine lines must not turn into coarse ones that no film has.
    """
    own = max(size, images.shape[-1])
    grid = F.affine_grid(affine, [len(images), images.shape[1], own, own], align_corners=False)
    warped = F.grid_sample(images, grid, mode="bilinear", align_corners=False)
    if own == size:
        return warped
    # Bicubic overshoots at sharp edges.
    return F.interpolate(warped, (size, size), mode="bicubic", antialias=True).clamp(0, 1)


def random_exposure(images: Tensor, generator: torch.Generator) -> Tensor:
    """Gamma 0.7-1.4, contrast 0.8-1.2, brightness +-0.1, grain up to 0.03; stays in 0..1."""
    shape = (len(images), 1, 1, 1)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    gamma = torch.exp(uniform(math.log(0.7), math.log(1.4)))
    out = images.clamp(0, 1) ** gamma
    out = (out - 0.5) * uniform(0.8, 1.2) + 0.5 + uniform(-0.1, 0.1)
    grain = torch.randn(images.shape, generator=generator) * uniform(0, 0.03)
    return (out + grain).clamp(0, 1)
