"""Configuration of training: what is learned from, how long, how fast."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from medvlm.config.base import Config
from medvlm.config.model import EncoderConfig, ModelConfig


class DataConfig(Config):
    """Where the sets lie and how many samples of each make an epoch."""

    root: Path
    per_epoch: dict[Literal["nih_cxr", "kermany_cxr", "vqa_rad"], int]
    cache: Path = Path("runs/cache")


class WeightsConfig(Config):
    """Where an encoder's weights come from before it is trained here.

    `package`: ImageNet weights in an installed package; `timm`: the hub, through timm; the others
    read `path`, a local file whose keys are those of the source's own model.
    """

    source: Literal[
        "none", "package", "timm", "file", "torchxrayvision", "radimagenet", "biovil", "medicalnet"
    ] = "package"
    path: Path | None = None


class Phase(Config):
    """A run of epochs at one image size.

    `mixup`: parameter of the beta distribution, 0 for none. `restart`: the learning rate begins a
    new cosine at half the height of the last.
    """

    epochs: int = Field(ge=1)
    size: int = Field(ge=32, multiple_of=32)
    mixup: float = Field(0.0, ge=0)
    restart: bool = False


class PretrainConfig(Config):
    """Encoder pretraining on labels, boxes and masks."""

    out: Path
    data: DataConfig
    encoder: EncoderConfig = EncoderConfig()
    weights: WeightsConfig = WeightsConfig()
    phases: tuple[Phase, ...]
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(3e-4, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    ema: float = Field(0.998, ge=0, lt=1)
    opacity_weight: float = Field(1.0, ge=0)
    watch_every: int = Field(3, ge=1)
    seed: int = 0
    device: Literal["cpu", "cuda"] = "cpu"


class StageConfig(Config):
    """One stage of alignment: what is trained is fixed by the stage's place, how by this."""

    epochs: int = Field(ge=0)
    learning_rate: float = Field(gt=0)
    probe_weight: float = Field(0.5, ge=0)


class TrainConfig(Config):
    """Alignment: connector warm-up on its probe, then connector alone, then connector + LoRA.

    `vision`, `second`: folders of `medvlm pretrain` with the weights of the model's encoders.
    """

    out: Path
    data: DataConfig
    vision: Path
    second: Path | None = None
    model: ModelConfig = ModelConfig()
    warm_up: StageConfig
    stage1: StageConfig
    stage2: StageConfig
    views: int = Field(2, ge=1)
    batch_size: int = Field(8, ge=1)
    weight_decay: float = Field(0.01, ge=0)
    watch_films: int = Field(64, ge=0)
    seed: int = 0
    device: Literal["cpu", "cuda"] = "cpu"
