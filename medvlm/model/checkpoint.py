"""A checkpoint: a folder of weights, configuration, operating points and model card.

`config.yaml` says how to build the model and how to read its figures, `model.safetensors` holds
encoder, heads, connector, probe and LoRA (matrices as float16), `README.md` is the model card.
Loading is strict and offline; the base language model comes from its own wheel.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medvlm.config import Config, GateConfig, ModelConfig
from medvlm.errors import CheckpointError, ConfigError
from medvlm.findings import FINDINGS
from medvlm.model.base_llm import base_llm_dir
from medvlm.model.heads import ATTRIBUTES
from medvlm.model.language import PROMPT_VERSION
from medvlm.model.vision import channels_last
from medvlm.model.vlm import VisionLanguageModel
from medvlm.resources import resource_dir

DEFAULT = "medvlm-cxr-lite"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.yaml", "README.md"


class Calibration(Config):
    """Logit -> calibrated probability: sigmoid(slope * logit + intercept of the finding)."""

    slope: float = 1.0
    intercepts: dict[str, float] = Field(default_factory=dict)


class OperatingPoints(Config):
    """Where probabilities turn into statements; chosen on validation patients, never on a film.

    present_from: calibrated probability from which a finding is stated as present.
    absent_below: per finding, the probability under which it is stated as absent; between the two
    it is uncertain.
    checklist: yes-minus-no margin from which the language model's own answer counts as yes.
    opacity: probability from which a cell of the opacity map belongs to a box.
    frontal_chest: probability from which an image is taken for a frontal chest film.
    """

    present_from: float = 0.5
    absent_below: dict[str, float] = Field(default_factory=dict)
    checklist: float = 0.0
    opacity: float = 0.3
    frontal_chest: float = 0.5


class CheckpointConfig(Config):
    """Contents of `config.yaml`.

    `constant_boxes`: the best fixed boxes for lung opacities on the training films, as fractions
    of the image, with scores: the baseline that grounding is held against.
    """

    name: str
    version: str
    weights_sha256: str = ""
    prompt_version: str = PROMPT_VERSION
    findings: tuple[str, ...] = FINDINGS
    attributes: tuple[str, ...] = ATTRIBUTES
    model: ModelConfig = ModelConfig()
    gate: GateConfig = GateConfig()
    calibration: Calibration = Calibration()
    operating_points: OperatingPoints = OperatingPoints()
    constant_boxes: tuple[tuple[tuple[float, float, float, float], float], ...] = ()


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: the model, ready for inference on the CPU, and how to read it."""

    model: VisionLanguageModel
    config: CheckpointConfig
    folder: Path


def resolve_checkpoint(name: str | None = None) -> Path:
    """The folder of `name` (a name or a folder), else of MEDVLM_CHECKPOINT, else the default.

    Raises CheckpointError if there is none.
    """
    named = name or os.environ.get("MEDVLM_CHECKPOINT")
    wanted = named or DEFAULT
    # A folder that happens to be called like the default does not take its place.
    for folder in (*([Path(named)] if named else []), *_embedded(wanted)):
        if (folder / CONFIG).is_file():
            return folder
    raise CheckpointError(
        "no such checkpoint", file=wanted, remedy="`medvlm model list` names those at hand"
    )


def _embedded(name: str) -> list[Path]:
    try:
        return [resource_dir("checkpoints") / name]
    except FileNotFoundError:
        return []


def load_checkpoint(name: str | None = None, llm_path: Path | None = None) -> Checkpoint:
    """Loads by name or folder. Raises CheckpointError if anything does not fit exactly."""
    folder = resolve_checkpoint(name)
    try:
        config = CheckpointConfig.from_yaml(folder / CONFIG)
    except ConfigError as error:
        raise CheckpointError(str(error), remedy="fetch the checkpoint anew") from error
    _check_fit(config, folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise CheckpointError("weights are missing", file=str(path), remedy="fetch it anew")
    if config.weights_sha256 != (found := sha256_of(path)):
        raise CheckpointError(
            f"has sha256 {found[:12]}..., the configuration says {config.weights_sha256[:12]}...",
            file=str(path),
            remedy="fetch the checkpoint anew",
        )
    model = VisionLanguageModel(config.model, base_llm_dir(llm_path))
    try:
        load_weights(model, load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"does not fit: {error}", file=str(path)) from error
    model.eval().requires_grad_(False)
    for encoder in (model.vision, model.second):
        if encoder is not None:
            channels_last(encoder)
    return Checkpoint(model, config, folder)


def save_checkpoint(model: VisionLanguageModel, config: CheckpointConfig, folder: Path) -> None:
    """Writes weights and configuration (with the weights' sha256) into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    packed = {
        name: (t.half() if t.ndim > 1 else t).detach().cpu().contiguous()
        for name, t in trained_weights(model).items()
    }
    save_file(packed, folder / WEIGHTS)
    config = config.model_copy(update={"weights_sha256": sha256_of(folder / WEIGHTS)})
    config.to_yaml(folder / CONFIG)


def trained_weights(model: VisionLanguageModel) -> dict[str, Tensor]:
    """All but the base language model, by the names used in the file."""
    parts: dict[str, Tensor] = {}
    named: dict[str, nn.Module | None] = {
        "vision": model.vision,
        "second": model.second,
        "connector": model.connector,
        "probe": model.probe,
    }
    for prefix, module in named.items():
        if module is None:
            continue
        parts |= {f"{prefix}.{name}": t for name, t in module.state_dict().items()}
    return parts | {f"lora.{name}": p for name, p in model.language.adapter_parameters().items()}


@torch.no_grad()
def load_weights(model: VisionLanguageModel, weights: dict[str, Tensor]) -> None:
    """Copies `weights` in. Raises RuntimeError unless names and shapes agree exactly."""
    own = trained_weights(model)
    if own.keys() != weights.keys():
        odd = sorted(own.keys() ^ weights.keys())
        raise RuntimeError(f"{len(odd)} parameters missing or unknown, such as {odd[0]}")
    for name, tensor in own.items():
        if tensor.shape != weights[name].shape:
            raise RuntimeError(f"{name} is {weights[name].shape}, expected {tensor.shape}")
        tensor.copy_(weights[name])


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_fit(config: CheckpointConfig, folder: Path) -> None:
    expected = {
        "prompt_version": PROMPT_VERSION,
        "findings": FINDINGS,
        "attributes": ATTRIBUTES,
    }
    for name, value in expected.items():
        if getattr(config, name) != value:
            raise CheckpointError(
                f"was made for another {name} than this version of medvlm",
                file=str(folder / CONFIG),
                remedy="use the version of medvlm that made it",
            )
