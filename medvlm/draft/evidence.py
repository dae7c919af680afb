"""Proof that the image was used: what the model says of a finding with less and less of it.

For each finding that a draft calls present or possible: its probability on the images as they are,
with its region erased (filled from what lies around), over even grey, and with other patients'
features. What a model says as surely without the image, it does not say because of the image. The
comparison is of logits, so that a fall from 0.99 counts like one from 0.01.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from weakref import WeakKeyDictionary

import torch
from torch import nn

from medvlm.draft.comparison import Read
from medvlm.draft.decide import logit, released_boxes
from medvlm.draft.ground import regions
from medvlm.draft.look import Seen, read_probabilities
from medvlm.findings import FINDINGS
from medvlm.image.geometry import Box
from medvlm.image.hide import blank, erase
from medvlm.image.load import ImageInput
from medvlm.model.checkpoint import Checkpoint
from medvlm.records import Evidence

FALL = 0.5
"""Logits by which a probability falls at least where the image, or its region, carries it."""
STIR = 0.05
"""Logits by which any reading of a model that looks at its images moves when they change."""

MOST_SHAPES = 1024
"""Of images over even grey, of which the readings are kept."""

Probabilities = Mapping[str, float]
_Places = tuple[Box, ...]
_NOTHING: WeakKeyDictionary[nn.Module, dict[tuple[str, int, int], Probabilities]] = (
    WeakKeyDictionary()
)


def look_at_nothing(checkpoint: Checkpoint, seen: Sequence[Seen]) -> list[Probabilities]:
    """What is read of the same images over even grey.

    That depends on their shape alone, which is the same for most of a department's films.
    """
    known = _NOTHING.setdefault(checkpoint.model, {})
    found: list[Probabilities] = []
    for item in seen:
        shape = checkpoint.config.calibration.model_dump_json(), item.image.width, item.image.height
        if shape not in known:
            if len(known) == MOST_SHAPES:
                known.clear()
            (known[shape],) = read_probabilities(checkpoint, [blank(item.image)])
        found.append(known[shape])
    return found


def measure(
    checkpoint: Checkpoint,
    seen: Sequence[Seen],
    nothing: Sequence[Probabilities],
    reads: Sequence[Read],
) -> dict[str, Evidence]:
    """The evidence of each finding of `reads` that is not absent, by name.

    `seen`: the accepted images of the study; `nothing`: what is read of them over even grey. Empty
    if the checkpoint has no donors. A finding without a region of its own has both lungs for it,
    or the whole image where none was found.
    """
    told = [read for read in reads if read.polarity != "absent"]
    if checkpoint.extras.donors is None or not told:
        return {}
    others = donor_probabilities(checkpoint)
    places = [[_places(checkpoint, item, read) for item in seen] for read in told]
    hidden = _look_without(checkpoint, seen, places)
    measured = {}
    for read, own in zip(told, places, strict=True):
        name = read.finding
        erased = [hidden[i, boxes][name] for i, boxes in enumerate(own)]
        empty = [read_of_none[name] for read_of_none in nothing]
        measured[name] = _evidence(read.probability, fmean(erased), fmean(empty), others[name])
    return measured


def donor_probabilities(checkpoint: Checkpoint) -> dict[str, float]:
    """What the checkpoint says of each finding over films that lack it; of all donors, if no film
    does. Raises ValueError for a checkpoint without donors."""
    if checkpoint.extras.donors is None:
        raise ValueError("the checkpoint has no donors")
    calibration, donors = checkpoint.config.calibration, checkpoint.extras.donors
    found = {}
    for i, name in enumerate(FINDINGS):
        lacking = donors.lacking[:, i]
        logits = donors.findings[lacking if lacking.any() else slice(None), i]
        calibrated = calibration.slope * logits + calibration.intercepts.get(name, 0.0)
        found[name] = float(torch.sigmoid(calibrated).mean())
    return found


def image_was_used(seen: Sequence[Seen], nothing: Sequence[Probabilities]) -> bool:
    """Whether any finding's reading is another than over even grey."""
    return any(
        abs(logit(item.probabilities[name]) - logit(empty[name])) > STIR
        for item, empty in zip(seen, nothing, strict=True)
        for name in FINDINGS
    )


def _evidence(image: float, erased: float, nothing: float, other: float) -> Evidence:
    by_image, by_region = (logit(image) - logit(p) >= FALL for p in (other, erased))
    # Even grey is no film: a network may read it as anything, an opaque chest among others. So its
    # reading is shown, and decides only whether the image is used at all.
    status = "unsupported" if not by_image else "supported" if by_region else "weak"
    kept = [round(value, 4) for value in (image, erased, nothing, other)]
    return Evidence(
        status=status, p_image=kept[0], p_erased=kept[1], p_blank=kept[2], p_other=kept[3]
    )


def _places(checkpoint: Checkpoint, seen: Seen, read: Read) -> _Places:
    """What is erased for a finding on one image: boxes in source pixels."""
    boxes = [item.box for item in released_boxes(checkpoint, seen, read.finding, read.probability)]
    shown = regions(seen, boxes or list(seen.lungs.values()))
    if not shown:
        return (Box(0, 0, seen.image.width, seen.image.height),)
    return tuple(Box(own.x, own.y, own.width, own.height) for own in shown)


def _look_without(
    checkpoint: Checkpoint, seen: Sequence[Seen], places: Sequence[Sequence[_Places]]
) -> dict[tuple[int, _Places], Mapping[str, float]]:
    """Probabilities of image i with boxes erased; findings that share them share the look."""
    wanted: dict[tuple[int, _Places], ImageInput] = {}
    for i, item in enumerate(seen):
        for own in places:
            if (i, own[i]) not in wanted:
                wanted[i, own[i]] = erase(item.image, own[i])
    return dict(zip(wanted, read_probabilities(checkpoint, list(wanted.values())), strict=True))
