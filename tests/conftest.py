"""What all tests share: no network, and the folders they may look into."""

import os
from pathlib import Path

# Before anything imports transformers: a test that reaches for the network must fail, not wait.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest

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
