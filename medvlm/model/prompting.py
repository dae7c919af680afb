"""What a language model is given and how its words are read, whatever runs it.

A prompt is the chat template's bare user turn (`medvlm.model.chat`) with the pictures in front of
the question; for SmolLM2:
`<|im_start|>user\n[N visual tokens]\n[4 region tokens]question<|im_end|>\n<|im_start|>assistant\n`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from medvlm.errors import UsageError
from medvlm.image.polygon import Polygon
from medvlm.model.chat import prompt_parts, telling_tokens
from medvlm.model.decoding import Forward, Question, buckets, decode
from medvlm.model.tree import lay_out, stack

# Part of the checkpoint's contract: weights trained on one wording do not fit another.
PROMPT_VERSION = "2"
# Tokens of a pass, padding included: enough for a GPU, bounded however many ask at once.
MOST_TOKENS = 8192


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


class Prompter(nn.Module):
    """Prompts and answers of a causal language model; what runs it is the subclass's."""

    folder: Path
    width: int
    longest: int
    """Positions that a prompt and its answer may take."""

    def prepare(self, tokenizer: Any, system: str | None) -> None:
        """Takes the chat template apart. Raises ConfigError if that cannot be done."""
        self.tokenizer = tokenizer
        self.prompt = prompt_parts(tokenizer, system)
        self.user, self.ask, self.end = map(self._control, self.prompt)
        self.line = self.tokenize("\n")
        self.lead, self.yes, self.no = telling_tokens(self.tokenize("yes"), self.tokenize("no"))

    def require_length(self, count: int) -> None:
        """Raises UsageError if a prompt takes more positions than the model knows."""
        if count > self.longest:
            raise UsageError(
                f"the question is too long: with the pictures it takes {count} tokens of "
                f"{self.longest}",
                remedy="ask in fewer words",
            )

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where its tensors lie."""

    @abstractmethod
    def embed(self, ids: Sequence[int]) -> Tensor:
        """[T, D] embeddings of token ids, scaled where the family scales them."""

    @abstractmethod
    def yes_no_margins(self, sequences: Sequences) -> Tensor:
        """[T] logit of "yes" minus logit of "no" after each turn's prompt, in the turns' order.

        Where a word has several tokens, the first that tells the two apart counts.
        """

    @abstractmethod
    def forward_pass(self, *, exactly: bool = False) -> Forward:
        """A pass that has read nothing yet; `exactly`: nothing of it is rounded for speed."""

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
        self.require_length(int(positions.max()) + 1)
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

    @torch.no_grad()
    def write(
        self,
        visual: Sequence[Sequence[Segment]],
        turns: Sequence[Turn],
        regions: Sequence[Tensor | None],
        max_tokens: int,
        guesses: Sequence[Sequence[str]] = (),
        *,
        exactly: bool = False,
    ) -> list[str]:
        """Greedy answers to `turns`; `visual[t]` are the pictures that turn t is about.

        Turns that share one list of pictures read it once. `guesses[t]`: what turn t's answer may
        be; right or wrong, the answers are the same, but those that were guessed come sooner.
        `exactly`: in the weights' own precision, where a model writes faster in a lower one.
        """
        trunks: dict[int, int] = {}
        pictures: list[Tensor] = []
        questions = []
        for t, (own, turn, region) in enumerate(zip(visual, turns, regions, strict=True)):
            if id(own) not in trunks:
                trunks[id(own)] = len(pictures)
                pictures.append(torch.cat(self._trunk(own)))
            words = self.embed(self.tokenize(turn.question) + self.ask)
            prompt = words if region is None else torch.cat([region.to(words), words])
            ends = [[*self.tokenize(text), *self.end] for text in (guesses[t] if guesses else ())]
            questions.append(Question(trunks[id(own)], prompt, ends))
        ids = self._decode(pictures, questions, max_tokens, exactly)
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def _decode(
        self,
        trunks: Sequence[Tensor],
        questions: Sequence[Question],
        max_tokens: int,
        exactly: bool,
    ) -> list[list[int]]:
        """The answers' token ids, read in batches of trunks of like length."""
        asked: list[list[int]] = [[] for _ in trunks]
        for number, question in enumerate(questions):
            asked[question.trunk].append(number)
        lengths = [
            len(trunk) + sum(len(questions[i].prompt) for i in own)
            for trunk, own in zip(trunks, asked, strict=True)
        ]
        self.require_length(
            max((len(trunks[q.trunk]) + len(q.prompt) for q in questions), default=0) + max_tokens
        )
        answers: list[list[int]] = [[] for _ in questions]
        for rows in buckets(lengths, MOST_TOKENS):
            numbers = [i for row in rows for i in asked[row]]
            placed = [questions[i]._replace(trunk=rows.index(questions[i].trunk)) for i in numbers]
            found = decode(
                self.forward_pass(exactly=exactly),
                self.embed,
                [trunks[row] for row in rows],
                placed,
                self.end[0],
                max_tokens,
            )
            for i, ids in zip(numbers, found, strict=True):
                answers[i] = ids
        return answers
