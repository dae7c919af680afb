"""One training in several processes: which films are whose, and what is averaged over all.

Accelerate starts the processes (`accelerate launch`) and gives each its device. Every process holds
the whole model and computes its share of a step; before the weights move, gradients are averaged in
one message. Nothing is wrapped: a model has the same names and methods in one process and in many,
and a stage may freeze, thaw or leave unused whatever it likes. The price is that the message waits
for the whole backward pass, which matters little for the few million parameters trained here.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, reduce
from torch import Tensor, nn

from medvlm.errors import ConfigError

# The others wait while the main process caches features or takes the figures of an epoch.
PATIENCE = timedelta(hours=6)


def is_main() -> bool:
    """Whether this is the first, or only, process."""
    return bool(PartialState().is_main_process)


class Processes:
    """The processes of this run, seen from one of them; a plain run is one process.

    Raises ConfigError if there is no such device.
    """

    def __init__(self, device: str) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device: cuda, but torch finds no GPU", remedy="set device: cpu")
        self._state = PartialState(cpu=device == "cpu", timeout=PATIENCE)
        self.device: torch.device = self._state.device
        if self.device.type != device:
            raise ConfigError(
                f"device: {device}, but Accelerate was set up for {self.device.type}",
                remedy="let the configuration and `accelerate config` agree",
            )
        if self.count > 1:
            atexit.register(self._state.destroy_process_group)

    @property
    def count(self) -> int:
        return int(self._state.num_processes)

    @property
    def index(self) -> int:
        return int(self._state.process_index)

    @property
    def main(self) -> bool:
        """Whether this process writes files and speaks to people."""
        return self.index == 0

    def wait(self) -> None:
        """Returns when every process has come here."""
        if self.count > 1:
            self._state.wait_for_everyone()

    @contextmanager
    def one_by_one(self) -> Iterator[None]:
        """One process of each machine goes first, to fill a cache that the others then find."""
        first = bool(self._state.is_local_main_process)
        if not first:
            self.wait()
        yield
        if first:
            self.wait()

    def agree(self, value: Any) -> Any:
        """The main process's `value` in all of them."""
        if self.count == 1:
            return value
        (shared,) = broadcast_object_list([value])
        return shared

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replaces each tensor by its mean over the processes."""
        if self.count == 1 or not (listed := list(tensors)):
            return
        for tensor, mean in zip(listed, self._mean(listed), strict=True):
            tensor.copy_(mean)

    def average_gradients(self, parameters: Sequence[nn.Parameter], figures: Tensor) -> None:
        """Averages gradients, and `figures` [n] in the same message.

        A parameter that one process did not use has a gradient of 0 there; one that none used keeps
        None, so that the optimiser leaves it alone as it would in a single process.
        """
        if self.count == 1:
            return
        used = torch.tensor([p.grad is not None for p in parameters], device=self.device)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        *means, shared_used, shared = self._mean([*gradients, used, figures])
        for parameter, mean, one_used in zip(parameters, means, shared_used.tolist(), strict=True):
            if one_used:
                parameter.grad = mean.to(parameter.dtype)
        figures.copy_(shared)

    @torch.no_grad()
    def _mean(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        flat: Any = reduce(torch.cat([t.float().reshape(-1) for t in tensors]), "mean")
        parts = flat.split([t.numel() for t in tensors])
        return [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)]
