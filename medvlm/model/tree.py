"""Many questions over one image in one sequence, none of which can see another.

The trunk (the image) is read once; every branch (a question and its answer) attends to the trunk
and to itself, and counts its positions from the trunk's end. So a branch is worth exactly what it
would be alone, at a fraction of the cost, both in training and when a checklist is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Layout(NamedTuple):
    """`positions` [L] and `visible` [L, L] (bool; row attends to column) of one sequence."""

    positions: Tensor
    visible: Tensor


def lay_out(trunk: int, branches: Sequence[int]) -> Layout:
    """The layout of a trunk of `trunk` tokens followed by branches of the given lengths."""
    owner = torch.cat(
        [torch.full((length,), i) for i, length in enumerate([trunk, *branches])]
    ).long()
    positions = torch.cat(
        [torch.arange(trunk), *(torch.arange(trunk, trunk + length) for length in branches)]
    )
    order = torch.arange(len(owner))
    causal = order[:, None] >= order[None, :]
    same = owner[:, None] == owner[None, :]
    return Layout(positions, causal & (same | (owner == 0)[None, :]))


def stack(layouts: Sequence[Layout], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Pads to one length: positions [B, L] and the additive mask [B, 1, L, L]."""
    longest = max(len(layout.positions) for layout in layouts)
    positions = torch.zeros(len(layouts), longest, dtype=torch.long)
    visible = torch.eye(longest, dtype=torch.bool).repeat(len(layouts), 1, 1)
    for row, layout in enumerate(layouts):
        length = len(layout.positions)
        positions[row, :length] = layout.positions
        visible[row, :length, :length] = layout.visible
    return positions, additive(visible, dtype)


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask [B, 1, L, K] that is added to attention scores, of `visible` [B, L, K] (bool)."""
    mask = torch.zeros(visible.shape, dtype=dtype).masked_fill_(~visible, torch.finfo(dtype).min)
    return mask.unsqueeze(1)
