"""The parts scored on the pass over the films: classification, calibration, grounding, anatomy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medvlm.draft.ground import OPACITY
from medvlm.evaluate.bootstrap import replicates, with_interval
from medvlm.evaluate.boxes import grounding_scores, iou
from medvlm.evaluate.metrics import MIN_POSITIVES, auroc_table
from medvlm.evaluate.metrics import calibration as calibration_scores
from medvlm.evaluate.scan import Fractions, Scanned
from medvlm.findings import FINDINGS, NIH_FINDINGS


def classification(kind: str, scanned: Sequence[Scanned]) -> dict[str, Any]:
    """AUROCs: the 14 NIH findings, or Pneumonia alone for Kermany."""
    names, truth, said = _columns(kind, scanned)
    return auroc_table(truth, said, names, _groups(scanned))


def calibration(kind: str, scanned: Sequence[Scanned]) -> dict[str, Any]:
    """Over the pairs (film, finding) of the findings with at least 10 positives."""
    _, truth, said = _columns(kind, scanned)
    enough = (truth == 1).sum(axis=0) >= MIN_POSITIVES
    if not enough.any():
        return {}
    return calibration_scores(truth[:, enough], said[:, enough], _groups(scanned))


def grounding(
    scanned: Sequence[Scanned], constant: Sequence[tuple[Fractions, float]]
) -> dict[str, Any]:
    """Lung_Opacity's boxes on the films that radiologists reviewed, beside fixed boxes."""
    films = [item for item in scanned if item.film.reviewed]
    truth = [[box for name, box in item.film.boxes if name == OPACITY] for item in films]
    if not any(truth):
        return {}
    groups = _groups(films)
    scores = grounding_scores([item.opacity for item in films], truth, groups)
    scores["boxes_on_negated"] = sum(len(item.opacity) for item in films if item.negated)
    fixed = grounding_scores([list(constant)] * len(films), truth, groups)
    return scores | {"constant_baseline": fixed}


def anatomy(scanned: Sequence[Scanned]) -> dict[str, Any]:
    """Lungs: the box answered to "where is the left lung?", the mask behind it, swapped sides."""
    films = [item for item in scanned if item.lungs]
    if not films:
        return {}
    overlaps, dices, swapped = [], [], 0
    for item in films:
        own_overlaps, own_dices = [], []
        for said, true, dice, other in item.lungs.values():
            overlap = 0.0 if said is None else float(iou([said], [true])[0, 0])
            crossed = 0.0 if said is None or other is None else float(iou([said], [other])[0, 0])
            own_overlaps.append(overlap)
            own_dices.append(dice)
            swapped += crossed > overlap
        overlaps.append(np.mean(own_overlaps))
        dices.append(np.mean(own_dices))
    values = np.array([overlaps, dices])
    sampled = replicates(lambda rows: values[:, rows].mean(axis=1), _groups(films))
    return {
        **with_interval("mean_box_iou", float(values[0].mean()), sampled[:, 0]),
        **with_interval("mean_dice", float(values[1].mean()), sampled[:, 1]),
        "left_right_swapped": swapped,
        "n_films": len(films),
    }


def _columns(kind: str, scanned: Sequence[Scanned]) -> tuple[list[str], np.ndarray, np.ndarray]:
    names = ["Pneumonia"] if kind == "kermany_cxr" else list(NIH_FINDINGS)
    picked = [FINDINGS.index(name) for name in names]
    truth = np.stack([item.film.findings for item in scanned])[:, picked]
    said = np.stack([item.probabilities for item in scanned])[:, picked]
    return names, truth, said


def _groups(scanned: Sequence[Scanned]) -> list[str]:
    return [item.film.group for item in scanned]
