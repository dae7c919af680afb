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
from medvlm.draft.locate import place_of
from medvlm.draft.look import Seen, look_at
from medvlm.draft.question import Parsed, parse_question, projections
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

    `probability_of` says what the probability is of: a finding's phrase (calibrated), "answer" (of
    the answer itself, by a head), or "yes" (the language model's own, not calibrated).
    """

    text: str
    probability: float | None = None
    regions: list[Region] = field(default_factory=list)
    probability_of: str | None = None


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
        probability_of=said.probability_of,
        regions=said.regions,
        input_check=InputCheck(accepted=check.accepted, reasons=check.reasons, images=[check]),
        model=model_record(checkpoint),
    )


def reply(checkpoint: Checkpoint, seen: Seen, question: str, region: Box | None = None) -> Reply:
    """The answer from an image already looked at; `region` in source pixels, inside the image."""
    parsed = parse_question(question, region is not None)
    if parsed.kind == "lungs":
        return _lungs(seen, parsed)
    if seen.check.accepted:
        known = _by_the_heads(checkpoint, seen, question, parsed, region)
        if known is not None:
            return known
    if parsed.closed:
        return _yes_no(_margin(checkpoint, seen, Turn(question, region=_corners(seen, region))))
    asked = REGION_QUESTION if parsed.kind == "region" and seen.check.accepted else question
    turn = Turn(asked, region=_corners(seen, region))
    (text,) = checkpoint.model.write(seen.sight, [turn], max_tokens=LONGEST)
    own = [] if region is None else [_region(seen, region)]
    return Reply(text, None, own)


def _by_the_heads(
    checkpoint: Checkpoint, seen: Seen, question: str, parsed: Parsed, region: Box | None
) -> Reply | None:
    """The answer to what the heads know of a frontal chest film; None for anything else."""
    match parsed.kind:
        case "place":
            return _place(checkpoint, seen, parsed.findings[0])
        case "region_place" if region is not None:
            words = place_words(place_of([seen.transform.to_grid(region)], seen.lungs))
            return Reply(words, None, [_region(seen, region)]) if words else None
        case "view":
            return _view(seen, question)
        case "sex":
            return _sex(seen, question)
        case "findings":
            return _findings(checkpoint, seen)
        case "normal":
            return _normal(checkpoint, seen, question, parsed)
        case "presence":
            return _presence(checkpoint, seen, question, parsed)
    return None


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
    return Reply("yes" if margin > 0 else "no", 1 / (1 + math.exp(-margin)), [], "yes")


def _presence(checkpoint: Checkpoint, seen: Seen, question: str, parsed: Parsed) -> Reply:
    """A named finding: the draft's word; where the draft is uncertain, the language model's.

    Asked for on one side, a finding that is present is there if its boxes are; where it has no
    place, the language model is asked.
    """
    (finding,) = parsed.findings
    probability = seen.probabilities[finding]
    polarity = decide(checkpoint, finding, probability)
    boxes = finding_boxes(checkpoint, seen, finding)
    location = place(seen, finding, boxes)
    if parsed.sides:
        sided = [item for item in boxes if _side(seen, item.box) in (*parsed.sides, "both")]
    else:
        sided = boxes
    if polarity == "uncertain" or (polarity == "present" and parsed.sides and location is None):
        yes = _margin(checkpoint, seen, Turn(question)) > 0
    elif polarity == "present" and parsed.sides:
        yes = bool(sided)
    else:
        yes = (polarity == "present") != parsed.denied
    shown = regions(seen, [item.box for item in sided]) if yes != parsed.denied else []
    return Reply("yes" if yes else "no", probability, shown, PHRASES[finding])


def _side(seen: Seen, box: Box) -> str | None:
    location = place_of([box], seen.lungs)
    return None if location is None else location.side


def _findings(checkpoint: Checkpoint, seen: Seen) -> Reply:
    """What the draft would state, the most probable first, with its regions."""
    by_polarity: dict[str, list[str]] = {"present": [], "uncertain": []}
    boxes: list[Region] = []
    for name, probability in sorted(seen.probabilities.items(), key=lambda item: -item[1]):
        polarity = decide(checkpoint, name, probability)
        if polarity == "absent":
            continue
        by_polarity[polarity].append(PHRASES[name])
        if polarity == "present":
            own = regions(seen, [item.box for item in finding_boxes(checkpoint, seen, name)])
            boxes += [region for region in own if region not in boxes]
    said = ", ".join(by_polarity["present"]) or "none of the findings looked for"
    if by_polarity["uncertain"]:
        said += f"; possibly {', '.join(by_polarity['uncertain'])}"
    return Reply(said, None, boxes)


def _normal(checkpoint: Checkpoint, seen: Seen, question: str, parsed: Parsed) -> Reply:
    """Not normal if the draft states a finding; else the language model's word."""
    if any(decide(checkpoint, name, p) == "present" for name, p in seen.probabilities.items()):
        return Reply("no" if parsed.denied else "yes")
    return _yes_no(_margin(checkpoint, seen, Turn(question)))


def _lungs(seen: Seen, parsed: Parsed) -> Reply:
    if not seen.check.accepted:
        return Reply("This is not taken for a frontal chest film: no lung is marked.")
    found = {side: box for side, box in seen.lungs.items() if side in parsed.sides}
    if not found:
        return Reply("No lung was found in this image.")
    names = " and ".join(found)
    plural = "s are" if len(found) > 1 else " is"
    return Reply(f"The {names} lung{plural} marked.", None, regions(seen, list(found.values())))


def _place(checkpoint: Checkpoint, seen: Seen, finding: str) -> Reply:
    probability, phrase = seen.probabilities[finding], PHRASES[finding]
    polarity = decide(checkpoint, finding, probability)
    if polarity == "absent":
        return Reply(f"No {phrase} is seen.", probability, [], phrase)
    boxes = finding_boxes(checkpoint, seen, finding)
    words = place_words(place(seen, finding, boxes))
    text = words or ("the place is marked" if boxes else "it cannot be located")
    if polarity == "uncertain":
        text = f"possibly {words}" if words else f"{text}; {phrase} is only possible"
    return Reply(text, probability, regions(seen, [item.box for item in boxes]), phrase)


def _view(seen: Seen, question: str) -> Reply:
    ap = seen.attributes["ap_view"]
    asked = projections(question)
    if asked == {"ap"}:
        return _asked(question, "AP", ap)
    if asked == {"pa"}:
        return _asked(question, "PA", 1 - ap)
    return Reply("AP" if ap > 0.5 else "PA", max(ap, 1 - ap), [], "answer")


def _sex(seen: Seen, question: str) -> Reply:
    male = seen.attributes["male"]
    words = set(question.lower().replace("?", " ").split())
    asks_female = bool(words & {"female", "woman"})
    asks_male = bool(words & {"male", "man"})
    if asks_female != asks_male:
        name, p = ("female", 1 - male) if asks_female else ("male", male)
        return _asked(question, name, p)
    return Reply("male" if male > 0.5 else "female", max(male, 1 - male), [], "answer")


def _asked(question: str, name: str, probability: float) -> Reply:
    """Yes or no if that was asked, else the word itself or its denial."""
    closed = question.strip().lower().split()[0] in ("is", "are", "was", "is/are", "does")
    sure = max(probability, 1 - probability)
    yes, no = ("yes", "no") if closed else (name, f"not {name}")
    return Reply(yes if probability > 0.5 else no, sure, [], "answer")


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
