"""A sentence as words, and the findings and triggers that stand among them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from medvlm.reports.lexicon import (
    FILLERS,
    IS,
    LINKS,
    MEANINGS,
    ORGANS,
    SENTENCES,
    SIDES,
    Asserted,
)
from medvlm.reports.triggers import (
    CARDIAC_FOLLOWS,
    CHEST_FOLLOWS,
    CLAUSE_ENDS,
    DENIAL_ENDS,
    DENYING,
    HEART_WORDS,
    HEDGING,
    NORMAL,
    NOT_AN_END,
    OTHER_EXAMS,
    STUDY_WORDS,
    TRIGGERS,
    Effect,
    Reach,
)
from medvlm.reports.words import Phrase

_MOST_BETWEEN = 5  # fillers between two words of a phrase
_SPELLINGS = tuple(
    (re.compile(pattern), into)
    for pattern, into in (
        (r"[\u2018\u2019]", "'"),
        (r"\bcan not\b|\bcan't\b|\bcould not\b|\bcouldn't\b|\bcannot\b", "cannot"),
        (r"n't\b", " not"),
        (r"\bw/o\b", "without"),
        (r"\br/o\b", "rule out"),
        (r"\b[hp]/o\b|\bhx(?: of)?\b", "history of"),
        (r"\bs/p\b", "status post"),
        (r"\bc/w\b", "consistent with"),
        (r"\bb/l\b", "bilateral"),
        (r"\bvs?\.? (?=\w)|\bvs\b", "versus "),
        (r"\band/or\b", "or"),
        (r",? \bif (?:any|present)\b(?: at all)?,?", " if any"),
        (r"\b(left|right)(?:[ -]sided)? but no (?:left|right)\b", r"\1"),
        (r"\bair[ -]space\b", "airspace"),
        (r"\bhyper[ -](?=infl|exp|aer|luc)", "hyper"),
        (r"\boedema", "edema"),
        (r"\bcardio-(?=media|pulm|thor)", "cardio"),
        (r"\bpneumo-(?=thor)", "pneumo"),
        (r"\bcosto-(?=phren)", "costo"),
        (r"\bpleuro-(?=parench)", "pleuro"),
        (r"\b(free|clear) from\b", r"\1 of"),
    )
)
_TOKEN = re.compile(r"[^\W\d_]+|\d+(?:\.\d+)?|[,;:()/?.]")


@dataclass(frozen=True)
class Named:
    """Findings that words `start` to `end` (exclusive) name; `effect` where they say it."""

    findings: tuple[str, ...]
    asserted: Asserted
    start: int
    end: int
    effect: Effect | None = None


@dataclass(frozen=True)
class Trigger:
    """Words `start` to `end` (exclusive) that change what the findings in reach count as."""

    effect: Effect
    reach: Reach
    start: int
    end: int


@dataclass(frozen=True)
class Break:
    """A clause ends here, or (`denial`) only the reach of what denies."""

    start: int
    end: int
    denial: bool


Item = Named | Trigger | Break
Kind = Literal["finding", "trigger", "clause", "denial", "normal", "sentence", "exam"]


def words_of(sentence: str) -> list[str]:
    """Words and punctuation in lower case, common short forms written out."""
    text = sentence.lower()
    for pattern, into in _SPELLINGS:
        text = pattern.sub(into, text)
    return _TOKEN.findall(text)


def find_items(words: Sequence[str]) -> list[Item]:
    """Findings, triggers and breaks in reading order; none overlaps another."""
    normal: list[Named] = []
    items: list[Item] = []
    # Where an organ may be named that is called normal: behind the last that was, and better behind
    # the last finding or break.
    position = since = nearer = 0
    while position < len(words):
        if words[position] not in _FIRST:
            position += 1
            continue
        kind, phrase, end = _longest(words, position)
        if kind is None:
            position += 1
            continue
        inside = words[position:end]
        if kind in ("finding", "sentence"):
            findings, asserted = (SENTENCES if kind == "sentence" else MEANINGS)[phrase]
            effect: Effect | None = None
            if kind == "sentence":
                if DENYING & set(inside):
                    effect = "absent"
                elif asserted == "uncertain" or HEDGING & set(inside):
                    effect = "uncertain"
            if (HEART_WORDS | {"costophrenic"}) & set(inside):
                since = end
            nearer = end
            items.append(Named(findings, asserted, position, end, effect))
        elif kind == "trigger":
            items.append(Trigger(*TRIGGERS[phrase], position, end))
        elif kind == "normal":
            normal += _normal_organs(words, since, max(since, nearer), position, end)
            since = end
        elif kind != "exam":
            last = words[position - 1] if position else ""
            if kind == "clause" or last not in NOT_AN_END:
                items.append(Break(position, end, denial=kind == "denial"))
                nearer = end
            if phrase in ((";",), (".",)):
                since = end
        position = end
    return sorted([*items, *normal], key=lambda item: item.start)


def _table() -> dict[str, list[tuple[Phrase, Kind]]]:
    """Phrases by their first word, those with most words first."""
    sources: tuple[tuple[Kind, Iterable[Phrase]], ...] = (
        ("sentence", SENTENCES),
        ("finding", MEANINGS),
        ("trigger", TRIGGERS),
        ("normal", NORMAL),
        ("clause", CLAUSE_ENDS),
        ("denial", DENIAL_ENDS),
        ("exam", OTHER_EXAMS),
    )
    table: dict[str, list[tuple[Phrase, Kind]]] = defaultdict(list)
    for kind, phrases in sources:
        for phrase in phrases:
            table[phrase[0]].append((phrase, kind))
    for candidates in table.values():
        candidates.sort(key=lambda item: -len(item[0]))  # a stable sort: kinds stay in order
    return dict(table)


_FIRST = _table()


def _longest(words: Sequence[str], start: int) -> tuple[Kind | None, Phrase, int]:
    for phrase, kind in _FIRST[words[start]]:
        between: Container[str] = LINKS if kind == "sentence" else FILLERS
        end = _match(words, start, phrase, between)
        if end:
            return kind, phrase, end
    return None, (), start


def _match(words: Sequence[str], start: int, phrase: Phrase, between: Container[str]) -> int:
    """The end of the phrase that begins at `start`, 0 if it does not stand there."""
    position = start + 1
    for wanted in phrase[1:]:
        last = min(len(words), position + _MOST_BETWEEN + 1)
        while position < last and words[position] != wanted and words[position] in between:
            position += 1
        if position >= last or words[position] != wanted:
            return 0
        position += 1
    return position


def _normal_organs(
    words: Sequence[str], since: int, nearer: int, start: int, end: int
) -> list[Named]:
    """Organs that "normal", "clear" at `start` is said of: named before it, or right after it."""
    before = words[max(since, start - 4) : start]
    if "not" in before or "no" in before[-2:]:
        return []
    if words[start] == "clear" and words[end : end + 1] == ["of"]:
        return []
    if "borderline" in before:
        return [Named(("Cardiomegaly",), "present", start, end, "uncertain")]
    organs = _organs(words, nearer, start) or _organs(words, since, start)
    if not organs and not IS & set(words[since:start]):
        organs = _organs(words, end, min(len(words), end + 5))
        if any(word in STUDY_WORDS for word in words[end : end + 2]):
            organs.add("chest")
    return [Named(ORGANS[organ], "present", start, end, "absent") for organ in sorted(organs)]


def _organs(words: Sequence[str], start: int, end: int) -> set[str]:
    found = set()
    for i in range(start, end):
        word = words[i]
        following = words[i + 1] if i + 1 < len(words) else "is"
        if word in HEART_WORDS and (word == "cardiac" or following not in ("valve", "valves")):
            if word != "cardiac" or following in CARDIAC_FOLLOWS:
                found.add("heart")
        elif word == "lungs" or (word == "lung" and following in ("fields", "parenchyma")):
            if not (set(words[max(start, i - 3) : i]) & (SIDES - {"both", "bilateral"})):
                found.add("lungs")
        elif word == "pleura" or (word == "pleural" and following in _PLEURAL):
            found.add("pleura")
        elif word == "costophrenic":
            found.add("angles")
        elif word == "chest" and (i + 1 == end or following in CHEST_FOLLOWS | IS):
            found.add("chest")
    return found


_PLEURAL = frozenset({"space", "spaces", "surfaces", "surface", "cavities", "cavity"})
