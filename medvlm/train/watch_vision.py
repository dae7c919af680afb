"""What is watched while an encoder is pretrained, on patients that nothing is learned from."""

from __future__ import annotations

import numpy as np
import torch

from medvlm.evaluate.metrics import auroc
from medvlm.findings import FINDINGS, NIH_FINDINGS
from medvlm.model.heads import ATTRIBUTES
from medvlm.model.vision import VisionModel
from medvlm.train.films import FilmStore, Side
from medvlm.train.losses import total, vision_loss

BATCH = 16
RIDGE = 1.0
PROBED_FILMS = 512
LEAST_POSITIVES = 10


@torch.no_grad()
def predict(
    model: VisionModel, store: FilmStore, rows: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of findings [N, F], attributes and dense maps [N, 3, size/8, size/8]."""
    device = next(model.parameters()).device
    parts = []
    for start in range(0, len(rows), BATCH):
        batch = store.batch(rows[start : start + BATCH], size, None)
        look = model(batch.images.to(device))
        maps = (look.findings, look.attributes, look.dense)
        parts.append([t.float().sigmoid().cpu().numpy() for t in maps])
    findings, attributes, dense = (np.concatenate(column) for column in zip(*parts, strict=True))
    return findings, attributes, dense


def read_findings(model: VisionModel, store: FilmStore, size: int, side: Side) -> dict[str, float]:
    """Of the model's heads: AUROCs, and how well lungs are found."""
    figures: dict[str, float] = {}
    if len(rows := store.rows("nih_cxr", side)):
        findings, attributes, _ = predict(model, store, rows, size)
        truth = store.findings[rows].numpy()
        figures["nih_macro"] = _macro(truth[:, : len(NIH_FINDINGS)], findings)
        figures["opacity"] = _auroc(truth[:, -1], findings[:, len(FINDINGS) - 1])
        for name in ("ap_view", "male"):
            i = ATTRIBUTES.index(name)
            figures[name] = _auroc(store.attributes[rows, i].numpy(), attributes[:, i])
    if len(rows := store.rows("kermany_cxr", side)):
        masked = [row for row in rows if store.dense_known[row, 0]]
        rows = np.unique(np.concatenate([rows[::4], masked]).astype(int))
        findings, _, dense = predict(model, store, rows, size)
        i = FINDINGS.index("Pneumonia")
        figures["kermany"] = _auroc(store.findings[rows, i].numpy(), findings[:, i])
        known = store.dense_known[rows, 0].numpy()
        if known.any():
            truth = store.batch(rows, size, None).dense[:, :2].numpy()[known] > 0.5
            said = dense[known, :2] > 0.5
            overlap = 2 * (truth & said).sum(axis=(2, 3)) / (truth.sum((2, 3)) + said.sum((2, 3)))
            figures["lung_dice"] = float(overlap.mean())
    return {name: value for name, value in figures.items() if value == value}


@torch.no_grad()
def held_out_loss(
    model: VisionModel, store: FilmStore, size: int, side: Side, opacity_weight: float
) -> float:
    """The supervised loss over one side's films; NaN if there are none."""
    device = next(model.parameters()).device
    rows = np.flatnonzero(store.sides == side)
    losses = []
    for start in range(0, len(rows), BATCH):
        batch = store.batch(rows[start : start + BATCH], size, None)
        batch = type(batch)(*(t.to(device) for t in batch))
        loss = total(vision_loss(model(batch.images), batch, opacity_weight))
        losses.append(float(loss) * len(batch.images))
    return sum(losses) / len(rows) if len(rows) else float("nan")


def linear_probe(model: VisionModel, store: FilmStore, size: int, side: Side) -> dict[str, float]:
    """What an encoder without trained heads knows: AUROC of a ridge regression on NIH's findings.

    Fitted to the mean features of some hundred training films.
    """
    taught, asked = store.rows("nih_cxr", "training")[:PROBED_FILMS], store.rows("nih_cxr", side)
    if not len(taught) or not len(asked):
        return {}
    x, held_out = _pooled(model, store, taught, size), _pooled(model, store, asked, size)
    middle, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    x, held_out = (x - middle) / spread, (held_out - middle) / spread
    y = store.findings[taught, : len(NIH_FINDINGS)].numpy()
    ridge = RIDGE * len(x) * np.eye(x.shape[1])
    weights = np.linalg.solve(x.T @ x + ridge, x.T @ (y - y.mean(axis=0)))
    truth = store.findings[asked, : len(NIH_FINDINGS)].numpy()
    macro = _macro(truth, held_out @ weights)
    return {"probe_macro": macro} if macro == macro else {}


@torch.no_grad()
def _pooled(model: VisionModel, store: FilmStore, rows: np.ndarray, size: int) -> np.ndarray:
    """Mean features [N, C] of the last map."""
    device = next(model.parameters()).device
    parts = []
    for start in range(0, len(rows), BATCH):
        images = store.batch(rows[start : start + BATCH], size, None).images.to(device)
        coarse = model.encoder(images).coarse
        parts.append(coarse.float().flatten(2).mean(dim=2).cpu().numpy())
    return np.concatenate(parts)


def _macro(truth: np.ndarray, scores: np.ndarray) -> float:
    """Mean AUROC over the columns of `truth` with enough positives, else NaN."""
    columns = [i for i in range(truth.shape[1]) if truth[:, i].sum() >= LEAST_POSITIVES]
    return (
        float(np.mean([auroc(truth[:, i], scores[:, i]) for i in columns])) if columns else np.nan
    )


def _auroc(truth: np.ndarray, scores: np.ndarray) -> float:
    """AUROC over the known labels; NaN without both kinds."""
    known = ~np.isnan(truth)
    if not 0 < truth[known].sum() < known.sum():
        return float("nan")
    return float(auroc(truth[known], scores[known]))
