"""Words of change since an earlier study: written by rule, read back, and missed nowhere.

A draft may only compare where a prior study was given. What the language model writes never holds
such words (`compares`); a rule adds them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from medvlm.findings import Polarity, find_mentions
from medvlm.records import Change

WORDS: dict[Change, str] = {
    "new": "new since the prior",
    "unchanged": "unchanged from the prior",
    "larger": "larger than on the prior",
    "smaller": "smaller than on the prior",
}
RESOLVED = "is no longer seen"


def told(polarity: Polarity, change: Change | None) -> Change | None:
    """The change that a sentence of this polarity puts into words; None for one that it does not.

    What is absent then and now, or cannot be compared, is not spoken of as compared.
    """
    spoken = change == "resolved" if polarity == "absent" else change in WORDS
    return change if spoken and polarity != "uncertain" else None


def with_change(text: str, change: Change | None) -> str:
    """A sentence with its change added: "Left-sided mass." -> "Left-sided mass, new since ..."."""
    words = WORDS.get(change) if change else None
    return f"{text.removesuffix('.')}, {words}." if words else text


def compares(text: str) -> bool:
    """Whether a text speaks of another time, or of a change.

    Names of findings are no comparison ("fibrotic change"). A word too many is caught rather than
    one too few.
    """
    for mention in reversed(find_mentions(text)):
        text = text[: mention.start] + "@" + text[mention.end :]
    return _COMPARES.search(text) is not None


class Span(NamedTuple):
    """A finding's name at `start` .. `end` of a clause."""

    start: int
    end: int


def read_changes(clause: str, named: Sequence[Span]) -> list[Change | None]:
    """The change that a clause states for each of the findings it names, in order."""
    changes: list[Change | None] = [None] * len(named)
    taken: list[tuple[int, int]] = []
    for change, pattern in _AFTER:
        for match in pattern.finditer(clause):
            earlier = [i for i, item in enumerate(named) if item.end <= match.start()]
            if not earlier:
                continue
            taken.append(match.span())
            # "Cardiomegaly and effusion are unchanged": a plural verb speaks of all before it.
            plural = re.search(r"\b(?:are|were|have)\b", match.group(0), re.IGNORECASE)
            for i in earlier if plural else earlier[-1:]:
                changes[i] = changes[i] or change
    for change, pattern in _BEFORE:
        for match in pattern.finditer(clause):
            if any(match.start() < end and start < match.end() for start, end in taken):
                continue
            reach = clause.find(",", match.end())
            for i, item in enumerate(named):
                inside = match.end() <= item.start and (reach < 0 or item.start < reach)
                nearer = any(match.end() <= other.start < item.start for other in named[:i])
                if inside and not nearer:
                    changes[i] = changes[i] or change
    return changes


# ---- the rules ----

_IS = r"(?:is|are|was|were|has been|have been|has|have|appears?|remains?)"
_SAME = r"(?:unchanged|stable|not (?:\w+ly )?changed)"
_MORE = r"(?:larger|bigger|increas(?:ed|ing)|enlarging|wors(?:e|ened|ening)|progress(?:ed|ing))"
_LESS = r"(?:smaller|decreas(?:ed|ing)|improv(?:ed|ing)|resolving|regress(?:ed|ing))"
_LEAD = rf"(?:,\s*|\b{_IS}\s+)(?:\w+ly\s+)?"
_TAIL = (
    r"(?=\s*(?:$|[,.;)])"
    r"|\s+(?:since|from|compared|in|on|as|than (?:on|in|before|previously))\b)"
)
_NO_LONGER = (
    rf"\b(?:{_IS}\s+no longer\b|(?:has|have)\s+(?:\w+ly\s+)?(?:resolved|cleared)\b"
    r"|(?:is|are)\s+resolved\b)"
)


def _compiled(wordings: dict[Change, str]) -> tuple[tuple[Change, re.Pattern[str]], ...]:
    return tuple((change, re.compile(text, re.IGNORECASE)) for change, text in wordings.items())


# Behind the finding, and before it.
_AFTER = _compiled(
    {
        "new": rf"{_LEAD}new(?:ly (?:seen|developed))?{_TAIL}",
        "unchanged": rf"{_LEAD}{_SAME}{_TAIL}",
        "larger": rf"{_LEAD}{_MORE}{_TAIL}",
        "smaller": rf"{_LEAD}{_LESS}{_TAIL}",
        "resolved": _NO_LONGER,
    }
)
_BEFORE = _compiled(
    {
        "new": r"\bnew(?:ly developed)?\s",
        "unchanged": r"\b(?:unchanged|stable)\s"
        r"|\b(?:no|without) (?:\w+ )?(?:interval )?change (?:in|of)\s",
        "larger": rf"\b{_MORE}\s",
        "smaller": rf"\b{_LESS}\s",
    }
)
_COMPARES = re.compile(
    r"\b(?:again|still|now|once more|no longer|previous(?:ly)?|prior|earlier|former(?:ly)?|before"
    r"|since|interval|follow[- ]?up|compar\w+|unchanged|unaltered|stable|stability|changes?|changed"
    r"|changing|new|newly|recent(?:ly)?|persist\w*|remain\w*|residual|recur\w*|resol(?:v\w+|ution)"
    r"|clear(?:ed|ing)|redemonstrat\w*|re-?identified|baseline|old(?:er)?|increas\w*|decreas\w*"
    r"|enlarging|larger|bigger|smaller|improv\w*|wors\w*|progress\w*|regress\w*|grow\w*|grew"
    r"|shr[aiu]nk\w*|evolv\w*|develop(?:ed|ing|s)|unresolved|than|similar|same|last|ago|days?"
    r"|weeks?|months?|yesterday|today|re-?accumulat\w*|lessen\w*|less|more|long-?standing|chronic"
    r"|known|expand(?:ed|ing)|diminish\w*|reduc(?:ed|ing|tion)|greater|appear(?:ed|ing)|gone"
    r"|doubled|difference|different|constant|static|heal(?:ed|ing)|continu\w*|advanc(?:ed|ing)"
    r"|subsid\w*|return\w*|back|relapse\w*)\b",
    re.IGNORECASE,
)
