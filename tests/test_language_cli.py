"""A language model by one YAML file, through the commands a user types: trained, or refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM

from medvlm import cli
from medvlm.config import ModelConfig
from medvlm.model.checkpoint import load_checkpoint
from tests.families import FAMILIES, tiny_family
from tests.sets import pack


class Said(NamedTuple):
    """How a command ended: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


Medvlm = Callable[..., Said]


@pytest.fixture
def medvlm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Medvlm:
    """Runs `medvlm ARGUMENTS` as the console script does."""

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["medvlm", *map(str, arguments)])
        code: Any = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        said = capsys.readouterr()
        # Rich breaks lines where the terminal ends.
        return Said(code, said.out, " ".join(said.err.split()))

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="module")
def seeing(_tiny_folder: Path) -> Path:
    """A checkpoint whose encoder new connectors read."""
    return _tiny_folder


def _model(language: dict[str, Any]) -> dict[str, Any]:
    return {
        "encoder": {"size": 64, "dense_width": 8},
        "connector": {"tokens": [2, 2], "width": 16, "depth": 1},
        "language": language,
    }


def _training(data: Path, seeing: Path, folder: Path, language: dict[str, Any]) -> Path:
    """The YAML file of a run of a few steps."""
    stage = {"epochs": 1, "learning_rate": 1.0e-3}
    counts = {"nih_cxr": 4, "kermany_cxr": 2, "vqa_rad": 2}
    content = {
        "out": str(folder / "train"),
        "vision": str(seeing),
        "data": {"root": str(data), "per_epoch": counts, "cache": str(folder / "cache")},
        "model": _model(language),
        "warm_up": stage | {"epochs": 0},
        "stage1": stage,
        "stage2": stage,
        "batch_size": 4,
        "watch_films": 0,
    }
    file = folder / "train.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.mark.parametrize("family", ["qwen3", "gemma3_text", "mistral"])
def test_a_new_family_is_trained_from_one_file(
    family: str, data: Path, seeing: Path, medvlm: Medvlm, tmp_path: Path
) -> None:
    llm = tiny_family(tmp_path / "llm", family)
    file = _training(data, seeing, tmp_path, {"base": str(llm), "lora": {"rank": 2}})
    said = medvlm("train", file, "--name", family, "--version", "0.1")
    assert said.code == 0, said.err
    folder = tmp_path / "train" / family

    model = load_checkpoint(str(folder)).model
    adapters = model.language.adapter_parameters()
    # LoRA's second matrix begins as nothing.
    learned = [p for name, p in adapters.items() if "lora_B" in name]
    assert learned
    assert all(bool(p.any()) for p in learned)
    opened = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(llm), folder / "adapter"
    )
    theirs = {
        name.replace(".default.", "."): p
        for name, p in opened.named_parameters()
        if "lora_" in name
    }
    assert theirs.keys() == adapters.keys()
    assert all(torch.equal(theirs[name], p) for name, p in adapters.items())

    described = json.loads(medvlm("model", "describe", folder, "--json").out)
    assert described["model"]["language"]["base"] == str(llm)
    parts = {part["name"]: part for part in described["description"]["parts"]}
    assert parts["LoRA"]["parameters"] == sum(p.numel() for p in adapters.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_described_from_one_file(
    family: str, medvlm: Medvlm, tmp_path: Path
) -> None:
    llm = tiny_family(tmp_path / "llm", family)
    file = tmp_path / "model.yaml"
    file.write_text(yaml.safe_dump(_model({"base": str(llm)})))
    said = medvlm("model", "describe", file, "--json")
    assert said.code == 0, said.err
    parts = {part["name"]: part for part in json.loads(said.out)["description"]["parts"]}
    own = AutoModelForCausalLM.from_pretrained(llm)
    assert parts["language model"]["parameters"] == sum(p.numel() for p in own.parameters())
    assert parts["LoRA"]["parameters"] > 0


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"bse": "x"}, "model.language.bse"),
    ({"lora": {"rnk": 4}}, "model.language.lora.rnk"),
    ({"lora": {"rank": 0}}, "model.language.lora.rank"),
    ({"lora": {"modules": []}}, "model.language.lora.modules"),
    ({"quantisation": "int3"}, "model.language.quantisation"),
    ({"revision": 5}, "model.language.revision"),
]


@pytest.mark.parametrize(("language", "option"), WRONG)
@pytest.mark.parametrize("command", ["train", "model describe"])
def test_a_wrong_key_or_value_is_refused_by_its_name(
    language: dict[str, Any],
    option: str,
    command: str,
    data: Path,
    seeing: Path,
    medvlm: Medvlm,
    tmp_path: Path,
) -> None:
    file = _training(data, seeing, tmp_path, language)
    said = medvlm(*command.split(), file)
    assert (said.code, said.out) == (1, "")
    assert option in said.err
    assert not (tmp_path / "train").exists()


@pytest.mark.parametrize(
    ("family", "language", "option"),
    [
        ("gemma", {"system": "Be brief."}, "language.system"),
        ("phi3", {"lora": {"modules": ["q_proj"]}}, "language.lora.modules"),
        ("llama", {"quantisation": "nf4"}, "language.quantisation"),
        ("llama", {"quantisation": "int8"}, "language.quantisation"),
        ("mamba", {}, "language.base"),
        ("bloom", {}, "language.base"),
    ],
)
def test_an_impossible_combination_is_refused_by_its_name(
    family: str,
    language: dict[str, Any],
    option: str,
    data: Path,
    seeing: Path,
    medvlm: Medvlm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    llm = tiny_family(tmp_path / "llm", family)
    file = _training(data, seeing, tmp_path, {"base": str(llm)} | language)
    said = medvlm("train", file)
    assert said.code == 1
    assert f"{option}:" in said.err
    assert not (tmp_path / "train" / "medvlm-cxr-lite").exists()


@pytest.mark.parametrize(
    ("family", "modules", "option"),
    [
        ("phi3", ["q_proj"], "language.lora.modules"),
        ("mamba", "all-linear", "language.lora.modules"),
    ],
)
def test_describing_refuses_layers_that_cannot_be_adapted(
    family: str, modules: str | list[str], option: str, medvlm: Medvlm, tmp_path: Path
) -> None:
    llm = tiny_family(tmp_path / "llm", family)
    file = tmp_path / "model.yaml"
    file.write_text(yaml.safe_dump(_model({"base": str(llm), "lora": {"modules": modules}})))
    said = medvlm("model", "describe", file)
    assert (said.code, said.out) == (1, "")
    assert f"{option}:" in said.err


def test_what_is_not_at_hand_says_the_command_that_fetches_it(
    data: Path, seeing: Path, medvlm: Medvlm, tmp_path: Path
) -> None:
    language = {"base": "someone/other", "revision": "v2"}
    said = medvlm("train", _training(data, seeing, tmp_path, language))
    assert said.code == 1
    assert "medvlm model fetch someone/other --revision v2" in said.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["someone/other"], "--llm-path"),
        (["no-owner"], "language.base"),
        (["--revision", "v2"], "--revision"),
    ],
)
def test_fetching_what_cannot_be_had_is_told(
    arguments: list[str], told: str, medvlm: Medvlm
) -> None:
    said = medvlm("model", "fetch", *arguments)
    assert said.code == (2 if told == "--revision" else 1)
    assert told in said.err


def _examples() -> list[Path]:
    return sorted((Path(__file__).parent.parent / "configs" / "llm").glob("*.yaml"))


def test_the_examples_of_language_models_are_there() -> None:
    assert len(_examples()) >= 5


@pytest.mark.parametrize("file", _examples(), ids=lambda file: file.stem)
def test_an_example_is_a_model_whose_language_model_must_be_fetched(
    file: Path, medvlm: Medvlm
) -> None:
    language = ModelConfig.from_yaml(file).language
    assert language.base.count("/") == 1
    # Which commit is right is for those to say who looked at it.
    assert language.revision is None
    assert language.sha256 == ""
    said = medvlm("model", "describe", file, "--json")
    assert said.code == 0, said.err
    parts = {part["name"]: part for part in json.loads(said.out)["description"]["parts"]}
    assert parts["language model"]["what"] == f"{language.base}, not at hand"
    assert parts["encoder"]["parameters"] > 0
