"""Encoder and heads in one module: all that one look at an image yields."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from medvlm.config import EncoderConfig
from medvlm.findings import FINDINGS
from medvlm.model.encoder import Encoder, Features
from medvlm.model.heads import ATTRIBUTES, DenseHead, FindingClassifier
from medvlm.model.spatial import spatial_mean


class Look(NamedTuple):
    """What the vision model saw in B images.

    `findings` [B, F] and `attributes` [B, len(ATTRIBUTES)] are logits; `maps` [B, F, size/16,
    size/16] the findings' score maps; `dense` [B, 3, size/8, size/8] logits of `DENSE_MAPS`. The
    maps of a volume have an axis of planes before the last two.
    """

    features: Features
    findings: Tensor
    maps: Tensor
    attributes: Tensor
    dense: Tensor


def channels_last(model: nn.Module) -> None:
    """Lays the convolutions out for the CPU: depthwise nets train about three times faster.

    Those of volumes stay as they are: they were no faster.
    """
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


class VisionModel(nn.Module):
    """Encoder, finding classifier, attribute head and dense head."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        channels = self.encoder.channels
        dims = self.encoder.dims
        self.classifier = FindingClassifier(channels, len(FINDINGS), dims=dims)
        self.attributes = nn.Linear(channels[2], len(ATTRIBUTES))
        self.dense = DenseHead(channels, config.dense_width, dims)

    def forward(self, images: Tensor) -> Look:
        """`images` [B, 1, size, size] in 0..1, letterboxed, or volumes: see `Encoder`."""
        return self.read(self.encoder(images))

    def classify(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of findings [B, F] and attributes alone, without the dense head's cost."""
        features = self.encoder(images)
        findings, _ = self.classifier(features)
        return findings, self.attributes(spatial_mean(features.coarse))

    def read(self, features: Features) -> Look:
        """The heads alone, over features computed before."""
        findings, maps = self.classifier(features)
        return Look(
            features=features,
            findings=findings,
            maps=maps,
            attributes=self.attributes(spatial_mean(features.coarse)),
            dense=self.dense(features),
        )


class SecondReader(nn.Module):
    """Another encoder with a finding classifier: what two readers see alike is more likely true.

    Ensembles of networks that were trained apart err apart (Lakshminarayanan et al., NeurIPS 2017).
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.classifier = FindingClassifier(
            self.encoder.channels, len(FINDINGS), dims=self.encoder.dims
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits of findings [B, F] of `images` [B, 1, size, size] in 0..1, or volumes."""
        findings, _ = self.classifier(self.encoder(images))
        return cast(Tensor, findings)
