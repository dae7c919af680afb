"""What a radiology sentence says: which finding, whether it is there, and where.

Rules over the lexicon, no model, so the same text always means the same. A trigger word ("no",
"possible", "cannot be excluded") reaches the findings named after it, or before it, in the same
clause.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from medvlm.draft.change import Span, read_changes
from medvlm.findings import PHRASES, find_mentions
from medvlm.findings import Polarity as Polarity
from medvlm.records import Change

Side = Literal["right", "left", "both"]
Zone = Literal["upper", "mid", "lower"]


@dataclass(frozen=True)
class Location:
    """Where in the chest: ``side`` is the patient's, so ``right`` is on the left of the picture."""

    side: Side | None = None
    zone: Zone | None = None


@dataclass(frozen=True)
class Statement:
    """One finding as a text puts it; ``location`` is None where the text names no place, ``change``
    where it does not compare."""

    finding: str
    polarity: Polarity
    location: Location | None = None
    change: Change | None = None


def parse_sentence(text: str) -> list[Statement]:
    """The statements of ``text`` (one sentence or several) in reading order; none: an empty list.

    In "left lower zone opacity, suspicious for pneumonia" the opacity is how the pneumonia looks,
    so the text makes one statement, about pneumonia.
    """
    clauses = (clause for clause in _CLAUSE_END.split(text) if clause.strip())
    return [statement for clause in clauses for statement in _parse_clause(clause)]


def contradictions(
    text: str,
    finding: str,
    polarity: Polarity,
    location: Location | None = None,
    change: Change | None = None,
) -> list[str]:
    """How ``text`` differs from what it should say, in words; empty if it does not.

    A difference is: the finding is not mentioned or has another polarity; a side or zone is named
    or change is named that is not the given one (leaving it out is none); another finding is called
    present or uncertain.
    """
    expected = location or Location()
    statements = parse_sentence(text)
    about = [statement for statement in statements if statement.finding == finding]
    differences = [] if about else [f"does not mention {PHRASES[finding]}"]
    for statement in about:
        if statement.polarity != polarity:
            differences.append(f"calls {PHRASES[finding]} {statement.polarity}, not {polarity}")
        said = statement.location or Location()
        if said.side not in (None, expected.side):
            differences.append(f"names side {said.side}, not {expected.side or 'any'}")
        if said.zone not in (None, expected.zone):
            differences.append(f"names zone {said.zone}, not {expected.zone or 'any'}")
        if statement.change not in (None, change):
            differences.append(f"calls it {statement.change}, not {change or 'anything'}")
    differences += [
        f"calls {PHRASES[statement.finding]} {statement.polarity}"
        for statement in statements
        if statement.finding != finding and statement.polarity != "absent"
    ]
    return differences


# ---- the rules ----

# "1.5 cm" does not end a sentence; "but" and "there is" begin a clause with triggers of its own.
_CLAUSE_END = re.compile(
    r"[.;:!?](?=\s|$)|\n"
    r"|,?\s+\b(?:but|however|although|though|whereas|while|except for|apart from|aside from)\b"
    r"|,\s+(?:and\s+)?(?=there (?:is|are)\b)|\s+and\s+(?=there (?:is|are)\b)"
    r"|,\s+with\s",
    re.IGNORECASE,
)

_IS = r"(?:is|are|was|were|has been|have been|appears?|remains?)"
_SEEN = (
    r"(?:seen|identified|present|visible|visuali[sz]ed|demonstrated|noted|evident|apparent"
    r"|detected|found)"
)

# (polarity, whether it reaches the findings after it, wording). The first that fits wins.
_TRIGGERS: tuple[tuple[Polarity, bool, str], ...] = (
    ("uncertain", False, rf"{_IS} not (?:entirely |completely )?(?:excluded|ruled out)"),
    (
        "uncertain",
        False,
        r"(?:cannot|can not|could not|can't) be (?:\w+ly )?(?:excluded|ruled out)",
    ),
    ("uncertain", False, r"not excluded"),
    ("uncertain", False, rf"(?:may|might|could) be {_SEEN}"),
    (
        "uncertain",
        False,
        rf"{_IS} (?:possibl[ey]|probabl[ey]|likely|suspected|questionable|considered)(?: {_SEEN})?",
    ),
    ("uncertain", True, r"(?:cannot|can not|could not|can't|not) (?:\w+ly )?(?:exclude|rule out)"),
    ("uncertain", True, r"(?:may|might|could) (?:represent|reflect|be|indicate)"),
    (
        "uncertain",
        True,
        r"(?:suspicious|concerning|questionable) (?:for|of)|concern for|suspicion of",
    ),
    ("uncertain", True, r"(?<!to )suggest\w*"),
    (
        "uncertain",
        True,
        r"possib(?:le|ly|ility of)|probabl[ey]|likely|suspected|questionable|equivocal",
    ),
    ("absent", False, rf"{_IS} (?:not|no longer) (?:\w+ly )?{_SEEN}"),
    ("absent", False, rf"(?:cannot|can not|could not|can't) be {_SEEN}"),
    (
        "absent",
        False,
        rf"{_IS} (?:absent|excluded|ruled out|resolved)|(?:has|have) (?:resolved|cleared)",
    ),
    # No change in a thing, or not only the thing: it is there.
    (
        "present",
        True,
        r"(?:no|without) (?:\w+ )?(?:change|increase|decrease|improvement) (?:in|of)|not only",
    ),
    ("absent", True, r"no (?:\w+ )?(?:evidence|signs?|indication|suggestion) (?:of|for)"),
    ("absent", True, r"no|not|without|negative for|absence of|free of|neither|nor|denies"),
    ("present", False, rf"{_IS} {_SEEN}"),
    ("present", True, r"(?:consistent|compatible|in keeping) with|representing|reflecting"),
)
_TRIGGER = re.compile(
    "|".join(rf"(?P<t{i}>\b(?:{wording})\b)" for i, (_, _, wording) in enumerate(_TRIGGERS)),
    re.IGNORECASE,
)

# Wordings for the normal and for a verb between the words, which a list of synonyms cannot hold.
_HEART = r"\b(?:heart|cardiac silhouette|cardiomediastinal silhouette)(?: size)?"
_WHOLE: tuple[tuple[str, Polarity, str], ...] = (
    (
        "Cardiomegaly",
        "absent",
        rf"{_HEART} {_IS} (?:not (?:\w+ly )?enlarged|(?:\w+ )?normal|within normal limits)",
    ),
    ("Cardiomegaly", "absent", r"\bnormal (?:heart|cardiac) size|\b(?:heart|cardiac) size normal"),
    ("Cardiomegaly", "present", rf"{_HEART} {_IS} (?:\w+ly )?enlarged"),
)

# How a finding looks, then what it is: "opacity, suspicious for", "density consistent with".
_LOOKS_LIKE = re.compile(
    r"[\s,]*(?:(?:which|that) )?(?:(?:is|are) )?(?:(?:may|might|could) (?:represent|reflect|be)"
    r"|(?:suspicious|concerning) for|suggestive of|suggesting"
    r"|(?:consistent|compatible|in keeping) with|representing|reflecting)\s+(?:an? )?",
    re.IGNORECASE,
)

_SIDES: dict[str, Side] = {
    "right": "right",
    "left": "left",
    "bilateral": "both",
    "bilaterally": "both",
    "both": "both",
}
_ZONES: dict[str, Zone] = {
    "upper": "upper", "apical": "upper", "apex": "upper", "apices": "upper",
    "mid": "mid", "middle": "mid",
    "lower": "lower", "basal": "lower", "basilar": "lower", "base": "lower", "bases": "lower",
    "bibasal": "lower", "bibasilar": "lower",
}  # fmt: skip
_PLACE = re.compile(
    r"(?P<preposition>\b(?:in|on|at|within|involving|over|along|near)\s+(?:the\s+|a\s+)?)?"
    rf"\b(?P<word>{'|'.join(sorted({*_SIDES, *_ZONES}, key=len, reverse=True))})\b(?!\s+limits?\b)",
    re.IGNORECASE,
)
_SAME_PLACE = re.compile(
    r"(?:[\s,-]|\band\b|\bthe\b|\blungs?\b|\bsided?\b|\bzones?\b|\blobes?\b)*", re.IGNORECASE
)


class _Named(NamedTuple):
    finding: str
    start: int
    end: int
    polarity: Polarity | None = None  # where the wording itself says it


def _parse_clause(clause: str) -> list[Statement]:
    named = _named_findings(clause)
    places = _places(clause, named)
    changes = read_changes(clause, [Span(item.start, item.end) for item in named])
    statements = [
        _statement(item.finding, item.polarity or _polarity(clause, item), place, change)
        for item, place, change in zip(named, places, changes, strict=True)
    ]
    # An opacity that says how the next finding looks gives it its place, and is no statement.
    kept: list[Statement] = []
    appearance: Location | None = None
    for i, statement in enumerate(statements):
        if i + 1 < len(named) and statement.finding == "Lung_Opacity":
            between = _PLACE.sub("", clause[named[i].end : named[i + 1].start])
            if _LOOKS_LIKE.search(between):
                if statement.polarity != "absent":
                    appearance = statement.location
                    continue
                statements[i + 1] = replace(statements[i + 1], polarity="absent")
        if appearance and not statement.location:
            statement = replace(statement, location=appearance)
        appearance = None
        kept.append(statement)
    return kept


def _statement(
    finding: str, polarity: Polarity, place: Location | None, change: Change | None
) -> Statement:
    """What is absent can only have resolved, and only what is absent can."""
    fits = change is None or (change == "resolved") == (polarity == "absent")
    return Statement(finding, polarity, place, change if fits else None)


def _named_findings(clause: str) -> list[_Named]:
    whole = [
        _Named(finding, match.start(), match.end(), polarity)
        for finding, polarity, wording in _WHOLE
        for match in re.finditer(wording, clause, re.IGNORECASE)
    ]
    plain = [
        _Named(mention.finding, mention.start, mention.end)
        for mention in find_mentions(clause)
        if not any(mention.start < item.end and item.start < mention.end for item in whole)
    ]
    return sorted(whole + plain, key=lambda item: item.start)


def _polarity(clause: str, item: _Named) -> Polarity:
    before: Polarity | None = None
    for match in _TRIGGER.finditer(clause):
        polarity, forwards, _ = _TRIGGERS[int((match.lastgroup or "t0")[1:])]
        if match.end() <= item.start:
            before = (
                polarity if forwards else None
            )  # a trigger that looks back closes the scope before it
        elif match.start() >= item.end:
            if forwards or (polarity == "present" and before):
                break  # of the next finding; or "possible effusion is seen": still possible
            return polarity
    return before or "present"


def _places(clause: str, named: list[_Named]) -> list[Location | None]:
    """The place of each finding: words before it, or after it and tied by a preposition."""
    sides: list[set[Side]] = [set() for _ in named]
    zones: list[set[Zone]] = [set() for _ in named]
    tied_until = -1  # end of a place that a preposition opened: "in the [left lower] zone"
    for match in _PLACE.finditer(clause):
        word, start = match["word"].lower(), match.start("word")
        earlier = [i for i, item in enumerate(named) if item.end <= match.start()]
        later = [i for i, item in enumerate(named) if item.start >= start]
        goes_on = tied_until >= 0 and _SAME_PLACE.fullmatch(clause, tied_until, start) is not None
        if goes_on and later and " and " in clause[tied_until:start].lower():
            # "in the left lower zone and right [pleural effusion]": "right" is the effusion's.
            rest = _PLACE.sub("", clause[match.end() : named[later[0]].start])
            goes_on = not _SAME_PLACE.fullmatch(rest)
        tied = bool(match["preposition"]) or word == "bilaterally" or goes_on
        tied_until = match.end() if tied else -1
        if not earlier and not later:
            continue
        owner = earlier[-1] if earlier and (tied or not later) else later[0]
        if word in _SIDES:
            sides[owner].add(_SIDES[word])
        else:
            zones[owner].add(_ZONES[word])
        if word.startswith("bib"):
            sides[owner].add("both")
    return [_location(side, zone) for side, zone in zip(sides, zones, strict=True)]


def _location(sides: set[Side], zones: set[Zone]) -> Location | None:
    side: Side | None = "both" if len(sides) > 1 else next(iter(sides), None)
    zone = next(iter(zones)) if len(zones) == 1 else None
    return Location(side, zone) if side or zone else None
