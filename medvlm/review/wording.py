"""What a person's words claim that should be looked at once more before they are signed.

A person knows more than a film shows, so these rules are fewer than those for a machine's words
(`medvlm.draft.claims`). They read English; of any other language they say nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from medvlm.dicom.patient import Sex
from medvlm.reports.language import is_english


@dataclass(frozen=True)
class Known:
    """What is known beside the words.

    `spacing`: the size of a pixel. `prior`: something to compare with. `chest`: these are plain
    films of a chest.
    """

    sex: Sex | None = None
    spacing: bool = False
    prior: bool = False
    chest: bool = False


class Doubt(NamedTuple):
    """A `word` that should be looked at once more, and why."""

    code: str
    word: str
    message: str


def readable(text: str) -> bool:
    """Whether rules over English words may speak about a text."""
    return is_english(text) and not any(one.isalpha() and one > _LAST_LATIN for one in text)


def doubtful(text: str, known: Known) -> list[Doubt]:
    """What does not go with what is known: codes sex, anatomy, comparison, measurement."""
    if not readable(text):
        return []
    rules = (
        ("sex", _OTHER_SEX.get(known.sex or ""), "the patient's sex is another"),
        ("anatomy", _FAR if known.chest else None, "a film of the chest does not show that"),
        ("comparison", None if known.prior else _COMPARES, "nothing says with what it compares"),
        ("measurement", None if known.spacing else _LENGTH, "the size of a pixel is not known"),
    )
    return [
        Doubt(code, found[0], f'It says "{found[0]}", and {why}.')
        for code, rule, why in rules
        if rule and (found := rule.search(text))
    ]


def says_with_what(comparison: str) -> bool:
    """Whether the field "comparison" names something, and not that there is nothing."""
    return bool(comparison.strip()) and not _NOTHING.fullmatch(comparison.strip())


# ---- the rules ----

_LAST_LATIN = "\u024f"


def _words(words: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{words})\b", re.IGNORECASE)


# "Cervical" is a spine's as well, and men have breasts.
_FEMALE = _words(
    r"she|hers?|wom[ae]n|females?|lady|girl|pregnan\w+|gravid\w*|uter(?:us|ine|i)|ovar(?:y|ies|ian)"
    r"|vagina\w*|vulva\w*|endometri\w+|fallopian|menopaus\w+|menstrua\w+|hysterectomy|IUDs?"
)
_MALE = _words(
    r"he|him|his|m[ae]n|males?|gentlem[ae]n|boy|prostat\w+|testi(?:s|cles?|cular|es)|scrot\w+"
    r"|penis|penile|seminal|gyna?ecomastia"
)
_OTHER_SEX = {"M": _FEMALE, "F": _MALE}
# What no film of a chest shows, and no figure of speech.
_FAR = _words(
    r"brain|skull|cranium|cranial|intracranial|teeth|mandib\w+|orbits?|pelvis|pelvic|hips?|femurs?"
    r"|knees?|tibia\w*|fibula\w*|ankles?|feet|wrists?|(?<!gall )bladder|rectum|rectal|prostat\w+"
    r"|uter(?:us|ine)|ovar(?:y|ies|ian)|testi(?:s|cles?|cular|es)|appendi(?:x|citis)"
    r"|metatars\w+|metacarp\w+|lumbar disc|sacrum|sacral|coccyx"
)
_COMPARES = _words(
    r"unchanged|compar(?:ed|ison)|no longer|previous(?:ly)?|(?<!no )prior|interval|since"
    r"|again (?:seen|noted|demonstrated)|new(?:ly)?|stable"
    r"|(?:larger|smaller|bigger|better|worse|more|less)(?: \w+)? than (?:on|in|before|previously)"
    r"|wors(?:e|ened|ening)|improv(?:ed|ing|ement)|progress(?:ed|ing|ion)|regress(?:ed|ing|ion)"
    r"|(?:has|have) (?:\w+ly )?(?:increased|decreased|resolved|cleared|grown|changed)"
    r"|(?:increas|decreas|enlarg|resolv)ing|persist(?:s|ent|ing|ed)?"
)
_NUMBER = r"\d+(?:[.,]\d+)?"
_LENGTH = re.compile(
    rf"\b{_NUMBER}(?:\s*(?:x|\u00d7|by|to|-)\s*{_NUMBER})*[\s-]*"
    r"(?:mm|cm|millimet(?:er|re)s?|centimet(?:er|re)s?|inch(?:es)?)\b(?!\s*(?:Hg|H2O))",
    re.IGNORECASE,
)
_NOTHING = re.compile(
    r"(?:none|nil|n/?a|no|no(?:ne)? (?:prior|previous|comparison|earlier|old|available)\b[^,;:]*"
    r"|(?:not available|unavailable)|-+|なし|無し|無|前回なし|比較なし|比較対象なし)[.。]?",
    re.IGNORECASE,
)
