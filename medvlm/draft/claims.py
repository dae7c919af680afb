"""What a draft may not say, because nothing in its input tells it.

A language model that learned from reports has learned their habits too: sizes that nobody measured,
a lateral view that nobody took, what the patient was known for. Rules over words, no model; a word
too many is caught rather than one too few, since a plain sentence can take the place of any other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from medvlm.draft.change import compares
from medvlm.draft.parse import parse_sentence
from medvlm.findings import PHRASES, find_mentions
from medvlm.records import Finding, Reason


@dataclass(frozen=True)
class Given:
    """What the input of a draft tells beside its pixels.

    `views`: the projections of its images, such as "PA". `spacing`: whether the size of a pixel is
    known. `prior`: whether an earlier study was given.
    """

    views: frozenset[str] = frozenset()
    sex: Literal["M", "F"] | None = None
    spacing: bool = False
    prior: bool = False


NOTHING = Given()


def unfounded(text: str, given: Given = NOTHING) -> list[Reason]:
    """Why `text` says more than the findings and `given` can tell; empty if it does not.

    Codes: comparison, measurement, view, history, sex, anatomy, not_read.
    """
    bare = _without_findings(text)
    reasons = []
    if not given.prior and compares(text):
        reasons.append(Reason(code="comparison", message="It compares, and no prior was given."))
    if found := _MEASUREMENT.search(text):
        why = "nothing was measured" if given.spacing else "the size of a pixel is not known"
        reasons.append(
            Reason(code="measurement", message=f'It gives a size ("{found[0]}"), and {why}.')
        )
    if (view := _view(bare, given)) is not None:
        reasons.append(
            Reason(code="view", message=f'It speaks of a view ("{view}") that was not given.')
        )
    if (word := _sex(bare, given)) is not None:
        said = "the file says otherwise" if given.sex else "the file does not tell"
        reasons.append(
            Reason(code="sex", message=f'It speaks of the patient\'s sex ("{word}"); {said}.')
        )
    for code, pattern, why in _NEVER:
        if found := pattern.search(bare):
            reasons.append(Reason(code=code, message=f'It {why} ("{found[0]}").'))
    return reasons


def disagreements(findings: Sequence[Finding], impression: str) -> list[str]:
    """How the impression contradicts the findings, or leaves one out, in words; empty if it agrees.

    What is present must be named as present, what is uncertain as uncertain; nothing else may be
    named but as absent.
    """
    said = {statement.finding: statement.polarity for statement in parse_sentence(impression)}
    meant = {finding.finding: finding.polarity for finding in findings}
    differences = [
        f"{PHRASES[name]} is {polarity} in the findings and {said.get(name, 'missing')} in the "
        "impression"
        for name, polarity in meant.items()
        if (polarity != "absent" or said.get(name, "absent") != "absent")
        and said.get(name) != polarity
    ]
    return differences + [
        f"{PHRASES[name]} is {polarity} in the impression and missing in the findings"
        for name, polarity in said.items()
        if name not in meant and polarity != "absent"
    ]


# ---- the rules ----

_NUMBER = (
    r"(?:\d+(?:[.,]\d+)?|one|two|three|four|five|six|seven|eight|nine|ten|several|a few|half an?)"
)
_UNIT = (
    r"(?:mms?|cms?|ml|cc|millimet(?:er|re)s?|centimet(?:er|re)s?|millilit(?:er|re)s?|inch(?:es)?)"
)
_MEASUREMENT = re.compile(
    rf"\b{_NUMBER}(?:\s*(?:x|by|to|-)\s*{_NUMBER}){{0,3}}[\s-]*{_UNIT}\b"
    r"|\b(?:sub)?(?:centimet(?:er|re)|millimet(?:er|re))\b"
    r"|\b\d+(?:[.,]\d+)?\s*(?:%|per ?cent\b|degrees?\b|°)"
    r"|\bmeasur\w+|\bin (?:diameter|size|length|width)\b|\bcardio-?thoracic ratio\b|\bctr\b",
    re.IGNORECASE,
)
_FILM = r"(?:views?|films?|projections?|radiographs?|images?)"
_VIEW = re.compile(
    r"\b(?:AP|PA|antero-?posterior|postero-?anterior|frontal)\b(?! window)"
    rf"|\b(?:lateral|oblique|decubitus|lordotic|apical|expiratory|inspiratory) (?:chest )?{_FILM}\b"
    r"|\b(?:and|the) lateral\b(?! (?:chest|lung|zone|wall|aspect|right|left))"
    rf"|\b(?:two|both|2|three|3|multiple) {_FILM}\b"
    r"|\b(?:portable|bedside|supine|semi-?(?:erect|upright|recumbent)|upright|erect|decubitus)\b"
    r"|\b(?:CT|MRI?|ultrasound|tomogra\w+|fluoroscop\w+|mammogra\w+)\b",
    re.IGNORECASE,
)
_PROJECTIONS = {"ap": "AP", "anteroposterior": "AP", "pa": "PA", "posteroanterior": "PA"}
_FEMALE = re.compile(
    r"\b(?:she|her|hers|woman|women|female|lady|girl|pregnan\w+|breasts?|mastectomy)\b",
    re.IGNORECASE,
)
_MALE = re.compile(r"\b(?:he|him|his|man|men|male|gentleman|boy|gyna?ecomastia)\b", re.IGNORECASE)

# (code, wording, what a sentence with it does). Never told by the pixels of one film.
_NEVER: tuple[tuple[str, re.Pattern[str], str], ...] = tuple(
    (code, re.compile(rf"\b(?:{words})\b", re.IGNORECASE), why)
    for code, words, why in (
        (
            "history",
            r"history|hx|known|status[- ]post|s/p|post-?(?:operative|surgical|treatment|traumatic)"
            r"(?:ly)?|year[- ]old|yo|patients?|smok\w+|fever\w*|febrile|cough\w*|dyspn\w+|shortness"
            r"|pain\w*|symptom\w*|trauma\w*|clinical(?:ly)?|indication|referr\w+|request\w*"
            r"|chemotherapy|radiotherapy|radiation|treat(?:ed|ment)|surg\w+|operat\w+|resect\w+"
            r"|lobectomy|pneumonectomy|sternotomy|transplant\w*|antibiotics?|diure\w+|diabet\w+"
            r"|hypertensi\w+|immun\w+|admi(?:tted|ssion)|discharge\w*|intubat\w+|ventilat\w+"
            r"|dialysis|bypass|cabg|doctor|dr|discuss\w*|informed|telephon\w+|recommend\w*"
            r"|advis\w+|warranted|suggest(?:ed)? (?:ct|follow\w*)|elderly|aged|child\w*"
            r"|infants?|biops\w+"
            r"|thoracotomy|mastectomy|pregnan\w+|gyna?ecomastia|infect\w+|hiv",
            "tells of the patient's history or care",
        ),
        (
            "anatomy",
            r"brain|skull|crani\w+|face|facial|teeth|orbit\w*|pelvi\w+|hips?|femur\w*|femoral"
            r"|knees?|tibia\w*|fibula\w*|ankles?|foot|feet|wrists?|hands?|fingers?|elbows?|hepat\w+"
            r"|liver|spleen|splen\w+|kidneys?|renal|bladder|bowel|intestin\w+|colon\w*"
            r"|rect(?:um|al)"
            r"|gall ?bladder|abdom\w+|shoulders?|thyroid|joints?|pancrea\w+|appendi\w+"
            r"|prostat\w+|testic\w+|uter\w+|ovar\w+|umbilic\w+|inguinal",
            "speaks of what a chest film does not show",
        ),
        (
            "not_read",
            r"(?:endotracheal|chest|feeding|naso\w+|tracheostomy|drainage) tubes?|tubes?|catheters?"
            r"|drains?|pacemakers?|pacer|leads?|wires?|clips?|staples?|sutures?|stents?|valves?"
            r"|prosthe\w+|devices?|ports?|picc|(?:central|venous|arterial) lines?|hardware"
            r"|implants?|fractur\w+|dislocat\w+|scolio\w+|kypho\w+|spondyl\w+|degenerative"
            r"|osteo\w+|spine"
            r"|spinal|vertebra\w*|ribs?|clavic\w+|humer\w+|scapula\w*|calcifi\w+|granuloma\w*"
            r"|aort\w+|tortuo\w+|\w*carcinoma\w*|mesothelioma\w*|cancer\w*|malignan\w+"
            r"|metasta\w+|tumou?rs?|neoplas\w+"
            r"|lymphoma\w*|adenopathy|lymphadenopathy|tubercul\w+|tb|covid\w*|sarcoid\w*|abscess\w*"
            r"|embol\w+|infarct\w*|(?:heart|cardiac|respiratory) failure|chf|copd|asthma|bronchi\w+"
            r"|empyema\w*|h(?:a)?emothora\w+|pericardi\w+|mediastin\w+|subcutaneous|surgical"
            r"|lymph nodes?|hyperinflat\w+|aspirat\w+|h(?:a)?emorrhag\w*|contusion\w*|free air"
            r"|pneumoperitoneum|pneumomediastinum|cavit\w+|cyst\w*|silicosis|asbesto\w+",
            "names what this model does not look for",
        ),
    )
)


def _without_findings(text: str) -> str:
    """The text with the findings' own names out of the way: "hiatal hernia" is no anatomy."""
    for mention in reversed(find_mentions(text)):
        text = text[: mention.start] + "@" + text[mention.end :]
    return text


def _view(text: str, given: Given) -> str | None:
    for match in _VIEW.finditer(text):
        word = match[0].lower().replace("-", "")
        if word == "frontal" or _PROJECTIONS.get(word) in given.views:
            continue
        return match[0]
    return None


def _sex(text: str, given: Given) -> str | None:
    others = {"M": (_FEMALE,), "F": (_MALE,), None: (_FEMALE, _MALE)}[given.sex]
    return next((found[0] for other in others if (found := other.search(text))), None)
