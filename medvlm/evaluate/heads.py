"""The parts scored on the pass over the films: classification, calibration, grounding, anatomy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from medvlm.data.sets import Film
from medvlm.draft.ground import OPACITY
from medvlm.evaluate.bootstrap import mean_with_interval, resamples, unless_few
from medvlm.evaluate.boxes import IOU_HIT, ScoredBox, area, grounding_scores, iou
from medvlm.evaluate.calibration import calibration_table
from medvlm.evaluate.metrics import MIN_POSITIVES, classification_table
from medvlm.evaluate.phrases import phrase_scores
from medvlm.evaluate.region_questions import region_scores
from medvlm.evaluate.scan import Fractions, Scanned
from medvlm.evaluate.subgroups import calibration_by_group, classification_by_group, members_of
from medvlm.findings import FINDINGS, LEXICON, NIH_FINDINGS

SMALL = 0.05
"""Share of the film under which a true box counts as small: about a third of RSNA's boxes are."""


def known_findings(films: Sequence[Film]) -> list[str]:
    """Those of the NIH findings that the set says anything of, in their order."""
    known = ~np.isnan(np.stack([film.findings for film in films])).all(axis=0)
    return [name for name in NIH_FINDINGS if known[FINDINGS.index(name)]]


def classification(scanned: Sequence[Scanned]) -> dict[str, Any]:
    """Scores of each finding that the set labels: the 14 of NIH, Pneumonia alone for Kermany."""
    names, truth, said = _columns(scanned)
    if not names:
        return {}
    picked = [FINDINGS.index(name) for name in names]
    stated = np.array([[item.polarities[f] == "present" for f in picked] for item in scanned])
    patients = _groups(scanned)
    members = members_of([item.film for item in scanned])
    return classification_table(truth, said, names, patients, stated) | {
        "subgroups": classification_by_group(members, truth, said, names, patients)
    }


def calibration(scanned: Sequence[Scanned]) -> dict[str, Any]:
    """Over the pairs (film, finding) of the findings with at least 10 positives."""
    names, truth, said = _columns(scanned)
    enough = (truth == 1).sum(axis=0) >= MIN_POSITIVES
    if not enough.any():
        return {}
    names = [name for name, kept in zip(names, enough, strict=True) if kept]
    truth, said = truth[:, enough], said[:, enough]
    patients = _groups(scanned)
    members = members_of([item.film for item in scanned])
    return calibration_table(truth, said, patients, names) | {
        "subgroups": calibration_by_group(members, truth, said, patients)
    }


def grounding(scanned: Sequence[Scanned], constant: Sequence[ScoredBox]) -> dict[str, Any]:
    """Lung_Opacity's boxes on the films that radiologists reviewed, beside fixed boxes.

    `by_size`: the true boxes under 5 % of the film, and the others. `per_finding`: each finding
    with true boxes, over the films that have one; nobody looked for it on the rest, so a box there
    is no mistake and `map50` knows none. `boxes_on_negated`: of all `n_negated` denied findings of
    all films. `region_questions`: "Is this an opacity?" over drawn places.
    """
    films = [item for item in scanned if item.film.reviewed]
    result: dict[str, Any] = {}
    if any(item.film.boxes_of(OPACITY) for item in films):
        truth = [item.film.boxes_of(OPACITY) for item in films]
        said = [item.boxes[OPACITY] for item in films]
        groups = _groups(films)
        result = grounding_scores(said, truth, groups)
        result["boxes_on_negated"] = sum(item.on_negated for item in scanned)
        result["n_negated"] = sum(item.polarities.count("absent") for item in scanned)
        result["region_questions"] = region_scores([item.asked for item in films], groups)
        fixed = grounding_scores([list(constant)] * len(films), truth, groups)
        result["constant_baseline"] = fixed
        result["by_size"] = {
            "small": _found(films, lambda box: area(box) < SMALL),
            "large": _found(films, lambda box: area(box) >= SMALL),
            "small_under": SMALL,
        }
    per_finding = {}
    for name in FINDINGS:
        own = [item for item in scanned if item.film.boxes_of(name)]
        scored_above = name == OPACITY and "map50" in result
        if own and LEXICON[name].localisable and not scored_above:
            scores = grounding_scores(
                [item.boxes[name] for item in own],
                [item.film.boxes_of(name) for item in own],
                _groups(own),
            )
            per_finding[name] = unless_few(scores, _groups(own))
    return result | ({"per_finding": per_finding} if per_finding else {})


def anatomy(scanned: Sequence[Scanned]) -> dict[str, Any]:
    """Lungs: the box answered to "where is the left lung?", the mask behind it, swapped sides; and
    parts of the lungs as phrases find them, where the checkpoint was taught phrases."""
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
    counts = resamples(_groups(films))
    phrases = phrase_scores([item.parts for item in films], _groups(films))
    return {
        **mean_with_interval("mean_box_iou", overlaps, counts),
        **mean_with_interval("mean_dice", dices, counts),
        "left_right_swapped": swapped,
        "n_films": len(films),
        **({"phrases": phrases} if phrases else {}),
    }


def _found(films: Sequence[Scanned], keep: Callable[[Fractions], bool]) -> dict[str, Any]:
    """How well the opacity boxes cover the true ones that `keep` picks; intervals by patient."""
    overlaps, patients = [], []
    for item in films:
        truth = [box for box in item.film.boxes_of(OPACITY) if keep(box)]
        found = iou([box for box, _ in item.boxes[OPACITY]], truth).max(axis=0, initial=0)
        overlaps += found.tolist()
        patients += [item.film.group] * len(truth)
    if not overlaps:
        return {"n_boxes": 0}
    counts = resamples(patients)
    scores = {
        **mean_with_interval("mean_best_iou", overlaps, counts),
        **mean_with_interval("recall50", np.array(overlaps) >= IOU_HIT, counts),
    }
    return unless_few(scores, patients) | {"n_boxes": len(overlaps)}


def _columns(scanned: Sequence[Scanned]) -> tuple[list[str], np.ndarray, np.ndarray]:
    names = known_findings([item.film for item in scanned])
    picked = [FINDINGS.index(name) for name in names]
    truth = np.stack([item.film.findings for item in scanned])[:, picked]
    said = np.stack([item.probabilities for item in scanned])[:, picked]
    return names, truth, said


def _groups(scanned: Sequence[Scanned]) -> list[str]:
    return [item.film.group for item in scanned]
