"""A causal language model of any family: how it is loaded, masked and read.

What differs between families and matters here: layers that see only a window of the text, logits
that are scaled or capped, embeddings that scale themselves. The first two are read from the model's
configuration; `medvlm.model.tryout` shows that nothing was overlooked.
"""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GenerationConfig

from medvlm.errors import CheckpointError, ConfigError

FULL, SLIDING = "full_attention", "sliding_attention"
OTHER_MODEL = "choose a language model whose layers are all attention, such as Llama, Qwen or Gemma"


class Attention(NamedTuple):
    """How far a family's layers see.

    `window`: tokens that a sliding layer sees, itself included; None if every layer sees all.
    `by_layer`: whether the model takes a mask for each kind of layer instead of one for all.
    """

    window: int | None
    by_layer: bool

    def masks(
        self, mask: Tensor, positions: Tensor, keys: Tensor | None = None
    ) -> Tensor | dict[str, Tensor]:
        """What the model takes as its attention mask.

        `mask` [B, 1, L, K] is additive, `positions` [B, L]; `keys` [B, K] those of the tokens that
        are attended to, left out where they are the same. A window counts positions, so that a
        branch of a tree sees as far back as it would alone.
        """
        if self.window is None:
            return mask
        keys = positions if keys is None else keys
        near = positions[:, :, None] - keys[:, None, :] < self.window
        sliding = mask.masked_fill(~near[:, None], torch.finfo(mask.dtype).min)
        return {FULL: mask, SLIDING: sliding} if self.by_layer else sliding


def attention_of(config: Any) -> Attention:
    """Raises ConfigError for layers that cannot keep the branches of a tree apart."""
    window: int | None = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    # GPT-Neo's windows count places, whatever the mask.
    places = set(getattr(config, "attention_layers", None) or ()) - {"global"}
    if odd := sorted((kinds | places) - {FULL, SLIDING}):
        raise ConfigError(
            f"language.base: {config.model_type} has layers of {', '.join(odd)}, which cannot read"
            " several questions over one picture",
            remedy=OTHER_MODEL,
        )
    if kinds:
        return Attention(window if SLIDING in kinds else None, by_layer=True)
    return Attention(window, by_layer=False)


def longest(config: Any) -> int:
    """How many positions the model knows."""
    return int(getattr(config, "max_position_embeddings", None) or 1 << 30)


class LogitRule(NamedTuple):
    """What a family does to the output layer's values: `scale`, then a soft `cap` (Gemma 2)."""

    scale: float = 1.0
    cap: float | None = None

    def __call__(self, values: Tensor) -> Tensor:
        if self.scale != 1:
            values = values * self.scale
        return values if self.cap is None else self.cap * torch.tanh(values / self.cap)


def logit_rule(config: Any) -> LogitRule:
    """The rule in a model's configuration, by the names that the families give it."""
    scale = getattr(config, "logit_scale", None) or 1.0
    divisor = getattr(config, "logits_scaling", None) or 1.0
    return LogitRule(scale / divisor, getattr(config, "final_logit_softcapping", None))


def load_base(folder: Path, quantisation: str = "none") -> tuple[Any, Any]:
    """The tokenizer and the frozen model in `folder`, as float32 unless quantised.

    Only safetensors are read, and no code that lies beside them is run.

    Raises CheckpointError if there is no such model or its weights do not fit it exactly,
    ConfigError if the model reads more than text or cannot be quantised here.
    """
    quantised = _quantised(quantisation)
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **local)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, **local, **quantised
        )
        base, found = loaded
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            "is not a language model that transformers can read",
            file=str(folder),
            remedy="run `medvlm model fetch`",
        ) from error
    # What transformers does not find it makes up, with a warning.
    odd = set(found["missing_keys"])
    if quantisation == "none":  # weights stored quantised have names that the model does not
        odd |= set(found["unexpected_keys"])
    if odd:
        raise CheckpointError(
            f"{len(odd)} weights missing or unknown, such as {min(odd)}",
            file=str(folder),
            remedy="fetch the language model anew",
        )
    if base.config.get_text_config() is not base.config:
        raise ConfigError(
            f"language.base: {base.config.model_type} reads more than text",
            remedy="choose the language model inside it, as a model of its own",
        )
    # A model's own settings may sample or punish repetition; answers here are greedy.
    base.generation_config = GenerationConfig()
    return tokenizer, base.requires_grad_(False)


def _quantised(kind: str) -> dict[str, Any]:
    """The arguments that load a model in float32, or in 8 or 4 bits on the GPU.

    `nf4`: 4-bit NormalFloat with double quantisation, computed in bfloat16 (Dettmers et al.,
    "QLoRA", NeurIPS 2023); `int8`: the same authors' LLM.int8 (NeurIPS 2022).
    """
    if kind == "none":
        return {"dtype": torch.float32}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"language.quantisation: {kind} needs the package bitsandbytes",
            remedy="install `medvlm[quantised]`, or leave it at none",
        )
    if not torch.cuda.is_available():
        raise ConfigError(
            f"language.quantisation: {kind} needs a GPU", remedy="leave it at none on a CPU"
        )
    # Its kernels compute in float16 and would say so at every layer.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    settings = (
        BitsAndBytesConfig(load_in_8bit=True)
        if kind == "int8"
        else BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    )
    here = {"": torch.cuda.current_device()}
    return {"dtype": torch.bfloat16, "quantization_config": settings, "device_map": here}
