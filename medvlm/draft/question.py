"""What kind of question is asked, by its words alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from medvlm.draft.locate import LungSide
from medvlm.findings import find_mentions

Kind = Literal["lungs", "place", "region", "view", "sex", "presence", "yes_no", "free"]

_WHERE = re.compile(
    r"^\s*(where|in which|on which|which (side|lung|zone|lobe)|locate|show|point)\b", re.I
)
_LUNGS = re.compile(
    r"\s*(where|show|locate|point)\b[a-z\s,/]*?"
    r"\b(?:(left|right)\s+(?:and\s+(left|right)\s+)?)?lungs?\s*[?.]?\s*",
    re.I,
)
_YES_NO = re.compile(
    r"^\s*(is|are|is/are|was|were|does|do|did|has|have|had|can|could|will|would|any|should)\b", re.I
)
_REGION = re.compile(r"\b(this|region|here|box|area|marked)\b", re.I)
_FILM = r"(this|the|it)\s*(image|film|x-?ray|radiograph|picture|view)?\s*"
_VIEW = re.compile(
    rf"\s*(is|was|is/are)\s+{_FILM}(taken\s+)?(an?\s+|in\s+|from\s+)?"
    r"(ap|pa|antero-?posterior|postero-?anterior)\b[^?]*\??\s*"
    r"|.*\b(pa\s+or\s+ap|ap\s+or\s+pa)\b.*"
    r"|\s*(which|what)\b.*\b(view|projection)\b.*",
    re.I,
)
_SEX = re.compile(
    r"\s*(is|was)\s+(this|the|it)\s*(patient|person)?('s\s+film)?\s*(an?\s+)?(male|female|man|woman)"
    r"\s*(patient)?\s*(or\s+(a\s+)?(male|female|man|woman))?\s*\??\s*"
    r"|\s*(what|which)\b.*\b(sex|gender)\b.*",
    re.I,
)
_PRESENCE = re.compile(
    r"\b(is|are|is/are)\s+there\b|\bevidence\b|\bpresent\b|\bseen\b|\bshow|\bhave\b|\bhas\b|\bany\b"
    r"|\benlarged\b|\bsuggest|\bvisible\b|\bsee\b|\bdemonstrate",
    re.I,
)
# How people ask for a finding without naming it: (finding, what says yes to it, what says no).
_SIGNS = (
    (
        "Cardiomegaly",
        re.compile(
            r"\b(heart|cardiac)\b(?!.*\b(border|contour|margin|position|displaced|chamber)).*"
            r"\b(enlarged|dilated|larger|bigger|increased|widened|wider|exceeds?|big|large"
            r"|size abnormal|abnormal size|abnormal in size)\b",
            re.I,
        ),
        re.compile(
            r"\b(heart|cardiac)\b(?!.*\b(border|contour|margin|position|displaced|chamber)).*"
            r"\bnormal\b(?=.*\bsize)|\b(heart|cardiac) (size|silhouette)\b.*\bnormal\b",
            re.I,
        ),
    ),
    (
        "Effusion",
        re.compile(
            r"\bcostophrenic (angle|recess)\w*\b.*\bblunt|\bblunt\w*\b.*\bcostophrenic\b", re.I
        ),
        re.compile(r"\bcostophrenic (angle|recess)\w*\b.*\b(sharp|clear|normal)\b", re.I),
    ),
)
# A side or a denial changes what is asked; the classifier knows of neither.
_QUALIFIED = re.compile(r"\b(left|right|bilateral|both|upper|lower|no|not|without|absent)\b", re.I)


@dataclass(frozen=True)
class Parsed:
    """A question's kind, the findings it names, and the lungs it asks for.

    `denied`: yes means that the finding is absent ("Is the heart normal in size?").
    """

    kind: Kind
    findings: tuple[str, ...] = ()
    sides: tuple[LungSide, ...] = ()
    denied: bool = False


def parse_question(question: str, region: bool) -> Parsed:
    """Reads a question; `region`: whether a region was drawn with it."""
    findings = tuple(dict.fromkeys(mention.finding for mention in find_mentions(question)))
    closed = bool(_YES_NO.match(question)) and not re.search(r"\bor\b", question, re.I)
    if lungs := _LUNGS.fullmatch(question):
        return Parsed("lungs", sides=_sides(lungs))
    if _WHERE.match(question) and findings:
        return Parsed("place", findings)
    if region and not closed and (_REGION.search(question) or findings):
        return Parsed("region", findings)
    if not region and not findings and _VIEW.fullmatch(question):
        return Parsed("view")
    if not region and not findings and _SEX.fullmatch(question):
        return Parsed("sex")
    plain = not region and len(findings) == 1 and not _QUALIFIED.search(question)
    if closed and plain and _PRESENCE.search(question):
        return Parsed("presence", findings)
    if closed and not region and not findings and not _QUALIFIED.search(question):
        for finding, present, absent in _SIGNS:
            if present.search(question):
                return Parsed("presence", (finding,))
            if absent.search(question):
                return Parsed("presence", (finding,), denied=True)
    return Parsed("yes_no" if closed else "free", findings)


def _sides(match: re.Match[str]) -> tuple[LungSide, ...]:
    named = {group.lower() for group in match.groups()[1:] if group}
    both: tuple[LungSide, ...] = ("right", "left")
    return tuple(side for side in both if side in named) or both
