"""A language model of an unknown family is tried out before it is trusted with pictures.

Families differ in ways that no list of options keeps up with: a recurrent layer that carries one
question into the next, biases by place instead of by position, a factor on the logits. Such a model
would run and answer wrongly, so a few tokens show that it reads a tree as it reads plain text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from medvlm.errors import ConfigError
from medvlm.model.causal import OTHER_MODEL
from medvlm.model.tree import lay_out, stack

# Families that the tests try out with more than a few tokens, windows included.
KNOWN = (
    *("gemma", "gemma2", "gemma3_text", "granite", "llama", "mistral"),
    *("phi", "phi3", "qwen2", "qwen3", "smollm3"),
)
# What rounding may change: in float32, of the spread of the logits; in quantised weights, of what
# the first question changes where the second one sees it.
EXACT, QUANTISED = 1e-3, 0.5


@torch.no_grad()
def try_out(
    base: Any,
    hidden: Callable[[Tensor, Tensor, Tensor], Tensor],
    logits: Callable[[Tensor], Tensor],
    trunk: Sequence[int],
    branches: Sequence[Sequence[int]],
) -> None:
    """Raises ConfigError unless the last branch reads the same in a tree and as plain token ids.

    `hidden(embeddings, positions, mask)` gives [1, L, D] and `logits` of [A, D] the logits, both as
    they are used later; `trunk` and `branches` are token ids.
    """
    model_type, training = base.config.model_type, base.training
    base.eval()
    try:
        device = base.get_input_embeddings().weight.device
        together = torch.tensor([[*trunk, *chain(*branches)]], device=device)
        alone = torch.tensor([[*trunk, *branches[-1]]], device=device)
        embeddings = base.get_input_embeddings()(together)
        positions, mask = stack([lay_out(len(trunk), [*map(len, branches)])], embeddings.dtype)
        causal = torch.triu(torch.full_like(mask, torch.finfo(mask.dtype).min), diagonal=1)
        tree, leaky = (
            logits(hidden(embeddings, positions.to(device), seen.to(device))[0, -1:])[0]
            for seen in (mask, causal)
        )
        plain = base(input_ids=alone, use_cache=False).logits[0, -1].float()
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"language.base: {model_type} cannot read a tree of questions ({error})",
            remedy=OTHER_MODEL,
        ) from error
    finally:
        base.train(training)
    allowed = EXACT * plain.std()
    if embeddings.dtype != torch.float32:
        allowed = QUANTISED * (leaky - plain).abs().max()
    if not (tree - plain).abs().max() <= allowed:
        raise ConfigError(
            f"language.base: {model_type} does not read several questions over pictures as it reads"
            " plain text",
            remedy=OTHER_MODEL,
        )
