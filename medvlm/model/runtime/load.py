"""Opens a checkpoint with the runtime that suits: compiled on a CPU, PyTorch on a GPU."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

import torch

from medvlm.errors import ConfigError
from medvlm.model.checkpoint import Checkpoint, checked_folder, fill, load_checkpoint
from medvlm.model.encoder import Encoder
from medvlm.model.llm_source import embedding_table, language_model_dir
from medvlm.model.runtime.artefact import (
    ENCODER,
    FORMAT,
    LANGUAGE,
    SECOND,
    STEPS,
    artefact_dir,
    build,
    compiled_files,
)
from medvlm.model.runtime.encoder import CompiledEncoder
from medvlm.model.runtime.language import CompiledLanguage
from medvlm.model.vlm import VisionLanguageModel

RUNTIME, DEVICE = "MEDVLM_RUNTIME", "MEDVLM_DEVICE"
Runtime = Literal["compiled", "reference"]


def load_ready(name: str | None = None, llm_path: Path | None = None) -> Checkpoint:
    """A checkpoint to draft, answer and evaluate with, as `load_checkpoint` finds it.

    MEDVLM_RUNTIME: `compiled` (ONNX Runtime; the default on a CPU) or `reference` (PyTorch in
    float32). MEDVLM_DEVICE: `cpu` (the default), `cuda` or `cuda:N`, which always runs PyTorch.

    Raises CheckpointError as `load_checkpoint` does, ConfigError for a runtime or device that there
    is not.
    """
    device = wanted_device()
    if device.type != "cpu":
        loaded = load_checkpoint(name, llm_path)
        loaded.model.to(device)
        extras = loaded.extras.to(device)
        return replace(loaded, extras=extras, runtime=f"reference {device.type}")
    if _wanted_runtime() == "reference":
        return load_checkpoint(name, llm_path)
    return _compiled(name, llm_path)


def wanted_device() -> torch.device:
    """The device that MEDVLM_DEVICE names. Raises ConfigError if it is not there."""
    wanted = os.environ.get(DEVICE) or "cpu"
    try:
        device = torch.device(wanted)
        there = device.type == "cpu" or (
            device.type == "cuda" and (device.index or 0) < torch.cuda.device_count()
        )
    except RuntimeError:
        there = False
    if not there:
        raise ConfigError(f"{DEVICE}: there is no {wanted} here", remedy="use cpu, cuda or cuda:N")
    return device


def _wanted_runtime() -> Runtime:
    wanted = os.environ.get(RUNTIME) or "compiled"
    if wanted not in ("compiled", "reference"):
        raise ConfigError(f"{RUNTIME}: there is no {wanted}", remedy="use compiled or reference")
    return cast(Runtime, wanted)


@torch.no_grad()
def _compiled(name: str | None, llm_path: Path | None) -> Checkpoint:
    folder, config = checked_folder(name)
    place = artefact_dir(config)
    files = compiled_files(place)
    if files is None:
        files = build(place, lambda: load_checkpoint(str(folder), llm_path))
    language = None
    if LANGUAGE in files:
        llm = language_model_dir(config.model.language, llm_path)
        system = config.model.language.system
        table = embedding_table(llm)
        language = CompiledLanguage(llm, system, files[LANGUAGE], files[STEPS], table)
    loaded = fill(folder, config, llm_path, language)
    _swap(loaded.model, files)
    parts = "+".join(sorted(name.removesuffix(".onnx") for name in files))
    return replace(loaded, runtime=f"compiled {FORMAT} {parts}")


def _swap(model: VisionLanguageModel, files: dict[str, Path]) -> None:
    if ENCODER in files:
        model.vision.encoder = _compiled_encoder(model.vision.encoder, files[ENCODER])
    if SECOND in files and model.second is not None:
        model.second.encoder = _compiled_encoder(model.second.encoder, files[SECOND])


def _compiled_encoder(encoder: Encoder, graph: Path) -> Encoder:
    return cast(Encoder, CompiledEncoder(encoder, graph))
