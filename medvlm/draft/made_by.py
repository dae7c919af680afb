"""How an image was made: questions about its modality, answered from what is known of the file."""

from __future__ import annotations

import re

from medvlm.image.load import ImageInput

# DICOM's words for the modalities that people ask about.
_OF_DICOM = {
    "CR": "x-ray",
    "DX": "x-ray",
    "RG": "x-ray",
    "MG": "x-ray",
    "CT": "CT",
    "MR": "MRI",
    "US": "ultrasound",
}
_NAMED = {
    "x-ray": r"x[- ]?rays?|radiographs?|plain\s+films?|cxr",
    "CT": r"ct|cat|computed\s+tomography",
    "MRI": r"mri?|magnetic\s+resonance(\s+imaging)?",
    "ultrasound": r"ultrasound|sonogram",
}
_ANY = "|".join(_NAMED.values())
_PARTS = {"chest": r"chest|thorax|lungs|cxr", "head": r"head|brain", "abdomen": r"abdomen"}
_IMAGE = r"(image|picture|film|study|scan(ner)?|exam(ination)?|imaging)"
_THIS = rf"(this|the|it|that|above)(\s+(chest\s+)?{_IMAGE})*"
_OF = r"(\s+(of\s+the\s+(chest|thorax|lungs|head|brain|abdomen)))?"
_BEFORE = r"((an?|with|by|from|on|taken|made|obtained|acquired|chest|head|brain)\s+)*"
_ONE = rf"{_BEFORE}({_ANY})(\s+{_IMAGE})*"
_CLOSED = re.compile(rf"\s*(is|was)\s+{_THIS}\s+{_ONE}(\s*,?\s*or\s+{_ONE})*{_OF}\s*\??\s*", re.I)
_OPEN = re.compile(
    r"\s*(what|which)\s+((is|was|are|were|kind|type|of|the|used|seen|shown|depicted|here|in|for|to"
    rf"|take|taken|acquire|make|made|an?|{_IMAGE})\s+)*"
    rf"(modality|((kind|type)\s+of|imaging)\s+{_IMAGE})"
    rf"(\s+(is|was|are|used|seen|shown|depicted|here|in|for|to|take|taken|acquire|make|of|{_THIS}))*"
    r"\s*\??\s*",
    re.I,
)


def asks_modality(question: str) -> bool:
    """Whether the whole question is what modality an image is of, openly or by name."""
    return bool(_CLOSED.fullmatch(question) or _OPEN.fullmatch(question))


def named_modalities(question: str) -> set[str]:
    """The modalities that a question names, of "x-ray", "CT", "MRI" and "ultrasound"."""
    return {
        name
        for name, words in _NAMED.items()
        if re.search(rf"\b({words})(\s+{_IMAGE})?\b", question, re.I)
    }


def body_parts(question: str) -> set[str]:
    """The body parts that a question names, of "chest", "head" and "abdomen"."""
    return {name for name, words in _PARTS.items() if re.search(rf"\b({words})\b", question, re.I)}


def known_modality(image: ImageInput, frontal: bool) -> str | None:
    """The image's modality: its header's, or an x-ray if it was accepted as a frontal chest film.

    None for a header that names another, and for a picture without header that is no such film.
    """
    if image.is_dicom:
        return _OF_DICOM.get((image.modality or "").upper())
    return "x-ray" if frontal else None
