"""Sentences by the language model, held to what they must say.

The classifier decides what is said and the maps where; the language model words it. A sentence
that the parser does not read back as exactly that, or that claims what nothing tells
(`medvlm.draft.claims`), is replaced by a plain one, so a draft's text cannot contradict its
classifier. What changed since a prior study is decided and worded by rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from medvlm.draft.change import compares, told, with_change
from medvlm.draft.claims import NOTHING, Given, unfounded
from medvlm.draft.parse import Location, Polarity, contradictions, parse_sentence
from medvlm.draft.sentences import sentence, wordings
from medvlm.draft.wording import sentence_request
from medvlm.model.checkpoint import Checkpoint
from medvlm.model.language import Turn
from medvlm.model.pictures import Sight
from medvlm.records import Change

LONGEST = 32


class Statement(NamedTuple):
    """What a sentence must say; `change` only where the study is compared with a prior one."""

    finding: str
    polarity: Polarity
    location: Location | None
    change: Change | None = None


class Written(NamedTuple):
    """A sentence, and whether the language model's own wording stood."""

    text: str
    own: bool


def write_sentences(
    checkpoint: Checkpoint,
    sight: Sight,
    statements: Sequence[Statement],
    given: Given = NOTHING,
) -> list[Written]:
    """One sentence for each statement, in order; `given` is what else they may speak of."""
    turns = [Turn(sentence_request(s.finding, s.polarity, s.location)) for s in statements]
    guesses = [wordings(s.finding, s.polarity, s.location) for s in statements]
    # Guessed, they take few passes of many tokens, which 8 bits would hardly make shorter.
    texts = checkpoint.model.write(sight, turns, LONGEST, guesses, exactly=True)
    return [_written(text, own, given) for text, own in zip(texts, statements, strict=True)]


def says(text: str, statement: Statement, given: Given = NOTHING) -> bool:
    """Whether `text` is one sentence that says the statement, all of it and nothing else.

    Its change is not asked for: a sentence that compares with anything is refused, and the rule
    adds what there is to compare.
    """
    if not text.endswith(".") or text.count(".") != 1 or "\n" in text or compares(text):
        return False
    if unfounded(text, given):
        return False
    if contradictions(text, statement.finding, statement.polarity, statement.location):
        return False
    return [(item.finding, item.polarity, item.location) for item in parse_sentence(text)] == [
        (statement.finding, statement.polarity, statement.location)
    ]


def _written(text: str, statement: Statement, given: Given) -> Written:
    finding, polarity, location, _ = statement
    change = told(polarity, statement.change)
    if change == "resolved" or not says(text, statement, given):
        return Written(sentence(finding, polarity, location, change=change), False)
    return Written(with_change(text, change), True)
