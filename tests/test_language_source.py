"""Where a language model comes from: a folder, the hub's cache, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from medvlm.config import LanguageConfig
from medvlm.errors import BaseModelMissing, CheckpointError, ConfigError
from medvlm.model.digests import sha256_of
from medvlm.model.llm_source import (
    INDEX,
    LLM_PATH,
    fetch_language_model,
    language_model_dir,
    weights_digest,
)

NAME, COMMIT = "someone/small-model", "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, tiny_language: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that holds the tiny model as NAME at COMMIT, and as its branch main."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    stored = cache / f"models--{NAME.replace('/', '--')}"
    (stored / "refs").mkdir(parents=True)
    (stored / "refs" / "main").write_text(COMMIT)
    return Path(shutil.copytree(tiny_language, stored / "snapshots" / COMMIT))


def _base(name: str | Path, revision: str | None = None) -> LanguageConfig:
    return LanguageConfig(base=str(name), revision=revision)


def _sharded(source: Path, folder: Path) -> Path:
    """The model in `source`, its weights in two files."""
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, own in parts.items():
        save_file({name: weights[name] for name in own}, folder / file, {"format": "pt"})
    index = {"weight_map": {name: file for file, own in parts.items() for name in own}}
    (folder / INDEX).write_text(json.dumps(index))
    return folder


def test_a_folder_is_used_as_it_is(tiny_language: Path) -> None:
    assert language_model_dir(_base(tiny_language)) == tiny_language


def test_a_model_of_the_hub_is_found_in_its_cache(hub: Path) -> None:
    for revision in (None, "main", COMMIT):
        assert language_model_dir(_base(NAME, revision)) == hub


def test_what_is_not_in_the_cache_says_how_to_fetch_it(hub: Path) -> None:
    with pytest.raises(BaseModelMissing, match=r"`medvlm model fetch someone/other`,"):
        language_model_dir(_base("someone/other"))
    with pytest.raises(BaseModelMissing, match=f"`medvlm model fetch {NAME} --revision v2`,"):
        language_model_dir(_base(NAME, "v2"))


def test_fetching_without_a_network_is_told_in_one_sentence(hub: Path) -> None:
    with pytest.raises(BaseModelMissing, match="--llm-path"):
        fetch_language_model("someone/other")


def test_only_weights_and_words_are_fetched(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.utils import filter_repo_objects

    asked: dict[str, list[str]] = {}

    def download(name: str, **options: list[str]) -> str:
        asked.update({key: options[key] for key in ("allow_patterns", "ignore_patterns")})
        return str(hub)

    monkeypatch.setattr("medvlm.model.llm_source.snapshot_download", download)
    assert fetch_language_model(NAME) == hub
    wanted = {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"}
    refused = {"pytorch_model.bin", "modeling.py", "original/model.safetensors", "model.gguf"}
    refused |= {"consolidated.safetensors", "training_args.pt"}
    assert set(filter_repo_objects(sorted(wanted | refused), **asked)) == wanted


@pytest.mark.parametrize("name", ["SmolLM3", "../outside", "/nowhere/at/all", "a/b/c", ""])
def test_what_is_neither_folder_nor_name_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ConfigError, BaseModelMissing), match=r"language\.base|holds no"):
        language_model_dir(_base(name))


def test_another_folder_can_be_given_in_its_place(
    tiny_language: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = _base("someone/other")
    assert language_model_dir(missing, tiny_language) == tiny_language
    assert language_model_dir(LanguageConfig(), tiny_language) == tiny_language
    with pytest.raises(BaseModelMissing, match="someone/other"):
        language_model_dir(missing, tmp_path)
    monkeypatch.setenv(LLM_PATH, str(tiny_language))
    assert language_model_dir(missing) == tiny_language


def test_weights_that_are_not_all_there_are_refused(tiny_language: Path, tmp_path: Path) -> None:
    pickled = shutil.copytree(tiny_language, tmp_path / "pickled")
    torch.save({}, pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with pytest.raises(BaseModelMissing, match=r"model\.safetensors"):
        language_model_dir(_base(pickled))
    sharded = _sharded(tiny_language, tmp_path / "sharded")
    assert language_model_dir(_base(sharded)) == sharded
    (sharded / "model-2.safetensors").unlink()
    with pytest.raises(BaseModelMissing, match=r"model-2\.safetensors"):
        language_model_dir(_base(sharded))


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": 3}'])
def test_an_index_that_cannot_be_read_is_refused(
    content: str, tiny_language: Path, tmp_path: Path
) -> None:
    folder = _sharded(tiny_language, tmp_path / "sharded")
    (folder / INDEX).write_text(content)
    with pytest.raises(CheckpointError, match=INDEX):
        language_model_dir(_base(folder))


def test_the_digest_names_the_weights(tiny_language: Path, tmp_path: Path) -> None:
    digest: Callable[[Path], str] = weights_digest
    assert digest(tiny_language) == sha256_of(tiny_language / "model.safetensors")
    sharded = _sharded(tiny_language, tmp_path / "sharded")
    before = digest(sharded)
    assert before != digest(tiny_language)
    last = sharded / "model-2.safetensors"
    last.write_bytes(last.read_bytes()[:-1] + b"\1")
    assert digest(sharded) != before
