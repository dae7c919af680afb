"""Where a probability turns into a statement, and which boxes go with it."""

from __future__ import annotations

import math

from medvlm.draft.ground import finding_boxes
from medvlm.draft.locate import ScoredBox
from medvlm.draft.look import Seen
from medvlm.draft.parse import Polarity
from medvlm.model.checkpoint import Checkpoint


def decide(checkpoint: Checkpoint, finding: str, probability: float) -> Polarity:
    """Present, absent or uncertain, by the checkpoint's operating points."""
    absent_below, present_from = checkpoint.config.operating_points.cuts(finding)
    if probability >= present_from:
        return "present"
    return "absent" if probability < absent_below else "uncertain"


def released_boxes(
    checkpoint: Checkpoint, seen: Seen, finding: str, probability: float | None = None
) -> list[ScoredBox]:
    """The boxes a draft shows for a finding, in grid pixels; a negated finding has none.

    `probability`: that of the study, where it is not this image's own.
    """
    own = seen.probabilities[finding] if probability is None else probability
    if decide(checkpoint, finding, own) == "absent":
        return []
    return finding_boxes(checkpoint, seen, finding)


def logit(probability: float) -> float:
    """Log odds; a probability that was rounded to 0 or 1 counts as one in a million from it."""
    kept = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(kept / (1 - kept))
