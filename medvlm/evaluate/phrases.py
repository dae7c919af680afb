"""Do words find their place? Parts of the lungs against lung masks."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from medvlm.draft.anatomy import PARTS, Mask, Part, part_masks, wordings
from medvlm.draft.locate import LungSide
from medvlm.draft.look import Seen
from medvlm.draft.phrases import FROM, maps_of
from medvlm.evaluate.bootstrap import mean_with_interval, resamples
from medvlm.model.checkpoint import Checkpoint

PartDice = dict[str, tuple[float, float]]
"""By the part's name: mean Dice of both sides in wordings that were taught, and in others."""

SIDES: tuple[LungSide, ...] = ("right", "left")


class Phrasebook(NamedTuple):
    """Every wording of every part of one lung: `entries` (part, whether untaught), and what the
    language model makes of them [P, D]."""

    entries: tuple[tuple[Part, bool], ...]
    read: Tensor

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Phrasebook | None:
        """None if the checkpoint was taught no phrases."""
        if checkpoint.extras.phrases is None:
            return None
        parts = [Part(side, name) for side in SIDES for name in PARTS]
        told = [
            (part, unseen, words)
            for part in parts
            for unseen in (False, True)
            for words in wordings(part, unseen)
        ]
        read = checkpoint.model.language.phrases([words for _, _, words in told])
        return cls(tuple((part, unseen) for part, unseen, _ in told), read)


def part_dice(
    checkpoint: Checkpoint, book: Phrasebook, seen: Seen, truth: dict[LungSide, Mask]
) -> PartDice:
    """Scores of the parts of one lung that the masks reach."""
    masks = {part: mask for part, mask in part_masks(truth).items() if mask.any()}
    maps = maps_of(checkpoint, seen, book.read)
    found: dict[str, tuple[list[float], list[float]]] = {}
    for (part, unseen), own in zip(book.entries, maps, strict=True):
        if part in masks:
            said = to_source(seen, own >= FROM, masks[part].shape)
            found.setdefault(part.name, ([], []))[unseen].append(dice(said, masks[part]))
    return {name: (fmean(own[0]), fmean(own[1])) for name, own in found.items()}


def phrase_scores(films: Sequence[PartDice], groups: Sequence[str]) -> dict[str, Any]:
    """Mean Dice over parts, in taught and in untaught words, with intervals; and of each part."""
    known = [(own, group) for own, group in zip(films, groups, strict=True) if own]
    if not known:
        return {}
    scored, patients = zip(*known, strict=True)
    counts = resamples(patients)
    result: dict[str, Any] = {}
    for i, name in enumerate(("mean_dice", "mean_dice_untaught_words")):
        means = [float(np.mean([pair[i] for pair in own.values()])) for own in scored]
        result |= mean_with_interval(name, means, counts)
    names = dict.fromkeys(name for own in scored for name in own)
    result["per_part"] = {
        name: round(float(np.mean([own[name][0] for own in scored if name in own])), 4)
        for name in names
    }
    return result


def dice(said: Mask, true: Mask) -> float:
    """Twice the common part over the sum; 1 where both are empty."""
    whole = int(said.sum() + true.sum())
    return 2 * float((said & true).sum()) / whole if whole else 1.0


def to_source(seen: Seen, mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A grid mask on the cells of an image of another size but the same extent."""
    transform = seen.transform
    y = (np.arange(shape[0]) + 0.5) / shape[0] * transform.source_height
    x = (np.arange(shape[1]) + 0.5) / shape[1] * transform.source_width
    rows = (y * transform.scale_y + transform.offset_y) / transform.size * mask.shape[0]
    columns = (x * transform.scale_x + transform.offset_x) / transform.size * mask.shape[1]
    return np.asarray(
        mask[
            np.ix_(
                rows.astype(int).clip(0, mask.shape[0] - 1),
                columns.astype(int).clip(0, mask.shape[1] - 1),
            )
        ]
    )
