"""Sentences by the language model, held to what they must say.

The classifier decides what is said and the maps where; the language model words it. A sentence
that the parser does not read back as exactly that is replaced by a plain one, so a draft's text
cannot contradict its classifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from medvlm.draft.parse import Location, Polarity, contradictions, parse_sentence
from medvlm.draft.sentences import sentence
from medvlm.draft.wording import sentence_request
from medvlm.model.checkpoint import Checkpoint
from medvlm.model.language import Turn
from medvlm.model.vlm import Sight

LONGEST = 32


class Statement(NamedTuple):
    """What a sentence must say."""

    finding: str
    polarity: Polarity
    location: Location | None


class Written(NamedTuple):
    """A sentence, and whether the language model's own wording stood."""

    text: str
    own: bool


def write_sentences(
    checkpoint: Checkpoint, sight: Sight, statements: Sequence[Statement]
) -> list[Written]:
    """One sentence for each statement, in order."""
    turns = [Turn(sentence_request(*statement)) for statement in statements]
    texts = checkpoint.model.write(sight, turns, max_tokens=LONGEST)
    return [
        Written(text, True)
        if says(text, statement)
        else Written(sentence(statement.finding, statement.polarity, statement.location), False)
        for text, statement in zip(texts, statements, strict=True)
    ]


def says(text: str, statement: Statement) -> bool:
    """Whether `text` is one sentence that says the statement, all of it and nothing else."""
    if not text.endswith(".") or text.count(".") != 1 or "\n" in text:
        return False
    if contradictions(text, statement.finding, statement.polarity, statement.location):
        return False
    return [(item.finding, item.polarity, item.location) for item in parse_sentence(text)] == [
        (statement.finding, statement.polarity, statement.location)
    ]
