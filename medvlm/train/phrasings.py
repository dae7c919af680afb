"""Other ways of asking what the labels know, so that what is learned is not tied to one wording."""

from __future__ import annotations

Wordings = tuple[tuple[str, bool], ...]
"""Each with whether yes means that it is so."""

PRESENCE = (
    "Is there {}?",
    "Is/Are there {}?",
    "Is there evidence of {}?",
    "Is {} present?",
    "Does this film show {}?",
    "Does this patient have {}?",
    "Do you see {}?",
)
SIGNS: dict[str, Wordings] = {
    "Cardiomegaly": (
        ("Is the heart enlarged?", True),
        ("Is/Are the heart enlarged?", True),
        ("Is the heart size abnormal?", True),
        ("Is the cardiac silhouette enlarged?", True),
        ("Is the heart size normal?", False),
        ("Is the cardiac silhouette normal?", False),
    ),
    "Effusion": (
        ("Is the costophrenic angle blunted?", True),
        ("Is there blunting of the costophrenic angles?", True),
    ),
    "Emphysema": (
        ("Are the lungs hyperinflated?", True),
        ("Is there hyperinflation of the lungs?", True),
    ),
}
# Signs with other causes too: absent for certain only where nothing was found at all.
INDIRECT = frozenset({"Effusion", "Emphysema"})
IN_REGION = ("Is there {} in this region?", "Is there {} here?", "Is this {}?")
NORMAL: Wordings = (
    ("Is this image normal?", True),
    ("Is this film normal?", True),
    ("Is this image abnormal?", False),
    ("Are there abnormalities?", False),
)
ATTRIBUTES: dict[str, Wordings] = {
    "ap_view": (
        ("Is this an AP film?", True),
        ("Is this a PA film?", False),
        ("Was this taken in PA position?", False),
    ),
    "male": (("Is this patient male?", True), ("Is this patient female?", False)),
}
