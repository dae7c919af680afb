"""What kind of question is asked, by its words alone.

What the heads know (lungs, findings, view, sex) and the file (modality) is only taken for asked
where the whole question is understood; everything else is the language model's. A question about
another time is known by a few words, for no image of one time answers it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from medvlm.draft.anatomy import asked_part
from medvlm.draft.locate import LungSide
from medvlm.draft.made_by import asks_modality
from medvlm.findings import Mention, find_mentions

Kind = Literal[
    "lungs",
    "part",
    "place",
    "region",
    "region_place",
    "region_presence",
    "other_side",
    "view",
    "sex",
    "modality",
    "presence",
    "findings",
    "normal",
    "comparison",
    "other_comparison",
    "other",
]

_PLEASE = re.compile(
    r"^\s*(can|could|would|will)\s+you\s+(please\s+)?(?=describe|show|locate|tell|point)", re.I
)
_YES_NO = re.compile(
    r"^\s*(is|are|is/are|was|were|does|do|did|has|have|had|can|could|will|would|any|should)\b", re.I
)
_CHOICE = re.compile(r"\b(or|vs|versus)\b", re.I)
_WHERE = re.compile(
    r"^\s*(where|in which|on which|which (side|lung|zone|lobe)|locate|show|point)\b"
    r"(?!.*\b(free|clear|spared|tube|catheter|line|drain|tip|pacemaker)\b)",
    re.I,
)
_THIS_PLACE = re.compile(
    r"\s*(where|((in|on)\s+)?which\s+(side|lung|zone|lobe))\s+(is|are)\s+"
    r"(this|it|that|the\s+(region|box|area))(\s+(region|box|area|in|on|located))*\s*\??\s*",
    re.I,
)
_LUNGS = re.compile(
    r"\s*(where|show|locate|point)(\s+(is|are|is/are|me|to|out|the|both|and|patient's))*\s+"
    r"(?:(?P<side>left|right)\s+(?:and\s+(?:the\s+)?(?P<other>left|right)\s+)?)?lungs?\s*[?.]?\s*",
    re.I,
)
_NOUN = r"(chest|image|film|x[- ]?ray|radiograph|picture|view|study|cxr)"
_THIS = rf"(this|the|it|that)(\s+{_NOUN})*"
_PROJECTION = (
    r"(ap|pa|antero-?\s?posterior|anterior[- ]posterior|postero-?\s?anterior"
    r"|posterior[- ]anterior)"
)
_VIEW = re.compile(
    rf"\s*(is|was|is/are)\s+{_THIS}\s+((taken|obtained|done)\s+)?((in|from|an?|the)\s+)*{_PROJECTION}"
    rf"(\s+({_NOUN}|projection|format|position|plane|orientation))*(\s+of\s+the\s+chest)?\s*\??\s*"
    r"|[^.]*\b(pa\s+or\s+(an?\s+)?ap|ap\s+or\s+(an?\s+)?pa)\b[^.]*"
    r"|\s*(which|what)\s+((is|kind|type|of|the)\s+)*(view|projection)(\s+(is|was|of)\b[^.]*)?\s*\??\s*",
    re.I,
)
_SEX = re.compile(
    r"\s*(is|was)\s+(this|the|it)\s*(patient|person)?('s\s+film)?\s*(an?\s+)?(male|female|man|woman)"
    r"\s*(patient)?\s*(or\s+(a\s+)?(male|female|man|woman))?\s*\??\s*"
    r"|\s*(what|which)\b.*\b(sex|gender)\b.*",
    re.I,
)
_FINDINGS = re.compile(
    r"\s*((which|what)\s+(are\s+the\s+)?(findings|abnormalities)"
    r"(\s+(are|is|do|can|you|we|i|see|seen|shown|present|visible|there|in|on|{this}))*"
    r"|what\s+(do|can)\s+(you|we|i)\s+see(\s+(in|on)\s+{this})?"
    r"|what\s+does\s+{this}\s+show"
    r"|describe(\s+(the\s+findings(\s+(in|of|on)\s+{this})?|{this}))?)\s*[?.]?\s*".replace(
        "{this}", _THIS
    ),
    re.I,
)
_ABNORMAL = re.compile(
    rf"\s*(are|is|is/are)\s+there\s+(any\s+|an\s+)?abnormalit(y|ies)(\s+(in|on|seen|present|{_THIS}))*"
    r"\s*\??\s*",
    re.I,
)
_NORMAL = re.compile(
    rf"\s*(is|is/are)\s+{_THIS}\s+(an?\s+)?(?P<state>normal|abnormal)"
    r"(\s+(image|film|chest|x-?ray|radiograph|study|view))*\s*\??\s*",
    re.I,
)
_EARLIER = r"(prior|previous|earlier|last|old)"
_COMPARED = re.compile(
    rf"\b{_EARLIER}\s+(study|studies|film|image|x-?ray|radiograph|exam\w*|cxr|one)\b"
    rf"|\b(compared?|since)\b.*\b{_EARLIER}\b|\bthan\s+(on|in|before|previously)\b"
    r"|\binterval\s+change|\bany\s+change\b|\bwhat('s|\s+is|\s+has|\s+have)\s+(changed|new|different)"
    r"|\bsince\s+then\b",
    re.I,
)
_SOME_OF = r"(\s+(an?|any|the|lung|pulmonary|sign|signs|evidence|of))*"
_TAIL_OF_REGION = (
    r"(\s+(here|there|in|inside|within|on|of|this|it|that|the|region|box|area|place|seen|present"
    r"|visible|shown))*\s*[?.]*\s*"
)
# Of a finding that is named, these ask for the same.
_BECAME = re.compile(
    r"^\s*(has|have)\b.*\b(changed|resolved|cleared|improved|worsened|progressed|grown|increased"
    r"|decreased|disappeared)\b|^\s*(is|are)\b.*\b(unchanged|new|stable|improving|worsening)\b",
    re.I,
)
_BEYOND = r"the\s+(other|opposite|contralateral)\s+(side|lung)"
_OTHER_SIDE = re.compile(
    rf"\s*(compare(\s+(this|it|that|the\s+(region|box|area)))?\s+(with|to|and)\s+{_BEYOND}"
    rf"|how\s+does\s+(this|it|that)\s+compare\s+(with|to)\s+{_BEYOND}"
    rf"|(is|does)\s+(this|it|that)\s+(different|differ|denser|more\s+dense|more\s+lucent|alike|similar"
    rf"|the\s+same)\s+(from|than|to|as|as\s+on|on)\s+{_BEYOND}"
    rf"|is\s+{_BEYOND}\s+(the\s+same|alike|similar|different)"
    rf"|what\s+about\s+{_BEYOND})\s*[?.]*\s*",
    re.I,
)
# Of a drawn region: what is in it.
_HERE = (
    r"(here|there|(in|inside|within)\s+(this|the|that)\s+(region|box|area|place|outline)|in\s+it)"
)
_IS_THIS = re.compile(
    rf"\s*((what('s|\s+is|\s+are)\s+(this|that|it|these|those)(\s+(region|box|area|thing|structure))?"
    rf"|what('s|\s+is)(\s+(seen|shown|marked|located|visible))?\s+{_HERE}"
    rf"|what\s+(do|can)\s+(you|we|i)\s+see|what\s+does\s+(this|it|that)(\s+(region|box|area))?\s+show"
    rf"|(what|which)\s+(is|are)\s+the\s+(findings?|abnormalit(y|ies))"
    rf"|(describe|identify|name)\s+(this|that|it|the\s+(region|box|area)|what\s+you\s+see))"
    rf"(\s+{_HERE})?)\s*[?.]*\s*",
    re.I,
)
# Of a drawn region, with the finding's name as "@": "Is this a mass?", "Is there a mass in it?"
_THIS_FINDING = re.compile(
    rf"\s*((is|are)\s+(this|it|that|these|there){_SOME_OF}\s+@|(does|do)\s+(this|it|that|the)"
    rf"(\s+(region|box|area))?\s+(show|contain|look like|represent){_SOME_OF}\s+@)"
    rf"{_TAIL_OF_REGION}",
    re.I,
)
_ALL_CHANGES = re.compile(r"\b(changes?|changed|new|differ\w*|compare[ds]?|comparison)\b", re.I)
# The finding's name stands as "@". Neither side nor size, time or cause may be asked for.
_SOME = (
    r"(\s+(an?|any|the|some|evidence|signs?|presence|of|patchy|focal|pulmonary|lung|obvious"
    r"|visible|intraparenchymal))*\s+@"
)
_TAIL = (
    r"(\s+(present|seen|visible|noted|shown|apparent|evident|depicted|anywhere|here|in|on|within|of"
    r"|the|this|these|above|patient'?s?|lungs?|fields?|chest|thorax|image|film|x-?ray|radiograph"
    r"|picture|study|scan|cxr))*\s*(-\s*yes/no)?\s*[?.]*\s*"
)
_PRESENCE = re.compile(
    rf"\s*((is|are|is/are|was|were)\s+there{_SOME}{_TAIL}"
    rf"|(is|are|is/are)(\s+(an?|any|the|patchy))*\s+@\s+"
    rf"(present|seen|visible|noted|shown|apparent|evident|depicted)\b{_TAIL}"
    rf"|(do|can|could)\s+(you|we|i|one)\s+(see|appreciate|identify|note|detect|find){_SOME}{_TAIL}"
    rf"|(does|do)\s+{_THIS}\s*(patient)?\s*(have|show|demonstrate|suggest|display){_SOME}{_TAIL}"
    rf"|any{_SOME}{_TAIL})",
    re.I,
)
_SIDED = re.compile(r"\b(left|right)(-sided|\s+sided)?\b", re.I)
_HEART = r"\s*.*\b(heart|cardiac (silhouette|shadow|size))\b"
# How people ask for a finding without naming it: (finding, yes means present, yes means absent).
_SIGNS = (
    (
        "Cardiomegaly",
        re.compile(
            rf"{_HEART}.*\b(enlarged|dilated|larger|bigger|increased|wider|exceeds?|big"
            r"|size abnormal|abnormal size|abnormal in size)\b.*",
            re.I,
        ),
        re.compile(
            rf"{_HEART}(.*\bnormal\b.*\bsize\b|.*\bsize\b.*\bnormal\b| normal)( limits)?\W*", re.I
        ),
    ),
    (
        "Effusion",
        re.compile(
            r".*\bcostophrenic (angle|recess)\w*\b.*\bblunt.*|.*\bblunt.*costophrenic.*", re.I
        ),
        re.compile(r".*\bcostophrenic (angle|recess)\w*\b.*\b(sharp|clear|normal)\b.*", re.I),
    ),
)
# Words that make another question of it.
_OTHERWISE = re.compile(
    r"\b(left|right|bilateral|no|not|free|without|absence|border|contour|margins?|position"
    r"|displaced|chambers?|failure|aorta|vessels?|vascular|previous|prior|before|since|than (on|in)"
    r"|has|have)\b",
    re.I,
)


@dataclass(frozen=True)
class Parsed:
    """A question's kind, the findings it names, and the lungs (or sides) it asks for.

    `closed`: it wants a yes or a no. `denied`: yes means that the finding is absent ("Is the heart
    normal in size?", "Is this film normal?"). `part`: the words for a part of the lungs.
    """

    kind: Kind
    closed: bool
    findings: tuple[str, ...] = ()
    sides: tuple[LungSide, ...] = ()
    denied: bool = False
    part: str = ""


def parse_question(question: str, region: bool) -> Parsed:
    """Reads a question; `region`: whether a region was drawn with it."""
    question = _PLEASE.sub("", question)
    mentions = find_mentions(question)
    findings = tuple(dict.fromkeys(mention.finding for mention in mentions))
    closed = bool(_YES_NO.match(question)) and not _CHOICE.search(question)
    if region and _COMPARED.search(question):
        return Parsed("other_comparison", closed, findings)
    if region and _OTHER_SIDE.fullmatch(question):
        return Parsed("other_side", closed, findings)
    if not findings and not _VIEW.fullmatch(question) and asks_modality(question):
        return Parsed("modality", closed)
    if region:
        return Parsed(_about_region(question, closed, mentions), closed, findings)
    if _COMPARED.search(question) or (findings and _BECAME.search(question)):
        known = findings or _ALL_CHANGES.search(question)
        return Parsed("comparison" if known else "other_comparison", closed, findings)
    if lungs := _LUNGS.fullmatch(question):
        return Parsed("lungs", closed, sides=_sides(lungs["side"], lungs["other"]))
    if not findings and (part := asked_part(question)):
        return Parsed("part", closed, part=part)
    if _WHERE.match(question) and findings:
        return Parsed("place", closed, findings)
    if not findings:
        for kind, pattern in (("view", _VIEW), ("sex", _SEX), ("findings", _FINDINGS)):
            if pattern.fullmatch(question):
                return Parsed(kind, closed)  # type: ignore[arg-type]
        if _ABNORMAL.fullmatch(question):
            return Parsed("normal", closed)
        if match := _NORMAL.fullmatch(question):
            return Parsed("normal", closed, denied=match["state"].lower() == "normal")
    if closed and (presence := _presence(question, mentions)) is not None:
        return presence
    return Parsed("other", closed, findings)


def projections(question: str) -> set[str]:
    """The projections that a question names: "ap", "pa"."""
    named = set()
    for match in re.finditer(rf"\b{_PROJECTION}\b", question, re.I):
        word = match.group(1).lower()
        named.add("ap" if word.startswith("a") else "pa")
    return named


def _about_region(question: str, closed: bool, mentions: list[Mention]) -> Kind:
    if closed:
        if len(mentions) != 1:
            return "other"
        asked = f"{question[: mentions[0].start]}@{question[mentions[0].end :]}"
        return "region_presence" if _THIS_FINDING.fullmatch(asked) else "other"
    if _THIS_PLACE.fullmatch(question):
        return "region_place"
    if _WHERE.match(question) and mentions:
        return "place"
    return "region" if _IS_THIS.fullmatch(question) else "other"


def _presence(question: str, mentions: list[Mention]) -> Parsed | None:
    """A closed question that asks whether one finding is there, or nothing else than its sign."""
    if not mentions:
        if _OTHERWISE.search(question):
            return None
        for finding, present, absent in _SIGNS:
            if present.fullmatch(question):
                return Parsed("presence", True, (finding,))
            if absent.fullmatch(question):
                return Parsed("presence", True, (finding,), denied=True)
        return None
    if len(mentions) != 1:
        return None
    (mention,) = mentions
    rest = f"{question[: mention.start]}@{question[mention.end :]}"
    named = {match.group(1).lower() for match in _SIDED.finditer(rest)}
    if len(named) > 1 or not _PRESENCE.fullmatch(re.sub(r"\s+", " ", _SIDED.sub("", rest))):
        return None
    return Parsed("presence", True, (mention.finding,), sides=_sides(*named) if named else ())


def _sides(*named: str | None) -> tuple[LungSide, ...]:
    """The sides named, right first; both where none is."""
    chosen = {name.lower() for name in named if name}
    both: tuple[LungSide, ...] = ("right", "left")
    return tuple(side for side in both if side in chosen) or both
