"""A lesson small enough to be computed by hand, for the training engine.

`python -m tests.lessons OUT ACCUMULATE` teaches it in as many processes as there are, and every one
leaves its weights in OUT.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medvlm.config import DataConfig, RunConfig
from medvlm.train.engine import teach
from medvlm.train.lesson import Chunk, Lesson
from medvlm.train.parallel import Processes
from medvlm.train.progress import run_key

FILMS, BATCH = 32, 8


class Line(Lesson):
    """Fits a line to noisy points; the noise is drawn anew in every epoch, features drop out."""

    parts = ("squares", "size")

    def __init__(self, name: str = "line", epochs: int = 2, dropout: float = 0.0) -> None:
        self.name, self.epochs, self.batch_size = name, epochs, BATCH
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Dropout(dropout), nn.BatchNorm1d(3), nn.Linear(3, 1))
        self.unused = nn.Linear(2, 2)
        self.x = torch.randn(FILMS, 3, generator=torch.Generator().manual_seed(1))
        self.steps = 0
        self.after: Callable[[int], None] = lambda step: None
        self.watched: Callable[[int], float] = lambda epoch: float(epoch)

    def groups(self) -> list[dict[str, Any]]:
        learned = [*self.net.parameters(), *self.unused.parameters()]
        return [{"params": learned, "lr": 0.05}]

    def rate(self, step: int) -> float:
        return 1 / (1 + step)

    def rows(self, epoch: int) -> np.ndarray:
        return np.random.default_rng(epoch).permutation(FILMS)

    def prepare(self, chunk: Chunk, epoch: int) -> tuple[Tensor, Tensor]:
        noise = [torch.randn(3, generator=own) for own in chunk.generators()]
        x = self.x[chunk.rows]
        return x + 0.1 * torch.stack(noise), x.sum(dim=1, keepdim=True)

    def loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        x, y = batch
        squares = ((self.net(x) - y) ** 2).mean()
        size = self.net[2].weight.abs().mean()
        return squares + 0.1 * size, {"squares": squares, "size": size}

    def tensors(self) -> dict[str, Tensor]:
        return self.net.state_dict()

    def train(self, on: bool) -> None:
        self.net.train(on)

    def buffers(self) -> list[Tensor]:
        return [buffer for buffer in self.net.buffers() if buffer.is_floating_point()]

    def after_step(self) -> None:
        self.steps += 1
        self.after(self.steps)

    def figures(self, epoch: int, always: bool) -> dict[str, float]:
        return {"watched": self.watched(epoch)}

    def about(self, epoch: int) -> dict[str, Any]:
        return {"stage": self.name, "epoch": epoch + 1}


def run_config(out: Path, **changes: Any) -> RunConfig:
    """A run that needs no data."""
    data = DataConfig(root=out, per_epoch={})
    return RunConfig(out=out, data=data, **{"save_every": 1, **changes})


def learn(config: RunConfig, *lessons: Lesson) -> None:
    """Teaches the lessons on the CPU."""
    teach(lessons, config, run_key(config), Processes("cpu"))


def main(out: Path, accumulate: int) -> None:
    lesson = Line()
    learn(run_config(out, accumulate=accumulate), lesson)
    index = Processes("cpu").index
    torch.save({name: t.clone() for name, t in lesson.tensors().items()}, out / f"{index}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
