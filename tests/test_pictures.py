"""Several pictures before one question: words, tokens, sources; one alone is as it always was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medvlm.config import ConnectorConfig, ModelConfig, PicturesConfig
from medvlm.model.connectors import Cell
from medvlm.model.language import Segment, Turn
from medvlm.model.pictures import (
    WHOLE,
    Picture,
    Sight,
    introductions,
    pictures_count,
    together,
    token_sources,
)
from medvlm.model.vlm import VisionLanguageModel
from tests.tiny import tiny_model

TURNS = [Turn("mass?"), Turn("hernia?")]
VIEW, PRIOR = Picture("view"), Picture("prior")


@pytest.fixture(scope="module")
def model(tiny_language: Path) -> VisionLanguageModel:
    return tiny_model(tiny_language)


@pytest.fixture(scope="module")
def sight(model: VisionLanguageModel) -> Sight:
    """Three pictures, each a row of its own."""
    images = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(3))
    return model.glimpse(images)


def test_each_picture_is_introduced_by_what_it_is() -> None:
    assert introductions([VIEW]) == [""]
    assert introductions([VIEW, PRIOR]) == ["Current image:", "Prior image:"]
    two = [Picture("view", 0), Picture("tile", 0, (1, 2)), Picture("view", 1), PRIOR]
    assert introductions(two) == [
        "Current image 1:",
        "Detail of image 1, row 2, column 3:",
        "Current image 2:",
        "Prior image:",
    ]
    assert introductions([VIEW, Picture("tile", 0, (0, 0))])[1] == "Detail, row 1, column 1:"
    assert introductions([Picture("slice", 11)]) == ["Slice 12:"]


def test_one_current_picture_is_bit_for_bit_the_bare_prompt(
    model: VisionLanguageModel, sight: Sight
) -> None:
    bare = model.language.sequences([[Segment("", sight.tokens[1])]], [TURNS])
    for alone in (sight.row(1), together([(sight.row(1), VIEW)])):
        own = model.sequences(alone, [TURNS])
        assert torch.equal(own.embeddings, bare.embeddings)
        assert torch.equal(model.margins(alone, TURNS), model.language.yes_no_margins(bare))


def test_every_picture_and_what_it_is_called_counts(
    model: VisionLanguageModel, sight: Sight
) -> None:
    def margins(*parts: tuple[int, Picture]) -> torch.Tensor:
        return model.margins(together([(sight.row(i), picture) for i, picture in parts]), TURNS)

    with_prior = margins((0, VIEW), (1, PRIOR))
    assert not torch.allclose(with_prior, margins((0, VIEW)))
    assert not torch.allclose(with_prior, margins((0, VIEW), (2, PRIOR)))
    assert not torch.allclose(with_prior, margins((1, VIEW), (0, PRIOR)))
    assert not torch.allclose(with_prior, margins((0, VIEW), (1, Picture("view", 1))))


def test_rows_of_unequal_numbers_of_pictures_make_a_batch(
    model: VisionLanguageModel, sight: Sight
) -> None:
    rows = (((0, VIEW), (1, PRIOR)), ((2, VIEW),))
    batch = Sight(sight.tokens, sight.local, rows)
    turns = [TURNS, [Turn("nodule?", region=(4.0, 4.0, 40.0, 40.0))]]
    together_margins = model.language.yes_no_margins(model.sequences(batch, turns))
    single = [model.margins(batch.row(i), own) for i, own in enumerate(turns)]
    torch.testing.assert_close(together_margins, torch.cat(single), atol=1e-5, rtol=1e-4)
    alone = model.margins(sight.row(2), turns[1])
    torch.testing.assert_close(single[1], alone, atol=1e-5, rtol=1e-4)


def test_a_region_is_read_from_the_picture_it_names(
    model: VisionLanguageModel, sight: Sight
) -> None:
    pair = together([(sight.row(0), VIEW), (sight.row(1), PRIOR)])
    box = (8.0, 16.0, 40.0, 60.0)
    turns = [Turn("mass?", region=box), Turn("mass?", region=box, picture=1)]
    found = model._regions(pair, [turns])[0]
    for own, local in zip(found, (sight.row(0).local, sight.row(1).local), strict=True):
        (expected,) = model.connector.region_tokens(local, torch.tensor([[0.0, *box]]))
        torch.testing.assert_close(own, expected)
    assert not torch.allclose(*model.margins(pair, turns))
    written = model.write(pair, turns, max_tokens=4)
    assert written == [model.write(pair, [turn], max_tokens=4)[0] for turn in turns]


def test_every_visual_token_knows_its_picture_and_cell(
    model: VisionLanguageModel, sight: Sight
) -> None:
    pair = together([(sight.row(0), VIEW), (sight.row(1), PRIOR)])
    sources = model.sources(pair)
    assert len(sources) == pair.tokens.shape[0] * pair.tokens.shape[1] == 8
    assert [source.picture for source in sources] == [0] * 4 + [1] * 4
    assert sources[6].cell == Cell(0.0, 0.5, 0.5, 1.0)
    assert [source.cell for source in token_sources(1, [None, None])] == [WHOLE, WHOLE]


@pytest.mark.parametrize(
    ("pictures", "tokens", "expected"),
    [
        (PicturesConfig(views=1), (8, 8), (1, 64)),
        (PicturesConfig(views=2, prior=True), (8, 8), (3, 192)),
        (PicturesConfig(views=2, prior=True, tiles=(2, 3)), (5, 5), (15, 375)),
        (PicturesConfig(views=1, slices=16), (4, 4), (16, 256)),
    ],
)
def test_how_much_is_seen_at_most(
    pictures: PicturesConfig, tokens: tuple[int, int], expected: tuple[int, int]
) -> None:
    config = ModelConfig(pictures=pictures, connector=ConnectorConfig(tokens=tokens))
    assert pictures_count(config) == expected
