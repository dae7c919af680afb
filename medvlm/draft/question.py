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
_LUNG = re.compile(r"\b(?:(left|right)\s+(?:and\s+(left|right)\s+)?)?lungs?\b", re.I)
_YES_NO = re.compile(
    r"^\s*(is|are|is/are|was|were|does|do|did|has|have|had|can|could|will|would|any|should)\b", re.I
)
_REGION = re.compile(r"\b(this|region|here|box|area|marked)\b", re.I)
_VIEW = re.compile(r"\b(pa|ap)\b|anter\w+.?poster|poster\w+.?anter", re.I)
_SEX = re.compile(r"\b(male|female|man|woman|sex|gender)\b", re.I)
_PRESENCE = re.compile(
    r"\b(is|are|is/are)\s+there\b|\bevidence\b|\bpresent\b|\bseen\b|\bshow|\bhave\b|\bhas\b|\bany\b"
    r"|\benlarged\b|\bsuggest|\bvisible\b|\bnot(e|ic)|\bsee\b|\bdemonstrate",
    re.I,
)


@dataclass(frozen=True)
class Parsed:
    """A question's kind, the findings it names, and the lungs it asks for."""

    kind: Kind
    findings: tuple[str, ...] = ()
    sides: tuple[LungSide, ...] = ()


def parse_question(question: str, region: bool) -> Parsed:
    """Reads a question; `region`: whether a region was drawn with it."""
    findings = tuple(dict.fromkeys(mention.finding for mention in find_mentions(question)))
    closed = bool(_YES_NO.match(question)) and not re.search(r"\bor\b", question, re.I)
    if _WHERE.match(question):
        if findings:
            return Parsed("place", findings)
        if lungs := _LUNG.search(question):
            return Parsed("lungs", sides=_sides(lungs))
    if region and not closed and (_REGION.search(question) or findings):
        return Parsed("region", findings)
    if not region and _VIEW.search(question) and not findings:
        return Parsed("view")
    if not region and _SEX.search(question) and not findings:
        return Parsed("sex")
    if closed and not region and len(findings) == 1 and _PRESENCE.search(question):
        return Parsed("presence", findings)
    return Parsed("yes_no" if closed else "free", findings)


def _sides(match: re.Match[str]) -> tuple[LungSide, ...]:
    named = [group.lower() for group in match.groups() if group]
    both: tuple[LungSide, ...] = ("right", "left")
    return tuple(side for side in both if side in named) or both
