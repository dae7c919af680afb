"""Configuration: small frozen objects, read from YAML, unknown keys refused.

Units: `size`, `width` and `stride` are pixels of the square input grid; `seed` seeds everything.
"""

from medvlm.config.base import Config
from medvlm.config.finetune import FinetuneConfig, FinetunePhase, PromotionGates
from medvlm.config.model import (
    ConnectorConfig,
    EncoderConfig,
    GateConfig,
    LanguageConfig,
    LoraSettings,
    ModelConfig,
    PicturesConfig,
)
from medvlm.config.train import (
    DataConfig,
    Phase,
    PretrainConfig,
    RunConfig,
    StageConfig,
    StopConfig,
    TrainConfig,
    WeightsConfig,
)

__all__ = [
    "Config",
    "ConnectorConfig",
    "DataConfig",
    "EncoderConfig",
    "FinetuneConfig",
    "FinetunePhase",
    "GateConfig",
    "LanguageConfig",
    "LoraSettings",
    "ModelConfig",
    "Phase",
    "PicturesConfig",
    "PretrainConfig",
    "PromotionGates",
    "RunConfig",
    "StageConfig",
    "StopConfig",
    "TrainConfig",
    "WeightsConfig",
]
