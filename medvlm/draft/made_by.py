"""How an image was made: questions about its modality, answered from what is known of the file.

A question is read word by word, and only taken for one about the modality if every word belongs
there: "Is this a CT of the head?" is, "Is the CT normal?" is not.
"""

from __future__ import annotations

import re

from medvlm.config import GateConfig
from medvlm.image.gate import SCREENS
from medvlm.image.load import ImageInput

# The modalities that people ask about, by DICOM's word for them.
_OF_DICOM = {
    "CR": "x-ray",
    "DX": "x-ray",
    "RG": "x-ray",
    "MG": "x-ray",
    "CT": "CT",
    "MR": "MRI",
    "US": "ultrasound",
    "PT": "PET",
    "NM": "nuclear medicine",
}
_FILMS = {name for name, word in _OF_DICOM.items() if word == "x-ray"}
# What people write for them; "radiograph" alone is one, "image" is none.
_NAMED = {
    "x-ray": r"(plain )?(x-? ?rays?|radiographs?)|plain films?|cxr",
    "CT": r"ct|cat scan|computed tomography",
    "MRI": r"mri?|magnetic resonance( imaging)?",
    "ultrasound": r"ultrasound|sonogram",
    "PET": r"pet|positron emission tomography",
    "nuclear medicine": r"nuclear medicine|scintigram|scintigraphy",
}
_PARTS = {
    "chest": r"chest|thorax|thoracic|lungs|cxr",
    "head": r"head|brain|cranial",
    "abdomen": r"abdomen|abdominal",
}
_MARK = "<{}>"
_ARTICLES = {"a", "an", "the", "this", "that", "it"}
_IMAGES = {
    *("image", "picture", "film", "study", "scan", "scanner", "exam", "examination", "imaging"),
    *"|".join(_PARTS.values()).split("|"),
}
_MADE = {
    *("take", "taken", "make", "made", "obtain", "obtained", "acquire", "acquired", "done"),
    *("performed", "used", "seen", "shown", "depicted", "with", "by", "from", "on", "to", "of"),
}
_CLOSED = (
    _ARTICLES | _IMAGES | _MADE | {"above", "frontal", "portable", "or", *map(_MARK.format, _NAMED)}
)
_OPEN = (
    _ARTICLES
    | _IMAGES
    | _MADE
    | {
        *(
            "is",
            "was",
            "are",
            "kind",
            "type",
            "modality",
            "technique",
            "above",
            "here",
            "in",
            "for",
        ),
    }
)
_SUBJECTS = {"this", "that", "it"}


def asks_modality(question: str) -> bool:
    """Whether the whole question is what modality an image is of, openly or by name."""
    words = _words(question)
    if len(words) < 3:
        return False
    if words[0] in ("is", "was", "is/are"):
        named = any(word.startswith("<") for word in words)
        about = words[1] in _SUBJECTS or (words[1] == "the" and words[2] in {"above", *_IMAGES})
        # "Was a CT taken?"
        about |= words[0] == "was" and words[1] in ("a", "an") and words[-1] in _MADE
        return named and about and set(words[1:]) <= _CLOSED
    if words[0] not in ("what", "which", "what's", "imaging", "modality"):
        return False
    text = " ".join(words)
    asked = {"modality", "technique"} & set(words) or re.search(
        r"\b(kind|type) of (image|imaging|picture|film|study|scan|exam)\b", text
    )
    return bool(asked) and set(words[1:]) <= _OPEN


def named_modalities(question: str) -> set[str]:
    """The modalities that a question names, by the words that answers use."""
    words = _words(question)
    return {name for name in _NAMED if _MARK.format(name) in words}


def body_parts(question: str) -> set[str]:
    """The body parts that a question names, of "chest", "head" and "abdomen"."""
    return {name for name, words in _PARTS.items() if re.search(rf"\b({words})\b", question, re.I)}


def known_modality(image: ImageInput, accepted: bool, gate: GateConfig) -> str | None:
    """The image's modality: its header's, or an x-ray if it was accepted by a gate for films.

    None where neither tells: a screenshot is of no modality, whatever its header repeats.
    """
    if accepted and set(gate.modalities) <= _FILMS:
        return "x-ray"
    if not image.is_dicom or (image.conversion_type or "").upper() in SCREENS:
        return None
    return _OF_DICOM.get((image.modality or "").upper())


def _words(question: str) -> list[str]:
    """The question's words, each modality as one of its own; commas count as "or"."""
    text = " ".join(question.lower().replace(",", " or ").split())
    for name, pattern in _NAMED.items():
        text = re.sub(rf"\b(?:{pattern})\b", _MARK.format(name), text)
    return re.findall(r"<[^>]*>|[^\s?.!]+", text)
