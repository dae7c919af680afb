"""Questions about drawn regions: "Is this an opacity?" over radiologists' boxes and over others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from medvlm.data.sets import Film
from medvlm.draft.ground import OPACITY
from medvlm.draft.look import Seen
from medvlm.draft.region_reply import mirrored, region_presence_reply
from medvlm.evaluate.bootstrap import mean_with_interval, resamples, unless_few
from medvlm.image.geometry import Box
from medvlm.image.polygon import box_of
from medvlm.model.checkpoint import Checkpoint

APART = 0.1
"""A mirrored box that shares more of itself with a true one is no place without an opacity."""


class Asked(NamedTuple):
    """A place with or without an opacity, and whether the answer was yes."""

    true: bool
    yes: bool


def ask_regions(checkpoint: Checkpoint, film: Film, seen: Seen) -> tuple[Asked, ...]:
    """Asks over each true box and its mirror image in the other lung; on reviewed films without an
    opacity over the best fixed boxes. Nothing of films that nobody reviewed."""
    if not film.reviewed:
        return ()
    size = (float(seen.image.width), float(seen.image.height))
    true = [Box.from_fractions(*box, *size) for box in film.boxes_of(OPACITY)]
    places = [(box, True) for box in true]
    if true:
        others = [box_of(beyond) for box in true if (beyond := mirrored(seen, box)) is not None]
        clear = [box for box in others if all(_apart(box, own) for own in true)]
    else:
        clear = [Box.from_fractions(*box, *size) for box, _ in checkpoint.config.constant_boxes]
    places += [(box, False) for box in clear]
    asked = []
    for box, there in places:
        inside = box.clip(*size)
        if inside.area >= 1:
            said = region_presence_reply(checkpoint, seen, OPACITY, inside)
            asked.append(Asked(there, said is not None and said.text != "no"))
    return tuple(asked)


def region_scores(asked: Sequence[Sequence[Asked]], patients: Sequence[str]) -> dict[str, Any]:
    """Sensitivity and specificity with intervals by patient, and of how many answers; `asked` by
    film. What nothing was asked of is left out."""
    result: dict[str, Any] = {}
    for name, true in (("sensitivity", True), ("specificity", False)):
        own = [
            (answer.yes == true, patient)
            for answers, patient in zip(asked, patients, strict=True)
            for answer in answers
            if answer.true == true
        ]
        if own:
            right, groups = zip(*own, strict=True)
            scores = mean_with_interval(name, np.array(right), resamples(groups))
            result |= unless_few(scores, groups) | {f"n_{name}": len(own)}
    return result


def _apart(box: Box, other: Box) -> bool:
    return box.intersection(other).area <= APART * box.area
