"""Greedy decoding of many questions at once, with guesses: what it gives, in how many passes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from medvlm.config import LanguageConfig, LoraSettings
from medvlm.model.decoding import Question, buckets, decode
from medvlm.model.language import LanguageModel, Segment, Turn
from tests.families import FAMILIES, tiny_family

END, WORDS = 0, 7
LONGEST = 8


class Parrot:
    """A model whose next token follows from all tokens that it sees, in the order of positions."""

    def __init__(self) -> None:
        self.tokens = torch.zeros(0, 0, dtype=torch.long)
        self.positions = torch.zeros(0, 0, dtype=torch.long)
        self.passes = 0

    def begin(self, trunk: Tensor) -> bool:
        return False

    def __call__(
        self, embeddings: Tensor, positions: Tensor, visible: Tensor, wanted: Tensor
    ) -> Tensor:
        self.passes += 1
        rows = len(embeddings)
        new = embeddings[..., 0].long()
        self.tokens = torch.cat([self.tokens.reshape(rows, -1), new], dim=1)
        self.positions = torch.cat([self.positions.reshape(rows, -1), positions], dim=1)
        logits = torch.zeros(len(wanted), WORDS)
        for number, place in enumerate(wanted.tolist()):
            row, column = divmod(place, positions.shape[1])
            seen = visible[row, column].nonzero()[:, 0].tolist()
            order = sorted(seen, key=lambda i: int(self.positions[row, i]))
            places = [int(self.positions[row, i]) for i in order]
            assert places == list(range(len(places))), "a token sees a gap, or one place twice"
            logits[number, _next([int(self.tokens[row, i]) for i in order])] = 1
        return logits


def _next(tokens: Sequence[int]) -> int:
    return sum((i + 1) * (token + 3) for i, token in enumerate(tokens)) % WORDS


def _embed(ids: Sequence[int]) -> Tensor:
    return torch.tensor(list(ids), dtype=torch.float32)[:, None]


def _alone(tokens: Sequence[int]) -> list[int]:
    """One token after the other."""
    ids: list[int] = []
    while len(ids) < LONGEST and (token := _next([*tokens, *ids])) != END:
        ids.append(token)
    return ids


_TOKENS = st.lists(st.integers(1, WORDS - 1), min_size=1, max_size=5)
_GUESSES = st.lists(st.lists(st.integers(0, WORDS - 1), max_size=LONGEST + 2), max_size=4)


@given(
    st.lists(_TOKENS, min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 2), _TOKENS, _GUESSES, st.booleans()), min_size=1),
)
def test_guesses_right_or_wrong_change_no_answer(
    trunks: list[list[int]], asked: list[tuple[int, list[int], list[list[int]], bool]]
) -> None:
    questions, answers = [], []
    for number, prompt, guesses, right in asked:
        trunk = number % len(trunks)
        answer = _alone([*trunks[trunk], *prompt])
        own = [*guesses, [*answer, END]] if right else guesses
        questions.append(Question(trunk, _embed(prompt), own))
        answers.append(answer)
    model = Parrot()
    found = decode(model, _embed, [_embed(t) for t in trunks], questions, END, LONGEST)
    assert found == answers
    if all(right for *_, right in asked):
        assert model.passes <= 2


def test_without_guesses_there_is_a_pass_for_each_token() -> None:
    model = Parrot()
    (ids,) = decode(model, _embed, [_embed([1])], [Question(0, _embed([2]))], END, LONGEST)
    assert model.passes == min(len(ids) + 1, LONGEST)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(1, 100))
def test_buckets_hold_each_row_once_and_no_more_than_fits(lengths: list[int], most: int) -> None:
    batches = list(buckets(lengths, most))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= most


# ---- with a real model ----


def generated(language: LanguageModel, pictures: Sequence[Segment], turn: Turn, most: int) -> str:
    """The same by transformers' own `generate`, token by token."""
    words = language.tokenize(turn.question) + language.ask
    prompt = torch.cat([*language._trunk(pictures), language.embed(words)])
    with torch.no_grad():
        ids = language.base.generate(
            inputs_embeds=prompt[None],
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=most,
            do_sample=False,
            eos_token_id=language.end[0],
            pad_token_id=language.end[0],
        )
    text: str = language.tokenizer.decode(ids[0], skip_special_tokens=True)
    return text.strip()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_answers_as_generate_does(family: str, tmp_path: Path) -> None:
    config = LanguageConfig(lora=LoraSettings(rank=2, alpha=4))
    language = LanguageModel(tiny_family(tmp_path, family), config).eval().requires_grad_(False)
    pictures = [
        [Segment("", language.embed(language.tokenize(text)))]
        for text in ("left lung and right lung", "no effusion", "mass")
    ]
    turns = [Turn("mass?"), Turn("Is there a nodule in the left lung?"), Turn("hernia?")]
    asked = [(own, turn) for own in pictures for turn in turns]
    expected = [generated(language, own, turn, LONGEST) for own, turn in asked]
    guesses = [[text, f"{text} more", "lung"] for text in expected]
    shown, questions = [own for own, _ in asked], [turn for _, turn in asked]
    nowhere = [None] * len(asked)
    assert language.write(shown, questions, nowhere, LONGEST) == expected
    assert language.write(shown, questions, nowhere, LONGEST, guesses) == expected
    alone = [language.write([own], [turn], [None], LONGEST) for own, turn in asked]
    assert [text for (text,) in alone] == expected


def test_a_region_stands_before_its_question(tiny_language: Path) -> None:
    config = LanguageConfig(lora=LoraSettings(rank=2, alpha=4))
    language = LanguageModel(tiny_language, config).eval().requires_grad_(False)
    seen: list[Tensor] = []
    passes = language.forward_pass

    def spy(**how):  # type: ignore[no-untyped-def]
        own = passes(**how)

        class Spy:
            begin = own.begin

            def __call__(self, embeddings: Tensor, *rest: Tensor) -> Tensor:
                seen.append(embeddings)
                return own(embeddings, *rest)

        return Spy()

    language.forward_pass = spy
    region = torch.ones(4, language.width)
    pictures = [Segment("", language.embed(language.tokenize("left lung")))]
    language.write([pictures], [Turn("mass?")], [region], 1)
    trunk = torch.cat(language._trunk(pictures))
    words = language.embed(language.tokenize("mass?") + language.ask)
    assert torch.equal(seen[0][0], torch.cat([trunk, region, words]))
    assert F.cosine_similarity(region[0], words[0], dim=0) < 0.99
