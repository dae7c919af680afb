"""Several questions at once, each answered as it is alone.

Images are looked at in one batch, and whatever the language model is asked about any of them is
asked in one batch, too. A question that cannot be answered harms no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from medvlm.dicom.study import Study
from medvlm.draft.answer import (
    LONGEST,
    Replying,
    Wanted,
    beside,
    recorded,
    region_inside,
    replying,
)
from medvlm.draft.look import Seen, look_at
from medvlm.errors import MedVLMError
from medvlm.image.load import ImageInput
from medvlm.image.polygon import Drawn
from medvlm.model.checkpoint import Checkpoint
from medvlm.model.connectors.interface import REGION_TOKENS
from medvlm.model.pictures import Sight, introductions
from medvlm.model.vlm import VisionLanguageModel
from medvlm.records import Answer

ImageKey = tuple[str, int]
"""The sha256 of an image's file, and its frame."""


@dataclass(frozen=True)
class Asked:
    """A question; `region` in source pixels. `study`: the one that the image belongs to."""

    image: ImageInput = field(repr=False)
    question: str = field(repr=False)
    region: Drawn | None = None
    study: Study | None = None

    @property
    def key(self) -> ImageKey:
        """What tells the image from others."""
        return self.image.sha256, self.image.frame


@dataclass(frozen=True)
class Answered:
    """An answer, and what the language model had to do for it.

    Attributes:
        prompt_tokens: read by it, the visual tokens included; 0 where it was not asked.
        completion_tokens: of the answer that it wrote, or decided; 0 where it was not asked.
    """

    answer: Answer
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def cut(self) -> bool:
        """Whether it was still writing when it had to stop."""
        return self.completion_tokens >= LONGEST


class SeenBefore(Protocol):
    """What was seen of images asked about before."""

    def get(self, key: ImageKey) -> Seen | None:
        """What was seen of the image, if that is still known."""

    def put(self, key: ImageKey, seen: Seen) -> None:
        """Remembers it for a while."""


def answer_many(
    checkpoint: Checkpoint, asked: Sequence[Asked], before: SeenBefore | None = None
) -> list[Answered | MedVLMError]:
    """Answers questions over any images, in order; an error stands where a question has none.

    `before`: what need not be looked at again, and where what was looked at is put.
    """
    out: dict[int, Answered | MedVLMError] = {}
    regions: dict[int, Drawn | None] = {}
    for i, one in enumerate(asked):
        try:
            regions[i] = region_inside(one.image, one.question, one.region)
        except MedVLMError as error:
            out[i] = error
    seen = _looked(checkpoint, [asked[i] for i in regions], before)
    makings = {
        i: _making(checkpoint, seen[asked[i].key], asked[i], region)
        for i, region in regions.items()
    }
    read: dict[int, int] = dict.fromkeys(makings, 0)
    told: dict[int, float | str | None] = dict.fromkeys(makings)
    while told:
        wanted: dict[int, Wanted] = {}
        for i, word in told.items():
            try:
                wanted[i] = next(makings[i]) if word is None else makings[i].send(word)
            except StopIteration as end:
                answer = recorded(checkpoint, seen[asked[i].key], asked[i].question, end.value)
                wrote = len(checkpoint.model.language.tokenize(answer.answer)) if read[i] else 0
                out[i] = Answered(answer, read[i], wrote)
            except MedVLMError as error:
                out[i] = error
        told = dict(zip(wanted, _tell(checkpoint.model, list(wanted.values())), strict=True))
        for i, one_wanted in wanted.items():
            read[i] += prompt_length(checkpoint.model, one_wanted)
    return [out[i] for i in range(len(asked))]


def prompt_length(model: VisionLanguageModel, wanted: Wanted) -> int:
    """How many tokens the language model reads to tell what is wanted."""
    language, sight, turn = model.language, wanted.trunk.sight, wanted.turn
    (pictures,) = sight.shown
    words = introductions([picture for _, picture in pictures])
    count = len(language.user) + len(language.tokenize(turn.question)) + len(language.ask)
    count += sum(len(language.tokenize(own)) for own in words if own)
    count += len(pictures) * (sight.tokens.shape[1] + len(language.line))
    count += 0 if turn.region is None else REGION_TOKENS
    return count + (len(language.lead) if wanted.closed else 0)


def _looked(
    checkpoint: Checkpoint, asked: Sequence[Asked], before: SeenBefore | None
) -> dict[ImageKey, Seen]:
    """What is seen of each image; one that several ask about is looked at once."""
    images = {one.key: one.image for one in asked}
    seen: dict[ImageKey, Seen] = {}
    if before is not None:
        seen = {key: known for key in images if (known := before.get(key)) is not None}
    new = {key: image for key, image in images.items() if key not in seen}
    for key, own in zip(new, look_at(checkpoint, list(new.values())), strict=True):
        seen[key] = own
        if before is not None:
            before.put(key, own)
    return seen


def _making(checkpoint: Checkpoint, seen: Seen, one: Asked, region: Drawn | None) -> Replying:
    views = [seen, *beside(checkpoint, seen, one.study)]
    return (yield from replying(checkpoint, seen, one.question, region, views=views))


@torch.no_grad()
def _tell(model: VisionLanguageModel, wanted: Sequence[Wanted]) -> list[float | str]:
    """What the language model says to each, in order."""
    out: dict[int, float | str] = {}
    for closed in (True, False):
        # Questions about the same pictures read them once.
        rows: dict[int, list[int]] = {}
        for i, one in enumerate(wanted):
            if one.closed is closed:
                rows.setdefault(id(one.trunk.sight), []).append(i)
        if not rows:
            continue
        sight = _side_by_side([wanted[own[0]].trunk.sight for own in rows.values()])
        turns = [[wanted[i].turn for i in own] for own in rows.values()]
        numbers = [i for own in rows.values() for i in own]
        if closed:
            margins = model.language.yes_no_margins(model.sequences(sight, turns))
            out |= zip(numbers, map(float, margins), strict=True)
        else:
            texts = model.write_rows(sight, turns, LONGEST)
            out |= zip(numbers, texts, strict=True)
    return [out[i] for i in range(len(wanted))]


def _side_by_side(sights: Sequence[Sight]) -> Sight:
    """Sights of one row each as the rows of one."""
    rows, first = [], 0
    for sight in sights:
        (pictures,) = sight.shown
        rows.append(tuple((first + i, picture) for i, picture in pictures))
        first += len(sight.tokens)
    return Sight(
        torch.cat([sight.tokens for sight in sights]),
        torch.cat([sight.local for sight in sights]),
        tuple(rows),
    )
