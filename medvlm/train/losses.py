"""Losses over labels of which many are unknown, and mixtures of films."""

from __future__ import annotations

from functools import reduce

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medvlm.model.vision import Look
from medvlm.train.films import FilmBatch

VISION_PARTS = ("findings_loss", "attributes_loss", "lungs_loss", "opacity_loss")


def vision_loss(look: Look, batch: FilmBatch, opacity_weight: float) -> dict[str, Tensor]:
    """The weighted, masked losses of findings, attributes, lungs (BCE + Dice) and opacity."""
    dense = look.dense.float()
    known = batch.dense_known[..., None, None].float()
    pixelwise = F.binary_cross_entropy_with_logits(dense, batch.dense, reduction="none") * known
    pixelwise = pixelwise.mean(dim=(0, 2, 3)) / known.mean(dim=(0, 2, 3)).clamp_min(1e-3)
    dice = dice_loss(dense.sigmoid(), batch.dense)
    lungs = (dice * batch.dense_known)[:, :2].sum() / batch.dense_known[:, :2].sum().clamp_min(1)
    return {
        "findings_loss": masked_bce(look.findings.float(), batch.findings) * 2,
        "attributes_loss": masked_bce(look.attributes.float(), batch.attributes) * 0.3,
        "lungs_loss": (pixelwise[0] + pixelwise[1] + lungs) * 0.3,
        "opacity_loss": pixelwise[2] * opacity_weight,
    }


def dice_loss(probability: Tensor, truth: Tensor) -> Tensor:
    """1 - Dice of maps [..., H, W]; one cell is added to both, so that nothing on nothing is 0."""
    overlap = 2 * (probability * truth).sum(dim=(-2, -1)) + 1
    return 1 - overlap / ((probability + truth).sum(dim=(-2, -1)) + 1)


def masked_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy over the targets that are not NaN."""
    known = ~targets.isnan()
    loss = F.binary_cross_entropy_with_logits(logits, targets.nan_to_num(), reduction="none")
    return (loss * known).sum() / known.sum().clamp_min(1)


def total(parts: dict[str, Tensor]) -> Tensor:
    """The sum of the parts of a loss."""
    return reduce(torch.add, parts.values())


def mixup(batch: FilmBatch, alpha: float, random: np.random.Generator) -> FilmBatch:
    """Blends every film with another one and their labels alike (Zhang et al., ICLR 2018).

    Partners are drawn among films with the same labels known, so that few labels are lost.
    """
    share = torch.from_numpy(random.beta(alpha, alpha, len(batch.images))).float()
    share = torch.maximum(share, 1 - share)
    partner = np.arange(len(batch.images))
    labelled = ~batch.findings[:, 0].isnan().numpy()
    for group in (np.flatnonzero(labelled), np.flatnonzero(~labelled)):
        partner[group] = random.permutation(group)

    def blend(x: Tensor) -> Tensor:
        own = share.reshape(-1, *[1] * (x.ndim - 1))
        return own * x + (1 - own) * x[partner]

    return FilmBatch(
        images=blend(batch.images),
        findings=blend(batch.findings),
        attributes=blend(batch.attributes),
        dense=blend(batch.dense),
        dense_known=batch.dense_known & batch.dense_known[partner],
    )
