"""Parts of the lungs: what people call them, and where they lie in a lung's mask.

Zones are thirds of a lung's height, as everywhere here. The others are working definitions for
pointing at a place, not for measuring.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from medvlm.draft.locate import LungSide

Side = Literal["right", "left", "both"]
SIDES: tuple[Side, ...] = get_args(Side)
Mask = NDArray[np.bool_]

WHOLE = "lung"
# Of a lung's box: from the top to the bottom, and from the side of the chest to its middle.
PARTS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    WHOLE: ((0, 1), (0, 1)),
    "upper zone": ((0, 1 / 3), (0, 1)),
    "mid zone": ((1 / 3, 2 / 3), (0, 1)),
    "lower zone": ((2 / 3, 1), (0, 1)),
    "apex": ((0, 1 / 6), (0, 1)),
    "base": ((5 / 6, 1), (0, 1)),
    "costophrenic angle": ((3 / 4, 1), (0, 1 / 3)),
    "perihilar region": ((1 / 3, 2 / 3), (2 / 3, 1)),
}
# "{side}" stands before or after; of both lungs it is "both", or left out.
WORDINGS: dict[str, tuple[str, ...]] = {
    "lung": ("{side} lung", "the {side} lung", "{side} lung field", "{side} hemithorax"),
    "upper zone": (
        *("{side} upper zone", "the {side} upper lung zone", "upper zone of the {side} lung"),
        *("{side} upper lung", "upper third of the {side} lung", "{side} upper lung field"),
    ),
    "mid zone": (
        *("{side} mid zone", "the {side} middle zone", "mid zone of the {side} lung"),
        *("{side} mid lung", "middle third of the {side} lung", "{side} mid lung field"),
    ),
    "lower zone": (
        *("{side} lower zone", "the {side} lower lung zone", "lower zone of the {side} lung"),
        *("{side} lower lung", "lower third of the {side} lung", "{side} lower lung field"),
    ),
    "apex": ("{side} apex", "apex of the {side} lung", "the {side} lung apex"),
    "base": ("{side} base", "base of the {side} lung", "the {side} lung base"),
    "costophrenic angle": (
        *("{side} costophrenic angle", "the {side} costophrenic sulcus", "{side} cp angle"),
        *("costophrenic angle on the {side}", "lateral base of the {side} lung"),
    ),
    "perihilar region": (
        *("{side} perihilar region", "the {side} hilum", "{side} hilar region"),
        "perihilar zone of the {side} lung",
    ),
}
# Never trained on, neither these wordings nor the words that only they hold: what words mean must
# carry over.
UNSEEN: dict[str, tuple[str, ...]] = {
    "lung": ("lung on the {side}", "{side} pulmonary field"),
    "upper zone": (
        *("{side} upper field", "top third of the {side} lung"),
        "highest third of the {side} lung",
    ),
    "mid zone": (
        *("{side} middle lung field", "middle part of the {side} lung"),
        "{side} lung halfway up",
    ),
    "lower zone": (
        *("{side} lower field", "bottom third of the {side} lung"),
        "lowest third of the {side} lung",
    ),
    "apex": ("{side} apical region", "tip of the {side} lung", "summit of the {side} lung"),
    "base": ("{side} basal region", "bottom of the {side} lung", "{side} lung floor"),
    "costophrenic angle": ("{side} lateral costophrenic recess", "{side} phrenicocostal sinus"),
    "perihilar region": ("region around the {side} hilum", "root of the {side} lung"),
}
_WORDS = (
    r"left|right|both|bilateral|lungs?|fields?|upper|mid|middle|lower|zones?|thirds?|apex|apices"
    r"|apical|bases?|basal|costophrenic|cp|angles?|sulcus|sulci|recess|recesses|lateral|perihilar"
    r"|hilum|hila|hilar|regions?|areas?|hemithorax|top|bottom|tip|part|around|on|of|the|in|side"
)
_WHERE_IS = (
    r"\s*(?:where(?:\s+(?:is|are)|'s)|show(?:\s+me)?|locate|point\s+(?:out|to)|mark|find)\s+"
)
_WHERE = re.compile(rf"{_WHERE_IS}(?P<phrase>(?:(?:{_WORDS})\b[\s-]*)+)[?.]*\s*", re.I)
_PART = re.compile(
    r"\b(upper|mid|middle|lower|thirds?|apex|apices|apical|bases?|basal|costophrenic|cp|perihilar|hilum"
    r"|hila|hilar|top|bottom|tip)\b",
    re.I,
)
_NAMES = tuple(
    (name, re.compile(rf"\b({words})\b", re.I))
    for name, words in (
        ("upper zone", r"upper|top thirds?"),
        ("mid zone", r"mid|middle"),
        ("lower zone", r"lower|bottom thirds?"),
        ("apex", r"apex|apices|apical"),
        ("base", r"bases?|basal"),
        ("costophrenic angle", r"costophrenic|cp angles?|lateral bases?"),
        ("perihilar region", r"perihilar|hilum|hila|hilar"),
    )
)
# "The tip" or "the base" alone may be of anything.
_OF_A_LUNG = re.compile(
    r"\b(left|right|both|bilateral|lungs?|zones?|fields?|costophrenic|perihilar|hilum|hila|hilar"
    r"|hemithorax)\b",
    re.I,
)


class Part(NamedTuple):
    """A part of one lung, or of both."""

    side: Side
    name: str


def wordings(part: Part, unseen: bool = False) -> list[str]:
    """How a part is called; "both" goes with a plural, which one may write either way."""
    table = UNSEEN if unseen else WORDINGS
    if part.side != "both":
        return [text.format(side=part.side) for text in table[part.name]]
    return [plural(text.format(side="both")) for text in table[part.name]]


def part_masks(lungs: Mapping[LungSide, Mask]) -> dict[Part, Mask]:
    """Every part [H, W] of the lungs that there are; those of both only where both are."""
    found: dict[Part, Mask] = {}
    for name, (down, inwards) in PARTS.items():
        own = {side: _cut(mask, side, down, inwards) for side, mask in lungs.items() if mask.any()}
        found |= {Part(side, name): mask for side, mask in own.items()}
        if len(own) == 2:
            found[Part("both", name)] = own["right"] | own["left"]
    return found


def asked_part(question: str) -> str | None:
    """The words for a part of the lungs whose place is asked for; None for any other question."""
    match = _WHERE.fullmatch(question)
    if match is None:
        return None
    phrase = " ".join(match["phrase"].split())
    return phrase if _PART.search(phrase) and _OF_A_LUNG.search(phrase) else None


def known_part(phrase: str) -> Part | None:
    """The part that a phrase names in words that rules know; None for any other phrase."""
    names = {name for name, pattern in _NAMES if pattern.search(phrase)}
    if "costophrenic angle" in names:
        names -= {"base"}  # "lateral base", "angle at the base"
    one_side: tuple[Side, ...] = ("right", "left")
    sides = [side for side in one_side if re.search(rf"\b{side}\b", phrase, re.I)]
    if len(names) != 1 or len(sides) > 1:
        return None
    return Part(sides[0] if sides else "both", names.pop())


def _cut(
    mask: Mask, side: LungSide, down: tuple[float, float], inwards: tuple[float, float]
) -> Mask:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    y = (np.arange(mask.shape[0]) + 0.5 - rows[0]) / (rows[-1] + 1 - rows[0])
    x = (np.arange(mask.shape[1]) + 0.5 - columns[0]) / (columns[-1] + 1 - columns[0])
    # The patient's left lung has its outer side on the right of the picture.
    x = 1 - x if side == "left" else x
    inside = (y >= down[0]) & (y < down[1])
    across = (x >= inwards[0]) & (x < inwards[1])
    return np.asarray(mask & inside[:, None] & across)


def plural(text: str) -> str:
    """The words for a part of one lung, for both."""
    for one, many in (
        *(("lung", "lungs"), ("zone", "zones"), ("field", "fields"), ("third", "thirds")),
        *(("apex", "apices"), ("base", "bases"), ("angle", "angles"), ("sulcus", "sulci")),
        *(("hemithorax", "hemithoraces"), ("recess", "recesses")),
        *(("hilum", "hila"), ("region", "regions"), ("tip", "tips")),
    ):
        text = re.sub(rf"\b{one}(?=$| of| on| around)", many, text)
    text = re.sub(r"\bof the both lung\b", "of both lungs", text)
    return re.sub(r"\bon the both\b", "on both sides", text).replace("the both", "both")
