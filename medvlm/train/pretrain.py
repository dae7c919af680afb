"""Encoder pretraining, by one of three objectives (`medvlm.train.objectives`).

An exponential moving average of the weights is taken, and the weights written are the mean of that
average at the ends of the learning rate's cycles; with early stopping, the average of the best
epoch. The validation patients are only watched.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from medvlm.config import PretrainConfig
from medvlm.errors import ConfigError
from medvlm.model.encoder import Encoder
from medvlm.model.llm_source import language_model_dir
from medvlm.model.vision import VisionModel, channels_last
from medvlm.model.weights import load_start_weights
from medvlm.train.engine import teach
from medvlm.train.films import FilmStore, load_sets
from medvlm.train.objectives import Supervised, VisionLesson
from medvlm.train.parallel import Processes
from medvlm.train.progress import run_key

WEIGHTS, CONFIG = "vision.safetensors", "encoder.yaml"


def pretrain(config: PretrainConfig, llm_path: Path | None = None) -> Path:
    """Trains, resuming where an earlier run stopped, and returns the folder with the weights.

    `llm_path`: the language model's file, for the contrastive objective. Raises ConfigError for an
    encoder that the films or the phases do not fit, and whatever its starting weights or
    `medvlm.train.engine.teach` raise.
    """
    processes = Processes(config.device)
    torch.manual_seed(config.seed)
    model = VisionModel(config.encoder)
    require_images(model.encoder)
    model.encoder.require_sizes((phase.size for phase in config.phases), "phases")
    began = load_start_weights(model.encoder, config.weights)
    contrastive = config.objective == "contrastive"
    llm = language_model_dir(config.language, llm_path) if contrastive else None
    with processes.one_by_one():
        store = FilmStore.build(
            load_sets(config.data), config.data.cache, config.data.tuning, config.data.share
        )
    model.to(processes.device)
    channels_last(model)
    lesson = _lesson(config, model, store, llm)
    given = filter(None, (str(began.sha256), lesson.key))
    teach([lesson], config, run_key(config, *given), processes)
    if processes.main:
        save_file(lesson.result(), config.out / WEIGHTS)
        config.encoder.to_yaml(config.out / CONFIG)
    processes.wait()
    return config.out


def require_images(encoder: Encoder) -> None:
    """Raises ConfigError for a network of volumes: films are images."""
    if encoder.dims != 2:
        raise ConfigError(
            f"encoder: {encoder.config.name} reads volumes, but the films to learn from are images",
            remedy="choose a network of the family timm",
        )


def _lesson(
    config: PretrainConfig, model: VisionModel, store: FilmStore, llm: Path | None
) -> VisionLesson:
    if llm is not None:
        from medvlm.train.contrast import Contrastive

        return Contrastive(config, model, store, llm)
    if config.objective == "self_supervised":
        from medvlm.train.simsiam import SelfSupervised

        return SelfSupervised(config, model, store)
    return Supervised(config, model, store)
