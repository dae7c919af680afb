"""Places that words name: parts of the lungs, and the head that finds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from medvlm.draft.anatomy import (
    PARTS,
    SIDES,
    Part,
    asked_part,
    known_part,
    part_masks,
    wordings,
)
from medvlm.draft.answer import reply
from medvlm.draft.known import NOT_FOUND
from medvlm.draft.look import Seen, look_at
from medvlm.draft.phrases import phrase_maps, read_part
from medvlm.errors import CheckpointError
from medvlm.image.load import ImageInput
from medvlm.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from medvlm.model.extras import FILE, Extras, load_extras, save_extras
from medvlm.model.language import LanguageModel
from medvlm.model.phrase_head import KINDS, PhraseHead, lung_places
from medvlm.train.phrase_head import film_targets
from medvlm.train.phrase_reading import Meaning, Taught, fit_choices, fit_familiarity
from medvlm.train.phrase_words import OTHERS, taught_wordings
from tests.test_draft import with_points

ROWS = slice(4, 34)


def lungs() -> dict:
    masks = {side: np.zeros((40, 40), bool) for side in ("right", "left")}
    masks["right"][ROWS, 4:16] = True
    masks["left"][ROWS, 22:37] = True
    return masks


@pytest.fixture
def checkpoint(tiny: Path) -> Checkpoint:
    loaded = load_checkpoint()
    torch.manual_seed(0)
    head = PhraseHead(loaded.model.vision.encoder.channels, loaded.model.language.width)
    loaded = replace(loaded, extras=Extras(phrases=head.eval().requires_grad_(False)))
    return with_points(loaded, frontal_chest=0.0)


@pytest.fixture
def seen(checkpoint: Checkpoint) -> Seen:
    pixels = np.random.default_rng(0).random((300, 300)).astype(np.float32)
    return next(look_at(checkpoint, [ImageInput(pixels, "film", "0" * 64, False)]))


# ---- parts ----


def test_zones_are_thirds_and_the_rest_lies_where_it_is_called() -> None:
    parts = part_masks(lungs())
    zones = [parts[Part("left", f"{name} zone")] for name in ("upper", "mid", "lower")]
    assert [zone.sum() for zone in zones] == [150, 150, 150]
    assert (sum(zones) == parts[Part("left", "lung")]).all()
    assert parts[Part("both", "lung")].sum() == 30 * 12 + 30 * 15
    angle = parts[Part("left", "costophrenic angle")]
    rows, columns = np.nonzero(angle)
    assert rows.min() >= 26
    assert columns.min() >= 32  # the outer side of the patient's left lung
    rows, columns = np.nonzero(parts[Part("right", "costophrenic angle")])
    assert columns.max() <= 8
    rows, columns = np.nonzero(parts[Part("right", "perihilar region")])
    assert columns.min() >= 12
    assert set(parts) == {Part(s, n) for s in ("right", "left", "both") for n in PARTS}  # type: ignore[arg-type]


def test_one_lung_has_no_parts_of_both() -> None:
    parts = part_masks({"right": lungs()["right"], "left": np.zeros((40, 40), bool)})
    assert {part.side for part in parts} == {"right"}


def test_no_wording_means_two_parts_and_the_unseen_are_unseen() -> None:
    owner: dict[str, Part] = {}
    for name in PARTS:
        for side in ("right", "left", "both"):
            part = Part(side, name)  # type: ignore[arg-type]
            for text in {*wordings(part), *wordings(part, unseen=True)}:
                assert owner.setdefault(text, part) == part
            assert not {*wordings(part)} & {*wordings(part, unseen=True)}


@pytest.mark.parametrize(
    ("question", "phrase"),
    [
        ("Where is the left lower zone?", "the left lower zone"),
        ("Show me the right apex.", "the right apex"),
        ("Where are the costophrenic angles?", "the costophrenic angles"),
        ("Where is the left lung?", None),  # the lungs' own question
        ("Where is the heart?", None),
        ("Where is the lesion in the left lower zone?", None),
        ("Is the left apex clear?", None),
        ("Where is the tip?", None),  # of what?
        ("Where is the apex?", None),
        ("Show me the base.", None),
    ],
)
def test_a_part_is_asked_for(question: str, phrase: str | None) -> None:
    assert asked_part(question) == phrase


# ---- the head ----


def test_places_say_where_in_a_lung_a_cell_is() -> None:
    maps = torch.from_numpy(np.stack([lungs()["right"], lungs()["left"]])).float()[None]
    places = lung_places(maps)[0]
    above = places[2]
    assert above[3, 0] == pytest.approx(0, abs=1e-3)
    assert above[18, 0] == pytest.approx(0.5, abs=0.02)
    assert above[39, 0] == pytest.approx(1, abs=1e-3)
    # The same film, further down: the same places.
    moved = lung_places(maps.roll(3, dims=2))[0]
    assert torch.allclose(moved[2:4, 3:], places[2:4, :-3], atol=1e-3)
    assert lung_places(torch.zeros(1, 2, 8, 8)).isfinite().all()


def test_the_head_learns_what_words_mean() -> None:
    """Two phrases on one film, told apart after some steps."""
    torch.manual_seed(0)
    head = PhraseHead((4, 6, 8), 16)
    maps = torch.from_numpy(np.stack([lungs()["right"], lungs()["left"]])).float()[None]
    from medvlm.model.encoder import Features

    features = Features(*(torch.randn(1, c, n, n) for c, n in ((4, 40), (6, 20), (8, 10))))
    phrases = torch.randn(2, 16)
    parts = part_masks(lungs())
    truth = torch.from_numpy(
        np.stack([parts[Part("left", "lower zone")], parts[Part("right", "apex")]])
    ).float()[None]
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-2)
    for _ in range(80):
        logits = head(features, maps, phrases)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    said = head(features, maps, phrases) > 0
    overlap = (said & truth.bool()).sum() / (said | truth.bool()).sum()
    assert overlap > 0.8


def test_targets_are_parts_and_opacities_in_them() -> None:
    opacity = np.zeros((40, 40), bool)
    opacity[28:32, 6:12] = True
    targets = {t.meaning: t.mask for t in film_targets(lungs(), opacity)}
    assert (targets[Meaning("opacity", Part("right", "lower zone"))] == opacity).all()
    assert not targets[Meaning("opacity", Part("left", "lung"))].any()
    assert len(film_targets(lungs(), None)) == 3 * len(PARTS)
    assert film_targets({}, None) == []


# ---- what words mean ----


def test_what_is_never_taught_is_not_taught() -> None:
    taught = taught_wordings()
    assert len({own.text for own in taught}) == len(taught)
    words = {word for own in taught for word in own.text.split()}
    words |= {word for other in OTHERS for word in other.split()}
    for word in ("top", "bottom", "tip", "apical", "basal", "recess", "around", "part", "root"):
        assert word not in words
    texts = {own.text for own in taught}
    for name in PARTS:
        for side in ("right", "left"):
            assert {*wordings(Part(side, name))} <= texts  # type: ignore[arg-type]
            assert not texts & {*wordings(Part(side, name), unseen=True)}  # type: ignore[arg-type]


def test_every_taught_wording_means_its_part() -> None:
    for own in taught_wordings():
        if own.kind == "part" and own.part.side != "both":
            assert own.part.side in own.text
        known = known_part(own.text)
        assert known is None or own.kind != "part" or known.side == own.part.side


class _OneHot:
    """A language model in which every word is its own direction."""

    def __init__(self) -> None:
        words = {w for own in taught_wordings() for w in own.text.split()}
        words |= {w for other in OTHERS for w in other.split()} | {"pancreas"}
        self.place = {word: i for i, word in enumerate(sorted(words))}
        self.width = len(words)

    def phrases(self, texts: Sequence[str]) -> torch.Tensor:
        read = torch.zeros(len(texts), self.width)
        for row, text in zip(read, texts, strict=True):
            for word in text.split():
                row[self.place[word]] += 1 / len(text.split())
        return read


def test_words_are_read_for_side_and_part_whatever_they_go_with() -> None:
    language = cast("LanguageModel", _OneHot())
    head = PhraseHead((4, 6, 8), language.width)
    taught = Taught.of(language)
    fit_choices(head, taught)
    fit_familiarity(head, taught, language)
    for text, part in (
        ("caudal section of the left lung", Part("left", "lower zone")),
        ("right cranial extremity", Part("right", "apex")),
        ("hilar level on the patient's left", Part("left", "perihilar region")),
    ):
        side, name, kind = (
            int(own.argmax()) for own in head.read(language.phrases([text.replace("the ", "")]))
        )
        assert (SIDES[side], list(PARTS)[name], KINDS[kind]) == (*part, "part")
    asked = language.phrases(["pneumonia in right lower zone"])
    assert KINDS[int(head.read(asked).kind.argmax())] == "opacity"
    known, strange = (
        head.familiarity(language.phrases(text.split()))
        for text in ("left caudal zone", "left caudal kidney")
    )
    assert known > 0.75 > 0.25 > strange
    assert not head.choices.weight.requires_grad


# ---- in the product ----


def test_a_part_that_rules_know_comes_from_the_lungs(checkpoint: Checkpoint, seen: Seen) -> None:
    dense = np.zeros((3, 40, 40), np.float32)
    dense[0], dense[1] = lungs()["right"], lungs()["left"]
    film = replace(seen, dense=dense)
    scale = 300 / 40  # the film is square and fills the grid
    (region,) = reply(checkpoint, film, "Where is the left lower zone?").regions
    assert (region.x, region.y) == pytest.approx((22 * scale, 24 * scale))
    assert (region.width, region.height) == pytest.approx((15 * scale, 10 * scale))
    both = reply(checkpoint, film, "Can you show me the costophrenic angles?").regions
    assert len(both) == 2
    assert both[0].x < 150 < both[1].x
    none = replace(seen, dense=np.zeros((3, 40, 40), np.float32))
    assert reply(checkpoint, none, "Where is the left lower zone?").text == NOT_FOUND


def test_a_phrase_is_read_where_its_words_are_near(checkpoint: Checkpoint, seen: Seen) -> None:
    head = checkpoint.extras.phrases
    assert head is not None
    head.near.weight.zero_()
    for familiar, said in ((0.0, None), (1.0, Part("left", "apex"))):
        head.near.bias.fill_(familiar)
        for layer, chosen in ((head.choices, (1, 3 + 4, 11)),):
            layer.weight.zero_()
            layer.bias.zero_()
            layer.bias[list(chosen)] = 1.0
        assert read_part(checkpoint, "whatever of the left lung") == said
    head.choices.bias[4] = 1.0  # as much an upper zone
    assert read_part(checkpoint, "whatever of the left lung") is None
    head.choices.bias[3] = 9.0  # a whole lung is what is left of words that say nothing
    assert read_part(checkpoint, "whatever of the left lung") is None
    assert read_part(replace(checkpoint, extras=Extras()), "left apex") is None
    question = "Where is the tip of the left lung?"
    assert reply(checkpoint, seen, question).regions == []


def test_the_head_draws_a_map_for_each_phrase(checkpoint: Checkpoint, seen: Seen) -> None:
    maps = phrase_maps(checkpoint, seen, ["left lower zone", "right apex"])
    assert maps is not None
    assert maps.shape == (2, *seen.dense.shape[1:])
    assert ((maps > 0) & (maps < 1)).all()
    assert not np.allclose(maps[0], maps[1])
    assert phrase_maps(replace(checkpoint, extras=Extras()), seen, ["x"]) is None


@pytest.mark.parametrize("name", [name for name in PARTS if name != "lung"])
@pytest.mark.parametrize("side", ["right", "left", "both"])
def test_rules_know_every_taught_name(name: str, side: str) -> None:
    part = Part(side, name)  # type: ignore[arg-type]
    assert {known_part(text) for text in wordings(part)} == {part}
    assert {known_part(text) for text in wordings(part, unseen=True)} <= {part, None}


@pytest.mark.parametrize("phrase", ["the tip of the left lung", "left upper and lower zones", ""])
def test_what_rules_do_not_know_they_leave(phrase: str) -> None:
    assert known_part(phrase) is None


def test_phrases_are_read_as_alone_in_any_company(checkpoint: Checkpoint) -> None:
    language = checkpoint.model.language
    together = language.phrases(["left apex", "the base of the right lung"])
    alone = language.phrases(["left apex"])
    assert torch.allclose(together[0], alone[0], atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_the_head_travels_in_the_checkpoint(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "with"
    save_checkpoint(checkpoint.model, checkpoint.config, folder, checkpoint.extras)
    found = load_checkpoint(str(folder)).extras.phrases
    given = checkpoint.extras.phrases
    assert found is not None
    assert given is not None
    assert all(
        torch.equal(a, b) for a, b in zip(given.parameters(), found.parameters(), strict=True)
    )
    broken = PhraseHead((4, 6, 8), 16)
    del broken.query
    save_extras(Extras(phrases=broken), tmp_path / FILE)
    with pytest.raises(CheckpointError, match="does not fit"):
        load_extras(tmp_path / FILE, (), (4, 6, 8), 16)
