"""Identifiers in a report's text, replaced by what they are: "Dr. [NAME]", "on [DATE]".

Two nets: what the patient's own files are known to name (`medvlm.reports.known`), and patterns
of dates, telephones, numbers and named people. `docs/reports.md` lists them and what they miss.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from medvlm.dicom.identifiers import LONG, fold, squash
from medvlm.reports.known import Kind

_MOST_WORDS = 6  # that one known number or name is written as
_WORD = re.compile(r"[^\W_]+")
# "M. A. [NAME]", "[NAME], M.A.": what stands beside a name that is known.
_INITIALS = re.compile(
    r"(?:\b[^\W\d_a-z]\.[ ]?){1,4}\[NAME\]|\[NAME\],?[ ]+(?:[^\W\d_a-z]\.){1,4}(?=[\s.,;)]|$)"
)
# Scripts that are written without spaces: a name is any part of a word.
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|jun[e]?|jul[y]?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\b\.?"
)
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
_YEAR = r"(?:19|20)\d{2}"
# A name: capitalised words, initials and particles. Titles in front of one are kept.
_PART = (
    r"(?:(?:[A-Z]\.){1,4}(?:-[A-Z]\b\.?){0,2}(?:[A-Z][\w'\u2019-]+)?|[A-Z][\w'\u2019-]*|\[NAME\])"
)
_PERSON = rf"{_PART}(?:,?[ ]+(?:(?:van|von|de|der|den|di|la|le|al|bin|el)[ ]+)*{_PART}){{0,3}}"
_TITLE = r"(?:[Dd]rs?|DRS?|[Dd]octor|M(?:r|rs|s|x|iss)|MRS?|MS|Prof(?:essor)?|Sir|Nurse|NURSE)"
_ROLE = (
    r"(?:(?:electronically\s+)?(?:signed|dictated|transcribed|verified|approved|read|reported"
    r"|reviewed|interpreted|authenticated|finali[sz]ed|attested|performed|supervised)"
    r"(?:\s+and\s+\w+)?(?:\s+(?:by|with)|(?=\s*:))"
    r"|(?:discussed|communicated|conveyed|relayed|telephoned|phoned|called|given|paged|faxed"
    r"|texted|notified|informed|spoke|spoken|seen)(?:\s+\w+){0,3}?\s+(?:with|to|by)"
    r"|(?:called|notified|informed|paged|telephoned|phoned|per)"
    r"|attending|resident|radiologist|technologist|clinician|physician|surgeon|patient|pt"
    r"|name|transcriptionist|author)"
)
_KIN = (
    r"(?:wife|husband|spouse|partner|son|daughter|mother|father|brother|sister|parents?|friend"
    r"|guardian|carer|caregiver|nephew|niece|neighbou?r)"
)
_CREDENTIALS = (
    r"(?:M\.?D\.?|D\.?O\.?|R\.?N\.?|N\.?P\.?|P\.?A\.?(?:-C)?|M\.?B\.?B\.?S\.?|FRCR|FRCPC|FRANZCR"
    r"|Ph\.?D\.?|R\.?T\.?(?:\(R\))?|DABR)"
)

# In order of precedence where they overlap; group 1, if there is one, is what is replaced.
_PATTERNS: tuple[tuple[Kind, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern, flags))  # type: ignore[misc]
    for kind, flags, pattern in (
        ("URL", re.I, r"\b(?:https?|ftp)://\S+|\bwww\.\S+"),
        ("EMAIL", re.I, r"[\w.+'-]+@[\w-]+(?:\.[\w-]+)+"),
        ("NAME", 0, rf"\b{_TITLE}\b\.?[ ]+({_PERSON})"),
        ("NAME", 0, rf"\b[Dd][Rr]s\.?[ ]+{_PERSON},?[ ]+(?:and|&)[ ]+({_PERSON})"),
        ("NAME", 0, r"\b[Dd]r\.?[ ]+([a-z]{3,})\b"),
        ("NAME", 0, rf"({_PERSON}),?[ ]+{_CREDENTIALS}(?=[\s.,;)]|$)"),
        ("NAME", 0, rf"\b(?i:{_ROLE})\s*[:#]?\s+(?:by\s+)?(?:{_TITLE}\.?\s+)?({_PERSON})"),
        ("NAME", 0, rf"\b(?i:{_KIN})[ ]*,?[ ]+({_PERSON})"),
        ("ID", 0, r"\b\d+(?:\.\d+){4,}\b|\b\d{3}-\d{2}-\d{4}\b"),
        ("DATE", 0, r"\b\d{1,4}([/.-])\d{1,2}\1\d{2,4}(?:\b|(?=T\d))"),
        ("DATE", 0, r"\b\d{1,2}[/.-](?:19|20)\d{2}\b"),
        ("DATE", 0, r"\b(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\b"),
        ("DATE", re.I, rf"\b{_DAY}[ ]*(?:of[ ]+)?[ -]?{_MONTH}(?:,?[ -]*(?:{_YEAR}|'?\d{{2}})\b)?"),
        ("DATE", re.I, rf"\b{_MONTH}[ -]*{_DAY}\b(?:,?[ ]*{_YEAR})?|\b{_MONTH},?[ ]*{_YEAR}\b"),
        ("DATE", re.I, rf"\bmay[ ]+{_DAY}\b(?:,?[ ]*{_YEAR})?|\b(?:{_DAY}[ -]+)?may,?[ -]+{_YEAR}"),
        ("DATE", re.I, rf"\b{_DAY}[ -]?may[ -]?\d{{2}}\b"),
        (
            "DATE",
            0,
            r"\b(?:January|February|April|June|July|August|September|October|November|December)\b",
        ),
        ("DATE", re.I, r"\b(?:in|since|of|from|on|last)[ ]+(march|may)\b(?![ ]+\w)"),
        (
            "DATE",
            re.I,
            r"\b(?:on|from|dated?|of|since|to|until|through|born|dob)[ ]*:?[ ]*"
            r"(\d{1,2}[/-]\d{1,2})\b",
        ),
        ("DATE", 0, r"\b(?:19|20)\d{2}\b(?![ ]*(?:mm|cm|ml|x|pixels?)\b)"),
        ("TIME", re.I, r"(?:\b|(?<=\dT))\d{1,2}:\d{2}(?::\d{2})?(?:[ ]*[ap]\.?m\b\.?)?"),
        (
            "TIME",
            re.I,
            r"\b\d{1,2}[ ]*(?:am|pm|a\.m\.|p\.m\.)(?!\w)|\b\d{3,4}[ ]*(?:hours|hrs|h)\b",
        ),
        ("PHONE", 0, r"\+\d[\d ().-]{6,}\d|(?:\(\d{3}\)[ ]?|\b\d{3}[ .-])\d{3}[ .-]\d{4}\b"),
        (
            "PHONE",
            0,
            r"\b0\d{2,4}[ -]\d{3,4}[ -]?\d{3,4}\b|\b\d{3}[ -]\d{4}\b"
            r"|\(\d{2,5}\)[ ]?\d{3,4}[ -]?\d{3,4}\b",
        ),
        ("PHONE", 0, r"(?<![\d ])[ ](x\d{3,5})\b"),
        (
            "PHONE",
            re.I,
            r"\b(?:ext(?:ension)?|pager|beeper|phone|tel(?:ephone)?|fax|cell|mobile|bleep)\b\.?"
            r"(?:[ ]*(?:no\.?|number|is|at|#|:))*[ ]*(\d[\d -]*\d)",
        ),
        (
            "ID",
            re.I,
            r"\b(?:mrn|mr|medical record|acc(?:ession)?|patient id|id|ssn|nhs|hospital|unit|chart"
            r"|case|account|encounter|visit|order|exam|study|folder|record|room|bed)\b"
            r"(?:[ ]*(?:no\.?|number|num|#|id|:))*[ ]*"
            r"((?=[\w-]*\d[\w-]*\d[\w-]*\d)[A-Z\d][\w-]*)",
        ),
        (
            "ID",
            re.I,
            r"\b(?:mrn|ssn|nhs|medical record|patient id|patient no|pt no)\b\.?"
            r"(?:[ ]*(?:no\.?|number|#|is|:))*[ ]*(\d[\d -]{2,}\d)",
        ),
        ("ID", re.I, r"\b(?:room|bed|ward)[ ]*#?[ ]*(\d+[a-z]?)\b"),
        ("ID", 0, r"\b[A-Z]{1,5}-?\d{4,}(?:-\w+)*\b|\b[A-Z]{1,4}-\d{3,}-\w+\b|\b\d{5,}\b"),
        ("ID", 0, r"\b(?=[a-z]*[A-Z\d]*\d{3})(?=\w*[A-Za-z])(?!\d+x\d+)[A-Za-z\d]{7,}\b"),
        (
            "AGE",
            re.I,
            r"\b((?:9\d|1[0-4]\d)[ -]?(?:years?|yrs?|y)(?:[ /-]*(?:olds?|o)\b)?)(?!\w)",
        ),
        ("AGE", re.I, r"\b(?:age[d]?:?[ ]*(?:of[ ]+)?)((?:9\d|1[0-4]\d))\b"),
        ("AGE", 0, r"\b((?:9\d|1[0-2]\d)[ ]?[MFmf])\b"),
        (
            "PLACE",
            0,
            r"\b\d{1,5}[ ]+(?:[A-Z][\w'-]+[ ]+){1,3}(?:Street|Avenue|Ave|Road|Rd|Lane|Drive"
            r"|Boulevard|Blvd|Way|Court|Square|Terrace|Crescent)\b",
        ),
        (
            "PLACE",
            0,
            r"\b((?!(?:At|In|From|The|To|Of)\b)(?:(?:St\.|[A-Z][\w'\u2019-]+)[ ]+){1,4}"
            r"(?:Hospital|Medical Cent(?:er|re)|Clinic|Infirmary|Healthcare|University"
            r"|Nursing Home|Imaging))\b",
        ),
    )
)


class Redacted(NamedTuple):
    """A text without what identifies, and how much of each kind was replaced."""

    text: str
    counts: Counter[Kind]


class _Span(NamedTuple):
    start: int
    end: int
    kind: Kind


def redact(text: str, known: Mapping[str, Kind]) -> Redacted:
    """The text with every identifier that is known or looks like one replaced by its kind."""
    spans = _joined([*_known_spans(text, known), *_pattern_spans(text)], text)
    parts: list[str] = []
    end = 0
    for span in spans:
        parts += [text[end : span.start], f"[{span.kind}]"]
        end = span.end
    parts.append(text[end:])
    clean = _INITIALS.sub("[NAME]", "".join(parts))
    return Redacted(clean, Counter(span.kind for span in spans))


def names_somebody(text: str, known: Mapping[str, Kind]) -> bool:
    """The last net: whether a longer known identifier is left anywhere, run together or split."""
    squashed = squash(fold(text))
    return any(_inside_words(term) and term in squashed for term in known)


def _inside_words(term: str) -> bool:
    return len(term) >= LONG or (len(term) > 1 and bool(_UNSPACED.search(term)))


def _pattern_spans(text: str) -> Iterator[_Span]:
    for kind, pattern in _PATTERNS:
        for match in pattern.finditer(text):
            group = 1 if pattern.groups and kind != "DATE" else 0
            if kind == "DATE" and pattern.groups and match[1] and match[1][0].isalnum():
                group = 1
            yield _Span(*match.span(group), kind)


def _known_spans(text: str, known: Mapping[str, Kind]) -> Iterator[_Span]:
    if not known:
        return
    longest = max(map(len, known))
    long_terms = [(term, kind) for term, kind in known.items() if _inside_words(term)]
    words = [(match.start(), match.end(), fold(match.group())) for match in _WORD.finditer(text)]
    for first, (start, _, _) in enumerate(words):
        joined = ""
        for _, end, word in words[first : first + _MOST_WORDS]:
            joined += word
            if len(joined) > longest:
                break
            kind = known.get(joined)
            # Names of two letters are many words, too: only where written as a name.
            if kind and (len(joined) > 2 or (kind == "NAME" and text[start].isupper())):
                yield _Span(start, end, kind)
    for start, end, word in words:
        if len(word) > LONG or _UNSPACED.search(word):
            for term, kind in long_terms:
                if term in word:
                    yield _Span(start, end, kind)


def _joined(spans: list[_Span], text: str) -> list[_Span]:
    """Spans that overlap as one, of the kind that came first; names side by side as one."""
    order = {id(span): place for place, span in enumerate(spans)}
    joined: list[_Span] = []
    rank: list[int] = []
    for span in sorted(spans, key=lambda item: (item.start, -item.end)):
        if span.start == span.end:
            continue
        last = joined[-1] if joined else None
        between = text[last.end : span.start] if last else "x"
        touching = last is not None and (
            span.start < last.end
            or (last.kind == span.kind == "NAME" and not between.strip(" ,.-"))
        )
        if last is not None and touching:
            kind = last.kind if rank[-1] <= order[id(span)] else span.kind
            rank[-1] = min(rank[-1], order[id(span)])
            joined[-1] = _Span(last.start, max(last.end, span.end), kind)
        else:
            joined.append(span)
            rank.append(order[id(span)])
    return joined
