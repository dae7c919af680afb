"""A checkpoint made ready to run fast: the same model, built once, and told when it is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from medvlm.config import LanguageConfig, LoraSettings
from medvlm.dicom.read import read_inputs
from medvlm.dicom.study import group_studies
from medvlm.draft.compose import draft_study
from medvlm.draft.look import look_at
from medvlm.errors import CheckpointError, ConfigError, UsageError
from medvlm.image.load import ImageInput
from medvlm.model.checkpoint import CheckpointConfig, load_checkpoint, save_checkpoint
from medvlm.model.extras import Extras
from medvlm.model.heads import DenseHead
from medvlm.model.language import LanguageModel, Turn
from medvlm.model.pictures import Sight
from medvlm.model.runtime import artefact
from medvlm.model.runtime.artefact import LANGUAGE, MANIFEST, artefact_dir, compiled_files
from medvlm.model.runtime.blocks import BLOCK, from_blocks, in_blocks
from medvlm.model.runtime.encoder import CompiledEncoder
from medvlm.model.runtime.language import CompiledLanguage
from medvlm.model.runtime.load import load_ready
from medvlm.model.vlm import VisionLanguageModel
from medvlm.resources import sample_film
from tests.families import tiny_family
from tests.tiny import TINY

WEIGHTS = arrays.arrays(
    np.float32, (3, 2 * BLOCK), elements=st.floats(-8, 8, width=32, allow_subnormal=False)
)


@pytest.fixture
def compiling(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny checkpoint, to be compiled into a cache of its own."""
    monkeypatch.setenv("MEDVLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MEDVLM_RUNTIME", "compiled")
    return tiny


def film(seed: int = 0) -> ImageInput:
    pixels = np.random.default_rng(seed).random((90, 70), dtype=np.float32)
    return ImageInput(pixels, "film", f"{seed:064}", False)


@given(WEIGHTS)
def test_a_weight_moves_by_half_a_step_of_its_block_at_most(weight: np.ndarray) -> None:
    again = from_blocks(in_blocks(weight))
    blocks = weight.reshape(3, 2, BLOCK)
    step = np.abs(blocks).max(axis=2, keepdims=True) / 127
    moved = np.abs(again.reshape(3, 2, BLOCK) - blocks)
    assert np.all(moved <= step / 2 * 1.001 + 1e-30)


def test_a_layer_that_is_not_whole_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="33 inputs"):
        in_blocks(np.zeros((2, 33), np.float32))


def test_it_sees_and_says_what_pytorch_does(compiling: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    ready, plain = load_ready(), load_checkpoint()
    assert isinstance(ready.model.language, CompiledLanguage)
    assert isinstance(ready.model.vision.encoder, CompiledEncoder)
    assert ready.runtime.startswith("compiled")
    assert plain.runtime == "reference"
    images = [film(seed) for seed in range(3)]
    turns = [Turn("mass?"), Turn("effusion?", region=(3.0, 4.0, 40.0, 50.0)), Turn("normal?")]
    for ours, theirs in zip(look_at(ready, images), look_at(plain, images), strict=True):
        for name, value in theirs.probabilities.items():
            assert ours.probabilities[name] == pytest.approx(value, abs=1e-5)
        np.testing.assert_allclose(ours.dense, theirs.dense, atol=1e-5)
        with torch.no_grad():
            margins = [own.model.margins(theirs.sight, turns) for own in (ready, plain)]
            pieces = [own.model.language.phrases(["left lung"]) for own in (ready, plain)]
        torch.testing.assert_close(*margins, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(*pieces)
        said = [own.model.write(theirs.sight, turns, 6) for own in (ready, plain)]
        assert said[0] == said[1]
    assert "once" in capsys.readouterr().err


def test_a_picture_that_was_read_is_remembered(compiling: Path) -> None:
    ready = load_ready()
    language = ready.model.language
    assert isinstance(language, CompiledLanguage)
    (seen,) = look_at(ready, [film()])
    lengths: list[int] = []
    run = language.run

    def spy(embeddings, *rest, **how):  # type: ignore[no-untyped-def]
        lengths.append(embeddings.shape[1])
        return run(embeddings, *rest, **how)

    language.run = spy
    first = ready.model.write(seen.sight, [Turn("mass?")], 4)
    passes = list(lengths)
    lengths.clear()
    assert ready.model.write(seen.sight, [Turn("mass?")], 4) == first
    assert lengths == passes[1:]
    (other,) = look_at(ready, [film(1)])
    lengths.clear()
    ready.model.write(other.sight, [Turn("mass?")], 4)
    assert lengths[:2] == passes[:2]


def test_what_a_pass_is_for_decides_its_precision(compiling: Path) -> None:
    ready = load_ready()
    language = ready.model.language
    assert isinstance(language, CompiledLanguage)
    seen = [own.sight for own in look_at(ready, [film(seed) for seed in range(3)])]
    exact: list[bool] = []
    run = language.run

    def spy(*given, exactly: bool, **how):  # type: ignore[no-untyped-def]
        exact.append(exactly)
        return run(*given, exactly=exactly, **how)

    language.run = spy
    turns = [Turn("mass?"), Turn("is there an effusion on the left, and how large is it?")]
    guesses = [[text] for text in ready.model.write(seen[0], turns, 6, exactly=True)]
    assert all(exact)
    exact.clear()
    alone = [ready.model.write(seen[0], [turn], 6)[0] for turn in turns]
    assert exact[0]
    assert not exact[-1]
    exact.clear()
    assert ready.model.write(seen[0], turns, 6) == alone
    assert exact == [True, *[False] * (len(exact) - 1)]
    together = Sight(
        torch.cat([own.tokens for own in seen]), torch.cat([own.local for own in seen])
    )
    assert ready.model.write_rows(together, [turns, [], turns[:1]], 6)[:2] == alone
    assert ready.model.write(seen[0], turns, 6, guesses) == alone


def test_each_image_is_read_as_it_is_alone(compiling: Path) -> None:
    encoder = load_ready().model.vision.encoder
    images = torch.rand(3, 1, 64, 64)
    together = encoder(images)
    for i in range(3):
        for one, all_ in zip(encoder(images[i : i + 1]), together, strict=True):
            assert torch.equal(one[0], all_[i])


def test_what_was_built_is_used_again_and_what_was_damaged_is_built_anew(
    compiling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_ready().config
    folder = artefact_dir(config)
    assert compiled_files(folder)
    with monkeypatch.context() as patch:
        patch.setattr(artefact, "_build", lambda *_: pytest.fail("built again"))
        load_ready()
    whole = (folder / LANGUAGE).read_bytes()
    (folder / LANGUAGE).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert compiled_files(folder) is None
    load_ready()
    assert (folder / LANGUAGE).read_bytes() == whole


def test_other_weights_have_files_of_their_own(compiling: Path) -> None:
    config = load_checkpoint().config
    other = config.model_copy(update={"weights_sha256": "0" * 64})
    assert artefact_dir(config) != artefact_dir(other)


def test_a_family_that_is_not_built_here_stays_in_pytorch(
    compiling: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = tiny_family(tmp_path / "llm", "gemma")
    monkeypatch.setattr("medvlm.model.llm_source.base_llm_dir", lambda path=None: llm)
    lora = LanguageConfig(lora=LoraSettings(rank=2, alpha=4))
    settings = TINY.model_copy(update={"language": lora})
    torch.manual_seed(0)
    model = VisionLanguageModel(settings, llm)
    config = CheckpointConfig(name="gemma", version="0", model=settings)
    save_checkpoint(model, config, tmp_path / "gemma")
    ready = load_ready(str(tmp_path / "gemma"))
    assert isinstance(ready.model.language, LanguageModel)
    assert isinstance(ready.model.vision.encoder, CompiledEncoder)
    assert "language" not in ready.runtime
    manifest = json.loads((artefact_dir(ready.config) / MANIFEST).read_text())
    assert LANGUAGE not in manifest["sha256"]


def test_a_graph_that_differs_is_left_out(
    compiling: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(artefact, "same_maps", lambda *_: False)
    monkeypatch.setattr(artefact, "ALLOWED", -1.0)
    ready = load_ready()
    assert isinstance(ready.model.language, LanguageModel)
    assert not isinstance(ready.model.vision.encoder, CompiledEncoder)
    assert "language stays in PyTorch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"), [("MEDVLM_RUNTIME", "turbo"), ("MEDVLM_DEVICE", "cuda:99")]
)
def test_a_runtime_or_device_that_is_not_there_is_named(
    name: str, value: str, compiling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=name):
        load_ready()


def test_a_cache_that_cannot_be_written_says_what_to_do(
    compiling: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEDVLM_CACHE", str(tmp_path / "file"))
    with pytest.raises(CheckpointError, match="MEDVLM_RUNTIME=reference"):
        load_ready()


def test_the_default_drafts_the_sample_as_in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """All agrees; another CPU's order of sums may word one sentence otherwise."""
    from tests.test_default import default_or_skip

    plain = default_or_skip()
    monkeypatch.setenv("MEDVLM_RUNTIME", "compiled")
    ready = load_ready()
    (study,) = group_studies(read_inputs(sample_film()))
    ours, theirs = (draft_study(own, study).draft for own in (ready, plain))
    assert [(f.finding, f.polarity, f.regions) for f in ours.findings] == [
        (f.finding, f.polarity, f.regions) for f in theirs.findings
    ]
    for one, other in zip(ours.findings, theirs.findings, strict=True):
        assert one.probability == pytest.approx(other.probability, abs=2e-4)
    same = sum(a.text == b.text for a, b in zip(ours.findings, theirs.findings, strict=True))
    assert same >= len(ours.findings) - 1
    assert ours.stability == theirs.stability


def test_a_question_beyond_what_the_model_knows_is_refused(compiling: Path) -> None:
    for own in (load_ready(), load_checkpoint()):
        (seen,) = look_at(own, [film()])
        assert own.model.write(seen.sight, [Turn("mass? " * 300)], 1)
        long = Turn("mass? " * own.model.language.longest)
        with pytest.raises(UsageError, match="too long"):
            own.model.write(seen.sight, [long], 1)
        with pytest.raises(UsageError, match="too long"):
            own.model.margins(seen.sight, [long])


def test_a_part_that_fails_to_build_costs_nothing_but_speed(
    compiling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Odd(Exception):
        """As ONNX Runtime's: no RuntimeError."""

    def fail(*_: object) -> None:
        raise Odd

    monkeypatch.setattr(artefact, "same_maps", fail)
    monkeypatch.setattr(artefact, "llama_graph", fail)
    ready = load_ready()
    assert isinstance(ready.model.language, LanguageModel)
    assert not isinstance(ready.model.vision.encoder, CompiledEncoder)
    beside = artefact_dir(ready.config).parent
    assert not [path for path in beside.iterdir() if path.name.startswith(".compiled")]


def test_what_meets_an_encoders_maps_goes_where_the_encoder_goes(compiling: Path) -> None:
    checkpoint = load_checkpoint()
    channels = checkpoint.model.vision.encoder.channels
    extras = Extras(opacity=DenseHead(channels, 8))
    there = extras.to(torch.device("meta"))
    assert there.opacity is not None
    assert {p.device.type for p in there.opacity.parameters()} == {"meta"}
