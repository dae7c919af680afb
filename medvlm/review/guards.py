"""What must be settled, or looked at once more, before a report is signed.

Words are read by rules, and rules err: what they find the reviewer may confirm (`WARNINGS`). What
nobody has decided on, and what only a machine claims, they may not.

A problem's `values` for the page's catalogue:

    unresolved, empty_impression, no_findings   none
    not_displayed                               count, of
    urgent, disagreement                        finding
    laterality                                  said, other (right, left or both), against (region,
                                                machine or findings)
    contradictory_findings                      finding, one, other (the sentences' texts)
    contradiction                               why
    sex, anatomy, comparison, measurement       word
    view, history, not_read                     word

`field` names a part of the report that is no sentence: impression, indication.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from medvlm.draft.claims import Given, unfounded
from medvlm.findings import FINDINGS, PHRASES
from medvlm.review.agreement import (
    contradictory,
    disagreements,
    mislabelled,
    said_in,
    suggested_impression,
    without_remarks,
)
from medvlm.review.laterality import (
    NONE,
    Sides,
    frontal_widths,
    is_film,
    sides_named,
    sides_shown,
)
from medvlm.review.records import ImageRow, Problem, Review, Sentence, StudyRow
from medvlm.review.wording import Known, doubtful, says_with_what

__all__ = ["BLOCKING", "WARNINGS", "problems", "suggested_impression"]

BLOCKING = frozenset({"unresolved", "empty_impression", "urgent", "view", "history", "not_read"})
"""Codes that nobody can confirm away."""
WARNINGS = frozenset(
    {
        "not_displayed",
        "no_findings",
        "laterality",
        "sex",
        "anatomy",
        "comparison",
        "measurement",
        "contradiction",
        "contradictory_findings",
        "disagreement",
    }
)
"""Codes that whoever signs may confirm, which is kept."""

_CHESTS = ("CHEST", "THORAX", "LUNG")
_QUOTED = re.compile('"(.+?)"')


def problems(
    review: Review, row: StudyRow, images: Sequence[ImageRow], spacing_known: bool
) -> list[Problem]:
    """All of them, sentence by sentence and then the report as a whole.

    Args:
        images: of the study itself, without its priors.
        spacing_known: whether the size of a pixel is known for every image.
    """
    case = _Case(review, row, images, spacing_known)
    return [
        *_undecided(case),
        *(problem for sentence in case.standing for problem in _of_sentence(case, sentence)),
        *_between(case),
        *_of_impression(case),
        *_in_field(case, "indication", review.fields.indication),
    ]


@dataclass(frozen=True)
class _Case:
    review: Review
    row: StudyRow
    images: Sequence[ImageRow]
    spacing: bool

    @cached_property
    def standing(self) -> list[Sentence]:
        return [one for one in self.review.sentences if one.stands]

    @cached_property
    def widths(self) -> dict[str | None, int]:
        return frontal_widths(self.images, self.row)

    @cached_property
    def prior(self) -> bool:
        """Whether there is something to compare with: named by a person, or given to the draft."""
        compared = any(one.machine and one.machine.change for one in self.review.sentences)
        return compared or says_with_what(self.review.fields.comparison)

    @cached_property
    def known(self) -> Known:
        part = (self.row.body_part or "CHEST").upper()
        films = all(is_film(one, self.row) for one in self.images)
        return Known(
            sex=self.row.patient.sex,
            spacing=self.spacing,
            prior=self.prior,
            chest=films and any(name in part for name in _CHESTS),
        )

    @cached_property
    def given(self) -> Given:
        views = {(one.view_position or "").upper() for one in self.images}
        return Given(
            views=frozenset(views | {(self.row.view or "").upper()}),
            sex=self.row.patient.sex,
            spacing=self.spacing,
            prior=self.prior,
        )


def _undecided(case: _Case) -> Iterator[Problem]:
    review = case.review
    for one in review.sentences:
        if one.decision == "unresolved":
            message = "The sentence was neither accepted nor edited nor rejected."
            yield Problem(code="unresolved", message=message, sentence_id=one.id)
    for finding in case.row.urgent:
        if finding not in review.acknowledged:
            name = PHRASES.get(finding, finding)
            yield Problem(
                code="urgent",
                message=f"Nobody has taken note of an urgent finding yet: {name}.",
                values={"finding": finding},
            )
    unseen = sum(one.id not in review.displayed for one in case.images)
    if unseen:
        count = {"count": str(unseen), "of": str(len(case.images))}
        message = f"{unseen} of {len(case.images)} images were not displayed."
        yield Problem(code="not_displayed", message=message, values=count)
    if not case.standing:
        yield Problem(code="no_findings", message="No sentence stands in the report.")


def _of_sentence(case: _Case, sentence: Sentence) -> Iterator[Problem]:
    if sentence.decision == "accepted":
        found = _machine(case, sentence.text)
    else:
        found = _human(case, sentence.text)
        if why := mislabelled(sentence):
            message = f"The words and what they are marked as differ: {why}."
            found.append(Problem(code="contradiction", message=message, values={"why": why}))
    if side := _wrong_side(case, sentence):
        found.append(side)
    for problem in found:
        yield problem.model_copy(update={"sentence_id": sentence.id})


def _machine(case: _Case, text: str) -> list[Problem]:
    """What a machine's words claim that nothing tells."""
    found = []
    for reason in unfounded(text, case.given):
        word = _QUOTED.search(reason.message)
        values = {"word": word[1] if word else text}
        found.append(Problem(code=reason.code, message=reason.message, values=values))
    return found


def _human(case: _Case, text: str) -> list[Problem]:
    return [
        Problem(code=one.code, message=one.message, values={"word": one.word})
        for one in doubtful(text, case.known)
    ]


def _wrong_side(case: _Case, sentence: Sentence) -> Problem | None:
    """Where the words name another side than the region shows, or the machine had named for it."""
    said = sides_named(sentence.text, sentence.finding)
    shown = sides_shown(sentence.regions, case.widths)
    if said and shown - said:
        return _sides(said, shown, "region", "the region shows")
    machine = sentence.machine
    if machine is None or tuple(machine.regions) != sentence.regions:
        return None
    drafted = sides_named(machine.text, machine.finding)
    if machine.finding == sentence.finding and said and drafted and said != drafted:
        return _sides(said, drafted, "machine", "the machine named for the same region")
    return None


def _sides(said: Sides, other: Sides, against: str, where: str) -> Problem:
    one, two = _side(said), _side(other)
    return Problem(
        code="laterality",
        message=f"The words say {one}, and {where} {two}.",
        values={"said": one, "other": two, "against": against},
    )


def _side(sides: Sides) -> str:
    return "both" if len(sides) > 1 else next(iter(sides))


def _between(case: _Case) -> Iterator[Problem]:
    for finding, one, other in contradictory(case.standing):
        yield Problem(
            code="contradictory_findings",
            message=f"One sentence says what another denies: {PHRASES[finding]}.",
            sentence_id=other.id,
            values={"finding": finding, "one": one.text, "other": other.text},
        )


def _of_impression(case: _Case) -> Iterator[Problem]:
    fields = case.review.fields
    if not fields.impression.strip():
        yield Problem(
            code="empty_impression",
            message="The impression is empty.",
            values={"field": "impression"},
        )
        return
    if fields.impression == fields.machine_impression:
        for one in _machine(case, without_remarks(fields.impression)):
            yield one.model_copy(update={"values": {**one.values, "field": "impression"}})
    else:
        yield from _in_field(case, "impression", fields.impression)
    for finding, why in disagreements(case.standing, fields.impression):
        values = {"finding": finding, "field": "impression"}
        yield Problem(code="disagreement", message=f"{why}.", values=values)
    for finding in FINDINGS:
        own = NONE.union(*(_seen(case, one, finding) for one in case.standing))
        said = NONE.union(
            *(
                one.sides
                for one in said_in(fields.impression)
                if one.finding == finding and one.polarity != "absent"
            )
        )
        if own and said - own:
            problem = _sides(said, own, "findings", f"the findings say of {PHRASES[finding]}")
            values = {**problem.values, "finding": finding, "field": "impression"}
            yield problem.model_copy(update={"values": values})


def _seen(case: _Case, sentence: Sentence, finding: str) -> Sides:
    """The sides where a sentence sees a finding: as it says, else as its regions show."""
    if sentence.finding == finding and sentence.polarity != "absent":
        said = sides_named(sentence.text, finding)
        return said or sides_shown(sentence.regions, case.widths)
    said_also = (one for one in said_in(sentence.text) if one.finding == finding)
    return NONE.union(*(one.sides for one in said_also if one.polarity != "absent"))


def _in_field(case: _Case, field: str, text: str) -> Iterator[Problem]:
    for one in _human(case, text):
        # What a patient was sent for may compare, and speak of any part of the body.
        if field != "indication" or one.code == "sex":
            yield one.model_copy(update={"values": {**one.values, "field": field}})
