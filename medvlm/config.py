"""Configuration: small frozen objects, read from YAML, unknown keys refused.

Units: `size`, `width` and `stride` are pixels of the square input grid; `seed` seeds everything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medvlm.errors import ConfigError


class Config(BaseModel):
    """Base of every configuration object: frozen, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Reads a YAML file. Raises ConfigError naming the file and each wrong key."""
        path = Path(path)
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(
                "cannot be read", file=str(path), remedy="give the path of a YAML file"
            ) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError("is not valid YAML", file=str(path), remedy=str(error)) from error
        try:
            return cls.model_validate(content or {})
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
                for item in error.errors()
            )
            raise ConfigError(
                f"is not a valid {cls.__name__}: {wrong}",
                file=str(path),
                remedy="correct the keys named",
            ) from error

    def to_yaml(self, path: Path) -> None:
        """Writes the configuration so that `from_yaml` reads it back."""
        path.write_text(
            yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False), encoding="utf-8"
        )


class EncoderConfig(Config):
    """The image encoder, its heads, and the preprocessing that travels with its weights."""

    name: str = "tf_efficientnet_lite0"
    size: int = Field(320, ge=32, multiple_of=32)
    mean: float = 0.5
    std: float = 0.25
    dense_width: int = Field(64, ge=8)


class ConnectorConfig(Config):
    """The C-Abstractor between encoder and language model."""

    tokens: tuple[int, int] = (8, 8)
    width: int = Field(256, ge=16)
    depth: int = Field(2, ge=1)


class LoraSettings(Config):
    """Low-rank adaptation of the language model's linear layers."""

    rank: int = Field(8, ge=1)
    alpha: int = Field(16, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)
    modules: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )


class GateConfig(Config):
    """What a checkpoint was trained on; what says that it is something else gets no draft.

    `body_parts`: beginnings of words. `min_pixels`: of the shorter side. `min_slices`: 0 for a
    model of single images, which then reads no volumes.
    """

    modalities: tuple[str, ...] = ("CR", "DX", "RG")
    body_parts: tuple[str, ...] = ("CHEST", "THORAX", "LUNG", "RIB", "CXR", "PULMON")
    frontal_only: bool = True
    min_pixels: int = Field(128, ge=1)
    min_slices: int = Field(0, ge=0)


class ModelConfig(Config):
    """All that is needed to build the model before its weights are loaded.

    `second`: another encoder that only reads findings, for a second opinion. `scales`: further
    image sizes at which findings and attributes are read, and averaged.
    """

    encoder: EncoderConfig = EncoderConfig()
    second: EncoderConfig | None = None
    connector: ConnectorConfig = ConnectorConfig()
    lora: LoraSettings = LoraSettings()
    scales: tuple[Annotated[int, Field(ge=32, multiple_of=32)], ...] = ()


class DataConfig(Config):
    """Where the sets lie and how many samples of each make an epoch."""

    root: Path
    per_epoch: dict[Literal["nih_cxr", "kermany_cxr", "vqa_rad"], int]
    cache: Path = Path("runs/cache")


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
