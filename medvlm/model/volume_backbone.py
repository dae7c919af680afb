"""Networks for volumes: MONAI's, and the I3D-ResNet-152 that Astra carries.

Each is a chain of named parts that follows timm's protocol, so that the encoder reads it as it
reads the others, and that keeps the names under which its weights were published.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from medvlm.config import EncoderConfig
from medvlm.errors import ConfigError
from medvlm.model.backbone import Backbone, close_names

RESNET_STAGES = ("layer1", "layer2", "layer3", "layer4")
DENSENET_STAGES = ("denseblock1", "denseblock2", "denseblock3", "norm5")
MONAI_CHANNELS = {
    "resnet10": (64, 128, 256, 512),
    "resnet18": (64, 128, 256, 512),
    "resnet34": (64, 128, 256, 512),
    "resnet50": (256, 512, 1024, 2048),
    "densenet121": (256, 512, 1024, 1024),
}
ASTRA = "i3d_resnet152"


class Chain(nn.Sequential):
    """Parts in a row; the maps after the parts `ends`, at strides 4, 8, 16 and 32, can be read."""

    def __init__(
        self, parts: Iterable[tuple[str, nn.Module]], ends: Sequence[str], channels: Sequence[int]
    ) -> None:
        super().__init__(OrderedDict(parts))
        self.feature_info: list[dict[str, Any]] = [
            {"module": end, "num_chs": count, "reduction": stride}
            for end, count, stride in zip(ends, channels, (4, 8, 16, 32), strict=True)
        ]

    def forward_intermediates(
        self, images: Tensor, indices: Sequence[int], **_: Any
    ) -> list[Tensor]:
        """The maps at `indices` of `feature_info`, for volumes [B, 1, D, H, W]."""
        ends = [self.feature_info[i]["module"] for i in indices]
        maps = []
        for name, part in self.named_children():
            images = part(images)
            if name in ends:
                maps.append(images)
        return maps

    def backbone(self) -> Backbone:
        channels = tuple(info["num_chs"] for info in self.feature_info)
        return Backbone(self, [1, 2, 3], channels[1:])


def monai_backbone(config: EncoderConfig) -> Backbone:
    """A ResNet or DenseNet of MONAI; strides are the same along all three axes.

    The ResNets are built as MedicalNet's were (shortcuts, stride of the first convolution), so that
    its weights fit; where a stride does not divide the planes, their map has one more. Raises
    ConfigError if the name or the number of slices does not suit, or MONAI is not installed.
    """
    if config.name not in MONAI_CHANNELS:
        raise ConfigError(
            f"encoder.name: the family monai has no network {config.name}",
            remedy=close_names(config.name, [*MONAI_CHANNELS]),
        )
    try:
        from monai.networks import nets
    except ImportError as error:
        raise ConfigError(
            "encoder.family: monai needs MONAI, which is not installed",
            remedy="pip install 'medvlm[volumes]'",
        ) from error
    channels = MONAI_CHANNELS[config.name]
    if config.name == "densenet121":
        if config.slices % 32:
            raise ConfigError(
                f"encoder.slices: densenet121 takes multiples of 32, not {config.slices}",
                remedy="choose a multiple of 32, or a ResNet",
            )
        dense = nets.densenet.DenseNet121(spatial_dims=3, in_channels=1, out_channels=1)
        return Chain(dense.features.named_children(), DENSENET_STAGES, channels).backbone()
    without = config.name in ("resnet18", "resnet34")
    net = getattr(nets, config.name)(
        spatial_dims=3,
        n_input_channels=1,
        conv1_t_stride=2,
        shortcut_type="A" if without else "B",
        bias_downsample=without,
        feed_forward=False,
    )
    parts = [part for part in net.named_children() if part[0] != "avgpool"]
    return Chain(parts, RESNET_STAGES, channels).backbone()


class Bottleneck(nn.Module):
    """ResNet's bottleneck with its 3x3 convolution inflated to 3x3x3."""

    def __init__(self, inputs: int, width: int, stride: int, project: bool) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv3d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(outputs)
        self.downsample = (
            nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs)
            )
            if project
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x), inplace=True)


class InflatedResNet(Chain):
    """A ResNet inflated to volumes (I3D; Carreira and Zisserman, CVPR 2017), as Merlin's.

    Merlin (Blankemeier et al., 2024) is what Astra carries on from. Its first convolution does not
    stride along the planes: maps have strides 4, 8 and 16 there, 8, 16 and 32 in a plane. It was
    trained with rows towards the patient's right and columns towards the front; volumes are turned
    that way and the maps turned back.
    """

    def __init__(self, blocks: Sequence[int]) -> None:
        parts: list[tuple[str, nn.Module]] = [
            ("conv1", nn.Conv3d(1, 64, (3, 7, 7), (1, 2, 2), padding=(1, 3, 3), bias=False)),
            ("bn1", nn.BatchNorm3d(64)),
            ("relu", nn.ReLU(inplace=True)),
            ("maxpool", nn.MaxPool3d(3, 2, padding=1)),
        ]
        inputs = 64
        for i, (name, count) in enumerate(zip(RESNET_STAGES, blocks, strict=True)):
            width = 64 * 2**i
            layer = [Bottleneck(inputs, width, 1 if i == 0 else 2, project=True)]
            inputs = 4 * width
            layer += [Bottleneck(inputs, width, 1, project=False) for _ in range(1, count)]
            parts.append((name, nn.Sequential(*layer)))
        super().__init__(parts, RESNET_STAGES, (256, 512, 1024, 2048))

    def forward_intermediates(
        self, images: Tensor, indices: Sequence[int], **_: Any
    ) -> list[Tensor]:
        turned = images.transpose(-2, -1).flip(-2, -1)
        maps = super().forward_intermediates(turned, indices)
        return [m.flip(-2, -1).transpose(-2, -1) for m in maps]


def astra_backbone(config: EncoderConfig) -> Backbone:
    """The inflated ResNet-152. Raises ConfigError if another name is given."""
    if config.name != ASTRA:
        raise ConfigError(
            f"encoder.name: the family astra has no network {config.name}",
            remedy=f"its only network is {ASTRA}",
        )
    return InflatedResNet((3, 8, 36, 3)).backbone()
