"""Answers to questions over one image, with their regions.

What the heads know (lungs, findings, view, sex) is answered by them, worded plainly; the rest is
the language model's. A yes or no is the sign of a margin, never a sampled word.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from medvlm.draft.compose import decide, model_record
from medvlm.draft.ground import finding_boxes, place, regions
from medvlm.draft.look import Seen, look_at
from medvlm.draft.question import Parsed, parse_question
from medvlm.draft.wording import REGION_QUESTION, checklist_question, place_words
from medvlm.errors import UsageError
from medvlm.findings import PHRASES
from medvlm.image.geometry import Box
from medvlm.image.load import ImageInput
from medvlm.model.checkpoint import Checkpoint
from medvlm.model.language import Turn
from medvlm.records import Answer, InputCheck, Region

LONGEST = 24


@dataclass(frozen=True)
class Reply:
    """An answer's words, its probability and its regions.

    The probability is the calibrated one of a finding that was asked for, else that of the answer
    in words (view, sex), else of "yes" by the language model, which is not calibrated.
    """

    text: str
    probability: float | None = None
    regions: list[Region] = field(default_factory=list)


def answer_question(
    checkpoint: Checkpoint, image: ImageInput, question: str, region: Box | None = None
) -> Answer:
    """Answers a question; `region` in source pixels. Carries the gate's word, which does not block.

    Raises UsageError if the question is empty or the region lies outside the image.
    """
    if not question.strip():
        raise UsageError("the question is empty", remedy="ask something")
    if region is not None:
        inside = region.clip(image.width, image.height)
        if inside.width < 1 or inside.height < 1:
            raise UsageError(
                f"the region lies outside the image of {image.width} x {image.height} pixels",
                remedy="give x,y,width,height in the image's own pixels",
            )
        region = inside
    (seen,) = look_at(checkpoint, [image])
    said = reply(checkpoint, seen, question, region)
    check = seen.check
    return Answer(
        question=question,
        answer=said.text,
        probability=None if said.probability is None else round(said.probability, 4),
        regions=said.regions,
        input_check=InputCheck(accepted=check.accepted, reasons=check.reasons, images=[check]),
        model=model_record(checkpoint),
    )


def reply(checkpoint: Checkpoint, seen: Seen, question: str, region: Box | None = None) -> Reply:
    """The answer from an image already looked at; `region` in source pixels, inside the image."""
    parsed = parse_question(question, region is not None)
    chest = seen.check.accepted
    if parsed.kind == "lungs":
        return _lungs(seen, parsed)
    if parsed.kind == "place" and chest:
        return _place(checkpoint, seen, parsed.findings[0])
    if parsed.kind == "view" and chest:
        return _view(seen, question)
    if parsed.kind == "sex" and chest:
        return _sex(seen, question)
    if parsed.kind == "presence" and chest:
        return _presence(checkpoint, seen, question, parsed)
    if parsed.kind in ("yes_no", "presence"):
        return _yes_no(_margin(checkpoint, seen, Turn(question, region=_corners(seen, region))))
    asked = REGION_QUESTION if parsed.kind == "region" and not parsed.findings else question
    turn = Turn(asked, region=_corners(seen, region))
    (text,) = checkpoint.model.write(seen.sight, [turn], max_tokens=LONGEST)
    own = [] if region is None else [_region(seen, region)]
    return Reply(text, None, own)


def presence_margins(checkpoint: Checkpoint, seen: Seen, findings: list[str]) -> list[float]:
    """The language model's own yes-minus-no for each finding, from the visual tokens alone."""
    turns = [Turn(checklist_question(name)) for name in findings]
    with torch.no_grad():
        out: list[float] = checkpoint.model.margins(seen.sight, turns).tolist()
    return out


def _margin(checkpoint: Checkpoint, seen: Seen, turn: Turn) -> float:
    with torch.no_grad():
        return float(checkpoint.model.margins(seen.sight, [turn])[0])


def _yes_no(margin: float) -> Reply:
    return Reply("yes" if margin > 0 else "no", 1 / (1 + math.exp(-margin)))


def _presence(checkpoint: Checkpoint, seen: Seen, question: str, parsed: Parsed) -> Reply:
    """A named finding: the draft's word; where the draft is uncertain, the language model's."""
    (finding,) = parsed.findings
    probability = seen.probabilities[finding]
    polarity = decide(checkpoint, finding, probability)
    if polarity == "uncertain":
        yes = _margin(checkpoint, seen, Turn(question)) > 0
    else:
        yes = (polarity == "present") != parsed.denied
    boxes = []
    if yes != parsed.denied:
        boxes = regions(seen, [item.box for item in finding_boxes(checkpoint, seen, finding)])
    return Reply("yes" if yes else "no", probability, boxes)


def _lungs(seen: Seen, parsed: Parsed) -> Reply:
    found = {side: box for side, box in seen.lungs.items() if side in parsed.sides}
    if not found:
        return Reply("No lung was found in this image.")
    names = " and ".join(found)
    plural = "s are" if len(found) > 1 else " is"
    return Reply(f"The {names} lung{plural} marked.", None, regions(seen, list(found.values())))


def _place(checkpoint: Checkpoint, seen: Seen, finding: str) -> Reply:
    probability = seen.probabilities[finding]
    if decide(checkpoint, finding, probability) == "absent":
        return Reply(f"No {PHRASES[finding]} is seen.", probability)
    boxes = finding_boxes(checkpoint, seen, finding)
    words = place_words(place(seen, finding, boxes))
    text = words or ("The place is marked." if boxes else "It cannot be located.")
    return Reply(text, probability, regions(seen, [item.box for item in boxes]))


def _view(seen: Seen, question: str) -> Reply:
    ap = seen.attributes["ap_view"]
    words = question.lower()
    asks_ap, asks_pa = (w in words.replace("?", " ").split() for w in ("ap", "pa"))
    if asks_ap and not asks_pa:
        return _asked(question, "AP", ap)
    if asks_pa and not asks_ap:
        return _asked(question, "PA", 1 - ap)
    return Reply("AP" if ap > 0.5 else "PA", max(ap, 1 - ap))


def _sex(seen: Seen, question: str) -> Reply:
    male = seen.attributes["male"]
    words = set(question.lower().replace("?", " ").split())
    asks_female = bool(words & {"female", "woman"})
    asks_male = bool(words & {"male", "man"})
    if asks_female != asks_male:
        name, p = ("female", 1 - male) if asks_female else ("male", male)
        return _asked(question, name, p)
    return Reply("male" if male > 0.5 else "female", max(male, 1 - male))


def _asked(question: str, name: str, probability: float) -> Reply:
    """Yes or no if that was asked, else the word itself or its denial."""
    closed = question.strip().lower().split()[0] in ("is", "are", "was", "is/are", "does")
    if closed:
        return Reply("yes" if probability > 0.5 else "no", probability)
    return Reply(name if probability > 0.5 else f"not {name}", probability)


def _corners(seen: Seen, region: Box | None) -> tuple[float, float, float, float] | None:
    if region is None:
        return None
    box = seen.transform.to_grid(region)
    return box.x, box.y, box.right, box.bottom


def _region(seen: Seen, region: Box) -> Region:
    return Region(
        sop_instance_uid=seen.image.sop_instance_uid,
        frame=seen.image.frame,
        x=region.x,
        y=region.y,
        width=region.width,
        height=region.height,
        polygon=None,
    )
