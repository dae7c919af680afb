"""`medvlm model describe`: what it says against what is built, stored and documented."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import LlamaConfig
from typer.testing import CliRunner, Result

from medvlm.cli import application
from medvlm.config import ConnectorConfig, EncoderConfig, LanguageConfig, ModelConfig
from medvlm.errors import CheckpointError, ConfigError
from medvlm.model.checkpoint import CheckpointConfig, save_checkpoint
from medvlm.model.describe import Description, Part, describe, language_model_at_hand, read_config
from medvlm.model.encoder import Encoder
from tests.tiny import TINY, tiny_model


def part(description: Description, name: str) -> Part:
    (found,) = (own for own in description.parts if own.name == name)
    return found


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(application, ["model", "describe", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def of_width_576(folder: Path, layers: int) -> Path:
    """The shape of the packaged language model, without weights."""
    LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def smollm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return of_width_576(tmp_path_factory.mktemp("smollm"), layers=30)


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As wide, and soon built."""
    return of_width_576(tmp_path_factory.mktemp("shallow"), layers=1)


def test_counts_are_those_of_the_model_that_is_built(tiny_language: Path, tmp_path: Path) -> None:
    config = TINY.model_copy(update={"second": TINY.encoder})
    description = describe(config, tiny_language)
    model = tiny_model(tiny_language)

    def size(module: Any) -> int:
        return sum(p.numel() for p in module.parameters())

    adapters = sum(p.numel() for p in model.language.adapter_parameters().values())
    assert {own.name: own.parameters for own in description.parts} == {
        "encoder": size(model.vision.encoder),
        "heads": size(model.vision) - size(model.vision.encoder),
        "second encoder": size(model.vision.encoder) + size(model.vision.classifier),
        "connector": size(model.connector),
        "probe": size(model.probe),
        "language model": size(model.language) - adapters,
        "LoRA": adapters,
    }
    features = model.look(torch.zeros(1, 1, 64, 64)).features
    assert list(description.maps.values()) == [tuple(x.shape[1:]) for x in features]
    assert description.tokens == model.sight(features).tokens.shape[1]


def test_bytes_are_those_of_the_checkpoint(tiny_language: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    save_checkpoint(
        tiny_model(tiny_language), CheckpointConfig(name="x", version="0", model=TINY), folder
    )
    stored = sum(
        tensor.numel() * tensor.element_size()
        for file in folder.rglob("*.safetensors")
        for tensor in load_file(file).values()
    )
    assert describe(TINY, tiny_language).stored == stored


def test_the_configuration_of_medvlm_cxr_lite(root: Path, smollm: Path) -> None:
    config, stages = read_config(root / "configs" / "train_cpu.yaml")
    found = describe(config, smollm, stages)
    assert (found.input, found.tokens, found.at_most.pictures) == ((320, 320), 64, 2)
    assert found.maps == {8: (40, 40, 40), 16: (112, 20, 20), 32: (320, 10, 10)}
    counts = {own.name: own.parameters for own in found.parts}
    assert counts == {
        "encoder": 2_958_272,
        "heads": 49_596,
        "second encoder": 3_729_454,
        "connector": 1_367_040,
        "probe": 11_540,
        "language model": 134_515_008,
        "LoRA": 2_442_240,
    }
    assert found.learns == {
        "pretrain": 2_958_272 + 49_596,
        "pretrain_second": 3_729_454,
        "warm_up": 1_367_040 + 11_540,
        "stage1": 1_367_040 + 11_540,
        "stage2": 1_367_040 + 11_540 + 2_442_240,
    }
    assert found.prefill == 2 * 134_515_008 * 64
    assert part(found, "encoder").macs == _convolutions(config.encoder)
    said = (root / "docs" / "connectors.md").read_text(encoding="utf-8")
    assert f"{_giga(found.prefill)} |" in said
    assert f"takes {round((part(found, 'encoder').macs or 0) / 1e6)} MMAC" in said


def _convolutions(config: EncoderConfig) -> int:
    """Multiplications of all convolutions, from the sizes of what they give."""
    total = 0

    def add(module: Any, _: Any, out: torch.Tensor) -> None:
        nonlocal total
        total += module.weight.numel() * out.shape[2] * out.shape[3]

    encoder = Encoder(config).eval()
    for module in encoder.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(add)
    with torch.no_grad():
        encoder(torch.zeros(1, 1, config.size, config.size))
    return total


def _giga(n: int | None) -> str:
    return f"{(n or 0) / 1e9:.2f}"


def test_multiplications_are_counted(shallow: Path) -> None:
    """Two projections of the maps, and one of the tokens."""
    linear = ConnectorConfig(kind="linear")
    found = describe(ModelConfig(connector=linear), shallow)
    by_hand = 256 * (112 * 20 * 20 + 320 * 10 * 10) + 64 * 256 * 576
    assert part(found, "connector").macs == by_hand


def test_a_look_has_all_sizes_and_both_encoders(tiny_language: Path) -> None:
    once = describe(TINY, tiny_language)
    twice = describe(TINY.model_copy(update={"scales": (64,)}), tiny_language)
    both = describe(TINY.model_copy(update={"second": TINY.encoder}), tiny_language)
    encoder = part(once, "encoder").macs or 0
    for more in (twice, both):
        assert once.look + encoder < more.look < 2 * once.look


def test_stages_of_the_encoder_that_learn_are_counted(tiny_language: Path) -> None:
    none, last, every = (describe(TINY, tiny_language, encoder_stages=n) for n in (0, 1, 99))
    assert "stage2" not in part(none, "encoder").learns
    assert part(every, "encoder").learns["stage2"] == part(every, "encoder").parameters
    assert (
        0 < (part(last, "encoder").learns["stage2"] or 0) < (part(last, "encoder").parameters or 0)
    )
    assert part(last, "heads").learns["stage2"] == part(last, "heads").parameters


def test_a_file_says_how_many_stages_learn(tmp_path: Path, root: Path) -> None:
    content = yaml.safe_load((root / "configs" / "train_cpu.yaml").read_text())
    content["stage2"]["encoder_stages"] = 2
    file = tmp_path / "train.yaml"
    file.write_text(yaml.safe_dump(content))
    assert read_config(file)[1] == 2


def test_people_get_a_table(tmp_path: Path, tiny_language: Path) -> None:
    file = tmp_path / "tiny.yaml"
    TINY.to_yaml(file)
    result = run(file, "--llm-path", tiny_language)
    assert result.exit_code == 0
    said = result.stdout
    for words in ("64 x 64 pixels", "4 x 4 of 112 channels", "tf_efficientnet_lite0", "warm_up"):
        assert words in said
    description = describe(TINY, tiny_language)
    for own in description.parts:
        assert own.name in said
        assert f"{own.parameters:,}" in said
    for count in description.learns.values():
        assert f"trains {count:,} parameters" in said


def test_programs_get_json_alone(tmp_path: Path, tiny_language: Path) -> None:
    file = tmp_path / "tiny.yaml"
    TINY.to_yaml(file)
    given = json.loads(run(file, "--llm-path", tiny_language, "--json").stdout)
    assert given["description"] == json.loads(json.dumps(describe(TINY, tiny_language).record()))
    assert given["connector"]["tokens"] == [2, 2]


def test_a_checkpoint_has_its_card_and_a_description(tiny: Path, tiny_language: Path) -> None:
    result = run(tiny, "--llm-path", tiny_language)
    assert "has no model card" in result.stdout
    assert "c_abstractor" in result.stdout
    given = json.loads(run(tiny, "--llm-path", tiny_language, "--json").stdout)
    assert given["name"] == "tiny"
    assert given["description"]["visual_tokens"] == 4


def test_without_the_language_model_the_rest_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDVLM_CACHE", str(tmp_path / "empty"))
    file = tmp_path / "tiny.yaml"
    TINY.to_yaml(file)
    result = run(file)
    assert result.exit_code == 0
    assert "not at hand" in result.stdout
    assert "not known" in result.stdout
    assert not (tmp_path / "empty").exists(), "nothing is converted for a description"
    found = json.loads(run(file, "--json").stdout)["description"]
    assert found["parameters"] is None
    assert found["learns"]["stage1"] is None
    assert (
        found["learns"]["pretrain"]
        == found["parts"][0]["parameters"] + found["parts"][1]["parameters"]
    )


def test_a_language_model_of_the_hub_that_is_not_here() -> None:
    assert language_model_at_hand(LanguageConfig(base="nobody/nothing-like-this")) is None


def test_what_does_not_fit_is_refused_before_training(tmp_path: Path) -> None:
    file = tmp_path / "model.yaml"
    file.write_text("connector: {tokens: [21, 21]}")
    with pytest.raises(ConfigError, match=r"connector\.tokens.*20 x 20"):
        run(file)
    file.write_text("connector: {kind: qformer, heads: 7}")
    with pytest.raises(ConfigError, match=r"connector\.heads"):
        run(file)


@pytest.mark.parametrize("text", ["conector: {}", "a: [", "- 1", ""])
def test_a_wrong_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    if not text:
        assert read_config(file) == (ModelConfig(), 0)
        return
    with pytest.raises(ConfigError, match=r"wrong\.yaml"):
        read_config(file)
    with pytest.raises(ConfigError, match=r"absent\.yaml"):
        read_config(tmp_path / "absent.yaml")


def test_a_folder_without_a_language_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path))):
        describe(TINY, tmp_path)


def test_a_volume_has_slices(tiny_language: Path) -> None:
    pytest.importorskip("monai")
    encoder = EncoderConfig(family="monai", name="resnet10", size=64, slices=32, dense_width=8)
    connector = ConnectorConfig(tokens=(2, 2, 2), width=16, depth=1)
    found = describe(
        TINY.model_copy(update={"encoder": encoder, "connector": connector}), tiny_language
    )
    assert found.input == (32, 64, 64)
    assert found.maps[16][1:] == (2, 4, 4)
    assert found.tokens == 8


@pytest.mark.slow
def test_the_table_in_the_documents_is_true(root: Path, shallow: Path) -> None:
    """All but the last column, which the language model's depth decides."""
    text = (root / "docs" / "connectors.md").read_text(encoding="utf-8")
    number = r" ([\d.,]+) \|"
    rows = re.findall(rf"^\| `(\w+)` \|{number * 5}$", text, re.MULTILINE)
    assert len(rows) == 6
    for kind, *said, _ in rows:
        connector = ConnectorConfig(kind=kind, tokens=(1, 1) if kind == "average" else (8, 8))
        found = describe(ModelConfig(connector=connector), shallow)
        own = part(found, "connector")
        assert said == [
            str(found.tokens),
            f"{own.parameters:,}",
            f"{(own.macs or 0) / 1e6:.1f}",
            f"{(own.stored or 0) / 1e6:.2f}",
        ]
