"""What one trained system says of the validation patients, kept sample by sample.

Two systems are compared film by film and question by question; a mean alone would hide that they
saw the same films. The heads are read as in pretraining, the language model by its margins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from medvlm.data.cache import film_transform
from medvlm.data.sets import Film, Question
from medvlm.draft.locate import DENSE_OPACITY, LungSide, lung_boxes
from medvlm.draft.wording import checklist_question
from medvlm.evaluate.boxes import iou
from medvlm.evaluate.controls import other_patient
from medvlm.evaluate.vqa import swapped_images
from medvlm.findings import NIH_FINDINGS, PHRASES
from medvlm.image.geometry import Box
from medvlm.model.language import Turn
from medvlm.model.vision import VisionModel
from medvlm.model.vlm import VisionLanguageModel
from medvlm.train.films import FilmStore
from medvlm.train.phrasings import IN_REGION
from medvlm.train.progress import track
from medvlm.train.targets import corners, empty_box
from medvlm.train.watch_vision import predict

OPACITY = "Lung_Opacity"
Scores = dict[str, np.ndarray]
"""Arrays by name; `*_groups` [N] say which patient or image each sample belongs to."""


def save_scores(path: Path, scores: Scores) -> None:
    """Writes by rename: a file of scores is complete or not there."""
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, **scores)  # type: ignore[arg-type]
    partial.replace(path)


def load_scores(path: Path) -> Scores:
    """What `save_scores` wrote."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def vision_scores(model: VisionModel, store: FilmStore, films: int) -> Scores:
    """Of encoder and heads: findings, and boxes of opacities and lungs.

    `findings`, `truth` [N, 14]; `pointed` [K] (1: the opacity map's peak lies in a true box) and
    `opacity_iou` [K] of the part of the map over half its peak, on films with boxes: no cut-off has
    to be fitted; `lung_iou` [L] of the lungs' masks.
    """
    size = model.config.size
    rows = store.rows("nih_cxr", "validation")[:films]
    model.eval()
    findings, _, dense = predict(model, store, rows, size)
    scores: Scores = {
        "findings": findings[:, : len(NIH_FINDINGS)],
        "truth": _truth(store, rows),
        "film_groups": _groups(store, rows),
    }
    boxed = [i for i, row in enumerate(rows) if _opacities(store.films[row])]
    pairs = [
        _located(dense[i, DENSE_OPACITY], _true_boxes(store.films[rows[i]], size), size)
        for i in boxed
    ]
    scores["pointed"] = np.array([pointed for pointed, _ in pairs])
    scores["opacity_iou"] = np.array([overlap for _, overlap in pairs])
    scores["box_groups"] = _groups(store, rows[boxed])
    masked = np.array(
        [row for row in store.rows("kermany_cxr", "validation") if store.dense_known[row, 0]], int
    )[:films]
    if len(masked):
        _, _, said = predict(model, store, masked, size)
        true = store.batch(masked, size, None).dense[:, :2].numpy() > 0.5
        scores["lung_iou"] = _overlap(said[:, :2] > 0.5, true)
        scores["lung_groups"] = _groups(store, masked)
    return scores


@torch.no_grad()
def language_scores(
    model: VisionLanguageModel, store: FilmStore, questions: Sequence[Question], films: int
) -> Scores:
    """Of connector and language model: what they say of the same films, and of others' films.

    `probe`, `checklist`, `checklist_swapped` [N, 14] are logits and margins over `truth`;
    `region` [R] margins of "is there an opacity here?" over `region_truth`; `closed` [M] whether
    yes or no was right, `closed_swapped` over another image of the organ.
    """
    model.eval()
    size = model.config.encoder.size
    rows = store.rows("nih_cxr", "validation")[:films]
    probe, checklist, region, region_truth, region_rows = [], [], [], [], []
    random = np.random.default_rng(0)
    for row in track(list(rows), "scoring films"):
        look = model.vision(store.plain(np.array([row]), size))
        sight = model.sight(look.features)
        probe.append(model.probe(sight.tokens.mean(dim=1))[0, : len(NIH_FINDINGS)].numpy())
        lungs = lung_boxes(look.dense[0].sigmoid().numpy(), size)
        asked = _regions(store.films[row], lungs, size, random)
        turns = [Turn(checklist_question(name)) for name in NIH_FINDINGS]
        margins = model.margins(sight, [*turns, *(turn for turn, _ in asked)]).numpy()
        checklist.append(margins[: len(turns)])
        region += list(margins[len(turns) :])
        region_truth += [float(present) for _, present in asked]
        region_rows += [row] * len(asked)
    scores: Scores = {
        "probe": np.stack(probe),
        "checklist": np.stack(checklist),
        "truth": _truth(store, rows),
        "film_groups": _groups(store, rows),
        "region": np.array(region),
        "region_truth": np.array(region_truth),
        "region_groups": _groups(store, np.array(region_rows, int)),
    }
    if (other := other_patient(list(scores["film_groups"]))) is not None:
        scores["checklist_swapped"] = scores["checklist"][other]
    return scores | _closed(model, store, questions)


def _closed(model: VisionLanguageModel, store: FilmStore, questions: Sequence[Question]) -> Scores:
    """Yes/no questions of the validation images, over their image and over another's."""
    asked = [q for q in questions if q.validation and q.answer.lower() in ("yes", "no")]
    if not asked:
        return {}
    row_of = {store.films[row].image: row for row in store.rows("vqa_rad", "validation")}
    size, other = model.config.encoder.size, swapped_images(asked)
    sights = {
        image: model.glimpse(store.plain(np.array([row_of[image]]), size))
        for image in track(sorted(other), "looking")
    }
    right: list[float] = []
    swapped: list[float] = []
    groups: list[str] = []
    for image in track(sorted(other), "asking"):
        own = [q for q in asked if q.image == image]
        turns, yes = [Turn(q.question) for q in own], [q.answer.lower() == "yes" for q in own]
        for shown, into in ((image, right), (other[image], swapped)):
            margins = model.margins(sights[shown], turns).tolist()
            into += [float((m > 0) == y) for m, y in zip(margins, yes, strict=True)]
        groups += [q.group for q in own]
    return {
        "closed": np.array(right),
        "closed_swapped": np.array(swapped),
        "closed_groups": np.array(groups),
    }


def _regions(
    film: Film,
    lungs: Mapping[LungSide, Box],
    size: int,
    random: np.random.Generator,
) -> list[tuple[Turn, bool]]:
    """A question on each true opacity, and as many on places in the lungs without."""
    if not film.reviewed or len(lungs) < 2:
        return []
    question, boxes = IN_REGION[0].format(PHRASES[OPACITY]), _true_boxes(film, size)
    asked = [(Turn(question, region=corners(box)), True) for box in boxes]
    for _ in range(max(1, len(boxes))):
        if (empty := empty_box(lungs, boxes, random)) is not None:
            asked.append((Turn(question, region=corners(empty)), False))
    return asked


def _located(heat: np.ndarray, true: Sequence[Box], size: int) -> tuple[float, float]:
    """Whether the peak of `heat` [H, W] lies in a true box, and the best overlap of its part."""
    cell_y, cell_x = size / heat.shape[0], size / heat.shape[1]
    peak = np.unravel_index(int(heat.argmax()), heat.shape)
    x, y = (peak[1] + 0.5) * cell_x, (peak[0] + 0.5) * cell_y
    pointed = any(box.x <= x < box.right and box.y <= y < box.bottom for box in true)
    parts, _ = ndimage.label(heat >= heat.max() / 2)
    rows, columns = np.nonzero(parts == parts[peak])
    left, top = columns.min() * cell_x, rows.min() * cell_y
    width, height = (np.ptp(columns) + 1) * cell_x, (np.ptp(rows) + 1) * cell_y
    said = (left, top, width, height)
    overlaps = iou([said], [(box.x, box.y, box.width, box.height) for box in true])
    return float(pointed), float(overlaps.max())


def _overlap(said: np.ndarray, true: np.ndarray) -> np.ndarray:
    """[N]: mean IoU of the masks [N, 2, H, W]."""
    both = (said & true).sum(axis=(2, 3))
    either = (said | true).sum(axis=(2, 3))
    return np.asarray((both / np.maximum(either, 1)).mean(axis=1))


def _opacities(film: Film) -> list[tuple[float, float, float, float]]:
    return [box for name, box in film.boxes if name == OPACITY] if film.reviewed else []


def _true_boxes(film: Film, size: int) -> list[Box]:
    """The film's opacities in grid pixels."""
    transform = film_transform(film, size)
    return [
        transform.to_grid(Box.from_fractions(*box, *transform.source_size))
        for box in _opacities(film)
    ]


def _truth(store: FilmStore, rows: np.ndarray) -> np.ndarray:
    return store.findings[rows, : len(NIH_FINDINGS)].numpy()


def _groups(store: FilmStore, rows: np.ndarray) -> np.ndarray:
    return np.array([store.films[row].group for row in rows], dtype=str)
