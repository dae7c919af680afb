"""The files of a compiled checkpoint: built once, under a lock, whole or not there.

They lie in the user's cache beside the converted language model, in a folder named by everything
that they follow from. Each part is compared with PyTorch when it is built; one that cannot be built
or differs is left out, and runs in PyTorch as ever.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from filelock import FileLock
from peft.tuners.lora import LoraLayer

from medvlm.errors import CheckpointError
from medvlm.model.base_llm import cache_dir
from medvlm.model.checkpoint import Checkpoint, CheckpointConfig
from medvlm.model.digests import sha256_of
from medvlm.model.encoder import Encoder
from medvlm.model.language import LanguageModel
from medvlm.model.llm_source import embedding_table
from medvlm.model.prompting import Prompter
from medvlm.model.runtime.encoder import same_maps, write_encoder
from medvlm.model.runtime.language import CompiledLanguage
from medvlm.model.runtime.llama_graph import fits, llama_graph
from medvlm.model.tree import additive

# Raised when files made before must not be used any more.
FORMAT = 4
MANIFEST = "manifest.json"
LANGUAGE, STEPS = "language.onnx", "language-8-bit.onnx"
ENCODER, SECOND = "encoder.onnx", "second.onnx"
# Of the logits' spread: what another order of sums changes on average, and what 8 bits do.
ALLOWED, ALLOWED_IN_8_BITS = 1e-4, 0.15
_PROBE = "Is there a pleural effusion on the left, or is the lung clear? Report what is seen."


def artefact_dir(config: CheckpointConfig) -> Path:
    """Where the compiled files of a checkpoint lie, or will."""
    parts = [str(FORMAT), config.weights_sha256, config.model.model_dump_json()]
    name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    return cache_dir() / f"compiled-{name}"


def compiled_files(folder: Path) -> dict[str, Path] | None:
    """The parts that were built, by name; None if nothing was, or a file is not what it was."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = {name: folder / name for name in manifest["sha256"]}
        if manifest["format"] != FORMAT:
            return None
        if any(sha256_of(path) != manifest["sha256"][name] for name, path in files.items()):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return files


def build(folder: Path, load: Callable[[], Checkpoint]) -> dict[str, Path]:
    """Builds the files unless another process does so first. Raises CheckpointError."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if (files := compiled_files(folder)) is not None:
                return files
            print("Making the model ready to run fast, once ...", file=sys.stderr, flush=True)
            start, partial = time.monotonic(), f".{folder.name}-"
            for left in folder.parent.glob(f"{partial}*"):  # of a build that was killed
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=partial, dir=folder.parent) as place:
                made = Path(place) / "new"
                made.mkdir()
                _build(load(), made)
                _replace(made, folder)
            took = time.monotonic() - start
            print(f"... ready in {took:.0f} s: {folder}", file=sys.stderr, flush=True)
    except OSError as error:
        raise CheckpointError(
            f"the compiled model could not be written: {error}",
            file=str(folder),
            remedy="Set MEDVLM_CACHE to a folder that can be written, with 800 MB free, "
            "or MEDVLM_RUNTIME=reference to do without.",
        ) from error
    files = compiled_files(folder)
    if files is None:
        raise CheckpointError(
            "the compiled model changed while it was written",
            file=str(folder),
            remedy="set MEDVLM_RUNTIME=reference to do without",
        )
    return files


def _replace(made: Path, folder: Path) -> None:
    if folder.exists():
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as place:
            folder.replace(Path(place) / "old")
    made.replace(folder)


@torch.no_grad()
def _build(checkpoint: Checkpoint, folder: Path) -> None:
    model, config = checkpoint.model, checkpoint.config.model
    encoders = {ENCODER: (model.vision.encoder, config.encoder.size)}
    if model.second is not None and config.second is not None:
        encoders[SECOND] = (model.second.encoder, config.second.size)
    for name, (encoder, size) in encoders.items():
        sizes = sorted({size, config.encoder.size, *config.scales})
        if encoder.dims == 2 and not _encoder(encoder, folder / name, sizes):
            _left_out(folder / name)
    if not _language(model.language, folder, config.language.system):
        (folder / STEPS).unlink(missing_ok=True)
        _left_out(folder / LANGUAGE)
    files = sorted(folder.iterdir())
    for file in files:
        file.chmod(0o644)
    manifest = {"format": FORMAT, "sha256": {file.name: sha256_of(file) for file in files}}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _left_out(path: Path) -> None:
    path.unlink(missing_ok=True)
    print(f"... {path.stem} stays in PyTorch", file=sys.stderr, flush=True)


def _encoder(encoder: Encoder, path: Path, sizes: list[int]) -> bool:
    with _whatever_fails() as tried:
        write_encoder(encoder, path)
        tried.fits = same_maps(encoder, path, sizes)
    return tried.fits


def _language(language: Prompter, folder: Path, system: str | None) -> bool:
    with _whatever_fails() as tried:
        tried.fits = _same_logits(language, folder, system)
    return tried.fits


@dataclass
class _Tried:
    fits: bool = False


@contextlib.contextmanager
def _whatever_fails() -> Iterator[_Tried]:
    """A part that cannot be built costs speed and nothing else. A full disk is another matter."""
    tried = _Tried()
    try:
        yield tried
    except (OSError, MemoryError):
        raise
    except Exception:  # of exporters and of ONNX Runtime, whose errors have no common root
        tried.fits = False


def _same_logits(language: Prompter, folder: Path, system: str | None) -> bool:
    """Writes the language model's graphs; whether they say what PyTorch says."""
    if not (isinstance(language, LanguageModel) and fits(language.base.config)):
        return False
    weights, config = _merged(language.base), language.base.config
    graph, steps = folder / LANGUAGE, folder / STEPS
    onnx.save(llama_graph(weights, config), graph)
    onnx.save(llama_graph(weights, config, eight_bits=True), steps)
    table = embedding_table(language.folder)
    compiled = CompiledLanguage(language.folder, system, graph, steps, table)
    ids = language.tokenize(_PROBE)
    length = torch.arange(len(ids))
    embeddings = language.embed(ids)[None]
    visible = (length[:, None] >= length)[None]
    theirs = language.forward_pass()(embeddings, length[None], visible, length)
    mask = additive(visible, embeddings.dtype)
    for exactly, allowed in ((True, ALLOWED), (False, ALLOWED_IN_8_BITS)):
        ours, _ = compiled.run(
            embeddings, length[None], mask, length, compiled.unread(1), exactly=exactly
        )
        if not (ours - theirs).std() <= allowed * theirs.std():
            return False
    return True


def _merged(base: Any) -> dict[str, Any]:
    """The weights by transformers' names, float32, with the adapters' part in them."""
    adapted = {}
    for name, module in base.named_modules():
        if isinstance(module, LoraLayer):
            layer: Any = module
            weight = layer.get_base_layer().weight + layer.get_delta_weight("default")
            adapted[f"{name}.weight"] = weight
    tied = base.get_output_embeddings().weight is base.get_input_embeddings().weight
    weights = {}
    for name, tensor in base.state_dict().items():
        plain = name.replace(".base_layer", "")
        if "lora_" not in name and not (tied and plain == "lm_head.weight"):
            weights[plain] = adapted.get(plain, tensor).float().numpy()
    return weights
