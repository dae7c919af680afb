"""Drafts beside the reports that people wrote of the same images: their words, and what they say.

N reports, F findings; what a text says of a finding is one of :data:`MENTIONS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medvlm.evaluate.bootstrap import mean_with_interval, resamples, unless_few, with_interval
from medvlm.evaluate.metrics import finding_f1
from medvlm.evaluate.references import MENTIONS, Mention, Reference
from medvlm.evaluate.text import BLEU_ORDERS, bleu_of, rouge_l


def against_references(
    references: Sequence[Reference],
    texts: Sequence[str],
    mentions: np.ndarray,
    names: Sequence[str],
    groups: Sequence[str],
) -> dict[str, Any]:
    """BLEU-1 to 4, ROUGE-L, and for each polarity how well the drafts agree with the reports.

    `polarity`: precision, recall and F1 of calling a finding present, uncertain or absent, each by
    itself: a possible effusion is no hit for a certain one, nor a denied one. `confusion`: counts
    of (film, finding), the report's word first. `mentions` [N, F] is what the drafts say.
    """
    counts = resamples(groups)
    once = np.ones((1, len(texts)))
    wanted = [reference.text for reference in references]
    point, drawn = (bleu_of(wanted, texts, own) for own in (once, counts))
    scores: dict[str, Any] = {"n": len(texts)}
    for order in range(BLEU_ORDERS):
        scores |= with_interval(f"bleu_{order + 1}", point[0, order], drawn[:, order])
    overlaps = [rouge_l(own, text) for own, text in zip(wanted, texts, strict=True)]
    scores |= mean_with_interval("rouge_l", overlaps, counts)
    reported = np.array(
        [[own.polarities.get(name, "unmentioned") for name in names] for own in references],
        dtype=object,
    )
    polarity = {
        mention: unless_few(finding_f1(reported == mention, mentions == mention, groups), groups)
        for mention in MENTIONS[:3]
    }
    scores = unless_few(scores, groups)
    return scores | {"polarity": polarity, "confusion": confusion(reported, mentions)}


def confusion(
    reported: np.ndarray, drafted: np.ndarray, rows: Sequence[Mention] = MENTIONS
) -> dict[str, dict[str, int]]:
    """How often what is `reported` [N, F] as one thing is `drafted` [N, F] as another."""
    return {
        row: {column: int(((reported == row) & (drafted == column)).sum()) for column in MENTIONS}
        for row in rows
    }
