"""Alignment: teaching the language model to read the frozen encoder's features.

Three steps. Warm-up: the connector alone, judged by a linear probe on its mean token, so that it
carries what the labels need before the slow part begins. Stage 1: the connector through the frozen
language model. Stage 2: connector and LoRA (the two stages of Honeybee and LLaVA-1.5). The probe's
loss stays on as a help, and the probe as a second reader of the findings.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from medvlm.config import EncoderConfig, StageConfig, TrainConfig
from medvlm.errors import CheckpointError, ConfigError
from medvlm.model.base_llm import base_llm_dir
from medvlm.model.checkpoint import CheckpointConfig, save_checkpoint, sha256_of
from medvlm.model.vlm import Sight, VisionLanguageModel
from medvlm.train.features import FeatureStore, feature_store
from medvlm.train.films import FilmStore, batches, epoch_rows, load_sets
from medvlm.train.pretrain import masked_bce
from medvlm.train.progress import Log, load_state, run_key, save_state, track
from medvlm.train.targets import Asker
from medvlm.train.watch import watch

STAGES = ("warm_up", "stage1", "stage2")
WARM_UP_BATCH = 32


def align(config: TrainConfig, name: str, version: str, llm_path: Path | None = None) -> Path:
    """Trains, resuming where an earlier run stopped; writes an uncalibrated checkpoint.

    Returns its folder. Raises CheckpointError if the encoder's weights are missing or misfit.
    """
    torch.manual_seed(config.seed)
    run = _Run(config, llm_path)
    for stage in STAGES:
        run.train(stage, getattr(config, stage))
    settings = CheckpointConfig(name=name, version=version, model=config.model)
    save_checkpoint(run.model, settings, config.out / name)
    return config.out / name


class _Run:
    """Everything that lives as long as the run."""

    def __init__(self, config: TrainConfig, llm_path: Path | None) -> None:
        self.config = config
        self.device = torch.device(config.device)
        sets = load_sets(config.data)
        self.questions = [question for data in sets for question in data.questions]
        self.store = FilmStore.build(sets, config.data.cache)
        self.per_epoch = {str(kind): n for kind, n in config.data.per_epoch.items()}
        self.model = VisionLanguageModel(config.model, base_llm_dir(llm_path))
        key = _load_vision(self.model, config.vision)
        _load_second(self.model, config.second)
        self.model.to(self.device)
        self.model.vision.eval().requires_grad_(False)
        self.asker = Asker.build(self.questions, config.model.encoder.size)
        self.watched = self.store.rows("nih_cxr", validation=True)[: config.watch_films]
        organs = self.store.rows("vqa_rad", validation=True)
        epochs = config.warm_up.epochs + config.stage1.epochs + config.stage2.epochs
        used = [epoch_rows(self.store, self.per_epoch, config.seed, e) for e in range(epochs)]
        self.features: FeatureStore = feature_store(
            self.model.vision,
            self.store,
            np.unique(np.concatenate([*used, self.watched, organs])),
            config.views,
            config.data.cache,
            config.seed,
            key,
        )
        self.log = Log(config.out)
        self.state_path = config.out / "state.pt"
        self.key = run_key(config, key)
        self.state = load_state(self.state_path, self.key)
        self.epochs_before = 0

    def train(self, stage: str, settings: StageConfig) -> None:
        adapters = self.model.language.adapter_parameters()
        for parameter in adapters.values():
            parameter.requires_grad_(stage == "stage2")
        trained = [*self.model.connector.parameters(), *self.model.probe.parameters()]
        if stage == "stage2":
            trained += adapters.values()
        optimiser = torch.optim.AdamW(
            trained, lr=settings.learning_rate, weight_decay=self.config.weight_decay
        )
        size = WARM_UP_BATCH if stage == "warm_up" else self.config.batch_size
        total = settings.epochs * (sum(self.per_epoch.values()) // size)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, total))
        first = self._resume(stage, optimiser, schedule)
        for epoch in range(first, settings.epochs):
            self._epoch(stage, settings, epoch, optimiser, schedule, size)
            save_state(
                self.state_path,
                {
                    "stage": stage,
                    "epoch": epoch + 1,
                    "key": self.key,
                    "connector": self.model.connector.state_dict(),
                    "probe": self.model.probe.state_dict(),
                    "lora": {name: p.data for name, p in adapters.items()},
                    "optimiser": optimiser.state_dict(),
                    "schedule": schedule.state_dict(),
                },
            )
        self.epochs_before += settings.epochs

    def _resume(
        self,
        stage: str,
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LambdaLR,
    ) -> int:
        """The epoch to go on from; loads the weights once, on reaching the interrupted stage."""
        if self.state is None:
            return 0
        if STAGES.index(stage) < STAGES.index(self.state["stage"]):
            return 10**9
        state, self.state = self.state, None
        self.model.connector.load_state_dict(state["connector"])
        self.model.probe.load_state_dict(state["probe"])
        with torch.no_grad():
            for name, parameter in self.model.language.adapter_parameters().items():
                parameter.copy_(state["lora"][name])
        if stage != state["stage"]:
            return 0
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        return int(state["epoch"])

    def _epoch(
        self,
        stage: str,
        settings: StageConfig,
        epoch: int,
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LambdaLR,
        size: int,
    ) -> None:
        count = self.epochs_before + epoch
        rows = epoch_rows(self.store, self.per_epoch, self.config.seed, count)
        random = np.random.default_rng([self.config.seed, count, 2])
        torch.manual_seed(self.config.seed * 1000 + count)
        self.model.connector.train()
        self.model.language.train(stage == "stage2")
        sums = np.zeros(2)
        steps = list(batches(rows, size))
        for part in track(steps, f"{stage} {epoch + 1}/{settings.epochs}"):
            views = random.integers(self.config.views, size=len(part))
            with torch.autocast(self.config.device, dtype=torch.bfloat16):
                sight = self.model.sight(self.features.batch(part, views, self.device))
                probe = self._probe_loss(sight, part)
                spoken = torch.zeros((), device=self.device)
                if stage != "warm_up":
                    spoken = self._spoken_loss(sight, part, views, random)
            loss = spoken + settings.probe_weight * probe
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], 1.0)
            optimiser.step()
            schedule.step()
            sums += (spoken.item(), probe.item())
        self.model.eval()
        spoken_mean, probe_mean = sums / max(1, len(steps))
        figures = watch(
            self.model,
            self.features,
            self.store,
            self.watched,
            self.questions if stage != "warm_up" else [],
        )
        self.log.write(
            stage=stage, epoch=epoch + 1, loss=spoken_mean, probe_loss=probe_mean, **figures
        )

    def _probe_loss(self, sight: Sight, rows: np.ndarray) -> Tensor:
        said = self.model.probe(sight.tokens.mean(dim=1)).float()
        truth = torch.cat([self.store.findings[rows], self.store.attributes[rows]], dim=1)
        return masked_bce(said, truth.to(self.device))

    def _spoken_loss(
        self, sight: Sight, rows: np.ndarray, views: np.ndarray, random: np.random.Generator
    ) -> Tensor:
        turns = [
            self.asker.turns(self.store.films[row], self.features.lungs[row], view == 0, random)
            for row, view in zip(rows, views, strict=True)
        ]
        return self.model.language.answer_loss(self.model.sequences(sight, turns))


def _load_vision(model: VisionLanguageModel, folder: Path) -> str:
    """Loads the pretrained encoder strictly and returns its sha256."""
    path = _pretrained(folder, model.config.encoder, "model.encoder")
    model.vision.load_state_dict(load_file(path), strict=True)
    return sha256_of(path)


def _load_second(model: VisionLanguageModel, folder: Path | None) -> None:
    """Loads the second reader's encoder and classifier, if the model has one."""
    if model.second is None or model.config.second is None:
        return
    if folder is None:
        raise ConfigError("model.second has no weights", remedy="name their folder as `second`")
    weights = load_file(_pretrained(folder, model.config.second, "model.second"))
    wanted = model.second.state_dict()
    model.second.load_state_dict({name: weights[name] for name in wanted}, strict=True)


def _pretrained(folder: Path, config: EncoderConfig, key: str) -> Path:
    """The weights that `medvlm pretrain` left in the folder, if they are of this encoder."""
    path = folder / "vision.safetensors"
    if not path.is_file():
        raise CheckpointError(
            "pretrained encoder is missing", file=str(path), remedy="run `medvlm pretrain` first"
        )
    if EncoderConfig.from_yaml(folder / "encoder.yaml") != config:
        raise CheckpointError(
            "the encoder was pretrained with other settings",
            file=str(folder / "encoder.yaml"),
            remedy=f"copy them into {key} of the configuration",
        )
    return path


def _rate(step: int, total: int, warm_up: int = 30) -> float:
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, total))))
