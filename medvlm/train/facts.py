"""How a VQA-RAD image was made: modality, sequence, plane, projection, contrast.

Known from its organ (the set's abdomens are axial CT, its chests are radiographs), from a table
made by looking at the training images of heads, and from what its questions and answers establish.
One fact can be asked in many ways, so a few free questions on an image become many that only the
image can answer.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from medvlm.data.sets import Question
from medvlm.model.language import Turn
from medvlm.resources import resource_dir

KINDS = ("modality", "sequence", "plane", "projection", "contrast")
# The wording that an answer is given in, and how people write it.
VALUES: dict[str, dict[str, str]] = {
    "modality": {
        "ct": r"\b(?:ct|cat scan|computed tomography)\b",
        "mri": r"\b(?:mri?|magnetic resonance|flair|dwi|t[12])\b",
        "x-ray": r"\b(?:x[- ]?rays?|plain films?|radiographs?|film)\b",
    },
    "sequence": {
        "t1": r"\bt1\b",
        "t2": r"\bt2\b",
        "flair": r"\bflair\b",
        "dwi": r"\b(?:dwi|diffusion)\b",
    },
    "plane": {
        "axial": r"\b(?:axial|transverse)\b",
        "coronal": r"\bcoronal\b",
        "sagittal": r"\bsagg?it+al\b",
    },
    "projection": {
        "pa": r"\b(?:pa|postero-?anterior|posterior[- ]anterior)\b",
        "ap": r"\b(?:ap|antero-?posterior|anterior[- ]posterior)\b",
    },
    "contrast": {"without": r"\b(?:non-? ?contrast|without contrast|no contrast)\b"},
}
# What one fact tells of another kind.
IMPLIED = {"sequence": ("modality", "mri"), "projection": ("modality", "x-ray")}
CLOSED = {
    "modality": ("Is this a {}?", "Is this image a {}?", "Is this a {} image?", "Was a {} taken?"),
    "sequence": ("Is this a {} weighted image?", "Is this {}?", "Is this a {} image?"),
    "plane": ("Is this an {} image?", "Is this an {} plane?", "Is this a {} section?"),
    "projection": ("Is this a {} film?", "Was this taken in {} position?", "Is this an {} image?"),
}
OPEN = {
    "modality": (
        "What modality is this?",
        "What type of image is this?",
        "How was this image taken?",
        "Is this a CT, an MRI or an x-ray?",
    ),
    "sequence": ("What type of MRI is this?", "Is this a T1 weighted, T2 weighted or FLAIR image?"),
    "plane": ("What plane is this image in?", "In what plane was this image taken?"),
    "projection": ("Is this an AP or PA film?", "How was this film taken?"),
}
CONTRAST = (
    ("Was contrast used?", True),
    ("Is this image enhanced by contrast?", True),
    ("Is there contrast in this image?", True),
    ("Is this a noncontrast image?", False),
)
ORGANS = {"HEAD": "head", "CHEST": "chest", "ABD": "abdomen"}
OF_ORGAN = {
    "ABD": {"modality": "ct", "plane": "axial"},
    "CHEST": {"modality": "x-ray"},
    "HEAD": {"plane": "axial"},
}
TABLE = "vqa_rad_head.csv"
_NOT_ASKED = re.compile(r"\bnot\b|\bdensity\b")

Facts = Mapping[str, str]


def image_facts(questions: Iterable[Question]) -> dict[str, dict[str, str]]:
    """By image name, the value of each of `KINDS` that is known, and its `organ`.

    Where two questions contradict each other, nothing is known.
    """
    table = _table()
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for question in questions:
        own = found[question.image.name]
        own["organ"].add(question.organ)
        seen = OF_ORGAN.get(question.organ, {}) | table.get(question.image.name, {})
        for kind, value in (*seen.items(), *_said(question)):
            own[kind].add(value)
            if kind in IMPLIED:
                implied, its_value = IMPLIED[kind]
                own[implied].add(its_value)
    return {
        image: {kind: next(iter(values)) for kind, values in kinds.items() if len(values) == 1}
        for image, kinds in found.items()
    }


def _table() -> dict[str, dict[str, str]]:
    with (resource_dir("data_cards") / TABLE).open(newline="", encoding="utf-8") as file:
        return {
            row.pop("image"): {kind: value for kind, value in row.items() if value}
            for row in csv.DictReader(file)
        }


def fact_turns(facts: Facts, count: int, random: np.random.Generator) -> list[Turn]:
    """`count` questions about the facts, half of the closed ones answered by no."""
    pool = list(facts.items())
    return [_turn(*pool[random.integers(len(pool))], random) for _ in range(count)]


def _turn(kind: str, value: str, random: np.random.Generator) -> Turn:
    if kind == "organ":
        named = ORGANS[value if random.random() < 0.5 else _other(ORGANS, value, random)]
        return Turn(f"Is this an image of the {named}?", _yes(named == ORGANS[value]))
    if kind == "contrast":
        wording, straight = CONTRAST[int(random.integers(len(CONTRAST)))]
        return Turn(wording, _yes((value == "with") == straight))
    if random.random() < 0.4:
        wordings = OPEN[kind]
        return Turn(wordings[int(random.integers(len(wordings)))], value)
    named = value if random.random() < 0.5 else _other(VALUES[kind], value, random)
    wordings = CLOSED[kind]
    wording = wordings[int(random.integers(len(wordings)))].format(
        named if kind == "plane" or named == "x-ray" else named.upper()
    )
    return Turn(wording, _yes(named == value))


def _other(values: Mapping[str, object], own: str, random: np.random.Generator) -> str:
    others = [value for value in values if value != own]
    return others[int(random.integers(len(others)))]


def _yes(so: bool) -> str:
    return "yes" if so else "no"


def _said(question: Question) -> Iterable[tuple[str, str]]:
    """The facts that one question with its answer establishes."""
    asked, answer = question.question.lower(), question.answer.lower()
    if not any(kind in question.kind for kind in ("MODALITY", "PLANE")):
        # "Is there edema on this MRI?" takes for granted what it is.
        if len(named := _named("modality", asked)) == 1:
            yield "modality", named[0]
    elif answer in ("yes", "no"):
        yield from _confirmed(asked, answer == "yes")
    elif not _NOT_ASKED.search(asked):
        for kind in KINDS[:4]:
            if len(named := _named(kind, answer)) == 1:
                yield kind, named[0]
        if re.search(VALUES["contrast"]["without"], answer):
            yield "contrast", "without"
        elif "contrast" in answer:
            yield "contrast", "with"


def _confirmed(asked: str, yes: bool) -> Iterable[tuple[str, str]]:
    if "contrast" in asked:
        without = re.search(VALUES["contrast"]["without"], asked) is not None
        yield "contrast", "with" if yes != without else "without"
    elif re.match(r"(?:is|was) (?:this|the)\b", asked):
        for kind in KINDS[:4]:
            if len(named := _named(kind, asked)) != 1:
                continue
            if yes:
                yield kind, named[0]
            elif kind == "projection":
                yield kind, "ap" if named[0] == "pa" else "pa"


def _named(kind: str, text: str) -> list[str]:
    return [value for value, pattern in VALUES[kind].items() if re.search(pattern, text)]
