"""What becomes of drafts at this desk: how many of their sentences stand, and how they change.

Counted are studies by their first signature. A machine's sentence is accepted, edited or rejected;
one that a person added is none of the machine's.
"""

from __future__ import annotations

import statistics as numbers
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TypeVar

from sqlalchemy import select

from medvlm.review.records import Review, Sentence
from medvlm.review.store import Store
from medvlm.review.tables import ReviewTable, SignedTable

_Key = TypeVar("_Key", str, date)
NO_MODEL = "-"
"""The model of reviews that were written without a draft."""


@dataclass(frozen=True)
class Rates:
    """What became of some sentences.

    Attributes:
        studies: in which they stand.
        sentences: the machine's.
        accepted, edited, rejected: shares of these; edited: the sentence stands in other words, at
            another place or as another finding.
        added: the share that people added, of the sentences that were signed.
        edit_distance: of the edited ones, on average (`edit_distance()`).
        minutes: of their studies the median from the first action to the signature.
        reasons: how often a sentence was rejected for each.

    None where there is nothing to count.
    """

    studies: int = 0
    sentences: int = 0
    accepted: float | None = None
    edited: float | None = None
    rejected: float | None = None
    added: float | None = None
    edit_distance: float | None = None
    minutes: float | None = None
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Statistics:
    """All in order. `by_finding`: by the machine's, of what people added by theirs; `by_model`: by
    name and version; `by_week`: by the Monday (UTC) of the signature's week."""

    total: Rates
    by_finding: dict[str, Rates]
    by_model: dict[str, Rates]
    by_week: dict[date, Rates]

    @property
    def studies(self) -> int:
        """Signed ones."""
        return self.total.studies

    @property
    def median_minutes(self) -> float | None:
        """From the first action to the signature."""
        return self.total.minutes

    @property
    def reasons(self) -> dict[str, int]:
        """How often a sentence was rejected for each."""
        return self.total.reasons


def statistics(
    store: Store, since: datetime | None = None, until: datetime | None = None
) -> Statistics:
    """Of the reports first signed from `since` on and before `until` (times with a zone)."""
    query = (
        select(SignedTable.at, SignedTable.review, ReviewTable.started)
        .outerjoin(ReviewTable, ReviewTable.study_id == SignedTable.study_id)
        .where(SignedTable.version == 1)
        .order_by(SignedTable.at, SignedTable.study_id)
    )
    if since is not None:
        query = query.where(SignedTable.at >= since)
    if until is not None:
        query = query.where(SignedTable.at < until)
    with store.reading() as session:
        rows = session.execute(query).all()
    return of_reviews(
        Reviewed(at, Review.model_validate_json(review), started) for at, review, started in rows
    )


@dataclass(frozen=True)
class Reviewed:
    """A signed review, when it was signed and when its first action came."""

    at: datetime
    review: Review
    started: datetime | None = None


def of_reviews(reviews: Iterable[Reviewed]) -> Statistics:
    """The statistics of some reviews."""
    total = _Sum()
    by_finding: defaultdict[str, _Sum] = defaultdict(_Sum)
    by_model: defaultdict[str, _Sum] = defaultdict(_Sum)
    by_week: defaultdict[date, _Sum] = defaultdict(_Sum)
    for one in reviews:
        model = one.review.model
        name = f"{model.name} {model.version}" if model else NO_MODEL
        day = one.at.astimezone(UTC).date()
        monday = day - timedelta(days=day.weekday())
        for group in (total, by_model[name], by_week[monday]):
            group.add(one, one.review.sentences)
        own: defaultdict[str, list[Sentence]] = defaultdict(list)
        for sentence in one.review.sentences:
            own[(sentence.machine or sentence).finding].append(sentence)
        for finding, sentences in own.items():
            by_finding[finding].add(one, sentences)
    return Statistics(total.rates(), _in_order(by_finding), _in_order(by_model), _in_order(by_week))


def edit_distance(before: str, after: str) -> float:
    """Levenshtein's distance over the longer length: 0 for the same text, 1 for another one."""
    return levenshtein(before, after) / max(len(before), len(after), 1)


def levenshtein(one: str, other: str) -> int:
    """How many characters must be put in, taken out or replaced to make `other` of `one`.

    A column of the usual table is kept in the bits of two whole numbers, where it goes up and
    where it goes down (Myers, Journal of the ACM 46, 1999; Hyyrö 2003).
    """
    if not one:
        return len(other)
    where: defaultdict[str, int] = defaultdict(int)
    for i, letter in enumerate(one):
        where[letter] |= 1 << i
    all_rows, last = (1 << len(one)) - 1, 1 << (len(one) - 1)
    up, down, distance = all_rows, 0, len(one)
    for letter in other:
        same = where.get(letter, 0)
        diagonal = (((same & up) + up) ^ up) | same | down
        right_up = down | ~(diagonal | up)
        right_down = diagonal & up
        distance += bool(right_up & last) - bool(right_down & last)
        right_up, right_down = (right_up << 1) | 1, right_down << 1
        up = (right_down | ~(diagonal | right_up)) & all_rows
        down = right_up & diagonal & all_rows
    return distance


# ---- sums ----


class _Sum:
    def __init__(self) -> None:
        self.studies = 0
        self.decisions: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.distances: list[float] = []
        self.minutes: list[float] = []

    def add(self, reviewed: Reviewed, sentences: Iterable[Sentence]) -> None:
        self.studies += 1
        if reviewed.started is not None:
            self.minutes.append(max(0.0, (reviewed.at - reviewed.started).total_seconds() / 60))
        for one in sentences:
            self.decisions[one.decision] += 1
            if one.reason is not None:
                self.reasons[one.reason] += 1
            if one.decision == "edited" and one.machine is not None:
                self.distances.append(edit_distance(one.machine.text, one.text))

    def rates(self) -> Rates:
        count = self.decisions
        machine = count["accepted"] + count["edited"] + count["rejected"]
        signed = count["accepted"] + count["edited"] + count["added"]
        return Rates(
            studies=self.studies,
            sentences=machine,
            accepted=_share(count["accepted"], machine),
            edited=_share(count["edited"], machine),
            rejected=_share(count["rejected"], machine),
            added=_share(count["added"], signed),
            edit_distance=numbers.fmean(self.distances) if self.distances else None,
            minutes=numbers.median(self.minutes) if self.minutes else None,
            reasons=dict(sorted(self.reasons.items())),
        )


def _in_order(sums: Mapping[_Key, _Sum]) -> dict[_Key, Rates]:
    return {key: sums[key].rates() for key in sorted(sums)}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
