"""The model's parts: shapes, golden numbers of the tiny model, and what must hold exactly."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlm.config import ConnectorConfig, EncoderConfig
from medvlm.errors import CheckpointError
from medvlm.model.checkpoint import WEIGHTS, load_checkpoint, resolve_checkpoint, trained_weights
from medvlm.model.connectors import build_connector
from medvlm.model.encoder import Encoder, Features
from medvlm.model.language import LanguageModel, Turn
from medvlm.model.tree import lay_out, stack
from medvlm.model.vision import VisionModel
from medvlm.model.vlm import VisionLanguageModel
from tests.tiny import TINY, tiny_model


@pytest.fixture(scope="module")
def model(tiny_language: Path) -> VisionLanguageModel:
    return tiny_model(tiny_language)


def test_every_size_divisible_by_32_gives_maps_at_three_strides() -> None:
    encoder = Encoder(EncoderConfig(size=64)).eval()
    for size in (64, 96, 160):
        features = encoder(torch.rand(1, 1, size, size))
        assert [tuple(m.shape[-2:]) for m in features] == [(size // s,) * 2 for s in (8, 16, 32)]
        assert tuple(m.shape[1] for m in features) == encoder.channels


def test_heads_read_what_the_encoder_gives() -> None:
    look = VisionModel(TINY.encoder).eval()(torch.rand(2, 1, 64, 64))
    assert look.findings.shape == (2, 15)
    assert look.maps.shape == (2, 15, 4, 4)
    assert look.dense.shape == (2, 3, 8, 8)


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(4, 12), columns=st.integers(4, 12))
def test_the_connector_takes_any_height_and_width(rows: int, columns: int) -> None:
    torch.manual_seed(0)
    connector = build_connector(ConnectorConfig(tokens=(8, 8), width=16, depth=1), (4, 6, 8), 24)
    middle = torch.rand(1, 6, rows * 2, columns * 2)
    coarse = torch.rand(1, 8, rows, columns)
    tokens, local = connector(Features(coarse.new_empty(0), middle, coarse))
    assert tokens.shape == (1, 64, 24)
    assert local.shape[-2:] == middle.shape[-2:]
    assert tokens.isfinite().all()


def test_tokens_keep_their_place() -> None:
    """A change in the top left corner moves the first token more than the last."""
    torch.manual_seed(0)
    connector = build_connector(ConnectorConfig(tokens=(4, 4), width=16, depth=1), (4, 6, 8), 24)
    middle, coarse = torch.rand(1, 6, 16, 16), torch.rand(1, 8, 8, 8)
    before, _ = connector(Features(middle[:0], middle, coarse))
    changed = middle.clone()
    changed[..., :3, :3] += 3
    after, _ = connector(Features(middle[:0], changed, coarse))
    moved = (after - before).norm(dim=-1)[0]
    assert moved[0] > 2 * moved[-1]


def test_a_branch_is_worth_what_it_is_alone(model: VisionLanguageModel) -> None:
    sight = model.sight(model.look(torch.rand(1, 1, 64, 64)).features)
    turns = [
        Turn("mass?"),
        Turn("Is there a nodule?", region=(8.0, 8.0, 40.0, 40.0)),
        Turn("effusion?"),
    ]
    together = model.margins(sight, turns)
    alone = torch.cat([model.margins(sight, [turn]) for turn in turns])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_another_region_or_image_changes_the_answer(model: VisionLanguageModel) -> None:
    torch.manual_seed(1)
    sight = model.sight(model.look(torch.rand(2, 1, 64, 64)).features)
    here, there = (
        model.margins(sight.row(0), [Turn("mass?", region=box)])
        for box in ((0.0, 0.0, 20.0, 20.0), (30.0, 30.0, 64.0, 64.0))
    )
    assert not torch.allclose(here, there)
    assert not torch.allclose(
        model.margins(sight.row(0), [Turn("mass?")]), model.margins(sight.row(1), [Turn("mass?")])
    )


def test_padding_in_a_batch_changes_nothing(model: VisionLanguageModel) -> None:
    sight = model.sight(model.look(torch.rand(2, 1, 64, 64)).features)
    turns = [[Turn("mass?")], [Turn("Is there a nodule in the left lung?"), Turn("hernia?")]]
    batched = model.language.yes_no_margins(model.sequences(sight, turns))
    single = [model.margins(sight.row(i), own) for i, own in enumerate(turns)]
    torch.testing.assert_close(batched, torch.cat(single), atol=1e-5, rtol=1e-4)


def test_loss_counts_each_turn_once(model: VisionLanguageModel) -> None:
    sight = model.sight(model.look(torch.rand(1, 1, 64, 64)).features)
    turns = [Turn("mass?", "yes"), Turn("hernia?", "no evidence of hiatal hernia on this film")]
    losses = [model.language.answer_loss(model.sequences(sight, [[turn]])) for turn in turns]
    both = model.language.answer_loss(model.sequences(sight, [turns]))
    torch.testing.assert_close(both, torch.stack(losses).mean(), atol=1e-4, rtol=1e-4)


def test_writing_is_the_same_alone_and_in_a_batch(model: VisionLanguageModel) -> None:
    sight = model.sight(model.look(torch.rand(1, 1, 64, 64)).features)
    turns = [Turn("Report: mass, present."), Turn("What is in this region?", region=(0, 0, 32, 32))]
    together = model.write(sight, turns, max_tokens=6)
    assert together == [model.write(sight, [turn], max_tokens=6)[0] for turn in turns]


@given(trunk=st.integers(1, 6), lengths=st.lists(st.integers(1, 5), max_size=4))
def test_branches_never_see_each_other(trunk: int, lengths: list[int]) -> None:
    layout = lay_out(trunk, lengths)
    owner = [0] * trunk + [i + 1 for i, n in enumerate(lengths) for _ in range(n)]
    for row in range(len(owner)):
        for column in range(len(owner)):
            allowed = column <= row and owner[column] in (0, owner[row])
            assert bool(layout.visible[row, column]) == allowed
    _, mask = stack([layout, lay_out(trunk + 2, [])], torch.float32)
    assert (mask == 0).any(dim=-1).all(), "a row that sees nothing would become NaN"


def test_golden_numbers(model: VisionLanguageModel) -> None:
    """Seeded weights, a fixed ramp: a change of the computation shows here."""
    ramp = torch.linspace(0, 1, 64 * 64).reshape(1, 1, 64, 64)
    look = model.look(ramp)
    sight = model.sight(look.features)
    margins = model.margins(sight, [Turn("mass?"), Turn("hernia?")])
    found = [
        float(look.findings.mean()),
        float(look.dense.mean()),
        float(sight.tokens.norm()),
        *margins.tolist(),
    ]
    assert found == pytest.approx(GOLDEN, rel=1e-3, abs=1e-4)


GOLDEN = [0.02491, -0.21947, 1.13124, -0.12441, -0.11982]


def test_only_connector_heads_and_lora_are_stored(model: VisionLanguageModel) -> None:
    names = {name.split(".")[0] for name in trained_weights(model)}
    assert names == {"vision", "connector", "probe"}


def test_checkpoint_round_trip(tiny: Path, model: VisionLanguageModel) -> None:
    loaded = load_checkpoint(str(tiny))
    image = torch.rand(1, 1, 64, 64)
    a, b = (
        m.margins(m.sight(m.look(image).features), [Turn("mass?")]) for m in (model, loaded.model)
    )
    torch.testing.assert_close(a, b, atol=1e-2, rtol=1e-2)
    assert not any(p.requires_grad for p in loaded.model.parameters())


def test_changed_weights_are_refused(tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "broken")
    weights = bytearray((folder / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (folder / WEIGHTS).write_bytes(weights)
    with pytest.raises(CheckpointError, match="sha256"):
        load_checkpoint(str(folder))


def test_an_unknown_checkpoint_says_what_to_do() -> None:
    with pytest.raises(CheckpointError, match="medvlm model list"):
        resolve_checkpoint("no-such-checkpoint")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        LanguageModel(tmp_path, TINY.language)


def test_findings_are_the_mean_of_two_readings(model: VisionLanguageModel) -> None:
    look = model.look(torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0)))
    sight = model.sight(look.features)
    second = model.probe(sight.tokens.mean(dim=1))[:, : look.findings.shape[1]]
    torch.testing.assert_close(model.findings(look, sight), (look.findings + second) / 2)


def test_a_second_reader_counts_as_much_as_the_first(tiny_language: Path) -> None:
    torch.manual_seed(0)
    both = TINY.model_copy(update={"second": TINY.encoder, "scales": (32,)})
    model = VisionLanguageModel(both, tiny_language).eval()
    assert model.second is not None
    images = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    small = F.interpolate(images, (32, 32), mode="bilinear", antialias=True)
    with torch.no_grad():
        look = model.look(images)
        readings = [reader(x) for x in (images, small) for reader in (_first(model), model.second)]
        torch.testing.assert_close(look.findings, torch.stack(readings).mean(dim=0))
        sight = model.sight(look.features)
        probe = model.probe(sight.tokens.mean(dim=1))[:, : look.findings.shape[1]]
        expected = (2 * look.findings + probe) / 3
        torch.testing.assert_close(model.findings(look, sight), expected)
    assert "second" in {name.split(".")[0] for name in trained_weights(model)}


def _first(model: VisionLanguageModel) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda images: model.vision.classify(images)[0]
