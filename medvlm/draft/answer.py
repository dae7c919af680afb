"""Answers to questions over one image, with their regions.

What the heads know (lungs, findings, view, sex, what lies in a region) is answered by them, worded
plainly, the modality by the file; what changed since a prior study is answered by the rule that
drafts use; the rest is the language model's. A yes or no is the sign of a margin, never a sampled
word.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass

import torch

from medvlm.dicom.prior import Prior
from medvlm.dicom.study import Study
from medvlm.draft.admit import look_at_study
from medvlm.draft.compose import model_record
from medvlm.draft.held import doubtful_findings, flagged, held_back, risk_of_answer
from medvlm.draft.known import Reply as Reply
from medvlm.draft.known import (
    known_reply,
    lungs_reply,
    modality_reply,
    own_region,
    presence_reply,
)
from medvlm.draft.look import Seen, look_at
from medvlm.draft.parse import Polarity
from medvlm.draft.question import Parsed, parse_question
from medvlm.draft.region_reply import other_side_reply, region_presence_reply, region_reply
from medvlm.draft.then_and_now import NO_PRIOR, UNTOLD, comparison_reply
from medvlm.draft.trunk import Trunk, best_views, read_together
from medvlm.draft.wording import checklist_question
from medvlm.errors import UsageError
from medvlm.findings import FINDINGS
from medvlm.image.load import ImageInput
from medvlm.image.polygon import MOST_POINTS, Drawn, Polygon, box_of
from medvlm.model.checkpoint import Checkpoint
from medvlm.model.language import Turn
from medvlm.records import Answer, InputCheck

LONGEST = 24


@dataclass(frozen=True)
class Wanted:
    """What the language model is asked on the way to an answer.

    `closed`: it is told by the margin between yes and no, else by the words that it writes.
    """

    trunk: Trunk
    turn: Turn
    closed: bool


Replying = Generator[Wanted, float | str, Reply]
"""An answer in the making: yields what it wants to know of the language model, if anything."""


def answer_question(
    checkpoint: Checkpoint,
    image: ImageInput,
    question: str,
    region: Drawn | None = None,
    *,
    study: Study | None = None,
    prior: Prior | None = None,
) -> Answer:
    """Answers a question; `region` in source pixels. Carries the gate's word, which does not block.

    `study`: the one that the image belongs to; a checkpoint trained on several views reads its
    other accepted images too. `prior`: an earlier study to compare with.

    Raises UsageError if the question is empty or the region lies outside the image.
    """
    region = region_inside(image, question, region)
    (seen,) = look_at(checkpoint, [image])
    views = [seen, *beside(checkpoint, seen, study)]
    earlier = None if prior is None else look_at_study(checkpoint, prior.study).accepted
    said = reply(checkpoint, seen, question, region, views=views, earlier=earlier)
    return recorded(checkpoint, seen, question, said)


def region_inside(image: ImageInput, question: str, region: Drawn | None) -> Drawn | None:
    """The part of the region that lies in the image, in its pixels.

    Raises UsageError if the question is empty or the region lies outside the image.
    """
    if not question.strip():
        raise UsageError("the question is empty", remedy="ask something")
    if region is not None:
        if isinstance(region, Polygon) and len(region.points) > MOST_POINTS:
            raise UsageError(
                f"the outline has {len(region.points)} points", remedy=f"draw {MOST_POINTS} at most"
            )
        inside = region.clip(image.width, image.height)
        flat = inside is None or (isinstance(inside, Polygon) and inside.flat)
        if inside is None or flat or min(box_of(inside).width, box_of(inside).height) < 1:
            raise UsageError(
                f"the region lies outside the image of {image.width} x {image.height} pixels",
                remedy="give it in the image's own pixels",
            )
        region = inside
    return region


def recorded(checkpoint: Checkpoint, seen: Seen, question: str, said: Reply) -> Answer:
    """A reply as it is written, with the gate's word on the image."""
    check = seen.check
    return Answer(
        question=question,
        answer=said.text,
        probability=None if said.probability is None else round(said.probability, 4),
        probability_of=said.probability_of,
        regions=said.regions,
        input_check=InputCheck(accepted=check.accepted, reasons=check.reasons, images=[check]),
        model=model_record(checkpoint),
    )


def reply(
    checkpoint: Checkpoint,
    seen: Seen,
    question: str,
    region: Drawn | None = None,
    *,
    views: list[Seen] | None = None,
    earlier: list[Seen] | None = None,
) -> Reply:
    """The answer from an image already looked at; `region` in source pixels, inside the image.

    `views`: the images that the language model reads, this one first; left out, this one alone.
    `earlier`: the accepted images of a prior study, None without one.
    """
    making = replying(checkpoint, seen, question, region, views=views, earlier=earlier)
    try:
        wanted = next(making)
        while True:
            wanted = making.send(_told(checkpoint, wanted))
    except StopIteration as end:
        said: Reply = end.value
        return said


def replying(
    checkpoint: Checkpoint,
    seen: Seen,
    question: str,
    region: Drawn | None = None,
    *,
    views: list[Seen] | None = None,
    earlier: list[Seen] | None = None,
) -> Replying:
    """The same step by step, for whoever asks the language model several questions at once."""
    parsed = parse_question(question, region is not None)
    wanted = parsed.findings or (FINDINGS if parsed.kind in _OF_ALL else ())
    doubtful = doubtful_findings(checkpoint, seen, wanted) if wanted else {}
    if checkpoint.policy.doubtful == "flag":
        said = yield from _reply(
            checkpoint, seen, question, parsed, region, views, earlier, frozenset()
        )
        return flagged(said, doubtful, parsed.findings)
    if parsed.findings and doubtful:
        return held_back(doubtful)
    silent = frozenset(doubtful)
    return (yield from _reply(checkpoint, seen, question, parsed, region, views, earlier, silent))


# Of these kinds an answer lists or weighs a draft's sentences, whatever the question names.
_OF_ALL = ("findings", "normal", "region", "comparison")


def _reply(
    checkpoint: Checkpoint,
    seen: Seen,
    question: str,
    parsed: Parsed,
    region: Drawn | None,
    views: list[Seen] | None,
    earlier: list[Seen] | None,
    silent: frozenset[str],
) -> Replying:
    """The answer; lists name none of the `silent` findings."""
    if parsed.kind == "lungs":
        return lungs_reply(seen, parsed)
    if parsed.kind == "comparison":
        return comparison_reply(checkpoint, seen, parsed, earlier, silent)
    if parsed.kind == "other_comparison" and not (
        earlier and checkpoint.config.model.pictures.prior
    ):
        return Reply(NO_PRIOR if earlier is None else UNTOLD)
    if parsed.kind == "modality":
        made = modality_reply(checkpoint, seen, question, parsed)
        if made is not None:
            return made
    if seen.check.accepted:
        known = known_reply(checkpoint, seen, question, parsed, region, silent)
        if known is None and region is not None:
            known = _of_region(checkpoint, seen, parsed, region, silent)
        if known is not None:
            return known
    trunk = read_together(checkpoint, views or [seen], earlier or ())
    own = None if region is None else own_region(seen, region)
    told = yield Wanted(trunk, trunk.turn(question, own), parsed.closed)
    if isinstance(told, float):
        return _yes_no(checkpoint, seen, parsed, told)
    return Reply(told, None, [] if own is None else [own])


def presence_margins(checkpoint: Checkpoint, seen: Seen, findings: list[str]) -> list[float]:
    """The language model's own yes-minus-no for each finding, from the visual tokens alone."""
    turns = [Turn(checklist_question(name)) for name in findings]
    with torch.no_grad():
        margins = checkpoint.model.margins(read_together(checkpoint, [seen]).sight, turns)
    out: list[float] = margins.tolist()
    return out


def beside(checkpoint: Checkpoint, seen: Seen, study: Study | None) -> list[Seen]:
    """The study's other accepted images, the best first, if the checkpoint reads several."""
    if study is None or checkpoint.config.model.pictures.views == 1 or not seen.check.accepted:
        return []
    others = look_at_study(checkpoint, study).accepted
    others = [other for other in others if other.image.sha256 != seen.image.sha256]
    return best_views(others, len(others))


def _of_region(
    checkpoint: Checkpoint, seen: Seen, parsed: Parsed, region: Drawn, silent: frozenset[str]
) -> Reply | None:
    match parsed.kind:
        case "region":
            return region_reply(checkpoint, seen, region, silent)
        case "region_presence":
            return region_presence_reply(checkpoint, seen, parsed.findings[0], region)
        case "other_side":
            return other_side_reply(checkpoint, seen, region)
    return None


def _told(checkpoint: Checkpoint, wanted: Wanted) -> float | str:
    if wanted.closed:
        return _margin(checkpoint, wanted.trunk, wanted.turn)
    (text,) = checkpoint.model.write(wanted.trunk.sight, [wanted.turn], max_tokens=LONGEST)
    return text


def _margin(checkpoint: Checkpoint, trunk: Trunk, turn: Turn) -> float:
    with torch.no_grad():
        return float(checkpoint.model.margins(trunk.sight, [turn])[0])


def _yes_no(checkpoint: Checkpoint, seen: Seen, parsed: Parsed, margin: float) -> Reply:
    """The language model's yes or no; to a named finding, with the classifier's probability."""
    if parsed.kind == "presence" and seen.check.accepted:
        # Certain of what a draft calls possible: the site's risk is that of this answer.
        (finding,) = parsed.findings
        polarity: Polarity = "present" if (margin > 0) != parsed.denied else "absent"
        risk = risk_of_answer(checkpoint, seen, finding, polarity)
        doubtful = {finding: risk} if risk else {}
        if doubtful and checkpoint.policy.doubtful == "withhold":
            return held_back(doubtful)
        said = presence_reply(checkpoint, seen, parsed, margin > 0)
        return flagged(said, doubtful, parsed.findings)
    return Reply("yes" if margin > 0 else "no", 1 / (1 + math.exp(-margin)), [], "yes")
