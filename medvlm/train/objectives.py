"""What an encoder can be taught: the frame of all objectives, and the supervised one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor

from medvlm.config import Phase, PretrainConfig
from medvlm.model.vision import VisionModel
from medvlm.train.average import copy_of, follow, mean
from medvlm.train.films import FilmBatch, FilmStore, Side, epoch_rows
from medvlm.train.lesson import Chunk, Lesson, autocast, named_tensors
from medvlm.train.losses import VISION_PARTS, mixup, total, vision_loss
from medvlm.train.schedule import cycle_ends, cycles
from medvlm.train.watch_vision import held_out_loss, linear_probe, read_findings

WARM_UP, FLOOR = 100, 0.01


class VisionLesson(Lesson):
    """An encoder, its moving average, phases at several image sizes, films in batches.

    `key` names the weights that the lesson takes beside the encoder's, "" for none.
    """

    key = ""

    def __init__(self, config: PretrainConfig, model: VisionModel, store: FilmStore) -> None:
        self.config, self.model, self.store = config, model, store
        self.device = next(model.parameters()).device
        self.name, self.batch_size = config.objective, config.batch_size
        self.phases: list[Phase] = [p for p in config.phases for _ in range(p.epochs)]
        self.epochs = len(self.phases)
        self.average = copy_of(model)
        self.per_epoch = {str(kind): n for kind, n in config.data.per_epoch.items()}
        steps = sum(self.per_epoch.values()) // config.batch_size
        self.factor = cycles(config.phases, steps, WARM_UP, FLOOR)
        self.ends: list[dict[str, Tensor]] = []

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": [*self.model.parameters()], "lr": self.config.learning_rate}]

    def rate(self, step: int) -> float:
        return self.factor(step)

    def rows(self, epoch: int) -> np.ndarray:
        return epoch_rows(self.store, self.per_epoch, self.config.seed, epoch)

    def train(self, on: bool) -> None:
        self.model.train(on)

    def buffers(self) -> Iterable[Tensor]:
        return (buffer for buffer in self.model.buffers() if buffer.is_floating_point())

    def tensors(self) -> dict[str, Tensor]:
        return named_tensors(model=self.model, average=self.average)

    def after_step(self) -> None:
        follow(self.average, self.model, self.config.ema)

    def after_epoch(self, epoch: int) -> None:
        if epoch + 1 in cycle_ends(self.config.phases) and self.config.stop is None:
            state = self.average.state_dict()
            self.ends.append({name: t.cpu().clone() for name, t in state.items()})

    def memory(self) -> dict[str, Any]:
        return {"ends": self.ends}

    def remember(self, memory: dict[str, Any]) -> None:
        self.ends = memory["ends"]

    def about(self, epoch: int) -> dict[str, Any]:
        return {"epoch": epoch + 1, "size": self.phases[epoch].size}

    def figures(self, epoch: int, always: bool) -> dict[str, float]:
        last = epoch + 1 == self.epochs
        if not (always or last or (epoch + 1) % self.config.watch_every == 0):
            return {}
        figures = self.watch("validation")
        if self.config.data.tuning:
            figures |= {f"tuning_{name}": value for name, value in self.watch("tuning").items()}
        return figures

    def watch(self, side: Side) -> dict[str, float]:
        """Figures of the average on one side of the split."""
        return linear_probe(self.average, self.store, self.config.encoder.size, side)

    def result(self) -> dict[str, Tensor]:
        """The weights to keep, on the CPU."""
        if self.ends:
            return mean(self.ends)
        state = self.average.state_dict()
        return {name: t.detach().cpu().contiguous() for name, t in state.items()}


class Supervised(VisionLesson):
    """Findings, attributes, lung masks and opacity boxes at once; unknown labels are masked."""

    parts = VISION_PARTS

    def prepare(self, chunk: Chunk, epoch: int) -> FilmBatch:
        phase = self.phases[epoch]
        batch = self.store.batch(chunk.rows, phase.size, chunk.generators())
        return mixup(batch, phase.mixup, chunk.shared()) if phase.mixup else batch

    def loss(self, batch: FilmBatch) -> tuple[Tensor, dict[str, Tensor]]:
        batch = FilmBatch(*(t.to(self.device) for t in batch))
        with autocast(self.device, self.config.precision):
            look = self.model(batch.images)
        parts = vision_loss(look, batch, self.config.opacity_weight)
        return total(parts), parts

    def watch(self, side: Side) -> dict[str, float]:
        size = self.config.encoder.size
        figures = read_findings(self.average, self.store, size, side)
        if side == "tuning":
            weight = self.config.opacity_weight
            figures["loss"] = held_out_loss(self.average, self.store, size, side, weight)
        return figures
