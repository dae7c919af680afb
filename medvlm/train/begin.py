"""Where alignment begins: at pretrained encoders, or at a whole checkpoint."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from medvlm.config import EncoderConfig, TrainConfig
from medvlm.errors import CheckpointError, ConfigError
from medvlm.model.checkpoint import (
    CONFIG,
    CheckpointConfig,
    load_checkpoint,
    resolve_checkpoint,
)
from medvlm.model.checkpoint import WEIGHTS as CHECKPOINT_WEIGHTS
from medvlm.model.digests import sha256_of
from medvlm.model.llm_source import language_model_dir, weights_digest
from medvlm.model.vlm import VisionLanguageModel
from medvlm.train.pretrain import CONFIG as ENCODER_CONFIG
from medvlm.train.pretrain import WEIGHTS, require_images

PREFIX = "vision."


def begin(
    config: TrainConfig, llm_path: Path | None
) -> tuple[TrainConfig, VisionLanguageModel, str]:
    """The model before its first step, the configuration with the model's own, and a key.

    The key names the weights that the run began with. Raises CheckpointError if they are missing
    or misfit.
    """
    if config.start is not None:
        checkpoint = load_checkpoint(config.start, llm_path)
        model, key = checkpoint.model, checkpoint.config.weights_sha256
        config = config.model_copy(update={"model": model.config})
    else:
        llm = language_model_dir(config.model.language, llm_path)
        model = VisionLanguageModel(config.model, llm)
        require_images(model.vision.encoder)
        key = _load_vision(model, str(config.vision))
        _load_second(model, config.second)
    return config, model, key + weights_digest(model.language.folder)


def origin(config: TrainConfig) -> str:
    """The sha256 of the weights that are not this run's own, "" where there are none yet."""
    place = config.start or str(config.vision)
    if (Path(place) / WEIGHTS).is_file():
        return sha256_of(Path(place) / WEIGHTS)
    try:
        return CheckpointConfig.from_yaml(resolve_checkpoint(place) / CONFIG).weights_sha256
    except CheckpointError:
        return ""


def _load_vision(model: VisionLanguageModel, place: str) -> str:
    """Loads the pretrained encoder strictly and returns the sha256 of its file."""
    own = model.config.encoder
    if (Path(place) / WEIGHTS).is_file():
        path = _pretrained(Path(place), own, "model.encoder")
        weights = load_file(path)
    else:
        folder = _checkpoint(place)
        _require_same(
            CheckpointConfig.from_yaml(folder / CONFIG).model.encoder,
            own,
            folder / CONFIG,
            "model.encoder",
        )
        path = folder / CHECKPOINT_WEIGHTS
        weights = {
            name.removeprefix(PREFIX): tensor
            for name, tensor in load_file(path).items()
            if name.startswith(PREFIX)
        }
    model.vision.load_state_dict(weights, strict=True)
    return sha256_of(path)


def _checkpoint(place: str) -> Path:
    try:
        return resolve_checkpoint(place)
    except CheckpointError as error:
        raise CheckpointError(
            "pretrained encoder is missing", file=place, remedy="run `medvlm pretrain` first"
        ) from error


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
    path = folder / WEIGHTS
    if not path.is_file():
        raise CheckpointError(
            "pretrained encoder is missing", file=str(path), remedy="run `medvlm pretrain` first"
        )
    _require_same(
        EncoderConfig.from_yaml(folder / ENCODER_CONFIG), config, folder / ENCODER_CONFIG, key
    )
    return path


def _require_same(found: EncoderConfig, wanted: EncoderConfig, file: Path, key: str) -> None:
    if found != wanted:
        raise CheckpointError(
            "the encoder was pretrained with other settings",
            file=str(file),
            remedy=f"copy them into {key} of the configuration",
        )
