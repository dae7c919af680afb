"""The language model: a causal LM with LoRA that reads visual tokens among its words.

A prompt is the chat template's user turn with the image in front of the question:
`<|im_start|>user\n[N visual tokens]\n[4 region tokens]question<|im_end|>\n<|im_start|>assistant\n`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from medvlm.config import LoraSettings
from medvlm.errors import CheckpointError
from medvlm.model.tree import lay_out, stack

# Part of the checkpoint's contract: weights trained on one wording do not fit another.
PROMPT_VERSION = "2"
# A bar for half a second of reading local weights only gets between a command's own lines.
disable_progress_bar()

USER, ASK, END = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>"


@dataclass(frozen=True)
class Turn:
    """A question over an image, with its answer when it is known.

    `region`: (left, top, right, bottom) in grid pixels, or None for the whole image.
    """

    question: str
    answer: str = ""
    region: tuple[float, float, float, float] | None = None


class Sequences(NamedTuple):
    """A batch of trees, ready for the language model.

    `embeddings` [B, L, D], `positions` [B, L], `mask` [B, 1, L, L]. The prediction of an answer's
    token `targets` [A] is read at (`rows`, `columns`) [A]; `turns` [A] counts the turns through the
    batch. `ends` [T, 2]: row and column of each turn's last prompt token.
    """

    embeddings: Tensor
    positions: Tensor
    mask: Tensor
    rows: Tensor
    columns: Tensor
    targets: Tensor
    turns: Tensor
    ends: Tensor


class LanguageModel(nn.Module):
    """A causal LM from a local folder, with LoRA on its linear layers.

    Raises CheckpointError if the folder does not hold a model that can be read.
    """

    def __init__(self, folder: Path, lora: LoraSettings) -> None:
        super().__init__()
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            base: Any = AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, dtype=torch.float32, attn_implementation="sdpa"
            )
        except (OSError, ValueError) as error:
            raise CheckpointError(
                "is not a language model that transformers can read",
                file=str(folder),
                remedy="run `medvlm model fetch`",
            ) from error
        base.requires_grad_(False)
        settings = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=list(lora.modules),
        )
        self.base: Any = inject_adapter_in_model(settings, base)
        self.width: int = base.config.hidden_size
        self.user, self.ask, self.end, self.line = (
            self.tokenize(text) for text in (USER, ASK, END, "\n")
        )
        (self.yes,), (self.no,) = self.tokenize("yes"), self.tokenize("no")

    @property
    def device(self) -> torch.device:
        return next(self.base.parameters()).device

    def tokenize(self, text: str) -> list[int]:
        """Token ids without special tokens of their own."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def embed(self, ids: Sequence[int]) -> Tensor:
        """[T, D] embeddings of token ids."""
        embedding = self.base.get_input_embeddings()
        out: Tensor = embedding(torch.tensor(list(ids), device=self.device, dtype=torch.long))
        return out

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """The LoRA parameters by name: all of this model that is trained and saved."""
        return {name: p for name, p in self.base.named_parameters() if "lora_" in name}

    def sequences(
        self,
        visual: Tensor,
        turns: Sequence[Sequence[Turn]],
        regions: Sequence[Sequence[Tensor | None]] | None = None,
    ) -> Sequences:
        """Trees of `turns[b]` over `visual` [B, N, D]; `regions[b][i]` is [4, D] or None."""
        embeddings, layouts = [], []
        rows: list[int] = []
        columns: list[int] = []
        targets: list[int] = []
        owners: list[int] = []
        ends: list[tuple[int, int]] = []
        count = 0
        for row, own in enumerate(turns):
            user, line = self.embed(self.user), self.embed(self.line)
            parts = [user, visual[row].to(user.dtype), line]
            trunk = sum(map(len, parts))
            start, lengths = trunk, []
            for i, turn in enumerate(own):
                region = regions[row][i] if regions is not None else None
                prompt = [*self.tokenize(turn.question), *self.ask]
                answer = [*self.tokenize(turn.answer), *self.end] if turn.answer else []
                shift = 0 if region is None else len(region)
                if region is not None:
                    parts.append(region.to(user.dtype))
                parts.append(self.embed([*prompt, *answer]))
                last = start + shift + len(prompt) - 1
                ends.append((row, last))
                rows += [row] * len(answer)
                columns += range(last, last + len(answer))
                targets += answer
                owners += [count] * len(answer)
                count += 1
                lengths.append(shift + len(prompt) + len(answer))
                start += lengths[-1]
            embeddings.append(torch.cat(parts))
            layouts.append(lay_out(trunk, lengths))
        positions, mask = stack(layouts, embeddings[0].dtype)
        device = self.device

        def index(values: list[int]) -> Tensor:
            return torch.tensor(values, device=device, dtype=torch.long)

        return Sequences(
            embeddings=nn.utils.rnn.pad_sequence(embeddings, batch_first=True),
            positions=positions.to(device),
            mask=mask.to(device),
            rows=index(rows),
            columns=index(columns),
            targets=index(targets),
            turns=index(owners),
            ends=torch.tensor(ends, device=device, dtype=torch.long).reshape(-1, 2),
        )

    def read(self, sequences: Sequences) -> Tensor:
        """Last hidden states [B, L, D]."""
        out: Tensor = self.base.model(
            inputs_embeds=sequences.embeddings,
            position_ids=sequences.positions,
            attention_mask=sequences.mask,
            use_cache=False,
        ).last_hidden_state
        return out

    def answer_loss(self, sequences: Sequences) -> Tensor:
        """Mean over the turns of the cross-entropy of their answers.

        Each turn counts the same, however long its answer: a yes or no must not drown among
        sentences.
        """
        hidden = self.read(sequences)[sequences.rows, sequences.columns]
        loss = F.cross_entropy(
            self.base.lm_head(hidden).float(), sequences.targets, reduction="none"
        )
        lengths = torch.bincount(sequences.turns)
        # The closing token is no content: it does not lower the weight of a one-word answer.
        weight = 1 / (lengths[sequences.turns] - 1).clamp_min(1)
        return (loss * weight).sum() / len(lengths)

    def yes_no_margins(self, sequences: Sequences) -> Tensor:
        """[T] logit of "yes" minus logit of "no" after each turn's prompt, in the turns' order."""
        hidden = self.read(sequences)[sequences.ends[:, 0], sequences.ends[:, 1]]
        direction = self.base.lm_head.weight[self.yes] - self.base.lm_head.weight[self.no]
        return (hidden @ direction).float()

    @torch.no_grad()
    def write(
        self,
        visual: Tensor,
        turns: Sequence[Turn],
        regions: Sequence[Tensor | None],
        max_tokens: int,
    ) -> list[str]:
        """Greedy answers to `turns`; `visual` [T, N, D] holds each turn's own visual tokens."""
        prompts = []
        for own, turn, region in zip(visual, turns, regions, strict=True):
            user = self.embed(self.user)
            parts = [user, own.to(user.dtype), self.embed(self.line)]
            if region is not None:
                parts.append(region.to(user.dtype))
            prompts.append(torch.cat([*parts, self.embed(self.tokenize(turn.question) + self.ask)]))
        longest = max(map(len, prompts))
        # Padded on the left, so that every prompt ends where its answer begins.
        embeddings = torch.stack([F.pad(p, (0, 0, longest - len(p), 0)) for p in prompts])
        attention = torch.stack(
            [(torch.arange(longest) >= longest - len(p)).long() for p in prompts]
        ).to(self.device)
        ids = self.base.generate(
            inputs_embeds=embeddings,
            attention_mask=attention,
            max_new_tokens=max_tokens,
            do_sample=False,
            eos_token_id=self.end[0],
            pad_token_id=self.end[0],
        )
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]
