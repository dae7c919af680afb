"""Where a finding lies: boxes on the grid, regions in source pixels, words for a sentence."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medvlm.draft.locate import (
    DENSE_OPACITY,
    ScoredBox,
    map_boxes,
    peak_boxes,
    peak_heat,
    place_of,
)
from medvlm.draft.look import Seen
from medvlm.draft.opacity_boxes import opacity_boxes
from medvlm.draft.parse import Location
from medvlm.findings import FINDINGS, LEXICON
from medvlm.image.geometry import Box
from medvlm.model.checkpoint import Checkpoint
from medvlm.records import Region

# Shown by the map that learned from radiologists' boxes, not by the classifier's attention.
OPACITY = "Lung_Opacity"
OPACITIES = frozenset({OPACITY, "Pneumonia", "Infiltration", "Consolidation"})
# Their place goes without saying, or spans the chest.
UNPLACED = frozenset({"Cardiomegaly", "Hernia", "Edema", "Emphysema"})
MARGIN_CELLS = 3


def finding_boxes(checkpoint: Checkpoint, seen: Seen, finding: str) -> list[ScoredBox]:
    """Boxes of a finding in grid pixels, the surest first, at most 3; none if it has no place.

    The dense head's map says in which lungs opacities lie. Their boxes are likely shapes there,
    where the checkpoint knows shapes and both lungs were found, else what the map marks. Other
    findings come from the classifier's own score map, within the lungs' surroundings.
    """
    if not LEXICON[finding].localisable:
        return []
    size = seen.transform.size
    if finding in OPACITIES:
        marked, scorer = marked_opacities(checkpoint, seen), checkpoint.extras.boxes
        if not marked or scorer is None:
            return marked
        return opacity_boxes(scorer, seen, [item.box for item in marked]) or marked
    scores = seen.score_maps[FINDINGS.index(finding)]
    if finding in UNPLACED:
        return peak_boxes(scores, size, np.ones(scores.shape, dtype=bool))[:1]
    return peak_boxes(scores, size, _near_lungs(seen, scores.shape))[:2]


def marked_opacities(checkpoint: Checkpoint, seen: Seen) -> list[ScoredBox]:
    """What the dense head's map marks, in grid pixels: the extent of opacities, where they are
    certain."""
    threshold = checkpoint.config.operating_points.opacity
    return map_boxes(seen.dense[DENSE_OPACITY], threshold, seen.transform.size)


def finding_heat(seen: Seen, finding: str) -> np.ndarray:
    """The map that a finding's place was read from, 0..1, [rows, columns] over the grid.

    Of opacities the dense head's probability; of others how near the classifier's score comes to
    its peak on this film, which compares places, not films.
    """
    if finding in OPACITIES:
        return np.asarray(seen.dense[DENSE_OPACITY])
    scores = seen.score_maps[FINDINGS.index(finding)]
    everywhere = finding in UNPLACED
    valid = np.ones(scores.shape, bool) if everywhere else _near_lungs(seen, scores.shape)
    return peak_heat(scores, valid)


def place(seen: Seen, finding: str, boxes: list[ScoredBox]) -> Location | None:
    """Side and zone to name in a sentence, or None where they go without saying."""
    if finding in UNPLACED:
        return None
    return place_of([item.box for item in boxes], seen.lungs)


def regions(seen: Seen, boxes: list[Box]) -> list[Region]:
    """Grid boxes as regions in the image's own pixels; what is under a pixel in it is dropped."""
    found = (seen.place.region(box) for box in boxes)
    return [region for region in found if region is not None]


def _near_lungs(seen: Seen, shape: tuple[int, ...]) -> np.ndarray:
    """bool [h, w]: both lungs and a margin; everything if no lung was found."""
    masks = seen.lung_masks
    lungs = ndimage.binary_dilation(masks["right"] | masks["left"], iterations=MARGIN_CELLS)
    if not lungs.any():
        return np.ones(shape, dtype=bool)
    factors = [have / want for have, want in zip(lungs.shape, shape, strict=True)]
    rows, columns = (
        (np.arange(n) * factor + factor / 2).astype(int)
        for n, factor in zip(shape, factors, strict=True)
    )
    return np.asarray(lungs[np.ix_(rows, columns)])
