"""A checkpoint's folder: two weight files under one sha256, saved whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from medvlm.errors import CheckpointError
from medvlm.model.checkpoint import (
    ADAPTER,
    CARD,
    CONFIG,
    WEIGHTS,
    CheckpointConfig,
    load_checkpoint,
    save_checkpoint,
)
from medvlm.model.digests import sha256_of, sha256_of_all
from medvlm.model.language import Segment, Turn
from medvlm.model.vlm import VisionLanguageModel
from tests.families import tiny_family
from tests.tiny import TINY, tiny_model

SETTINGS = "adapter/adapter_config.json"
FILES = {CONFIG, WEIGHTS, ADAPTER, SETTINGS}


def _names(folder: Path) -> set[str]:
    return {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def _adapted(model: VisionLanguageModel) -> VisionLanguageModel:
    """The model with adapters that do something: they start as nothing."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.language.adapter_parameters().values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def test_the_folder_holds_two_weight_files_under_one_digest(
    tiny: Path, tiny_language: Path
) -> None:
    assert _names(tiny) == FILES
    config = CheckpointConfig.from_yaml(tiny / CONFIG)
    assert config.weights_sha256 == sha256_of_all(tiny, (WEIGHTS, ADAPTER))
    assert config.model.language.sha256 == sha256_of(tiny_language / WEIGHTS)
    stored = load_file(tiny / WEIGHTS) | load_file(tiny / ADAPTER)
    assert all(t.dtype == torch.float16 for t in stored.values() if t.ndim > 1)


def test_what_is_loaded_is_saved_again_byte_for_byte(tiny: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(str(tiny))
    save_checkpoint(loaded.model, loaded.config, tmp_path / "again")
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (tiny / name).read_bytes(), name


@pytest.mark.parametrize("family", ["qwen3", "gemma2", "phi3", "gpt2"])
def test_peft_opens_the_adapter(family: str, tmp_path: Path) -> None:
    llm = tiny_family(tmp_path / "llm", family)
    base = TINY.model_copy(update={"language": TINY.language.model_copy(update={"base": str(llm)})})
    model = _adapted(VisionLanguageModel(base, llm))
    config = CheckpointConfig(name="tiny", version="0", model=base)
    save_checkpoint(model, config, tmp_path / "checkpoint")
    language = load_checkpoint(str(tmp_path / "checkpoint")).model.language
    plain = AutoModelForCausalLM.from_pretrained(llm)
    opened = PeftModel.from_pretrained(plain, tmp_path / "checkpoint" / "adapter").eval()

    words = language.tokenize("left lung")
    sequences = language.sequences([[Segment("", language.embed(words))]], [[Turn("mass?")]])
    ids = [*language.user, *words, *language.line, *language.tokenize("mass?"), *language.ask]
    with torch.no_grad():
        ours = language.logits(language.read(sequences)[0, -1:])[0]
        theirs = opened(input_ids=torch.tensor([ids])).logits[0, -1]
        with opened.disable_adapter():
            without = opened(input_ids=torch.tensor([ids])).logits[0, -1]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(ours, without, atol=1e-2)


@pytest.mark.parametrize("name", [WEIGHTS, ADAPTER])
def test_a_weight_file_that_changed_or_is_gone_is_refused(name: str, copy: Path) -> None:
    content = bytearray((copy / name).read_bytes())
    content[-1] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="sha256"):
        load_checkpoint(str(copy))
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match="missing"):
        load_checkpoint(str(copy))


def _resign(folder: Path) -> None:
    """Makes the configuration agree with the weights, as somebody who edits them would."""
    config = CheckpointConfig.from_yaml(folder / CONFIG)
    digest = sha256_of_all(folder, (WEIGHTS, ADAPTER))
    config.model_copy(update={"weights_sha256": digest}).to_yaml(folder / CONFIG)


@pytest.mark.parametrize("name", [WEIGHTS, ADAPTER])
@pytest.mark.parametrize("change", ["one less", "one more", "other shape"])
def test_weights_that_do_not_fit_are_refused(name: str, change: str, copy: Path) -> None:
    weights = load_file(copy / name)
    first = sorted(weights)[0]
    if change == "one more":
        weights["stranger"] = torch.zeros(1)
    elif change == "one less":
        del weights[first]
    else:
        weights[first] = torch.zeros(1, 2, 3)
    save_file(weights, copy / name)
    _resign(copy)
    with pytest.raises(CheckpointError, match="does not fit"):
        load_checkpoint(str(copy))


@pytest.mark.parametrize(
    "edit",
    [
        lambda settings: settings | {"lora_alpha": 99},
        lambda settings: settings | {"target_modules": ["q_proj"]},
        lambda settings: {"r": 2},
        lambda settings: [],
    ],
)
def test_an_adapter_described_otherwise_is_refused(
    edit: Callable[[dict], object], copy: Path
) -> None:
    """PEFT would read another scale from it than medvlm does from config.yaml."""
    settings = json.loads((copy / SETTINGS).read_text())
    (copy / SETTINGS).write_text(json.dumps(edit(settings)))
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        load_checkpoint(str(copy))


def test_another_language_model_than_it_was_trained_on_is_refused(
    tiny: Path, tiny_language: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(tiny_language, tmp_path / "other")
    weights = load_file(other / WEIGHTS)
    weights["model.norm.weight"] = weights["model.norm.weight"] * 1.01
    save_file(weights, other / WEIGHTS, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"another language model.*--llm-path"):
        load_checkpoint(str(tiny), other)
    assert load_checkpoint(str(tiny), tiny_language).config.name == "tiny"


def test_an_interrupted_save_leaves_no_folder(
    tiny_language: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("medvlm.model.checkpoint.save_file", full)
    config = CheckpointConfig(name="tiny", version="0", model=TINY)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(tiny_model(tiny_language), config, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_saving_again_keeps_the_card_and_what_else_is_there(
    copy: Path, tiny_language: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copy / CARD).write_text("card")
    (copy / "notes.txt").write_text("mine")
    config = CheckpointConfig(name="tiny", version="1", model=TINY)
    changed = _adapted(tiny_model(tiny_language))
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointConfig, "to_yaml", lambda self, path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            save_checkpoint(changed, config, copy)
    assert load_checkpoint(str(copy)).config.version == "0.0"
    save_checkpoint(changed, config, copy)
    assert load_checkpoint(str(copy)).config.version == "1"
    assert _names(copy) == FILES | {CARD, "notes.txt"}
