"""Configurations of training runs that take a second or two on the sets of `tests.sets`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medvlm.config import (
    DataConfig,
    LanguageConfig,
    LoraSettings,
    Phase,
    PretrainConfig,
    StageConfig,
    TrainConfig,
    WeightsConfig,
)
from tests.tiny import TINY

COUNTS = {"nih_cxr": 16, "kermany_cxr": 8, "vqa_rad": 8}


def data_config(pack: Path, folder: Path, **changes: Any) -> DataConfig:
    return DataConfig(**{"root": pack, "per_epoch": COUNTS, "cache": folder / "cache", **changes})


def pretrain_config(pack: Path, folder: Path, epochs: int = 2, **changes: Any) -> PretrainConfig:
    """32 films an epoch in batches of 8; the last epochs larger and mixed."""
    settings = {
        "out": folder / "pretrain",
        "data": data_config(pack, folder),
        "encoder": TINY.encoder,
        "weights": WeightsConfig(source="none"),
        "phases": (Phase(epochs=1, size=32), Phase(epochs=epochs - 1, size=64, mixup=0.5)),
        "batch_size": 8,
        "watch_every": 1,
    }
    return PretrainConfig(**{**settings, **changes})


def train_config(pack: Path, folder: Path, language: Path, **changes: Any) -> TrainConfig:
    """One epoch of each stage on the language model in `language`."""
    stage = StageConfig(epochs=1, learning_rate=1e-3)
    own = LanguageConfig(base=str(language), lora=LoraSettings(rank=2, alpha=4))
    settings = {
        "out": folder / "train",
        "data": data_config(pack, folder),
        "vision": folder / "pretrain",
        "model": TINY.model_copy(update={"language": own}),
        "warm_up": stage,
        "stage1": stage,
        "stage2": stage,
        "batch_size": 8,
        "watch_films": 8,
    }
    return TrainConfig(**{**settings, **changes})
