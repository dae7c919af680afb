"""What each action of a reviewer makes of a review: pure functions, no database.

Each takes a review and gives the next, with the version as it was: `review.py` counts. Whoever
does what makes no sense gets a ReviewError, and a review that an action does not change is equal
to what it was.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, get_args

from medvlm.draft.parse import parse_sentence
from medvlm.errors import NotReady, ReviewError
from medvlm.findings import FINDINGS, Polarity
from medvlm.records import Draft, Finding, Region
from medvlm.review.records import Decision, Fields, Kept, Rejection, Review, Sentence
from medvlm.review.texts import one_line, some_lines

OTHER = "other"
"""The finding of a sentence that a person wrote about none of the lexicon's."""

_REASONS = frozenset(get_args(Rejection))


def begin(study_id: str, draft_id: str | None = None, draft: Draft | None = None) -> Review:
    """The review of a draft before anybody did anything; without a draft, an empty one.

    Sentences are s01, s02, ... and what was withheld w01, w02, ... in the draft's order.
    """
    if draft is None:
        return Review(study_id=study_id)
    return Review(
        study_id=study_id,
        draft_id=draft_id,
        model=draft.model,
        sentences=tuple(
            Sentence(id=f"s{number:02}", **_as_drafted(finding))
            for number, finding in enumerate(draft.findings, 1)
        ),
        withheld=tuple(
            Kept(id=f"w{number:02}", **one.model_dump())
            for number, one in enumerate(draft.withheld, 1)
        ),
        fields=Fields(impression=draft.impression, machine_impression=draft.impression),
    )


def accept(review: Review, sentence_id: str) -> Review:
    """The sentence stands as the machine drafted it."""
    old = _sentence(review, sentence_id)
    if old.decision in ("edited", "added"):
        raise ReviewError(
            "The sentence stands already, in a person's words.",
            remedy="Reopen it to have the machine's again.",
        )
    return _with(review, _drafted(old, decision="accepted"))


def edit(
    review: Review,
    sentence_id: str,
    text: str,
    finding: str | None = None,
    polarity: Polarity | None = None,
    regions: Sequence[Region] | None = None,
) -> Review:
    """The sentence stands in these words; what is left out stays as it is.

    Edited to just what the machine had drafted, it is accepted.
    """
    old = _sentence(review, sentence_id)
    finding = old.finding if finding is None else _finding(finding)
    polarity = old.polarity if polarity is None else _polarity(polarity)
    if regions is None:
        regions = () if polarity == "absent" else old.regions
    return _with(review, _reworded(old, one_line(text), finding, polarity, regions))


def reject(review: Review, sentence_id: str, reason: Rejection) -> Review:
    """The machine's sentence, as drafted, goes out of the report, for this reason."""
    if reason not in _REASONS:
        raise ReviewError(
            "That is no reason to reject a sentence.",
            remedy=f"Give one of: {', '.join(sorted(_REASONS))}.",
        )
    old = _sentence(review, sentence_id)
    if old.machine is None:
        raise ReviewError(
            "A sentence that a person added is not rejected.", remedy="Reopen it: it is removed."
        )
    return _with(review, _drafted(old, decision="rejected", reason=reason))


def reopen(review: Review, sentence_id: str) -> Review:
    """The machine's sentence is unresolved again, as drafted; one that a person added is gone."""
    old = _sentence(review, sentence_id)
    if old.machine is None:
        left = tuple(one for one in review.sentences if one.id != sentence_id)
        return review.model_copy(update={"sentences": left})
    return _with(review, _drafted(old, decision="unresolved"))


def add(
    review: Review, text: str, finding: str, polarity: Polarity, regions: Sequence[Region] = ()
) -> Review:
    """A person's own sentence at the end. Its id tells the version, so that none comes twice."""
    new = Sentence(
        id=f"a{review.version + 1:02}",
        text=one_line(text),
        finding=_finding(finding),
        polarity=_polarity(polarity),
        regions=_placed(polarity, regions),
        decision="added",
    )
    return review.model_copy(update={"sentences": (*review.sentences, new)})


def move(review: Review, sentence_id: str, regions: Sequence[Region]) -> Review:
    """The sentence's right place. One that was rejected for a wrong place stays rejected: the place
    is what there is to learn from it."""
    old = _sentence(review, sentence_id)
    if old.decision != "rejected":
        return _with(review, _reworded(old, old.text, old.finding, old.polarity, regions))
    if old.reason != "wrong place":
        raise ReviewError(
            "The sentence is not in the report.", remedy="Reopen it before you move its region."
        )
    return _with(review, old.model_copy(update={"regions": _placed(old.polarity, regions)}))


def take_in(review: Review, withheld_id: str) -> Review:
    """A sentence that the draft withheld becomes one that is to be resolved, with the same id."""
    kept = next((one for one in review.withheld if one.id == withheld_id), None)
    if kept is None or kept.taken:
        raise ReviewError("No such sentence is withheld.", remedy="Reload the review.")
    said = (one.polarity for one in parse_sentence(kept.text) if one.finding == kept.finding)
    machine = Finding(
        text=kept.text,
        finding=kept.finding,
        polarity=next(said, "present"),
        probability=kept.probability,
        flags=[],
    )
    taken = kept.model_copy(update={"taken": True})
    new = Sentence(id=kept.id, withheld=kept.reason, **_as_drafted(machine))
    return review.model_copy(
        update={
            "sentences": (*review.sentences, new),
            "withheld": tuple(taken if one.id == kept.id else one for one in review.withheld),
        }
    )


def accept_all(review: Review, image_ids: Collection[str]) -> Review:
    """All that is unresolved stands, once the study's images were all displayed."""
    if unseen := sum(one not in review.displayed for one in image_ids):
        raise NotReady(
            f"{unseen} of {len(image_ids)} images were not displayed yet.",
            remedy="Look at every image of the study first.",
        )
    for one in review.sentences:
        if one.decision == "unresolved":
            review = accept(review, one.id)
    return review


def set_fields(
    review: Review,
    *,
    indication: str | None = None,
    comparison: str | None = None,
    impression: str | None = None,
    template: str | None = None,
) -> Review:
    """The parts of the report beside its findings; None leaves one as it is, "" empties it."""
    given = {
        "indication": indication,
        "comparison": comparison,
        "impression": impression,
        "template": template,
    }
    new = {name: some_lines(text) for name, text in given.items() if text is not None}
    return review.model_copy(update={"fields": review.fields.model_copy(update=new)})


def acknowledge(review: Review, finding: str) -> Review:
    """A person has taken note of an urgent finding."""
    return review.model_copy(update={"acknowledged": review.acknowledged | {_finding(finding)}})


def display(review: Review, image_ids: Collection[str]) -> Review:
    """The images were shown."""
    return review.model_copy(update={"displayed": review.displayed.union(image_ids)})


# ---- parts ----


def _sentence(review: Review, sentence_id: str) -> Sentence:
    try:
        return review.sentence(sentence_id)
    except KeyError:
        raise ReviewError(
            "The sentence is not in this review.", remedy="Reload the review."
        ) from None


def _with(review: Review, sentence: Sentence) -> Review:
    """The review with this sentence in the place of the one with its id."""
    new = tuple(sentence if one.id == sentence.id else one for one in review.sentences)
    return review.model_copy(update={"sentences": new})


def _as_drafted(machine: Finding) -> dict[str, Any]:
    return {
        "text": machine.text,
        "finding": machine.finding,
        "polarity": machine.polarity,
        "probability": machine.probability,
        "evidence": machine.evidence,
        "regions": tuple(machine.regions),
        "change": machine.change,
        "flags": tuple(machine.flags),
        "machine": machine,
    }


def _drafted(sentence: Sentence, decision: Decision, reason: Rejection | None = None) -> Sentence:
    """The sentence as the machine drafted it, with a decision on it."""
    assert sentence.machine is not None
    update = {**_as_drafted(sentence.machine), "decision": decision, "reason": reason}
    return sentence.model_copy(update=update)


def _reworded(
    old: Sentence, text: str, finding: str, polarity: Polarity, regions: Sequence[Region]
) -> Sentence:
    """The sentence in a person's words. What the machine measured stays with what it measured."""
    stated: dict[str, Any] = {
        "text": text,
        "finding": finding,
        "polarity": polarity,
        "regions": _placed(polarity, regions),
    }
    machine = old.machine
    if machine is None:
        return old.model_copy(update=stated)
    drafted = _as_drafted(machine)
    if all(drafted[name] == value for name, value in stated.items()):
        return _drafted(old, decision="accepted")
    same = finding == machine.finding
    there = same and stated["regions"] == drafted["regions"]
    stated |= {
        "probability": machine.probability if same else None,
        "evidence": machine.evidence if there else None,
        "change": machine.change if same and polarity == machine.polarity else None,
        "decision": "edited",
        "reason": None,
    }
    return old.model_copy(update=stated)


def _finding(name: str) -> str:
    if name not in (*FINDINGS, OTHER):
        raise ReviewError(
            "The finding is none of the lexicon's.",
            remedy=f"Give one of: {', '.join((*FINDINGS, OTHER))}.",
        )
    return name


def _polarity(polarity: Polarity) -> Polarity:
    if polarity not in get_args(Polarity):
        raise ReviewError(
            "A finding is present, absent or uncertain.", remedy="Give one of these three."
        )
    return polarity


def _placed(polarity: Polarity, regions: Sequence[Region]) -> tuple[Region, ...]:
    if polarity == "absent" and regions:
        raise ReviewError(
            "A finding that is absent has no region.",
            remedy="Take the region away, or call the finding present.",
        )
    return tuple(regions)
