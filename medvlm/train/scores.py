"""What one trained system says of the validation patients, sample by sample.

Two systems are compared film by film and question by question; a mean alone would hide that they
saw the same films. The heads are read as in pretraining, the language model by its margins. What
the samples are, `samples` says without any model, so that scores can be kept without the data.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from medvlm.data.cache import film_transform
from medvlm.data.sets import Film, Question
from medvlm.draft.locate import DENSE_OPACITY
from medvlm.draft.wording import checklist_question
from medvlm.evaluate.boxes import iou
from medvlm.evaluate.controls import other_patient
from medvlm.evaluate.scan import Fractions
from medvlm.evaluate.vqa import swapped_images
from medvlm.findings import NIH_FINDINGS, PHRASES
from medvlm.image.geometry import Box
from medvlm.model.language import Turn
from medvlm.model.vision import VisionModel
from medvlm.model.vlm import VisionLanguageModel
from medvlm.train.films import FilmStore
from medvlm.train.phrasings import IN_REGION
from medvlm.train.progress import track
from medvlm.train.targets import corners
from medvlm.train.watch_vision import predict

OPACITY = "Lung_Opacity"
Scores = dict[str, np.ndarray]
"""Arrays by name."""


def save_scores(path: Path, scores: Scores) -> None:
    """Writes by rename: a file of scores is complete or not there."""
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, **scores)  # type: ignore[arg-type]
    partial.replace(path)


def load_scores(path: Path) -> Scores:
    """What `save_scores` wrote."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def samples(store: FilmStore, questions: Sequence[Question], films: int) -> Scores:
    """The validation samples that scores are about: truth, and whose each of them is.

    `truth` [N, 14] and `film_groups` [N] of at most `films` films; `box_groups` [K] of those with
    boxes; `lung_groups` [L] of those with masks; `region_truth` and `region_groups` [R];
    `closed_groups` [M]. Groups are patients, or images where patients are not named.
    """
    rows = _films(store, films)
    region = [(row, present) for row in rows for _, present in _places(store.films[row])]
    asked = [q.group for own in _closed_questions(questions).values() for q in own]
    return {
        "truth": store.findings[rows, : len(NIH_FINDINGS)].numpy(),
        "film_groups": _groups(store, rows),
        "box_groups": _groups(store, _boxed(store, rows)),
        "lung_groups": _groups(store, _masked(store, films)),
        "region_truth": np.array([float(present) for _, present in region]),
        "region_groups": _groups(store, np.array([row for row, _ in region], int)),
        "closed_groups": np.array(asked, dtype=str),
    }


def samples_digest(known: Scores) -> str:
    """Names samples: scores belong to these and to no others."""
    content = hashlib.sha256()
    for name in sorted(known):
        content.update(name.encode() + str(known[name].tolist()).encode())
    return content.hexdigest()


def vision_scores(model: VisionModel, store: FilmStore, films: int) -> Scores:
    """Of encoder and heads: findings, and boxes of opacities and lungs.

    `findings` [N, 14]; `pointed` [K] (1: the opacity map's peak lies in a true box) and
    `opacity_iou` [K] of the part of the map over half its peak: no cut-off has to be fitted;
    `lung_iou` [L] of the lungs' masks.
    """
    size = model.config.size
    rows, masked = _films(store, films), _masked(store, films)
    model.eval()
    findings, _, dense = predict(model, store, rows, size)
    opacity = dict(zip(rows, dense[:, DENSE_OPACITY], strict=True))
    pairs = []
    for row in _boxed(store, rows):
        film = store.films[row]
        pairs.append(_located(opacity[row], _in_grid(film, _opacities(film), size), size))
    scores: Scores = {
        "findings": findings[:, : len(NIH_FINDINGS)],
        "pointed": np.array([pointed for pointed, _ in pairs]),
        "opacity_iou": np.array([overlap for _, overlap in pairs]),
    }
    if len(masked):
        _, _, said = predict(model, store, masked, size)
        true = store.batch(masked, size, None).dense[:, :2].numpy() > 0.5
        scores["lung_iou"] = _overlap(said[:, :2] > 0.5, true)
    return scores


@torch.no_grad()
def language_scores(
    model: VisionLanguageModel, store: FilmStore, questions: Sequence[Question], films: int
) -> Scores:
    """Of connector and language model: what they say of the same films, and of others' films.

    `probe`, `checklist`, `checklist_swapped` [N, 14] are logits and margins; `region` [R] margins
    of "is there an opacity here?"; `closed` [M] whether yes or no was right, `closed_swapped` over
    another image of the organ.
    """
    model.eval()
    size = model.config.encoder.size
    rows = _films(store, films)
    probe, checklist, region = [], [], []
    for row in track(list(rows), "scoring films"):
        sight = model.glimpse(store.plain(np.array([row]), size))
        probe.append(model.probe(sight.tokens.mean(dim=1))[0, : len(NIH_FINDINGS)].numpy())
        turns = [Turn(checklist_question(name)) for name in NIH_FINDINGS]
        places = _in_grid(store.films[row], [box for box, _ in _places(store.films[row])], size)
        asked = [Turn(IN_REGION[0].format(PHRASES[OPACITY]), region=corners(b)) for b in places]
        margins = model.margins(sight, [*turns, *asked]).numpy()
        checklist.append(margins[: len(turns)])
        region += list(margins[len(turns) :])
    scores: Scores = {
        "probe": np.stack(probe),
        "checklist": np.stack(checklist),
        "region": np.array(region),
    }
    if (other := other_patient(list(_groups(store, rows)))) is not None:
        scores["checklist_swapped"] = scores["checklist"][other]
    return scores | _closed(model, store, questions)


def _closed(model: VisionLanguageModel, store: FilmStore, questions: Sequence[Question]) -> Scores:
    """Yes/no questions of the validation images, over their image and over another's."""
    asked = _closed_questions(questions)
    if not asked:
        return {}
    row_of = {store.films[row].image: row for row in store.rows("vqa_rad", "validation")}
    size = model.config.encoder.size
    other = swapped_images([question for own in asked.values() for question in own])
    sights = {
        image: model.glimpse(store.plain(np.array([row_of[image]]), size))
        for image in track(list(asked), "looking")
    }
    right: list[float] = []
    swapped: list[float] = []
    for image, own in track(list(asked.items()), "asking"):
        turns, yes = [Turn(q.question) for q in own], [q.answer.lower() == "yes" for q in own]
        for shown, into in ((image, right), (other[image], swapped)):
            margins = model.margins(sights[shown], turns).tolist()
            into += [float((m > 0) == y) for m, y in zip(margins, yes, strict=True)]
    return {"closed": np.array(right), "closed_swapped": np.array(swapped)}


def _films(store: FilmStore, films: int) -> np.ndarray:
    return store.rows("nih_cxr", "validation")[:films]


def _boxed(store: FilmStore, rows: np.ndarray) -> np.ndarray:
    return np.array([row for row in rows if _opacities(store.films[row])], int)


def _masked(store: FilmStore, films: int) -> np.ndarray:
    rows = store.rows("kermany_cxr", "validation")
    return np.array([row for row in rows if store.dense_known[row, 0]], int)[:films]


def _closed_questions(questions: Sequence[Question]) -> dict[Path, list[Question]]:
    """The yes/no questions of the validation images, image by image in order."""
    asked: dict[Path, list[Question]] = defaultdict(list)
    for question in questions:
        if question.validation and question.answer.lower() in ("yes", "no"):
            asked[question.image].append(question)
    return {image: asked[image] for image in sorted(asked)}


def _places(film: Film) -> list[tuple[Fractions, bool]]:
    """Each opacity, and its mirror image where no opacity lies.

    The mirror image is in the lungs too, as large and as high, and depends on no model.
    """
    own = _opacities(film)
    mirrored = [(1 - x - width, y, width, height) for x, y, width, height in own]
    clear = [
        box
        for box in mirrored
        if not any(Box(*box).intersection(Box(*other)).area for other in own)
    ]
    return [*((box, True) for box in own), *((box, False) for box in clear)]


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


def _opacities(film: Film) -> list[Fractions]:
    return film.boxes_of(OPACITY) if film.reviewed else []


def _in_grid(film: Film, boxes: Sequence[Fractions], size: int) -> list[Box]:
    """Boxes of a film in grid pixels."""
    transform = film_transform(film, size)
    return [transform.to_grid(Box.from_fractions(*box, *transform.source_size)) for box in boxes]


def _groups(store: FilmStore, rows: np.ndarray) -> np.ndarray:
    return np.array([store.films[row].group for row in rows], dtype=str)
