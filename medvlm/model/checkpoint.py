"""A checkpoint: a folder of weights, configuration, operating points and model card.

`config.yaml` says how to build the model and how to read its figures, `model.safetensors` holds
encoders, heads, connector and probe, `adapter/` the LoRA in PEFT's own format (matrices as float16
in both), `extras.safetensors` what a release adds, `README.md` is the model card. Loading is strict
and offline; the base language model is not inside, only the sha256 of its weights.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medvlm.config import Config, GateConfig, ModelConfig
from medvlm.config.policy import NO_POLICY, PolicyConfig
from medvlm.errors import CheckpointError, ConfigError
from medvlm.findings import FINDINGS
from medvlm.model import adapter, registry
from medvlm.model.digests import sha256_of, sha256_of_all
from medvlm.model.extras import FILE as EXTRAS
from medvlm.model.extras import NO_EXTRAS, Extras, load_extras, save_extras
from medvlm.model.heads import ATTRIBUTES
from medvlm.model.language import PROMPT_VERSION, LanguageModel
from medvlm.model.llm_source import language_model_dir, weights_digest
from medvlm.model.prompting import Prompter
from medvlm.model.vision import channels_last
from medvlm.model.vlm import VisionLanguageModel
from medvlm.resources import resource_dir

DEFAULT = "medvlm-cxr-lite"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.yaml", "README.md"
ADAPTER = f"{adapter.FOLDER}/{adapter.WEIGHTS}"


class Calibration(Config):
    """Logit -> calibrated probability: sigmoid(slope * logit + intercept of the finding)."""

    slope: float = 1.0
    intercepts: dict[str, float] = Field(default_factory=dict)


class OperatingPoints(Config):
    """Where probabilities turn into statements; chosen on validation patients, never on a film.

    present_from: calibrated probability from which a finding is stated as present; `present`: the
    same of single findings, where it is another.
    absent_below: per finding, the probability under which it is stated as absent; between the two
    it is uncertain. Where a finding is stated as present earlier, nothing is uncertain.
    checklist: yes-minus-no margin from which the language model's own answer counts as yes.
    opacity: probability from which a cell of the opacity map belongs to a box.
    frontal_chest: probability from which an image is taken for a frontal chest film.
    """

    present_from: float = 0.5
    present: dict[str, float] = Field(default_factory=dict)
    absent_below: dict[str, float] = Field(default_factory=dict)
    checklist: float = 0.0
    opacity: float = 0.3
    frontal_chest: float = 0.5

    def cuts(self, finding: str) -> tuple[float, float]:
        """Under which probability a finding is absent, and from which it is present."""
        present = self.present.get(finding, self.present_from)
        return min(self.absent_below.get(finding, 0.5), present), present


class CheckpointConfig(Config):
    """Contents of `config.yaml`.

    `weights_sha256`: of both weight files together (`medvlm.model.digests`).
    `constant_boxes`: the best fixed boxes for lung opacities on the training films, as fractions
    of the image, with scores: the baseline that grounding is held against. `status`: a candidate is
    a fine-tuned checkpoint that nobody promoted yet; it works by its folder's path, to be tried.
    `extras_sha256`: of what a release adds (`medvlm.model.extras`); empty where that is nothing.
    """

    name: str
    version: str
    status: Literal["released", "candidate"] = "released"
    weights_sha256: str = ""
    extras_sha256: str = ""
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
    """A loaded checkpoint: the model, ready for inference on the CPU, and how to read it.

    `policy`: of the site that reads it (`medvlm.draft.policy`). `runtime`: what runs it, part of
    the key of every draft, since the last digits of its figures depend on it.
    """

    model: VisionLanguageModel
    config: CheckpointConfig
    folder: Path
    extras: Extras = NO_EXTRAS
    policy: PolicyConfig = NO_POLICY
    runtime: str = "reference"

    def uncalibrated(self) -> Checkpoint:
        """The same, whose probabilities are those of the raw logits."""
        return replace(self, config=self.config.model_copy(update={"calibration": Calibration()}))


def resolve_checkpoint(name: str | None = None) -> Path:
    """The folder of `name` (a name or a folder), else of MEDVLM_CHECKPOINT, else the promoted one,
    else the default.

    A folder comes before a name, the embedded names before those of promoted checkpoints. Raises
    CheckpointError if there is none, or the promoted one was changed.
    """
    named = name or os.environ.get("MEDVLM_CHECKPOINT")
    if not named and (folder := registry.promoted()) is not None:
        return folder
    wanted = named or DEFAULT
    # A folder that happens to be called like the default does not take its place.
    for folder in (*([Path(named)] if named else []), *_embedded(wanted)):
        if (folder / CONFIG).is_file():
            return folder
    if (promoted := registry.find(wanted)) is not None:
        return promoted
    raise CheckpointError(
        "no such checkpoint", file=wanted, remedy="`medvlm model list` names those at hand"
    )


def _embedded(name: str) -> list[Path]:
    try:
        return [resource_dir("checkpoints") / name]
    except FileNotFoundError:
        return []


def load_checkpoint(name: str | None = None, llm_path: Path | None = None) -> Checkpoint:
    """Loads by name or folder, in PyTorch. Raises CheckpointError if anything does not fit exactly.

    What only reads a checkpoint opens it with `medvlm.model.runtime.load`.
    """
    folder, config = checked_folder(name)
    return fill(folder, config, llm_path)


def checked_folder(name: str | None = None) -> tuple[Path, CheckpointConfig]:
    """A checkpoint's folder, whole and fit for this version. Raises CheckpointError."""
    folder = resolve_checkpoint(name)
    try:
        config = CheckpointConfig.from_yaml(folder / CONFIG)
    except ConfigError as error:
        raise CheckpointError(str(error), remedy="fetch the checkpoint anew") from error
    _check_fit(config, folder)
    _check_files(config, folder)
    return folder, config


def fill(
    folder: Path,
    config: CheckpointConfig,
    llm_path: Path | None = None,
    language: Prompter | None = None,
) -> Checkpoint:
    """Builds the model of a folder that was checked and pours its weights in.

    `language`: one that has the adapter's weights in it already. Raises CheckpointError.
    """
    llm = language_model_dir(config.model.language, llm_path)
    _check_base(config, llm)
    model = VisionLanguageModel(config.model, llm, language)
    if isinstance(model.language, LanguageModel):
        adapter.check_settings(model.language.base, folder / adapter.FOLDER)
    for name, own in _files(model).items():
        try:
            _pour(own, load_file(folder / name))
        except (SafetensorError, RuntimeError) as error:
            raise CheckpointError(f"does not fit: {error}", file=str(folder / name)) from error
    model.eval().requires_grad_(False)
    for encoder in (model.vision, model.second):
        if encoder is not None:
            channels_last(encoder)
    return Checkpoint(model, config, folder, _extras(model, config, folder))


def save_checkpoint(
    model: VisionLanguageModel, config: CheckpointConfig, folder: Path, extras: Extras = NO_EXTRAS
) -> None:
    """Writes weights and configuration, with their sha256 and the language model's, to `folder`.

    `extras` belong to these weights, so without them the folder has none afterwards. A new folder
    appears whole. In one that is there, files are replaced when all are written, the configuration
    last: if that is interrupted, its sha256 gives the mixture away.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder if folder.exists() else folder.parent
    with tempfile.TemporaryDirectory(prefix=".checkpoint-", dir=beside) as place:
        partial = Path(place) / "new"
        (partial / adapter.FOLDER).mkdir(parents=True)
        for name, tensors in _files(model).items():
            save_file({key: _packed(t) for key, t in tensors.items()}, partial / name)
        language = config.model.language.model_copy(
            update={"sha256": weights_digest(model.language.folder)}
        )
        adapter.write_settings(model.language.base, language, partial / adapter.FOLDER)
        if not extras.empty:
            save_extras(extras, partial / EXTRAS)
        config.model_copy(
            update={
                "extras_sha256": sha256_of(partial / EXTRAS) if not extras.empty else "",
                "weights_sha256": sha256_of_all(partial, (ADAPTER, WEIGHTS)),
                "model": config.model.model_copy(update={"language": language}),
            }
        ).to_yaml(partial / CONFIG)
        if not folder.exists():
            partial.replace(folder)
            return
        (folder / adapter.FOLDER).mkdir(exist_ok=True)
        written = (ADAPTER, f"{adapter.FOLDER}/{adapter.SETTINGS}", WEIGHTS, EXTRAS, CONFIG)
        for name in written:
            if (partial / name).exists():
                (partial / name).replace(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)


def trained_weights(model: VisionLanguageModel) -> dict[str, Tensor]:
    """All but the language model and its adapters, by the names used in the file."""
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
    return parts


def _files(model: VisionLanguageModel) -> dict[str, dict[str, Tensor]]:
    """The weight files of a checkpoint and the tensors in each."""
    files = {WEIGHTS: trained_weights(model)}
    if isinstance(model.language, LanguageModel):
        files[ADAPTER] = dict(model.language.adapter_parameters())
    return files


def _packed(tensor: Tensor) -> Tensor:
    """As it is stored: matrices as float16."""
    return (tensor.half() if tensor.ndim > 1 else tensor).detach().cpu().contiguous()


@torch.no_grad()
def _pour(own: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    """Copies `weights` into `own`. Raises RuntimeError unless names and shapes agree exactly."""
    if own.keys() != weights.keys():
        odd = sorted(own.keys() ^ weights.keys())
        raise RuntimeError(f"{len(odd)} parameters missing or unknown, such as {odd[0]}")
    for name, tensor in own.items():
        if tensor.shape != weights[name].shape:
            raise RuntimeError(f"{name} is {weights[name].shape}, expected {tensor.shape}")
        tensor.copy_(weights[name])


def _extras(model: VisionLanguageModel, config: CheckpointConfig, folder: Path) -> Extras:
    if not config.extras_sha256:
        return NO_EXTRAS
    path = folder / EXTRAS
    if not path.is_file() or sha256_of(path) != config.extras_sha256:
        raise CheckpointError(
            "what was added to the weights is missing or has changed",
            file=str(path),
            remedy="fetch the checkpoint anew",
        )
    channels, words = model.vision.encoder.channels, model.language.width
    return load_extras(path, model.connector.maps, channels, words)


def _check_files(config: CheckpointConfig, folder: Path) -> None:
    for name in (WEIGHTS, ADAPTER):
        if not (folder / name).is_file():
            raise CheckpointError(
                "weights are missing", file=str(folder / name), remedy="fetch the checkpoint anew"
            )
    if config.weights_sha256 != (found := sha256_of_all(folder, (ADAPTER, WEIGHTS))):
        raise CheckpointError(
            f"its weights have sha256 {found[:12]}..., "
            f"the configuration says {config.weights_sha256[:12]}...",
            file=str(folder),
            remedy="fetch the checkpoint anew",
        )


def _check_base(config: CheckpointConfig, llm: Path) -> None:
    wanted = config.model.language
    if wanted.sha256 and wanted.sha256 != (found := weights_digest(llm)):
        raise CheckpointError(
            f"is another language model (sha256 {found[:12]}...) than the checkpoint was trained on"
            f" ({wanted.base}, {wanted.sha256[:12]}...)",
            file=str(llm),
            remedy=f"Give the folder of {wanted.base} with --llm-path.",
        )


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
