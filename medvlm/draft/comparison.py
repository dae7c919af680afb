"""What became of each finding since a prior study: a rule over what was read in both.

Two films of an unchanged chest differ: breath, posture, exposure and the model's own noise. So a
change is only stated where it exceeds all that by far, and otherwise nothing is said
("not_comparable"). `docs/pictures.md` has the rule in a table, and what it came to on real films.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medvlm.draft.decide import decide, logit, released_boxes
from medvlm.draft.ground import OPACITIES, marked_opacities, place
from medvlm.draft.locate import ScoredBox
from medvlm.draft.look import Seen
from medvlm.draft.parse import Location, Polarity
from medvlm.findings import FINDINGS
from medvlm.model.checkpoint import Checkpoint
from medvlm.records import Change

# In logits of the calibrated probability. A finding that came or went has moved at least this far,
# beyond having crossed from one side of the doubtful range to the other ...
FAR = 3.0
# ... and one that stayed has moved no further than this.
NEAR = 1.0
# Of the opacities' share of the lungs' area, now against then. The same film taken again, a little
# turned, smaller or darker, stays within STEADY three times in four and reaches GREW once in fifty.
GREW = 2.0
STEADY = 1.25
# Look different lying and standing, or in the other projection: the heart is magnified in AP, air
# and fluid in the pleura go where posture lets them.
BY_PROJECTION = frozenset({"Cardiomegaly", "Effusion", "Pneumothorax"})


@dataclass(frozen=True)
class Read:
    """What one study says of one finding.

    `best` is the view that shows it best, `boxes` its boxes there, in grid pixels, `marked` what
    its map marks there: its extent.
    """

    finding: str
    probability: float
    polarity: Polarity
    best: Seen
    boxes: list[ScoredBox]
    location: Location | None
    marked: list[ScoredBox]


def read_findings(checkpoint: Checkpoint, seen: Sequence[Seen]) -> list[Read]:
    """The findings of a study's accepted images, in the order of `FINDINGS`.

    A finding's probability is the mean over the images; its place comes from the image that shows
    it best.
    """
    out = []
    for name in FINDINGS:
        own = [item.probabilities[name] for item in seen]
        probability = float(np.mean(own))
        best = seen[int(np.argmax(own))]
        boxes = released_boxes(checkpoint, best, name, probability)
        polarity = decide(checkpoint, name, probability)
        marked = marked_opacities(checkpoint, best) if boxes and name in OPACITIES else boxes
        where = place(best, name, boxes)
        out.append(Read(name, probability, polarity, best, boxes, where, marked))
    return out


def change(now: Read, before: Read) -> Change:
    """What became of a finding between two studies."""
    polarities = now.polarity, before.polarity
    if "uncertain" in polarities:
        return "not_comparable"
    if now.finding in BY_PROJECTION and _is_ap(now.best) != _is_ap(before.best):
        return "not_comparable"
    moved = logit(now.probability) - logit(before.probability)
    if polarities == ("absent", "absent"):
        return "unchanged"
    if polarities == ("present", "absent"):
        return "new" if moved >= FAR else "not_comparable"
    if polarities == ("absent", "present"):
        return "resolved" if moved <= -FAR else "not_comparable"
    return _still_there(now, before, moved)


def _still_there(now: Read, before: Read, moved: float) -> Change:
    """Of a finding that is present in both studies.

    Only opacities have an extent that is measured; of the others it takes an unmoved probability
    and the same place.
    """
    if now.finding not in OPACITIES:
        same = abs(moved) <= NEAR and now.location == before.location
        return "unchanged" if same else "not_comparable"
    then_share, share = _share_of_lungs(before), _share_of_lungs(now)
    # Where the map falls into other parts, its boxes come and go with grain.
    if not then_share or not share or len(now.marked) != len(before.marked):
        return "not_comparable"
    ratio = share / then_share
    if ratio >= GREW and moved >= -NEAR:
        return "larger"
    if ratio <= 1 / GREW and moved <= NEAR:
        return "smaller"
    same = 1 / STEADY <= ratio <= STEADY and now.location == before.location
    return "unchanged" if same and abs(moved) <= NEAR else "not_comparable"


def _share_of_lungs(read: Read) -> float | None:
    """The marked boxes' area over that of both lungs' boxes; None unless both lungs were found."""
    lungs = read.best.lungs
    if len(lungs) < 2:
        return None
    return sum(item.box.area for item in read.marked) / sum(box.area for box in lungs.values())


def _is_ap(seen: Seen) -> bool:
    """The projection by the header's word, else by the model's."""
    said = (seen.image.view_position or "").upper()
    return said == "AP" if said in ("AP", "PA") else seen.attributes["ap_view"] > 0.5
