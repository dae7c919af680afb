"""Networks of timm behind one protocol: which of their maps are read, and at which sizes.

What a network can do is asked of timm (`feature_info`, what its constructor takes) and then tried
once, not guessed from its name.
"""

from __future__ import annotations

import difflib
from typing import Any, NamedTuple

import timm
import torch

from medvlm.config import EncoderConfig
from medvlm.errors import ConfigError

STRIDES = (8, 16, 32)
# Of the image that every network is tried with once, where it takes any size.
TRIAL_SIZE = 64


class Backbone(NamedTuple):
    """A network, and how it is read.

    `net` follows timm: `feature_info` names its stages, and `forward_intermediates` gives the maps
    at `indices`. There are three, from fine to coarse, or one of stride `single`, from which the
    others are made. `channels`: of the maps at `STRIDES`. `fixed`: it takes images of the
    configured size alone.
    """

    net: Any
    indices: list[int]
    channels: tuple[int, ...]
    single: int | None = None
    fixed: bool = False


def timm_backbone(config: EncoderConfig) -> Backbone:
    """Any network of timm with maps at strides 8, 16 and 32, or at one of these (plain ViT).

    Raises ConfigError if timm does not know the name, or the network has other strides or does not
    take one-channel images of the size.
    """
    net, fixed = create_timm(config)
    reductions = [info["reduction"] for info in net.feature_info]
    single = reductions[0] if len(set(reductions)) == 1 else None
    wanted = STRIDES if single is None else (single,)
    if not set(wanted) <= set(reductions) & set(STRIDES):
        raise ConfigError(
            f"encoder.name: {config.name} has maps at strides {sorted(set(reductions))}",
            remedy="choose a network with maps at strides 8, 16 and 32, or a ViT with patches of "
            "8, 16 or 32 pixels",
        )
    indices = [len(reductions) - 1 - reductions[::-1].index(stride) for stride in wanted]
    # The classification head, and what is computed for it alone.
    net.prune_intermediate_layers(indices, prune_norm=single is None, prune_head=True)
    size = config.size if fixed else TRIAL_SIZE
    try:
        net.eval()
        with torch.no_grad():
            maps = net.forward_intermediates(
                torch.zeros(1, 1, size, size),
                indices=indices,
                norm=single is not None,
                intermediates_only=True,
            )
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise _unsuited(config.name, size, error) from error
    net.train()
    for found, stride in zip(maps, wanted, strict=True):
        if found.shape[-2:] != (size // stride, size // stride):
            raise ConfigError(
                f"encoder.name: {config.name} makes a map of {found.shape[-2]} x {found.shape[-1]} "
                f"cells of {size} pixels, not of stride {stride}",
                remedy="choose another network",
            )
    channels = tuple(int(found.shape[1]) for found in maps)
    return Backbone(net, indices, channels * (3 // len(wanted)), single, fixed)


def create_timm(config: EncoderConfig, **options: Any) -> tuple[Any, bool]:
    """timm's model for one channel and no classes, and whether its size is fixed.

    Raises ConfigError if there is no such network, or it cannot be built for the size.
    """
    check_timm_name(config.name)
    options = {"in_chans": 1, "num_classes": 0} | config.options | options
    known = timm.get_pretrained_cfg(config.name)
    try:
        if known is None or not known.fixed_input_size:
            return timm.create_model(config.name, **options), False
        options["img_size"] = config.size
        try:
            return timm.create_model(config.name, dynamic_img_size=True, **options), False
        except TypeError:  # not an option of this network
            return timm.create_model(config.name, **options), True
    except (AssertionError, TypeError, ValueError) as error:
        raise _unsuited(config.name, config.size, error) from error


def check_timm_name(name: str) -> None:
    """Raises ConfigError, with names that are close, unless timm knows the network and its tag."""
    if not timm.is_model(name):
        raise ConfigError(
            f"encoder.name: timm knows no network {name}",
            remedy=close_names(name, timm.list_models()),
        )
    network, _, tag = name.partition(".")
    if tag and name not in (tags := timm.list_pretrained(f"{network}.*")):
        raise ConfigError(
            f"encoder.name: timm knows no weights {name}", remedy=close_names(name, tags)
        )


def close_names(name: str, known: list[str]) -> str:
    """The remedy for a name that is not known."""
    close = difflib.get_close_matches(name, known, n=3) or sorted(known)[:3]
    return f"names that exist are {', '.join(close)}" if close else "leave out what follows the dot"


def _unsuited(name: str, size: int, error: Exception) -> ConfigError:
    return ConfigError(
        f"encoder.name: {name} takes no one-channel images of {size} pixels: {error}",
        remedy="choose another network, or another encoder.size",
    )
