"""What is learned in one stage of training: the part that differs between stages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Chunk:
    """The films of one pass: `rows` [n] of the film store, `places` [n] of them in the epoch."""

    rows: np.ndarray
    places: np.ndarray
    epoch: int
    seed: int

    def randoms(self) -> list[np.random.Generator]:
        """A source of chance for each film, the same wherever the film is computed."""
        return [np.random.default_rng([self.seed, self.epoch, int(p)]) for p in self.places]

    def generators(self) -> list[torch.Generator]:
        """The same for torch."""
        seeds = [int(random.integers(2**63)) for random in self.randoms()]
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    def shared(self) -> np.random.Generator:
        """For what is drawn once for all films of the pass."""
        return np.random.default_rng([self.seed, self.epoch, int(self.places[0]), 1])


class Lesson:
    """What is learned in one stage. Everything here may be overridden; the lower half has defaults.

    `parts`: names of the parts that `loss` returns beside the whole. `first_epoch`: epochs of the
    lessons before, so that no two epochs of a run draw alike.
    """

    name: str
    epochs: int
    batch_size: int
    parts: tuple[str, ...] = ()
    first_epoch: int = 0

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups with their learning rates, as an optimiser takes them."""
        raise NotImplementedError

    def rate(self, step: int) -> float:
        """The factor of the learning rates at a step of the lesson."""
        raise NotImplementedError

    def rows(self, epoch: int) -> np.ndarray:
        """The films of an epoch in order; a rest smaller than a batch is dropped."""
        raise NotImplementedError

    def prepare(self, chunk: Chunk, epoch: int) -> Any:
        """The films as tensors, on the CPU, from `chunk`'s own randomness alone."""
        raise NotImplementedError

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of what `prepare` returned, and its parts."""
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a step changes, by name: what a state holds and loading fills."""
        raise NotImplementedError

    def begin(self) -> None:
        """Before the first epoch: which parameters learn."""

    def train(self, on: bool) -> None:
        """Switches what behaves differently while learning."""

    def buffers(self) -> Iterable[Tensor]:
        """Running statistics, which processes average."""
        return ()

    def after_step(self) -> None:
        """After each step of the optimiser."""

    def after_epoch(self, epoch: int) -> None:
        """After each epoch, in every process."""

    def figures(self, epoch: int, always: bool) -> dict[str, float]:
        """What is watched after an epoch; `always` if the run stops by it. Main process only."""
        return {}

    def about(self, epoch: int) -> dict[str, Any]:
        """Columns of the log that say what an epoch was."""
        return {}

    def memory(self) -> dict[str, Any]:
        """Whatever else a state must hold."""
        return {}

    def remember(self, memory: dict[str, Any]) -> None:
        """Takes back what `memory` returned."""


def named_tensors(**modules: nn.Module) -> dict[str, Tensor]:
    """The modules' parameters and buffers, live, by the names given and their own."""
    return {f"{k}.{n}": t for k, module in modules.items() for n, t in module.state_dict().items()}


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bfloat16 where it is safe, or nothing."""
    half = precision == "bf16" or (precision == "auto" and _computes_bf16(device))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=half)


def _computes_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
