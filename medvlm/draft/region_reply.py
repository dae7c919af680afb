"""Answers about a drawn region, from what the maps mark there.

A language model taught a few hundred boxes does not read a region reliably (docs/comparison.md);
the maps that the draft's own regions come from do better (docs/drafts.md).
"""

from __future__ import annotations

import numpy as np

from medvlm.draft.decide import decide
from medvlm.draft.ground import OPACITIES, finding_boxes
from medvlm.draft.known import HELD_BACK, MORE_HELD_BACK, Reply, own_region
from medvlm.draft.locate import DENSE_OPACITY, midline, place_of
from medvlm.draft.look import Seen
from medvlm.draft.wording import place_words
from medvlm.findings import FINDINGS, LEXICON, PHRASES
from medvlm.image.geometry import Box
from medvlm.image.polygon import Drawn, Polygon, box_of
from medvlm.model.checkpoint import Checkpoint

CELLS = 64
COMMON = 0.3
"""A finding's box lies in a region from this share of the smaller of the two on."""
ALIKE = 0.05
"""Two places whose grey differs by less, of the way from black to white, are called alike."""
NOTHING_HERE = "none of the findings looked for is located here"
ACROSS = "The region reaches over the midline: it has no other side."
NO_SIDES = "The two sides cannot be compared: the lungs were not both found."


def region_reply(
    checkpoint: Checkpoint, seen: Seen, region: Drawn, silent: frozenset[str] = frozenset()
) -> Reply:
    """What is in a region: the findings located there, the most probable first, and its place.
    `silent`: those that the site's policy keeps back."""
    said: list[str] = []
    kept_back = False
    found = sorted(FINDINGS, key=lambda name: -seen.probabilities[name])
    for name in found:
        polarity = decide(checkpoint, name, seen.probabilities[name])
        if polarity == "absent" or not is_located(checkpoint, seen, name, region):
            continue
        if name in silent:
            kept_back = True
            continue
        doubt = "possibly " if polarity == "uncertain" else ""
        said.append(f"{doubt}{PHRASES[name]} ({seen.probabilities[name]:.2f})")
    place = place_words(place_of([seen.transform.to_grid(box_of(region))], seen.lungs))
    said += [MORE_HELD_BACK] if said and kept_back else []
    text = ", ".join(said) or (HELD_BACK if kept_back else NOTHING_HERE)
    return Reply(f"{text}; {place}" if place else text, None, [own_region(seen, region)])


def region_presence_reply(
    checkpoint: Checkpoint, seen: Seen, finding: str, region: Drawn
) -> Reply | None:
    """Whether a finding is in a region; None where it has no place, or the draft is uncertain of it
    and no map was taught where it lies."""
    probability, phrase = seen.probabilities[finding], PHRASES[finding]
    polarity = decide(checkpoint, finding, probability)
    if polarity == "absent":
        return Reply("no", probability, [], phrase)
    taught = finding in OPACITIES
    if not LEXICON[finding].localisable or (polarity == "uncertain" and not taught):
        return None
    if not is_located(checkpoint, seen, finding, region):
        # The film's probability is not the region's.
        return Reply("no")
    said = "yes" if polarity == "present" else "possibly"
    return Reply(said, probability, [own_region(seen, region)], phrase)


def other_side_reply(checkpoint: Checkpoint, seen: Seen, region: Drawn) -> Reply:
    """A region beside its mirror image over the midline: grey, and what the opacity map marks."""
    there = mirrored(seen, region)
    if there is None:
        return Reply(NO_SIDES, None, [own_region(seen, region)])
    if box_of(there).intersection(box_of(region)).area > 0:
        return Reply(ACROSS, None, [own_region(seen, region)])
    # Where the mirror image leaves the film, its partner does not count either.
    region = mirrored(seen, there) or region
    here, beyond = _grey(seen, region), _grey(seen, there)
    difference = here - beyond
    if abs(difference) < ALIKE:
        text = "about as dense as the same place on the other side"
    else:
        word = "denser" if difference > 0 else "more lucent"
        grey = f"{here:.2f} against {beyond:.2f} of white"
        text = f"{word} than the same place on the other side ({grey})"
    cut = checkpoint.config.operating_points.opacity
    marked = [height(seen, drawn) >= cut for drawn in (region, there)]
    text += {
        (True, False): "; an opacity is marked here, none there",
        (False, True): "; an opacity is marked there, none here",
        (True, True): "; opacities are marked on both sides",
        (False, False): "; no opacity is marked on either side",
    }[marked[0], marked[1]]
    return Reply(text, None, [own_region(seen, region), own_region(seen, there)])


def is_located(checkpoint: Checkpoint, seen: Seen, finding: str, region: Drawn) -> bool:
    """Whether a finding lies in a region: by the opacity map where it was taught, else by boxes."""
    if finding in OPACITIES:
        return height(seen, region) >= checkpoint.config.operating_points.opacity
    size = seen.transform.size
    own = _on_grid(seen, region).coverage(CELLS, CELLS, size / CELLS)
    for item in finding_boxes(checkpoint, seen, finding):
        other = _polygon(item.box).coverage(CELLS, CELLS, size / CELLS)
        smaller = min(own.sum(), other.sum())
        if smaller > 0 and (own * other).sum() >= COMMON * smaller:
            return True
    return False


def height(seen: Seen, region: Drawn) -> float:
    """The opacity map's highest probability in a region."""
    heat = seen.dense[DENSE_OPACITY]
    cell = seen.transform.size / len(heat)
    share = _on_grid(seen, region).coverage(len(heat), heat.shape[1], cell)
    if not share.any():  # between the points that are counted: the cell under its middle
        x, y = seen.transform.point_to_grid(box_of(region).centre)
        limits = heat.shape[1] - 1, len(heat) - 1
        column, row = (
            min(max(int(v / cell), 0), most) for v, most in zip((x, y), limits, strict=True)
        )
        return float(heat[row, column])
    # A region smaller than a cell still lies in some.
    inside = share >= min(0.5, float(share.max()))
    return float(heat[inside & (share > 0)].max(initial=0.0))


def mirrored(seen: Seen, region: Drawn) -> Drawn | None:
    """The part of a region's mirror image over the midline that is in the image, in source pixels.

    None unless both lungs were found, or where it is under a pixel.
    """
    if len(seen.lungs) < 2:
        return None
    transform = seen.transform
    axis = (midline(seen.lungs) - transform.offset_x) / transform.scale_x
    there: Drawn
    if isinstance(region, Box):
        there = Box(2 * axis - region.right, region.y, region.width, region.height)
    else:
        there = region.moved(lambda point: (2 * axis - point[0], point[1]))
    inside = there.clip(seen.image.width, seen.image.height)
    if inside is None or min(box_of(inside).width, box_of(inside).height) < 1:
        return None
    return inside


def _grey(seen: Seen, region: Drawn) -> float:
    """The mean grey of a region, 0 black .. 1 white."""
    pixels = seen.image.pixels
    box = box_of(region).clip(seen.image.width, seen.image.height)
    top, left = int(box.y), int(box.x)
    rows, columns = max(1, round(box.bottom) - top), max(1, round(box.right) - left)
    part = pixels[top : top + rows, left : left + columns]
    own = _polygon(region).moved(lambda point: (point[0] - left, point[1] - top))
    share = own.coverage(len(part), part.shape[1], 1.0, fine=1)
    if not share.any():
        return float(part.mean())
    return float(np.average(part, weights=share))


def _on_grid(seen: Seen, region: Drawn) -> Polygon:
    return _polygon(region).moved(seen.transform.point_to_grid)


def _polygon(region: Drawn) -> Polygon:
    if isinstance(region, Polygon):
        return region
    corners = ((region.x, region.y), (region.right, region.y), (region.right, region.bottom))
    return Polygon((*corners, (region.x, region.bottom)))
