"""The language model in PyTorch: a causal LM with LoRA that reads visual tokens among its words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.utils.logging import disable_progress_bar

from medvlm.config import LanguageConfig
from medvlm.model.adapter import adapter_parameters, add_lora
from medvlm.model.causal import attention_of, load_base, logit_rule, longest
from medvlm.model.decoding import Forward
from medvlm.model.prompting import PROMPT_VERSION as PROMPT_VERSION
from medvlm.model.prompting import Prompter
from medvlm.model.prompting import Segment as Segment
from medvlm.model.prompting import Sequences as Sequences
from medvlm.model.prompting import Turn as Turn
from medvlm.model.tree import additive
from medvlm.model.tryout import KNOWN, try_out

# A bar for half a second of reading local weights only gets between a command's own lines.
disable_progress_bar()


class LanguageModel(Prompter):
    """A causal LM from a local folder, with LoRA on its linear layers.

    Raises CheckpointError if the folder does not hold a model that can be read, ConfigError if the
    model or its settings will not do; the message names the option.
    """

    def __init__(self, folder: Path, config: LanguageConfig) -> None:
        super().__init__()
        self.folder = folder
        tokenizer, base = load_base(folder, config.quantisation)
        self.base: Any = base
        self.attention = attention_of(base.config)
        self.finish = logit_rule(base.config)
        self.longest = longest(base.config)
        self.width: int = base.get_input_embeddings().weight.shape[1]
        self.prepare(tokenizer, config.system)
        if base.config.model_type not in KNOWN:
            branches = ([*self.line, *self.ask], self.ask)
            try_out(base, self._hidden, self.logits, self.user, branches)
        self.base = add_lora(base, config.lora)

    @property
    def device(self) -> torch.device:
        return next(self.base.parameters()).device

    def embed(self, ids: Sequence[int]) -> Tensor:
        """[T, D] embeddings of token ids, scaled where the family scales them."""
        embedding = self.base.get_input_embeddings()
        out: Tensor = embedding(torch.tensor(list(ids), device=self.device, dtype=torch.long))
        return out

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """The LoRA parameters by PEFT's names: all of this model that is trained and saved."""
        return adapter_parameters(self.base)

    def read(self, sequences: Sequences) -> Tensor:
        """Last hidden states [B, L, D]."""
        return self._hidden(sequences.embeddings, sequences.positions, sequences.mask)

    def _hidden(self, embeddings: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.base.get_decoder()(
            inputs_embeds=embeddings,
            position_ids=positions,
            attention_mask=self.attention.masks(mask, positions),
            use_cache=False,
        ).last_hidden_state
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """[A, vocabulary] logits of hidden states [A, D], as the family's own head gives them."""
        return self.finish(self.base.get_output_embeddings()(hidden).float())

    def answer_loss(self, sequences: Sequences) -> Tensor:
        """Mean over the turns of the cross-entropy of their answers.

        Each turn counts the same, however long its answer: a yes or no must not drown among
        sentences.
        """
        hidden = self.read(sequences)[sequences.rows, sequences.columns]
        loss = F.cross_entropy(self.logits(hidden), sequences.targets, reduction="none")
        lengths = torch.bincount(sequences.turns)
        # What closes the turn is no content: it does not lower the weight of a one-word answer.
        weight = 1 / (lengths[sequences.turns] - len(self.end)).clamp_min(1)
        return (loss * weight).sum() / len(lengths)

    def yes_no_margins(self, sequences: Sequences) -> Tensor:
        """[T] logit of "yes" minus logit of "no" after each turn's prompt, in the turns' order.

        Where a word has several tokens, the first that tells the two apart counts.
        """
        hidden = self.read(sequences)[sequences.ends[:, 0], sequences.ends[:, 1]]
        head = self.base.get_output_embeddings()
        if self.finish.cap is not None:
            logits = self.logits(hidden)
            return logits[:, self.yes] - logits[:, self.no]
        margins = hidden @ (head.weight[self.yes] - head.weight[self.no])
        if head.bias is not None:
            margins = margins + head.bias[self.yes] - head.bias[self.no]
        return self.finish(margins.float())

    def forward_pass(self, *, exactly: bool = False) -> Forward:
        return _TorchForward(self)  # always exact


class _TorchForward:
    """A pass through the decoder that keeps keys and values."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.cache = DynamicCache()
        self.positions: Tensor | None = None

    def begin(self, trunk: Tensor) -> bool:
        return False

    def __call__(
        self, embeddings: Tensor, positions: Tensor, visible: Tensor, wanted: Tensor
    ) -> Tensor:
        model = self.model
        before = self.positions
        keys = positions if before is None else torch.cat([before, positions], dim=1)
        self.positions = keys
        mask = additive(visible, embeddings.dtype).to(model.device)
        hidden = model.base.get_decoder()(
            inputs_embeds=embeddings,
            position_ids=positions.to(model.device),
            attention_mask=model.attention.masks(
                mask, positions.to(model.device), keys.to(model.device)
            ),
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state.flatten(0, 1)
        return model.logits(hidden[wanted.to(model.device)])
