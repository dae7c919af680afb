"""The findings that medvlm speaks of: names, wordings, definitions, mentions in a text.

Names are those of the NIH ChestX-ray14 labels, in their usual order, so that column ``i`` of a
label or probability array ``[N, F]`` is ``FINDINGS[i]``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

Polarity = Literal["present", "absent", "uncertain"]

NIH_FINDINGS: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
FINDINGS: tuple[str, ...] = (*NIH_FINDINGS, "Lung_Opacity")


@dataclass(frozen=True)
class Entry:
    """What the lexicon knows of one finding.

    ``phrase`` is the one wording used with the language model; ``synonyms`` are further wordings
    people use (singular; plurals are understood). ``localisable``: whether a box around it means
    something.
    """

    name: str
    phrase: str
    synonyms: tuple[str, ...]
    definition: str
    localisable: bool = True


_ENTRIES = (
    Entry(
        "Atelectasis",
        "atelectasis",
        ("atelectases", "atelectatic change", "volume loss", "lung collapse", "lobar collapse"),
        "Part of a lung holds less air than it should and has shrunk.",
    ),
    Entry(
        "Cardiomegaly",
        "cardiomegaly",
        (
            "enlarged heart",
            "heart enlargement",
            "cardiac enlargement",
            "enlarged cardiac silhouette",
            "enlargement of the cardiac silhouette",
            "enlarged cardiomediastinal silhouette",
            "heart is enlarged",
        ),
        "The heart's shadow is wider than half of the chest on a frontal film.",
    ),
    Entry(
        "Effusion",
        "pleural effusion",
        ("effusion", "pleural fluid", "hydrothorax"),
        "Fluid has gathered between the lung and the chest wall.",
    ),
    Entry(
        "Infiltration",
        "infiltration",
        ("infiltrate", "pulmonary infiltrate", "lung infiltrate"),
        "An ill-defined shadow in the lung, as if something had seeped into its tissue.",
    ),
    Entry(
        "Mass",
        "mass",
        ("lung mass", "pulmonary mass"),
        "A rounded solid shadow more than 3 cm across.",
    ),
    Entry(
        "Nodule",
        "nodule",
        ("lung nodule", "pulmonary nodule", "nodular opacity", "nodular density"),
        "A rounded solid shadow of 3 cm or less.",
    ),
    Entry(
        "Pneumonia",
        "pneumonia",
        ("bronchopneumonia", "pneumonic infiltrate", "pneumonic consolidation"),
        "An infection that fills part of the lung with inflammatory fluid.",
    ),
    Entry(
        "Pneumothorax",
        "pneumothorax",
        ("pneumothoraces", "pleural air"),
        "Air between the lung and the chest wall, with the lung drawn away from the ribs.",
    ),
    Entry(
        "Consolidation",
        "consolidation",
        ("airspace consolidation", "lung consolidation", "consolidative opacity"),
        "Lung whose air has been replaced, so that it looks evenly dense and hides its vessels.",
    ),
    Entry(
        "Edema",
        "pulmonary edema",
        ("edema", "oedema", "pulmonary oedema", "lung edema", "interstitial edema"),
        "Too much water in the lung's tissue, mostly because the heart cannot keep up.",
        localisable=False,
    ),
    Entry(
        "Emphysema",
        "emphysema",
        ("emphysematous change", "bullous disease"),
        "Lung tissue is destroyed and its air spaces are too wide: it looks dark and overfilled.",
        localisable=False,
    ),
    Entry(
        "Fibrosis",
        "pulmonary fibrosis",
        ("fibrosis", "lung fibrosis", "fibrotic change", "interstitial fibrosis"),
        "The lung's tissue is scarred and stiff, seen as lines or a net.",
        localisable=False,
    ),
    Entry(
        "Pleural_Thickening",
        "pleural thickening",
        ("thickening of the pleura", "thickened pleura", "pleural scarring"),
        "The lining between lung and chest wall is thicker than normal.",
    ),
    Entry(
        "Hernia",
        "hiatal hernia",
        ("hernia", "hiatus hernia", "diaphragmatic hernia"),
        "Part of the stomach has moved through the diaphragm into the chest.",
    ),
    Entry(
        "Lung_Opacity",
        "lung opacity",
        (
            "opacity",
            "opacification",
            "pulmonary opacity",
            "airspace opacity",
            "lung opacification",
        ),
        "An area of the lung that is whiter than it should be, whatever the cause.",
    ),
)

# Wordings that contain one of the above and mean something else.
_OTHERS = (
    "pericardial effusion",
    "joint effusion",
    "subcutaneous emphysema",
    "soft tissue emphysema",
    "surgical emphysema",
    "mediastinal emphysema",
    "soft tissue mass",
    "breast mass",
    "thyroid nodule",
    "soft tissue edema",
    "inguinal hernia",
    "umbilical hernia",
)

LEXICON: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}
PHRASES: dict[str, str] = {entry.name: entry.phrase for entry in _ENTRIES}


@dataclass(frozen=True)
class Mention:
    """A finding named in a text, at ``text[start:end]``."""

    finding: str
    start: int
    end: int


def find_mentions(text: str) -> list[Mention]:
    """Where ``text`` names findings, in reading order.

    Whole words only, upper and lower case alike, singular and plural; where wordings overlap the
    longest wins ("pneumonic infiltrate" is pneumonia, not infiltration; "pericardial effusion" is
    none of the findings).
    """
    finding_of, pattern = _matcher()
    return [
        Mention(finding, match.start(1), match.end(1))
        for match in pattern.finditer(text)
        if (finding := finding_of[_key(match.group(1))])
    ]


def wordings() -> dict[str, str]:
    """The finding of each wording, singular and plural, in lower case; "" for none of them."""
    finding_of = {form: "" for wording in _OTHERS for form in (wording, plural(wording))}
    for entry in _ENTRIES:
        for wording in (entry.phrase, _key(entry.name), *entry.synonyms):
            for form in (wording, plural(wording)):
                finding_of[_key(form)] = entry.name
    return finding_of


@cache
def _matcher() -> tuple[dict[str, str], re.Pattern[str]]:
    """The finding of each wording ("" for one that means something else), and the pattern."""
    finding_of = wordings()
    # The regular expression takes the first alternative that fits, so the longest comes first.
    longest_first = sorted(finding_of, key=len, reverse=True)
    alternatives = "|".join(re.escape(form).replace(r"\ ", r"[\s_-]+") for form in longest_first)
    return finding_of, re.compile(rf"(?<!\w)({alternatives})(?!\w)", re.IGNORECASE)


def _key(wording: str) -> str:
    return re.sub(r"[\s_-]+", " ", wording).lower()


def plural(wording: str) -> str:
    """The plural of a wording's last word."""
    if wording.endswith("y"):
        return wording[:-1] + "ies"
    if wording.endswith("sis"):
        return wording[:-2] + "es"
    return wording + ("es" if wording.endswith(("s", "x")) else "s")
