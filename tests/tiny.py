"""Models small enough for a test, built as the real ones are.

`tiny_llm` writes a Llama of a few thousand parameters with its own tokenizer; `tiny_model` puts the
real encoder, at 64 px and with random weights, in front of it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from medvlm.config import ConnectorConfig, EncoderConfig, LanguageConfig, LoraSettings, ModelConfig
from medvlm.model.checkpoint import (
    Calibration,
    CheckpointConfig,
    OperatingPoints,
    save_checkpoint,
)
from medvlm.model.vlm import VisionLanguageModel
from tests.families import MARKUP, tiny_tokenizer

TINY = ModelConfig(
    encoder=EncoderConfig(size=64, dense_width=8),
    connector=ConnectorConfig(tokens=(2, 2), width=16, depth=1),
    language=LanguageConfig(lora=LoraSettings(rank=2, alpha=4)),
)


def tiny_llm(folder: Path) -> Path:
    """A Llama with 2 layers of width 32, with SmolLM2's markup."""
    fast = tiny_tokenizer(MARKUP["smollm2"])
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        eos_token_id=1,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def tiny_model(llm: Path) -> VisionLanguageModel:
    """The family at its smallest, seeded, in evaluation mode."""
    torch.manual_seed(0)
    model = VisionLanguageModel(TINY, llm)
    return model.eval().requires_grad_(False)


def tiny_checkpoint(folder: Path, llm: Path) -> Path:
    """A checkpoint of `tiny_model` that accepts every image as a chest film."""
    config = CheckpointConfig(
        name="tiny",
        version="0.0",
        model=TINY,
        calibration=Calibration(),
        operating_points=OperatingPoints(frontal_chest=0.0),
    )
    save_checkpoint(tiny_model(llm), config, folder)
    return folder
