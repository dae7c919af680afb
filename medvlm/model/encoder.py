"""The image encoder: any backbone of timm, or a network for volumes, read out at three strides.

Shape legend used in all of `medvlm.model`:
B images, C channels, H x W cells of a feature map (row, column; row 0 is the top of the image),
D planes of a volume's map (before H), N visual tokens, D the language model's width, F findings,
T text tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvlm.config import EncoderConfig
from medvlm.errors import ConfigError
from medvlm.model.backbone import STRIDES, timm_backbone
from medvlm.model.spatial import linear_resize
from medvlm.model.volume_backbone import astra_backbone, monai_backbone

__all__ = ["STRIDES", "Encoder", "Features"]

FAMILIES = {"timm": timm_backbone, "monai": monai_backbone, "astra": astra_backbone}


class Features(NamedTuple):
    """Feature maps [B, C, (D,) size/stride, size/stride] at strides 8, 16 and 32."""

    fine: Tensor
    middle: Tensor
    coarse: Tensor


class Encoder(nn.Module):
    """A backbone over images or volumes of one channel.

    Takes images [B, 1, size, size] in 0..1, or with `dims` 3 volumes [B, 1, slices, size, size]:
    planes towards the head, rows towards the back, columns towards the patient's left.
    Normalisation is part of the module, so preprocessing cannot part from the weights. Returns
    `Features`.

    Sizes are multiples of 32. A network whose size is fixed (`any_size` is false) takes
    `config.size` alone. `channels`: of the three maps.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.dims = 2 if config.family == "timm" else 3
        built = FAMILIES[config.family](config)
        self.backbone: Any = built.net
        self.indices, self.channels, self.single = built.indices, built.channels, built.single
        self.any_size = not built.fixed

    def forward(self, images: Tensor) -> Features:
        self.require_sizes(images.shape[-2:], "the image's size")
        images = (images - self.config.mean) / self.config.std
        if self.dims == 2:
            images = images.contiguous(memory_format=torch.channels_last)
        maps = self.backbone.forward_intermediates(
            images, indices=self.indices, norm=self.single is not None, intermediates_only=True
        )
        return Features(*maps) if self.single is None else _pyramid(maps[0], self.single)

    def require_sizes(self, sizes: Iterable[int], option: str) -> None:
        """Raises ConfigError, naming `option`, if the encoder does not take images of `sizes`."""
        odd = [size for size in sizes if not self.any_size and size != self.config.size]
        if odd:
            raise ConfigError(
                f"{option}: {self.config.name} takes images of {self.config.size} pixels "
                f"(encoder.size) alone, not of {odd[0]}",
                remedy="leave the other sizes out, or choose a network that takes any size",
            )

    def stages(self) -> list[nn.Module]:
        """The backbone's stages from first to last, to unfreeze the last of them in training.

        A stage ends where timm's `feature_info` says; what follows the last end belongs to it. What
        is a parameter of the whole, such as a ViT's position embedding, belongs to none. A network
        that timm names no stages of has one.
        """
        ends = {info["module"] for info in self.backbone.feature_info}
        stages: list[nn.Module] = []
        parts: list[nn.Module] = []
        for path, part in _parts(self.backbone, ends):
            parts.append(part)
            if path in ends:
                stages.append(nn.ModuleList(parts))
                parts = []
        last = [part for stage in stages[-1:] for part in stage.children()]
        return [*stages[:-1], nn.ModuleList([*last, *parts])]


def _parts(module: nn.Module, ends: set[str], within: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Modules in order, no larger than a stage, with their paths."""
    for name, child in module.named_children():
        path = f"{within}{name}"
        if any(end.startswith(f"{path}.") for end in ends):
            yield from _parts(child, ends, f"{path}.")
        else:
            yield path, child


def _pyramid(x: Tensor, stride: int) -> Features:
    """Three strides from the last map of a network that has one.

    ViTDet's simple feature pyramid (Li et al., ECCV 2022) without its convolutions: what reads the
    maps here brings its own.
    """
    maps = []
    for wanted in STRIDES:
        if wanted < stride:
            size = torch.Size(n * stride // wanted for n in x.shape[2:])
            maps.append(linear_resize(x, size))
        else:
            maps.append(F.avg_pool2d(x, wanted // stride))
    return Features(*maps)
