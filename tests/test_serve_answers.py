"""Questions answered together are answered as each is alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medvlm.dicom.read import read_instance
from medvlm.draft import answers
from medvlm.draft.answer import answer_question
from medvlm.draft.answers import Answered, Asked, answer_many, prompt_length
from medvlm.draft.look import Seen, look_at
from medvlm.draft.trunk import read_together
from medvlm.errors import MedVLMError, UsageError
from medvlm.image.geometry import Box
from medvlm.image.load import ImageInput, load_image
from medvlm.image.polygon import Polygon
from medvlm.model.checkpoint import Checkpoint, load_checkpoint
from medvlm.serve.seen import SeenLately
from tests.dicoms import save, synthetic

QUESTIONS = (
    ("Are there rib fractures?", None),
    ("What kind of fracture is seen?", None),
    ("Where is the left lung?", None),
    ("What is this?", Box(10, 20, 60, 50)),
    ("Is it pretty?", Box(5, 5, 50, 90)),
    ("How large is this area?", Polygon(((5, 5), (90, 10), (40, 80)))),
    ("Is this a PA film?", None),
    ("What modality is this?", None),
)


@pytest.fixture
def checkpoint(tiny: Path) -> Checkpoint:
    return load_checkpoint(str(tiny))


@pytest.fixture
def images(tmp_path: Path) -> list[ImageInput]:
    numbers = np.random.default_rng(0)
    made = []
    for i, size in enumerate([(100, 120), (140, 100), (96, 96)]):
        pixels = numbers.integers(0, 4000, size).astype(np.uint16)
        made.append(load_image(read_instance(save(synthetic(pixels), tmp_path / f"{i}.dcm"))))
    return made


def test_together_as_alone(checkpoint: Checkpoint, images: list[ImageInput]) -> None:
    asked = [Asked(image, text, region) for image in images for text, region in QUESTIONS]
    together = answer_many(checkpoint, asked)
    asked_model = 0
    for one, got in zip(asked, together, strict=True):
        alone = answer_question(checkpoint, one.image, one.question, one.region)
        assert isinstance(got, Answered)
        asked_model += got.prompt_tokens > 0
        assert got.answer.answer == alone.answer
        assert got.answer.probability == pytest.approx(alone.probability, abs=2e-4)
        same = {"probability": None}
        assert got.answer.model_copy(update=same) == alone.model_copy(update=same)
    assert asked_model >= 2 * len(images)


def test_a_bad_question_harms_no_other(checkpoint: Checkpoint, images: list[ImageInput]) -> None:
    image = images[0]
    asked = [
        Asked(image, " "),
        Asked(image, "Are there rib fractures?"),
        Asked(image, "What is this?", Box(1000, 1000, 5, 5)),
    ]
    empty, good, outside = answer_many(checkpoint, asked)
    assert isinstance(empty, UsageError)
    assert isinstance(outside, UsageError)
    assert isinstance(good, Answered)
    alone = answer_question(checkpoint, image, "Are there rib fractures?")
    assert good.answer.answer == alone.answer
    assert answer_many(checkpoint, []) == []


def test_an_image_is_looked_at_once(
    checkpoint: Checkpoint, images: list[ImageInput], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []

    def counted(checkpoint: Checkpoint, images: Sequence[ImageInput]) -> list[Seen]:
        looked.append(len(images))
        return list(look_at(checkpoint, images))

    monkeypatch.setattr(answers, "look_at", counted)
    before = SeenLately(1 << 30)
    asked = [Asked(images[0], text, region) for text, region in QUESTIONS]
    first = answer_many(checkpoint, [*asked, Asked(images[1], "Is it pretty?")], before)
    again = answer_many(checkpoint, asked, before)
    assert looked == [2, 0]
    assert not any(isinstance(one, MedVLMError) for one in first)
    assert again == first[: len(asked)]


@pytest.mark.parametrize(("text", "region"), [QUESTIONS[0], QUESTIONS[4], QUESTIONS[5]])
def test_the_length_of_a_prompt_is_what_is_read(
    checkpoint: Checkpoint, images: list[ImageInput], text: str, region: Box | None
) -> None:
    from medvlm.draft.answer import Wanted
    from medvlm.draft.known import own_region

    (seen,) = look_at(checkpoint, images[:1])
    trunk = read_together(checkpoint, [seen])
    turn = trunk.turn(text, None if region is None else own_region(seen, region))
    row = checkpoint.model.sequences(trunk.sight, [[turn]])
    assert prompt_length(checkpoint.model, Wanted(trunk, turn, True)) == row.embeddings.shape[1]


def test_what_was_seen_is_bounded(checkpoint: Checkpoint, images: list[ImageInput]) -> None:
    seen = list(look_at(checkpoint, images))
    whole = SeenLately(1 << 30)
    for i, own in enumerate(seen):
        whole.put((str(i), 0), own)
    assert all(whole.get((str(i), 0)) is not None for i in range(3))
    kept = whole.get(("1", 0))
    assert kept is not None
    # A copy of its own: what it was seen beside can go.
    assert kept.sight.tokens.untyped_storage().nbytes() == kept.sight.tokens.nbytes
    assert kept.score_maps.base is None
    assert np.array_equal(kept.score_maps, seen[1].score_maps)

    small = SeenLately(whole.bytes - 1)
    for i, own in enumerate(seen[:2]):
        small.put((str(i), 0), own)
    assert small.get(("0", 0)) is not None  # asked for last, so the other one goes
    small.put(("2", 0), seen[2])
    assert small.get(("1", 0)) is None
    assert small.get(("0", 0)) is not None
    assert small.bytes <= small.most
    none = SeenLately(0)
    none.put(("0", 0), replace(seen[0]))
    assert none.get(("0", 0)) is None
    assert none.bytes == 0
