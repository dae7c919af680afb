"""A report's sections and sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, cast

from medvlm.reports.words import word_set

SectionName = Literal[
    "history",
    "indication",
    "technique",
    "comparison",
    "findings",
    "impression",
    "recommendation",
    "addendum",
    "signature",
    "other",
]
# What is said of the images at hand.
LABELLED: frozenset[SectionName] = frozenset({"findings", "impression", "addendum"})

_HEADINGS: dict[SectionName, str] = {
    "history": r"(?:clinical|patient|medical|past|relevant)? ?(?:history|background)"
    r"|clinical (?:information|details?|data|notes?|statement|summary)|presenting complaint",
    "indication": r"(?:clinical )?indications?(?: for (?:exam|examination|study|procedure))?"
    r"|reason for (?:the )?(?:exam|examination|study|procedure|request|test)|reason"
    r"|(?:clinical )?question|request|referral",
    "technique": r"techniques?|procedures?|examinations?|exams?(?: type)?|study|views?|protocol"
    r"|exposure|type of (?:exam|study)|(?:current )?procedure descriptions?",
    "comparison": r"comparisons?(?: studies| study| exams?)?|compared (?:with|to)"
    r"|(?:prior|previous) (?:stud(?:y|ies)|exams?|examinations?|findings?"
    r"|procedure descriptions?)",
    "findings": r"(?:(?:radiographic|radiological|radiology|imaging|chest|procedure|study|x-?ray"
    r"|chest x-?ray) )?(?:findings?|observations?)|description|report|body|radiology report"
    r"|narrative|radiology study observation(?: \(?findings\)?)?|procedure findings",
    "impression": r"(?:final |overall |clinical |radiology |radiological )?(?:impressions?"
    r"|conclusions?|diagnos[ie]s|interpretations?|opinion|summary|assessments?)|comments?"
    r"|radiology imaging study \[?impression\]?",
    "recommendation": r"recommendations?|advice|plan|follow[- ]?up",
    "addendum": r"addend(?:um|a)(?: #?\d+| report)?",
    "signature": r"(?:electronically )?(?:signed|verified|approved|authenticated)(?: by| on)?"
    r"|dictated(?: by| on)?|transcribed(?: by| on)?|reported by|read by|reviewed by"
    r"|attending(?: physician| radiologist)?|resident|radiologist|signature|attestation",
}
_NAMES = "|".join(f"(?P<{name}>{pattern})" for name, pattern in _HEADINGS.items())
_WHOLE = re.compile(_NAMES, re.IGNORECASE)
# At the start of a line, in any case, with a colon or alone on its line; or in capitals, with a
# colon, where line breaks were lost.
_HEADING = re.compile(
    rf"^[ \t#*_]*(?P<line>(?:{re.sub(r'[?]P<[a-z]+>', '?:', _NAMES)}))[ \t*_]*"
    rf"(?:[:][ \t*_]*|[ \t]*-(?:[ \t]+|$)|[ \t]*$)"
    rf"|(?<![\w:])(?P<capitals>[A-Z][A-Z /-]{{3,50}}):[ \t]*",
    re.IGNORECASE | re.MULTILINE,
)


class Section(NamedTuple):
    """One section of a report and its text."""

    name: SectionName
    text: str


def section_name(heading: str) -> SectionName:
    """The section that a heading opens; `other` for a heading that is not known."""
    match = _WHOLE.fullmatch(" ".join(heading.split()).strip(" :.-#*_"))
    return cast(SectionName, match.lastgroup) if match and match.lastgroup else "other"


def split_sections(text: str) -> list[Section]:
    """The sections in their order, without empty ones.

    What stands before the first heading is `findings` where no heading opens findings: a report
    without headings is all findings, and one that only marks its impression has findings above it.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    cuts: list[tuple[int, int, SectionName]] = []
    for match in _HEADING.finditer(text):
        capitals = match["capitals"]
        if capitals is not None and capitals != capitals.upper():
            continue
        name = section_name(match["line"] or capitals or "")
        if name != "other":
            cuts.append((match.start(), match.end(), name))
    has_findings = any(name == "findings" for _, _, name in cuts)
    opening: SectionName = "other" if has_findings else "findings"
    ends = [*(start for start, _, _ in cuts), len(text)]
    sections = [Section(opening, text[: ends[0]])]
    for (_, start, name), end in zip(cuts, ends[1:], strict=True):
        sections.append(Section(name, text[start:end]))
    return [Section(name, body.strip()) for name, body in sections if body.strip()]


_TITLES = word_set("dr mr mrs ms prof st vs approx e.g i.e eg ie")
# These only where the sentence goes on in lower case or with a number.
_ABBREVIATIONS = word_set(
    "ca cf fig no inc lt rt resp max min est incl excl ref ant post lat sup inf jr sr"
)
# "? pneumonia": a question mark before its question ends nothing.
_END = re.compile(r"(?:[.!]|(?<=[^\s.!?])\?)[.!?]*[\"')\]]*(?=\s|$)|\n\s*\n")
_LIST = re.compile(r"(?:^|(?<=[\s.;:]))(?:\(?\d{1,2}[.)]|[-*\u2022\u2013])\s+(?=\S)", re.MULTILINE)
_ITEM_LINE = re.compile(r"\s*(?:\(?\d{1,2}[.)]\s|[-*\u2022\u2013]\s)")
_NEAR = 80  # characters beside a full stop that tell what it belongs to
_WRAPPED = 60  # characters; a shorter line was ended on purpose


def split_sentences(text: str) -> list[str]:
    """The sentences of a section, without the marks of lists and with single spaces.

    A full stop ends one unless it belongs to an abbreviation, an initial or a number. A line
    ends one if the next is an item of a list, or if it was left short and the next begins with a
    capital or a digit.
    """
    sentences: list[str] = []
    for block in _blocks(text):
        start = 0
        for match in _END.finditer(block):
            if _is_abbreviation(
                block[max(start, match.start() - _NEAR) : match.start()],
                block[match.start() : match.start() + _NEAR],
            ):
                continue
            sentences.append(block[start : match.end()])
            start = match.end()
        sentences.append(block[start:])
    tidy = (" ".join(_LIST.sub(" ", sentence, count=1).split()) for sentence in sentences)
    return [sentence for sentence in tidy if any(char.isalpha() for char in sentence)]


def _blocks(text: str) -> Iterator[str]:
    """Lines joined where one goes on in the next, cut where an item of a list begins."""
    joined: list[str] = []
    for line in text.splitlines():
        if joined and line.strip() and joined[-1].strip() and not _breaks(joined[-1], line):
            joined[-1] = f"{joined[-1].rstrip()} {line.strip()}"
        else:
            joined.append(line)
    for line in joined:
        # "1. Effusion. 2. Edema." on one line
        parts: Sequence[str] = re.split(r"(?<=[.;:])\s+(?=\(?\d{1,2}[.)]\s+[A-Za-z])", line)
        yield from (part for part in parts if part.strip())


def _breaks(line: str, following: str) -> bool:
    if _ITEM_LINE.match(following):
        return True
    begins = following.lstrip()[:1]
    return len(line.strip()) < _WRAPPED and (begins.isupper() or begins.isdigit())


def _is_abbreviation(before: str, after: str) -> bool:
    """Whether the mark that `after` begins with belongs to the word before it."""
    if after[:1] != "." or after[1:2] == ".":
        return False
    word = re.split(r"[\s(/]", before)[-1]
    if word.lower() in _TITLES:
        return True
    following = after[1:].lstrip()[:1]
    if word.lower() in _ABBREVIATIONS and (following.islower() or following.isdigit()):
        return True
    # "J. Doe", "1. Effusion": an initial, the number of an item.
    return bool(re.fullmatch(r"[A-Z]", word)) or (word.isdigit() and before.strip() == word)
