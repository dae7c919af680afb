"""Alignment: teaching the language model to read the encoder's features.

Three lessons. Warm-up: the connector alone, judged by a linear probe on its mean token, so that it
carries what the labels need before the slow part begins. Stage 1: the connector through the frozen
language model. Stage 2: connector and LoRA (the two stages of Honeybee and LLaVA-1.5), with the
encoder's last stages if that is wanted. The probe's loss stays on as a help, and the probe as a
second reader of the findings.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from medvlm.config import StageConfig, TrainConfig
from medvlm.data.sets import Question
from medvlm.errors import ConfigError
from medvlm.model.checkpoint import CheckpointConfig, save_checkpoint
from medvlm.model.encoder import Features
from medvlm.model.language import Turn
from medvlm.model.vlm import Sight, VisionLanguageModel
from medvlm.train.begin import begin
from medvlm.train.engine import teach
from medvlm.train.features import FeatureStore, feature_store
from medvlm.train.films import FilmBatch, FilmStore, Side, epoch_rows, load_sets
from medvlm.train.lesson import Chunk, Lesson, autocast, named_tensors
from medvlm.train.losses import masked_bce, total, vision_loss
from medvlm.train.parallel import Processes
from medvlm.train.progress import run_key
from medvlm.train.schedule import cosine
from medvlm.train.targets import Asker
from medvlm.train.watch import watch

STAGES = ("warm_up", "stage1", "stage2")
WARM_UP_BATCH = 32
WARM_UP_STEPS, FLOOR = 30, 0.05


def align(config: TrainConfig, name: str, version: str, llm_path: Path | None = None) -> Path:
    """Trains, resuming where an earlier run stopped; writes an uncalibrated checkpoint.

    Returns its folder. Raises CheckpointError if the encoder's weights are missing or misfit.
    """
    processes = Processes(config.device)
    torch.manual_seed(config.seed)
    pupil = Pupil.build(config, processes, llm_path)
    lessons: list[Lesson] = []
    for stage in STAGES:
        first = sum(lesson.epochs for lesson in lessons)
        lessons.append(Stage(pupil, stage, getattr(config, stage), first))
    teach(lessons, config, run_key(config, pupil.key), processes)
    folder = config.out / name
    if processes.main:
        pupil.model.eval()
        settings = CheckpointConfig(name=name, version=version, model=pupil.model.config)
        save_checkpoint(pupil.model, settings, folder)
    processes.wait()
    return folder


class Pupil(NamedTuple):
    """What all three lessons share; `key` names the weights that the run began with."""

    config: TrainConfig
    model: VisionLanguageModel
    store: FilmStore
    questions: list[Question]
    features: FeatureStore
    asker: Asker
    device: torch.device
    key: str

    @classmethod
    def build(cls, config: TrainConfig, processes: Processes, llm_path: Path | None) -> Pupil:
        """Loads sets, models and pretrained weights, and computes features that are not at hand."""
        # The model first: what is wrong with it should show before thousands of films are read.
        with processes.one_by_one():
            config, model, key = begin(config, llm_path)
        with processes.one_by_one():
            sets = load_sets(config.data)
            store = FilmStore.build(sets, config.data.cache, config.data.tuning, config.data.share)
        questions = [question for data in sets for question in data.questions]
        model.to(processes.device)
        model.vision.eval().requires_grad_(False)
        with processes.one_by_one():
            features = feature_store(
                model.vision,
                store,
                _films_needed(config, store),
                config.views,
                config.model.connector.strides,
                config.data.cache,
                config.seed,
                key,
            )
        asker = Asker.build(questions, config.model.encoder.size, config.most_turns)
        return cls(config, model, store, questions, features, asker, processes.device, key)


class Asked(NamedTuple):
    """One pass: features or films, labels [B, F + attributes] (NaN: unknown), turns by film.

    `films` are there where the encoder learns too, `features` where it does not.
    """

    features: Features | None
    films: FilmBatch | None
    labels: Tensor
    turns: list[list[Turn]]


class Stage(Lesson):
    """One of the three lessons."""

    def __init__(self, pupil: Pupil, name: str, settings: StageConfig, first_epoch: int) -> None:
        self.pupil, self.settings, self.first_epoch = pupil, settings, first_epoch
        self.name, self.epochs = name, settings.epochs
        self.model, self.store, self.config = pupil.model, pupil.store, pupil.config
        self.speaks, self.adapts = name != "warm_up", name == "stage2"
        self.parts = ("spoken_loss",) * self.speaks + ("probe_loss",)
        self.parts += ("vision_loss",) * bool(settings.encoder_stages)
        self.batch_size = self.config.batch_size if self.speaks else WARM_UP_BATCH
        per_epoch = {str(kind): n for kind, n in self.config.data.per_epoch.items()}
        self.per_epoch, steps = per_epoch, sum(per_epoch.values()) // self.batch_size
        self.total = self.epochs * steps
        stages = self.model.vision.encoder.stages()
        if settings.encoder_stages > len(stages):
            raise ConfigError(
                f"{name}.encoder_stages: the encoder has {len(stages)} stages",
                remedy="train no more than these",
            )
        self.encoder = torch.nn.ModuleList(stages[len(stages) - settings.encoder_stages :])
        vision = self.model.vision
        self.heads = torch.nn.ModuleList([vision.classifier, vision.attributes, vision.dense])

    def begin(self) -> None:
        self.model.vision.requires_grad_(False)
        # A model that was loaded from a checkpoint comes frozen.
        self.model.connector.requires_grad_(True)
        self.model.probe.requires_grad_(True)
        for parameter in self.model.learner.adapter_parameters().values():
            parameter.requires_grad_(self.adapts)
        if self.settings.encoder_stages:
            self.encoder.requires_grad_(True)
            self.heads.requires_grad_(True)

    def groups(self) -> list[dict[str, Any]]:
        rate = self.settings.learning_rate
        learned = [*self.model.connector.parameters(), *self.model.probe.parameters()]
        if self.adapts:
            learned += self.model.learner.adapter_parameters().values()
        groups = [{"params": learned, "lr": rate}]
        if self.settings.encoder_stages:
            seeing = [*self.encoder.parameters(), *self.heads.parameters()]
            groups.append({"params": seeing, "lr": rate * self.settings.encoder_rate})
        return groups

    def rate(self, step: int) -> float:
        return cosine(step, self.total, WARM_UP_STEPS, FLOOR)

    def rows(self, epoch: int) -> np.ndarray:
        count = self.first_epoch + epoch
        return epoch_rows(self.store, self.per_epoch, self.config.seed, count)

    def train(self, on: bool) -> None:
        # The encoder's running statistics stay: a batch of a few films would spoil them.
        self.model.eval()
        self.model.connector.train(on)
        self.model.language.train(on and self.adapts)
        self.heads.train(on and self.settings.encoder_stages > 0)

    def tensors(self) -> dict[str, Tensor]:
        named = named_tensors(connector=self.model.connector, probe=self.model.probe)
        if self.settings.encoder_stages:
            named |= named_tensors(vision=self.model.vision)
        adapters = self.model.learner.adapter_parameters()
        return named | {f"lora.{name}": p.data for name, p in adapters.items()}

    def prepare(self, chunk: Chunk, epoch: int) -> Asked:
        randoms = chunk.randoms()
        views = np.array([random.integers(self.config.views) for random in randoms])
        rows, turns = chunk.rows, []
        if self.speaks:
            for row, view, random in zip(rows, views, randoms, strict=True):
                film, lungs = self.store.films[row], self.pupil.features.lungs[row]
                turns.append(self.pupil.asker.turns(film, lungs, view == 0, random))
        labels = torch.cat([self.store.findings[rows], self.store.attributes[rows]], dim=1)
        if not self.settings.encoder_stages:
            return Asked(self.pupil.features.batch(rows, views), None, labels, turns)
        size = self.config.model.encoder.size
        each = [
            self.store.batch(rows[[i]], size, [generator] if views[i] else None)
            for i, generator in enumerate(chunk.generators())
        ]
        films = FilmBatch(*(torch.cat(column) for column in zip(*each, strict=True)))
        return Asked(None, films, labels, turns)

    def loss(self, batch: Asked) -> tuple[Tensor, dict[str, Tensor]]:
        device = self.pupil.device
        spoken = seen = torch.zeros((), device=device)
        with autocast(device, self.config.precision):
            if batch.films is not None:
                films = FilmBatch(*(t.to(device) for t in batch.films))
                look = self.model.vision(films.images)
                features = look.features
                seen = total(vision_loss(look, films, 1.0))
            elif batch.features is not None:
                features = Features(*(t.to(device) for t in batch.features))
            sight = self.model.sight(features)
            said = self.model.probe(sight.tokens.mean(dim=1)).float()
            probe = masked_bce(said, batch.labels.to(device))
            if self.speaks:
                spoken = self.model.learner.answer_loss(self.model.sequences(sight, batch.turns))
        loss = spoken + self.settings.probe_weight * probe + seen
        return loss, {"spoken_loss": spoken, "probe_loss": probe, "vision_loss": seen}

    def about(self, epoch: int) -> dict[str, Any]:
        return {"stage": self.name, "epoch": epoch + 1}

    def figures(self, epoch: int, always: bool) -> dict[str, float]:
        if not self.config.watch_films:
            return {}
        figures = self.watch("validation")
        if self.config.data.tuning:
            figures |= {f"tuning_{name}": value for name, value in self.watch("tuning").items()}
        return figures

    def watch(self, side: Side) -> dict[str, float]:
        """Figures on one side of the split; warm-up does not ask the language model."""
        films = self.store.rows("nih_cxr", side)[: self.config.watch_films]
        questions = self.pupil.questions if self.speaks else None
        return watch(self.model, self.see, self.store, films, questions, side)

    def see(self, rows: np.ndarray) -> Sight:
        """Films as the language model sees them, unchanged."""
        if self.settings.encoder_stages:
            images = self.store.plain(rows, self.config.model.encoder.size)
            features = self.model.vision.encoder(images.to(self.pupil.device))
        else:
            kept = self.pupil.features.batch(rows, np.zeros(len(rows), dtype=int))
            features = Features(*(t.to(self.pupil.device) for t in kept))
        return self.model.sight(features)


def _films_needed(config: TrainConfig, store: FilmStore) -> np.ndarray:
    """The films that any epoch trains on or watches."""
    per_epoch = {str(kind): n for kind, n in config.data.per_epoch.items()}
    epochs = sum(getattr(config, stage).epochs for stage in STAGES)
    parts = [epoch_rows(store, per_epoch, config.seed, epoch) for epoch in range(epochs)]
    sides: Iterable[Side] = ("validation", "tuning")
    for side in sides if config.watch_films else ():
        parts.append(store.rows("nih_cxr", side)[: config.watch_films])
        parts.append(store.rows("vqa_rad", side))
    return np.unique(np.concatenate(parts))
