"""The language model: a causal LM with LoRA that reads visual tokens among its words.

A prompt is the chat template's bare user turn (`medvlm.model.chat`) with the pictures in front of
the question; for SmolLM2:
`<|im_start|>user\n[N visual tokens]\n[4 region tokens]question<|im_end|>\n<|im_start|>assistant\n`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils.logging import disable_progress_bar

from medvlm.config import LanguageConfig
from medvlm.image.polygon import Polygon
from medvlm.model.adapter import adapter_parameters, add_lora
from medvlm.model.causal import attention_of, load_base, logit_rule
from medvlm.model.chat import prompt_parts, telling_tokens
from medvlm.model.tree import lay_out, stack
from medvlm.model.tryout import KNOWN, try_out

# Part of the checkpoint's contract: weights trained on one wording do not fit another.
PROMPT_VERSION = "2"
# A bar for half a second of reading local weights only gets between a command's own lines.
disable_progress_bar()


@dataclass(frozen=True)
class Turn:
    """A question over an image, with its answer when it is known.

    `region`: (left, top, right, bottom) in grid pixels of picture number `picture`, or None for the
    whole; in a volume `slices` bounds it, (first, last) as fractions of the depth. `outline`: of a
    region that is not all of its box.
    """

    question: str
    answer: str = ""
    region: tuple[float, float, float, float] | None = None
    picture: int = 0
    slices: tuple[float, float] | None = None
    outline: Polygon | None = None


class Segment(NamedTuple):
    """One picture in a prompt: `words` that say what it is (or none), and its `tokens` [N, D]."""

    words: str
    tokens: Tensor


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

    Raises CheckpointError if the folder does not hold a model that can be read, ConfigError if the
    model or its settings will not do; the message names the option.
    """

    def __init__(self, folder: Path, config: LanguageConfig) -> None:
        super().__init__()
        self.folder = folder
        tokenizer, base = load_base(folder, config.quantisation)
        self.tokenizer: Any = tokenizer
        self.base: Any = base
        self.attention = attention_of(base.config)
        self.finish = logit_rule(base.config)
        self.width: int = base.get_input_embeddings().weight.shape[1]
        self.prompt = prompt_parts(tokenizer, config.system)
        self.user, self.ask, self.end = map(self._control, self.prompt)
        self.line = self.tokenize("\n")
        self.lead, self.yes, self.no = telling_tokens(self.tokenize("yes"), self.tokenize("no"))
        if base.config.model_type not in KNOWN:
            branches = ([*self.line, *self.ask], self.ask)
            try_out(base, self._hidden, self.logits, self.user, branches)
        self.base = add_lora(base, config.lora)

    @property
    def device(self) -> torch.device:
        return next(self.base.parameters()).device

    def tokenize(self, text: str) -> list[int]:
        """Token ids of plain text: control tokens spelled out in it stay text."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]
        return ids

    def _control(self, text: str) -> list[int]:
        """Token ids of the chat template's own words."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def embed(self, ids: Sequence[int]) -> Tensor:
        """[T, D] embeddings of token ids, scaled where the family scales them."""
        embedding = self.base.get_input_embeddings()
        out: Tensor = embedding(torch.tensor(list(ids), device=self.device, dtype=torch.long))
        return out

    @torch.no_grad()
    def phrases(self, texts: Sequence[str]) -> Tensor:
        """[P, D]: bare words, the mean of their embeddings, each the mean of its tokens'.

        Not hidden states: there a word takes on what stands beside it, and a part of the lungs in
        words that were never taught is no longer recognised.
        """
        words = {word for text in texts for word in text.split()}
        # Within a text, words have a space in front.
        known = {word: self.embed(self.tokenize(f" {word}")).float().mean(dim=0) for word in words}
        return torch.stack(
            [torch.stack([known[word] for word in text.split()]).mean(dim=0) for text in texts]
        )

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """The LoRA parameters by PEFT's names: all of this model that is trained and saved."""
        return adapter_parameters(self.base)

    def sequences(
        self,
        visual: Sequence[Sequence[Segment]],
        turns: Sequence[Sequence[Turn]],
        regions: Sequence[Sequence[Tensor | None]] | None = None,
    ) -> Sequences:
        """Trees of `turns[b]` over the pictures `visual[b]`; `regions[b][i]` is [4, D] or None.

        A turn without an answer ends where its yes or no is told apart.
        """
        embeddings, layouts = [], []
        rows: list[int] = []
        columns: list[int] = []
        targets: list[int] = []
        owners: list[int] = []
        ends: list[tuple[int, int]] = []
        count = 0
        for row, own in enumerate(turns):
            parts = self._trunk(visual[row])
            trunk = sum(map(len, parts))
            start, lengths = trunk, []
            for i, turn in enumerate(own):
                region = regions[row][i] if regions is not None else None
                prompt = [*self.tokenize(turn.question), *self.ask]
                answer = [*self.tokenize(turn.answer), *self.end] if turn.answer else []
                if not turn.answer:
                    prompt += self.lead
                shift = 0 if region is None else len(region)
                if region is not None:
                    parts.append(region.to(parts[0]))
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

    def _trunk(self, pictures: Sequence[Segment]) -> list[Tensor]:
        """The prompt up to its question: the opening, then words, tokens, line end of each."""
        parts = [self.embed(self.user)]
        for words, tokens in pictures:
            if words:
                parts.append(self.embed(self.tokenize(words)))
            parts += [tokens.to(parts[0]), self.embed(self.line)]
        return parts

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

    @torch.no_grad()
    def write(
        self,
        visual: Sequence[Sequence[Segment]],
        turns: Sequence[Turn],
        regions: Sequence[Tensor | None],
        max_tokens: int,
    ) -> list[str]:
        """Greedy answers to `turns`; `visual[t]` are the pictures that turn t is about."""
        prompts = []
        for own, turn, region in zip(visual, turns, regions, strict=True):
            parts = self._trunk(own)
            if region is not None:
                parts.append(region.to(parts[0]))
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
