"""What all tests share: no network, and the folders they may look into."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# Before anything imports transformers: a test that reaches for the network must fail, not wait.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Tiny models come by the dozen: only the tests of it make them ready to run fast.
os.environ["MEDVLM_RUNTIME"] = "reference"
# What this machine's user promoted is no business of the tests.
os.environ["MEDVLM_HOME"] = tempfile.mkdtemp(prefix="medvlm-test-home-")
atexit.register(shutil.rmtree, os.environ["MEDVLM_HOME"], ignore_errors=True)

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

from medvlm.dicom.limits import limits  # noqa: E402
from medvlm.dicom.workers import end_resting  # noqa: E402

# How long an example takes says nothing on a busy machine.
settings.register_profile("medvlm", deadline=None)
settings.load_profile("medvlm")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The source tree."""
    return ROOT


@pytest.fixture(scope="session")
def data_pack() -> Path:
    """The training data beside the repository (or MEDVLM_DATA); skips where they are absent."""
    folder = Path(os.environ.get("MEDVLM_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "nih_cxr" / "labels.csv").is_file():
        pytest.skip(f"needs the data pack, which is not in {folder}")
    return folder


@pytest.fixture(scope="session")
def tiny_language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a language model of a few thousand parameters."""
    from tests.tiny import tiny_llm

    return tiny_llm(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="session")
def _tiny_folder(tmp_path_factory: pytest.TempPathFactory, tiny_language: Path) -> Path:
    from tests.tiny import tiny_checkpoint

    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny", tiny_language)


@pytest.fixture
def tiny(_tiny_folder: Path, tiny_language: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny checkpoint's folder, which `load_checkpoint` loads on the tiny language model."""
    monkeypatch.setattr("medvlm.model.llm_source.base_llm_dir", lambda path=None: tiny_language)
    monkeypatch.setenv("MEDVLM_CHECKPOINT", str(_tiny_folder))
    return _tiny_folder


SetLimit = Callable[[str, float], None]


@pytest.fixture
def set_limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[SetLimit]:
    """Sets one of `medvlm.dicom.limits` for the test, in this process and in its workers."""

    def forget() -> None:
        limits.cache_clear()
        end_resting()

    def set_one(name: str, value: float) -> None:
        monkeypatch.setenv(f"MEDVLM_LIMIT_{name.upper()}", str(value))
        forget()

    yield set_one
    monkeypatch.undo()
    forget()
