"""Where a language model's files lie: the packaged one, a folder, or a copy of one from the hub.

At run time nothing is downloaded. `fetch_language_model` gets a model beforehand, safetensors and
tokenizer only, into huggingface_hub's cache; code that lies beside them is neither fetched nor run.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

from huggingface_hub import snapshot_download
from safetensors import safe_open
from torch import Tensor

from medvlm.config import LanguageConfig
from medvlm.errors import BaseModelMissing, CheckpointError, ConfigError
from medvlm.model.base_llm import BASE_LLM, GGUF_SHA256, base_llm_dir, is_converted
from medvlm.model.digests import sha256_of, sha256_of_all

LLM_PATH = "MEDVLM_LLM_PATH"
HUB_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*", re.ASCII)
WANTED = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "LICENSE*")
# Some models come with the same weights once more, in the layout of their makers.
UNWANTED = ("*/*", "consolidated*")
EMBEDDINGS = "model.embed_tokens.weight"
INDEX = "model.safetensors.index.json"


def language_model_dir(config: LanguageConfig, llm_path: Path | None = None) -> Path:
    """The folder of the language model that `config.base` names.

    Args:
        llm_path: what to use in its place, else MEDVLM_LLM_PATH: a folder with a model in
            safetensors or, for the packaged model, what `base_llm_dir` takes.

    Raises:
        BaseModelMissing: it is not on this machine; the remedy says how to get it.
        ConfigError: `language.base` is neither a folder nor a name.
    """
    if llm_path is None and (given := os.environ.get(LLM_PATH)):
        llm_path = Path(given).expanduser()
    if llm_path is not None and _holds_weights(llm_path):
        return llm_path
    if config.base == BASE_LLM:
        return base_llm_dir(llm_path)
    if llm_path is not None:
        raise BaseModelMissing(
            "holds no config.json with weights as safetensors",
            file=str(llm_path),
            remedy=f"Give the folder of {config.base}.",
        )
    folder = Path(config.base).expanduser()
    if not folder.is_dir():
        folder = _snapshot(config.base, config.revision, offline=True)
    weight_files(folder)
    return folder


def fetch_language_model(name: str, revision: str | None = None) -> Path:
    """Downloads a model of the hub, weights and tokenizer, and returns its folder.

    Raises ConfigError for what is no name, BaseModelMissing when it cannot be had.
    """
    print(f"Downloading {name} ...", file=sys.stderr, flush=True)
    folder = _snapshot(name, revision, offline=False)
    weight_files(folder)
    return folder


def weight_files(folder: Path) -> list[Path]:
    """The model's safetensors files. Raises BaseModelMissing unless all of them are there."""
    names = ["model.safetensors"]
    try:
        if (folder / INDEX).is_file():
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            names = sorted(set(index["weight_map"].values()))
        files = [folder / Path(name).name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            "cannot be read", file=str(folder / INDEX), remedy="fetch the language model anew"
        ) from error
    for file in (folder / "config.json", *files):
        if not file.is_file():
            raise BaseModelMissing(
                f"holds no {file.name}",
                file=str(folder),
                remedy="Run `medvlm model fetch NAME`, or give another folder with --llm-path.",
            )
    return files


def embedding_table(folder: Path) -> Tensor:
    """The token embeddings [vocabulary, D] of a Llama-shaped model, as they are stored.

    Raises BaseModelMissing, CheckpointError.
    """
    for file in weight_files(folder):
        with safe_open(file, framework="pt") as tensors:
            if EMBEDDINGS in tensors.keys():  # noqa: SIM118 (it is no dictionary)
                table: Tensor = tensors.get_tensor(EMBEDDINGS)
                return table
    raise CheckpointError(
        f"holds no {EMBEDDINGS}", file=str(folder), remedy="fetch the language model anew"
    )


def weights_digest(folder: Path) -> str:
    """The sha256 that names a language model's weights.

    Of the file itself; of several, of the sorted lines "sha256  name". The packaged model counts as
    the file that it was converted from, since the conversion may be written in other bytes.
    """
    if is_converted(folder):
        return GGUF_SHA256
    files = weight_files(folder)
    if len(files) == 1:
        return sha256_of(files[0])
    return sha256_of_all(folder, tuple(file.name for file in files))


def _holds_weights(folder: Path) -> bool:
    return (folder / "config.json").is_file() and (
        (folder / "model.safetensors").is_file() or (folder / INDEX).is_file()
    )


def _snapshot(name: str, revision: str | None, *, offline: bool) -> Path:
    """The folder of a model of the hub, of its newest revision at hand unless one is named."""
    if not HUB_NAME.fullmatch(name):
        raise ConfigError(
            f"language.base: {name} is no folder, nor a name of the form OWNER/MODEL",
            remedy=f"give one of these, or {BASE_LLM}",
        )
    at = f" --revision {revision}" if revision else ""
    try:
        found = snapshot_download(
            name,
            revision=revision,
            local_files_only=offline,
            allow_patterns=list(WANTED),
            ignore_patterns=list(UNWANTED),
        )
    except (OSError, ValueError) as error:  # all that huggingface_hub raises here
        if offline:
            raise BaseModelMissing(
                f"the language model {name} is not on this machine",
                remedy=f"Run `medvlm model fetch {name}{at}`, or give its folder with --llm-path.",
            ) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BaseModelMissing(
            f"{name} could not be downloaded: {reason}",
            remedy="Without a network, bring its folder along and give it with --llm-path.",
        ) from error
    return Path(found)
