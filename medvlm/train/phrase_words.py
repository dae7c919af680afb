"""What phrases are taught: parts of the lungs and opacities in them, composed by a grammar.

A side and a height mean the same with any noun, so what is read from words is taught on all
combinations. Of two words for opposite heights the language model's embeddings are nearly alike;
what they differ in is the same for many pairs, and that is why there are so many.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from medvlm.draft.anatomy import SIDES, WORDINGS, Part, Side, plural, wordings
from medvlm.model.phrase_head import Kind

HEIGHTS = {
    "upper zone": (
        *("upper", "superior", "cranial", "cephalad", "high", "higher", "elevated", "upward"),
        *("uppermost", "overhead", "raised", "above"),
    ),
    "mid zone": ("mid", "middle", "intermediate", "midway", "medium", "median"),
    "lower zone": (
        *("lower", "inferior", "caudal", "caudad", "low", "lowly", "depressed", "downward"),
        *("lowermost", "underneath", "sunken", "below"),
    ),
}
AREAS = ("zone", "field", "area", "portion", "region", "section", "level")
ADJECTIVES = {
    "apex": ("apex",),
    "base": ("base", "basilar"),
    "costophrenic angle": ("costophrenic", "costodiaphragmatic", "costophrenic angle"),
    "perihilar region": ("perihilar", "hilar", "parahilar", "hilum"),
}
NOUNS = {
    "lung": (
        *("lung", "lung field", "hemithorax", "chest half", "lung parenchyma", "lung tissue"),
        *("whole lung", "entire lung", "complete lung"),
    ),
    "apex": ("apex", "cupola", "peak", "crown", "pinnacle", "ceiling"),
    "base": ("base", "foundation", "foot", "underside", "bed", "ground"),
    "costophrenic angle": (
        *("costophrenic angle", "cp angle", "costophrenic sulcus", "costodiaphragmatic angle"),
        *("lateral base", "costophrenic corner", "costophrenic gutter", "lateral lower corner"),
        "lateral costophrenic angle",
    ),
    "perihilar region": (
        *("hilum", "hilus", "surroundings of the hilum", "neighbourhood of the hilum"),
    ),
}  # fmt: skip
ENDS = ("end", "pole", "extremity", "limit")
"""With a height they are an apex or a base."""
ENDED = {
    "apex": ("upper", "superior", "cranial", "uppermost", "extreme upper"),
    "base": ("lower", "inferior", "caudal", "lowermost", "extreme lower"),
}
BEFORE = {
    "right": ("right", "right-sided", "right-hand"),
    "left": ("left", "left-sided", "left-hand"),
    "both": ("both", "bilateral"),
}
AFTER = ("on the {side}", "on the {side} side", "on the patient's {side}")
CARRIERS = ("", "the ", "in the ", "at the ", "look at the ")
OPACITIES = ("lung opacity", "opacity", "pneumonia", "consolidation", "infiltrate")
"""What radiologists' boxes of opacities are called; each also within a part of the lungs."""
OPAQUE_PARTS = ("lung", "upper zone", "mid zone", "lower zone")
OTHERS = (
    *("heart", "liver", "stomach", "spleen", "kidney", "aorta", "aortic arch", "trachea", "carina"),
    *("diaphragm", "clavicle", "scapula", "shoulder", "humerus", "spine", "vertebra", "breast"),
    *("bowel", "colon", "skull", "eye", "hip", "leg", "arm", "hand", "wrist", "atrium", "rib"),
    *("ventricle", "mediastinum", "esophagus", "pericardium", "neck", "abdomen", "pelvis"),
    *("quadrant", "pacemaker", "patient", "image", "letter", "muscle", "skin", "bone", "joint"),
    *("tooth", "ear", "nose", "bronchus", "lobe", "artery", "vein", "fissure", "pleura", "nerve"),
    *("tumor", "cancer", "catheter", "tube", "wire", "fracture", "vessel", "gland", "border"),
    *("marker", "car", "house", "dog", "tree", "book", "city", "river", "problem", "answer"),
    *("doctor", "disease", "nodule", "needle", "button", "blood", "air", "fluid", "metal"),
)
"""Words of what is no part of the lungs: where they are asked for, nothing is marked."""


class Wording(NamedTuple):
    """A phrase, what it means, and the word that carries this meaning.

    All words for one thing count the same, whatever they go with.
    """

    text: str
    kind: Kind
    part: Part
    word: str


def taught_wordings() -> list[Wording]:
    """All of them, each once, in a fixed order."""
    found = [*_parts(), *_opacities()]
    return list({own.text: own for own in found}.values())


def _parts() -> Iterator[Wording]:
    for name in WORDINGS:
        for i, (word, core) in enumerate(_cores(name)):
            for side in SIDES:
                texts = [*_sided(core, side), *(wordings(Part(side, name)) if not i else ())]
                for j, text in enumerate(texts):
                    carrier = CARRIERS[(i + j) % len(CARRIERS)]
                    yield Wording(text, "part", Part(side, name), word)
                    yield Wording(carrier + text, "part", Part(side, name), word)


def _cores(name: str) -> Iterator[tuple[str, str]]:
    """A part without its side, and the word that tells it: "upper", "upper third of the lung"."""
    for height in HEIGHTS.get(name, ()):
        yield height, f"{height} lung"
        for area in (*AREAS, "third"):
            yield height, f"{height} {area}"
            yield height, f"{height} lung {area}"
            yield height, f"{height} {area} of the lung"
    for noun in NOUNS.get(name, ()):
        yield noun, noun
        if name != "lung":
            yield noun, f"{noun} of the lung"
            yield noun, f"lung {noun}"
    for height in ENDED.get(name, ()):
        for end in ENDS:
            yield f"{height} end", f"{height} {end}"
            yield f"{height} end", f"{height} {end} of the lung"
    for word in ADJECTIVES.get(name, ()):
        for area in AREAS:  # one word for all of them, or areas would come to mean a hilum
            yield "area", f"{word} {area}"
            yield "area", f"{word} {area} of the lung"


_UNSEEN = frozenset(
    text for name in WORDINGS for side in SIDES for text in wordings(Part(side, name), unseen=True)
)


def _sided(core: str, side: Side) -> list[str]:
    """The core with its side, in all ways but those that are never taught."""
    return [text for text in _all_sided(core, side) if text not in _UNSEEN]


def _all_sided(core: str, side: Side) -> list[str]:
    ahead = [
        core.replace("the lung", f"the {word} lung") if "the lung" in core else f"{word} {core}"
        for word in BEFORE[side]
    ]
    if side == "both":
        return [*map(plural, ahead), f"{plural(core)} on both sides"]
    return [*ahead, f"{side} {core}", *(f"{core} {after.format(side=side)}" for after in AFTER)]


def _opacities() -> Iterator[Wording]:
    """With the parts' own words, which then tell nothing of the kind."""
    for opacity in OPACITIES:
        yield Wording(opacity, "opacity", Part("both", "lung"), opacity)
    for name in OPAQUE_PARTS:
        for i, (_, core) in enumerate(_cores(name)):
            for side in SIDES[:2]:
                for j, text in enumerate(_sided(core, side)):
                    opacity = OPACITIES[(i + j) % len(OPACITIES)]
                    yield Wording(f"{opacity} in the {text}", "opacity", Part(side, name), opacity)
