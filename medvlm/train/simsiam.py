"""Learning from films alone: two pieces of one film should be predictable from each other.

SimSiam (Chen and He, CVPR 2021). It needs neither negatives nor large batches, which suits few
films on small machines. What keeps it from collapsing is that no gradient flows into the target.
Films without labels count like any other. No flips: left and right must stay told apart.
"""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from medvlm.config import PretrainConfig
from medvlm.model.vision import VisionModel
from medvlm.train.films import FilmStore
from medvlm.train.lesson import Chunk, autocast, named_tensors
from medvlm.train.objectives import VisionLesson

WIDTH, NARROW = 512, 128


class SelfSupervised(VisionLesson):
    """The part `spread` tells whether it collapses: 0 if all films look alike, 1 if none do."""

    parts = ("spread",)

    def __init__(self, config: PretrainConfig, model: VisionModel, store: FilmStore) -> None:
        super().__init__(config, model, store)
        width = model.encoder.channels[-1]
        self.head = nn.ModuleDict({"project": _projector(width), "predict": _predictor()})
        self.head.to(self.device)

    def groups(self) -> list[dict[str, Any]]:
        learned = [*self.model.encoder.parameters(), *self.head.parameters()]
        return [{"params": learned, "lr": self.config.learning_rate}]

    def train(self, on: bool) -> None:
        super().train(on)
        self.head.train(on)

    def buffers(self) -> list[Tensor]:
        own = [buffer for buffer in self.head.buffers() if buffer.is_floating_point()]
        return [*super().buffers(), *own]

    def tensors(self) -> dict[str, Tensor]:
        return super().tensors() | named_tensors(head=self.head)

    def prepare(self, chunk: Chunk, epoch: int) -> tuple[Tensor, Tensor]:
        generators, size = chunk.generators(), self.phases[epoch].size
        one, two = (self.store.crops(chunk.rows, size, generators) for _ in range(2))
        return one, two

    def loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        with autocast(self.device, self.config.precision):
            targets = [self._seen(images.to(self.device)) for images in batch]
            guesses = [self.head["predict"](target) for target in targets]
        (one, two), (from_one, from_two) = targets, guesses
        loss = (_distance(from_one, two) + _distance(from_two, one)) / 2
        return loss, {"spread": spread(one.detach())}

    def _seen(self, images: Tensor) -> Tensor:
        """[B, WIDTH] of the projector."""
        coarse = self.model.encoder(images).coarse
        projected: Tensor = self.head["project"](coarse.flatten(2).mean(dim=2))
        return projected


def spread(x: Tensor) -> Tensor:
    """How far apart the directions of [B, WIDTH] are: 0 if all are one, near 1 if none are."""
    directions = F.normalize(x.float(), dim=1)
    return directions.std(dim=0, correction=0).mean() * math.sqrt(WIDTH)


def _distance(guess: Tensor, target: Tensor) -> Tensor:
    """Minus the mean cosine; the target is taken as given."""
    return -F.cosine_similarity(guess.float(), target.detach().float(), dim=1).mean()


def _projector(width: int) -> nn.Sequential:
    return nn.Sequential(
        *_layer(width, WIDTH), *_layer(WIDTH, WIDTH), *_layer(WIDTH, WIDTH, last=True)
    )


def _predictor() -> nn.Sequential:
    return nn.Sequential(*_layer(WIDTH, NARROW), nn.Linear(NARROW, WIDTH))


def _layer(width: int, out: int, last: bool = False) -> list[nn.Module]:
    linear = nn.Linear(width, out, bias=False)
    return [linear, nn.BatchNorm1d(out), *([] if last else [nn.ReLU()])]
