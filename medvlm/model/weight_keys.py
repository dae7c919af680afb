"""How published weights name what our backbones have, and which pixels they were trained on."""

from __future__ import annotations

import re
from dataclasses import dataclass

TORCHVISION_RESNET = r"((?:conv1|bn1|layer[1-4])\..+)"


@dataclass(frozen=True)
class Layout:
    """The keys of one network in one source.

    Attributes:
        rename: patterns of whole keys and the backbone's names for them; the first that fits.
        left_out: a pattern of the keys of heads, which are not read.
        mean, std: `encoder.mean` and `encoder.std` that give the pixels the weights know; None
            where every image was normalised by itself.
        family: of the encoder.
    """

    rename: tuple[tuple[str, str], ...]
    left_out: str
    mean: float | None = None
    std: float | None = None
    family: str = "timm"

    def place(self, key: str) -> str | None:
        """The backbone's name for a key, "" for one that is left out, None for an unknown one."""
        for pattern, name in self.rename:
            if match := re.fullmatch(pattern, key):
                return match.expand(name)
        return "" if re.fullmatch(self.left_out, key) else None


def _torchxrayvision(keys: str) -> Layout:
    # Pixels from -1024 to 1024. A model's own state_dict has `op_threshs`, and a ResNet's a prefix.
    return Layout(
        rename=((rf"(?:model\.)?{keys}", r"\1"),),
        left_out=r"(?:model\.)?(?:classifier|fc)\..+|op_threshs",
        mean=0.5,
        std=1 / 2048,
    )


def _radimagenet(rename: tuple[tuple[str, str], ...], left_out: str) -> Layout:
    # A Sequential of torchvision's children: numbers for names. Pixels from -1 to 1.
    return Layout(rename, left_out, mean=0.5, std=0.5)


_MEDICALNET = Layout(
    rename=((rf"(?:module\.)?{TORCHVISION_RESNET}", r"\1"),),
    left_out=r"(?:module\.)?(?:conv_seg|fc)\..+",
    family="monai",
)

PUBLISHED: dict[str, dict[str, Layout]] = {
    "torchxrayvision": {
        "densenet121": _torchxrayvision(r"(features\..+)"),
        "resnet50": _torchxrayvision(TORCHVISION_RESNET),
    },
    "radimagenet": {
        "densenet121": _radimagenet(
            ((r"backbone\.0\.(.+)", r"features.\1"),),
            left_out=r"backbone\.1\.(?:weight|bias)|classifier\..+",
        ),
        "resnet50": _radimagenet(
            (
                (r"backbone\.0\.(.+)", r"conv1.\1"),
                (r"backbone\.1\.(.+)", r"bn1.\1"),
                *((rf"backbone\.{i + 3}\.(.+)", rf"layer{i}.\1") for i in range(1, 5)),
            ),
            left_out=r"fc\..+",
        ),
    },
    "biovil": {
        # BioViL-T's file has the parts that compare two images beside the same ResNet.
        "resnet50": Layout(
            rename=((rf"encoder\.encoder\.{TORCHVISION_RESNET}", r"\1"),),
            left_out=r"encoder\.encoder\.fc\..+|(?:projector|classifier)\..+|"
            r"encoder\.(?:backbone_to_vit\..+|vit_pooler\..+|missing_previous_emb)",
            mean=0.0,
            std=1.0,
        ),
    },
    "medicalnet": {f"resnet{depth}": _MEDICALNET for depth in (10, 18, 34, 50)},
}

# What `medvlm pretrain` writes, and a checkpoint.
OWN = Layout(
    rename=((r"(?:vision\.)?encoder\.backbone\.(.+)", r"\1"),),
    left_out=r"(?:vision\.)?(?:classifier|attributes|dense)\..+|(?:second|connector|probe|lora)\..+",
)
