"""What a site teaches: two lessons, and how far along the way to go.

First the findings' classifiers of the encoders, over cached features; then connector, probe and
LoRA. A finding that a report does not mention is unknown, but at times taught as absent: patients
whom the base never saw (children, say) are else left to whatever it says of them. An epoch is the
site's training films and, beside them, rehearsal: films of the retention set that a network would
otherwise forget (Robins, "Catastrophic forgetting, rehearsal and pseudorehearsal", Connection
Science 1995). Each lesson ends at the epoch that is best on tuning patients, and then at the best
point between the weights before and after it (WiSE-FT; Wortsman et al., CVPR 2022), which may be
the weights before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medvlm.config import DataConfig, FinetuneConfig, StageConfig, StopConfig, TrainConfig
from medvlm.model.vlm import VisionLanguageModel
from medvlm.train.engine import fill, teach
from medvlm.train.finetune.lessons import HELD_OUT, Desk, Heads, Held, Text
from medvlm.train.finetune.material import Material
from medvlm.train.finetune.targets import SiteAsker
from medvlm.train.parallel import Processes

PATIENCE = 4


@dataclass(frozen=True)
class Taught:
    """How far each lesson was followed: a share of the way, by the lesson's name."""

    blends: dict[str, float] = field(default_factory=dict)


def learn(
    model: VisionLanguageModel,
    material: Material,
    sentences: SiteAsker,
    config: FinetuneConfig,
    run: TrainConfig,
    key: str,
) -> Taught:
    """Teaches `model` in place; goes on where an interrupted run of the same `key` stopped."""
    processes = Processes(config.device)
    torch.manual_seed(config.seed)
    desk = Desk.build(model.to(processes.device), material, config, run, processes, key)
    lessons: list[Held] = []
    if config.heads.epochs:
        lessons.append(Heads(desk, config.heads))
    if config.text.epochs:
        lessons.append(Text(desk, sentences, config.text, config.heads.epochs))
    blends = {}
    for lesson in lessons:
        # One lesson at a time: the next begins where this one was followed to.
        begun = {name: t.clone() for name, t in lesson.tensors().items()}
        own = run.model_copy(update={"out": run.out / lesson.name})
        teach([lesson], own, f"{key}-{lesson.name}", processes)
        blends[lesson.name] = follow(lesson, begun, config.blends)
    model.eval().requires_grad_(False).to("cpu")
    return Taught(blends)


def follow(lesson: Held, begun: dict[str, Tensor], shares: Sequence[float]) -> float:
    """Sets the lesson's tensors to the best point between `begun` and now; returns its share."""
    live = lesson.tensors()
    learned = {name: t.clone() for name, t in live.items()}
    lesson.train(False)

    def at(share: float) -> None:
        fill(
            live,
            {
                name: begun[name].lerp(t, share) if t.is_floating_point() else t
                for name, t in learned.items()
            },
        )

    losses = []
    for share in shares:
        at(share)
        losses.append(lesson.held_out())
    # Without tuning films there is nothing to choose by, and nothing is learned.
    best = shares[int(np.nanargmin(losses))] if np.isfinite(losses).any() else 0.0
    at(best)
    return float(best)


def train_config(
    config: FinetuneConfig, model: VisionLanguageModel, data: DataConfig, out: Path
) -> TrainConfig:
    """The settings of the training loop; `stage2` is what the text lesson follows."""
    none = StageConfig(epochs=0, learning_rate=1.0)
    return TrainConfig(
        out=out,
        data=data,
        vision=out,
        model=model.config,
        warm_up=none,
        stage1=none,
        stage2=StageConfig(
            epochs=config.text.epochs,
            learning_rate=config.text.learning_rate,
            encoder_stages=config.encoder_stages,
        ),
        views=config.views,
        most_turns=config.most_turns,
        batch_size=config.batch_size,
        weight_decay=config.weight_decay,
        stop=StopConfig(figure=HELD_OUT, patience=PATIENCE, higher=False),
        seed=config.seed,
        device=config.device,
    )
