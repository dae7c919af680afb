"""Low-rank adapters (LoRA) on a language model's linear layers, stored as PEFT stores them.

Hu et al., "LoRA", ICLR 2022. The folder that is written opens with `PeftModel.from_pretrained`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from medvlm.config import LanguageConfig, LoraSettings
from medvlm.errors import CheckpointError, ConfigError

FOLDER, WEIGHTS, SETTINGS = "adapter", "adapter_model.safetensors", "adapter_config.json"

_NAME = "default"  # PEFT's name of the one adapter; its files leave it out
_PREFIX = "base_model.model."
# What must agree between the adapter's own settings and the checkpoint's configuration.
_SAME = ("r", "lora_alpha", "target_modules")


def add_lora(base: Any, settings: LoraSettings) -> Any:
    """`base` with untrained adapters in its layers, which it keeps on using.

    Raises ConfigError if the settings name layers that the model does not have, or that PEFT cannot
    adapt.
    """
    linear = _linear_layers(base)
    ends = sorted({name.rpartition(".")[2] for name in linear})
    wanted = settings.modules
    if wanted == "all-linear":
        wanted = tuple(ends)
    for module in wanted:
        if not any(name == module or name.endswith(f".{module}") for name in linear):
            raise ConfigError(
                f"language.lora.modules: there is no {module} in {base.config.model_type}",
                remedy=f'use "all-linear", or choose from {", ".join(ends)}',
            )
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(wanted),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in linear.values()),
        task_type="CAUSAL_LM",
    )
    try:
        adapted = inject_adapter_in_model(config, base)
    except ValueError as error:  # as for Mamba's layers, whose kernels pass the adapters by
        raise ConfigError(
            f"language.lora.modules: PEFT cannot adapt {base.config.model_type}: {error}",
            remedy="choose other modules, or another language.base",
        ) from error
    for parameter in adapter_parameters(adapted).values():
        parameter.data = parameter.data.float()  # over quantised layers they would be bfloat16
    return adapted


def adapter_parameters(base: Any) -> dict[str, nn.Parameter]:
    """The adapters' parameters by the names that PEFT's file gives them."""
    return {
        _PREFIX + name.replace(f".{_NAME}.", "."): parameter
        for name, parameter in base.named_parameters()
        if "lora_" in name
    }


def write_settings(base: Any, config: LanguageConfig, folder: Path) -> None:
    """Writes PEFT's description of the adapters into `folder`, the same each time."""
    named = {"base_model_name_or_path": config.base, "revision": config.revision}
    text = json.dumps(_described(base) | named, indent=2, sort_keys=True)
    (folder / SETTINGS).write_text(text + "\n", encoding="utf-8")


def check_settings(base: Any, folder: Path) -> None:
    """Raises CheckpointError if `folder` describes other adapters than those of `base`."""
    path, own = folder / SETTINGS, _described(base)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        other = [key for key in _SAME if stored[key] != own[key]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            "the adapter's settings cannot be read",
            file=str(path),
            remedy="fetch the checkpoint anew",
        ) from error
    if other:
        raise CheckpointError(
            f"has another {other[0]} than language.lora in the checkpoint's configuration",
            file=str(path),
            remedy="fetch the checkpoint anew",
        )


def _described(base: Any) -> dict[str, Any]:
    """The adapters' settings as PEFT names them, ready for inference, sets in order."""
    own: dict[str, Any] = base.peft_config[_NAME].to_dict() | {"inference_mode": True}
    return {key: sorted(value) if isinstance(value, set) else value for key, value in own.items()}


def _linear_layers(base: Any) -> dict[str, nn.Module]:
    """The layers that LoRA can go into, by full name; the output layer stays as it is."""
    output = base.get_output_embeddings()
    return {
        name: module
        for name, module in base.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not output
    }
