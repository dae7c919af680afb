"""Weights as 8-bit integers in blocks of 32, each with its scale.

A block's largest weight is 127 steps, so that a weight moves by at most 0.4 % of it. Blocks lie
along the input, as ONNX Runtime's MatMulNBits takes them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BITS, BLOCK = 8, 32
_STEPS, _ZERO = 127, 128


class Blocks(NamedTuple):
    """`values` uint8 [N, K / 32, 32], of which 128 is zero, and `scales` float32 [N * K / 32]."""

    values: NDArray[np.uint8]
    scales: NDArray[np.float32]


def in_blocks(weight: NDArray[np.float32]) -> Blocks:
    """A layer's weight [N, K], N outputs of K inputs. Raises ValueError unless 32 divides K."""
    rows, columns = weight.shape
    if columns % BLOCK:
        raise ValueError(f"{columns} inputs are not whole blocks of {BLOCK}")
    blocks = weight.reshape(rows, columns // BLOCK, BLOCK)
    scales = np.abs(blocks).max(axis=2) / np.float32(_STEPS)
    steps = np.rint(blocks / np.where(scales == 0, 1, scales)[..., None])
    return Blocks((steps + _ZERO).astype(np.uint8), scales.astype(np.float32).reshape(-1))


def from_blocks(blocks: Blocks) -> NDArray[np.float32]:
    """The weights [N, K] that the blocks stand for."""
    steps = blocks.values.astype(np.float32) - np.float32(_ZERO)
    rows = len(blocks.values)
    return (steps * blocks.scales.reshape(rows, -1, 1)).reshape(rows, -1)
