"""Whether the answers come from the image: the same findings over less of it, or another's.

N films, F findings. Only positives can fall: a finding that the labels hold for present.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medvlm.data.sets import Film
from medvlm.draft.answer import presence_margins
from medvlm.draft.decide import released_boxes
from medvlm.draft.evidence import donor_probabilities
from medvlm.draft.ground import regions
from medvlm.draft.look import Seen, look_at
from medvlm.draft.wording import checklist_question
from medvlm.evaluate.bootstrap import (
    Counts,
    Floats,
    mean_with_interval,
    resamples,
    scored,
    unless_few,
)
from medvlm.evaluate.controls import other_patient
from medvlm.evaluate.metrics import MIN_POSITIVES, macro_auroc_of
from medvlm.evaluate.report import sample
from medvlm.evaluate.scan import look_at_files
from medvlm.findings import FINDINGS
from medvlm.image.geometry import Box
from medvlm.image.hide import blank, erase, mirrored
from medvlm.model.checkpoint import Checkpoint
from medvlm.model.language import Turn

_OVERLAP = 0.1
"""IoU from which a mirrored box still covers the place itself, and is no control for it."""

CONTROLS = ("blank", "other_patient", "region_erased", "mirrored_erased", "donors")


def image_use(
    checkpoint: Checkpoint, films: Sequence[Film], names: Sequence[str], batch_size: int
) -> dict[str, Any]:
    """The `image_use` part of the evaluation JSON, over the findings `names`; intervals by patient.

    `probabilities` (the draft's, calibrated) and `checklist` (the language model's yes-minus-no
    margins from the visual tokens alone), each under these controls: even grey (`blank`), another
    patient's film (`other_patient`), the mean over the checkpoint's donors (`donors`), the place of
    the finding erased (`region_erased`: the true box where there is one, else the boxes that the
    draft would release), and the same box erased on the other side (`mirrored_erased`), which tells
    what an erased patch does by itself. `mean_change`: control less image, over the positives;
    `share_falling`: of those that fall.
    `checklist.macro_auroc` beside `shuffled_macro_auroc`: over the findings with at least 10
    positives, with the film's own tokens and with another patient's.
    """
    films = sample(films)
    picked = [FINDINGS.index(name) for name in names]
    truth = np.stack([film.findings for film in films])[:, picked]
    patients = [film.group for film in films]
    shape = (len(CONTROLS), *truth.shape)
    readings = {"probabilities": np.full(shape, np.nan), "checklist": np.full(shape, np.nan)}
    real = {name: np.full(truth.shape, np.nan) for name in readings}
    greys: dict[tuple[int, int], dict[str, Floats]] = {}
    n_true = 0
    paths = [film.image for film in films]
    for row, seen in enumerate(look_at_files(checkpoint, paths, batch_size, "hiding parts")):
        for name, values in _read(checkpoint, seen, names).items():
            real[name][row] = values
        size = (seen.image.height, seen.image.width)
        if size not in greys:
            (nothing,) = look_at(checkpoint, [blank(seen.image)])
            greys[size] = _read(checkpoint, nothing, names)
        for name, values in greys[size].items():
            readings[name][0, row] = values
        positives = [name for name, y in zip(names, truth[row], strict=True) if y == 1]
        places = {name: _place(checkpoint, seen, films[row], name) for name in positives}
        n_true += sum(true for _, true in places.values())
        hidden = _hidden(checkpoint, seen, places, batch_size)
        for (control, finding), own in hidden.items():
            column = names.index(finding)
            for name, values in _read(checkpoint, own, [finding]).items():
                readings[name][CONTROLS.index(control), row, column] = values[0]
    if (other := other_patient(patients)) is not None:
        for name, values in real.items():
            readings[name][1] = values[other]
    for name, values in _donors(checkpoint, names).items():
        readings[name][CONTROLS.index("donors")] = values
    counts = resamples(patients)
    scores: dict[str, Any] = {
        name: {
            control: _changes(truth, real[name], readings[name][i], patients, counts)
            for i, control in enumerate(CONTROLS)
        }
        for name in readings
    }
    scores["checklist"] |= _aurocs(truth, real["checklist"], readings["checklist"][1], counts)
    return scores | {
        "n_films": len(films),
        "n_positive": int((truth == 1).sum()),
        "n_true_places": n_true,
    }


def _read(checkpoint: Checkpoint, seen: Seen, names: Sequence[str]) -> dict[str, Floats]:
    return {
        "probabilities": np.array([seen.probabilities[name] for name in names]),
        "checklist": np.array(presence_margins(checkpoint, seen, list(names))),
    }


def _donors(checkpoint: Checkpoint, names: Sequence[str]) -> dict[str, Floats]:
    """What is said with the donors' features in the place of a film's; empty without donors."""
    donors = checkpoint.extras.donors
    if donors is None:
        return {}
    said = donor_probabilities(checkpoint)
    sights = checkpoint.model.sight(donors.features)
    turns = [Turn(checklist_question(name)) for name in names]
    margins = [
        checkpoint.model.margins(sights.row(i), turns).cpu().numpy()
        for i in range(len(donors.findings))
    ]
    return {
        "probabilities": np.array([said[name] for name in names]),
        "checklist": np.mean(margins, axis=0),
    }


def _place(checkpoint: Checkpoint, seen: Seen, film: Film, finding: str) -> tuple[list[Box], bool]:
    """The finding's boxes in source pixels, and whether they are the true ones."""
    width, height = seen.image.width, seen.image.height
    true = [Box.from_fractions(*box, width, height) for box in film.boxes_of(finding)]
    if true:
        return true, True
    released = [item.box for item in released_boxes(checkpoint, seen, finding)]
    shown = regions(seen, released)
    return [Box(own.x, own.y, own.width, own.height) for own in shown], False


def _hidden(
    checkpoint: Checkpoint,
    seen: Seen,
    places: dict[str, tuple[list[Box], bool]],
    batch_size: int,
) -> dict[tuple[str, str], Seen]:
    """The film with each finding's place erased, and with the mirrored place erased.

    Findings that share a place share the look at it.
    """
    wanted: dict[tuple[str, str], tuple[Box, ...]] = {}
    for finding, (boxes, _) in places.items():
        if not boxes:
            continue
        wanted["region_erased", finding] = tuple(boxes)
        across = tuple(mirrored(box, seen.image.width) for box in boxes)
        if max(a.iou(b) for a in across for b in boxes) < _OVERLAP:
            wanted["mirrored_erased", finding] = across
    different = list(dict.fromkeys(wanted.values()))
    images = [erase(seen.image, boxes) for boxes in different]
    looks = dict(zip(different, look_at(checkpoint, images, batch_size), strict=True))
    return {key: looks[boxes] for key, boxes in wanted.items()}


def _changes(
    truth: Floats, real: Floats, control: Floats, patients: Sequence[str], counts: Counts
) -> dict[str, Any]:
    """Over the positives that have the control."""
    change = np.where(truth == 1, control - real, np.nan)
    known = ~np.isnan(change)
    if not known.any():
        return {"n": 0}
    scores = {
        **mean_with_interval("mean_change", change, counts),
        **mean_with_interval("share_falling", np.where(known, change < 0, np.nan), counts),
    }
    own = [patients[row] for row in np.flatnonzero(known.any(axis=1)).tolist()]
    return unless_few(scores, own) | {"n": int(known.sum())}


def _aurocs(truth: Floats, real: Floats, shuffled: Floats, counts: Counts) -> dict[str, Any]:
    enough = (truth == 1).sum(axis=0) >= MIN_POSITIVES
    if not enough.any() or np.isnan(shuffled).any():
        return {}
    y, own, others = truth[:, enough], real[:, enough], shuffled[:, enough]
    return {
        **scored("macro_auroc", lambda of: macro_auroc_of(y, own, of), counts),
        **scored("shuffled_macro_auroc", lambda of: macro_auroc_of(y, others, of), counts),
    }
