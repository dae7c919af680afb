"""What the heads know of a frontal chest film, worded plainly: answers without a language model."""

from __future__ import annotations

from dataclasses import dataclass, field

from medvlm.draft.anatomy import Part, Side, known_part, part_masks
from medvlm.draft.decide import decide
from medvlm.draft.ground import finding_boxes, place, regions
from medvlm.draft.locate import ScoredBox, box_of_mask, outline_of_mask, place_of
from medvlm.draft.look import Seen
from medvlm.draft.made_by import body_parts, known_modality, named_modalities
from medvlm.draft.question import Parsed, projections
from medvlm.draft.wording import place_words
from medvlm.findings import PHRASES
from medvlm.image.geometry import Box
from medvlm.image.polygon import Drawn, Polygon, box_of
from medvlm.model.checkpoint import Checkpoint
from medvlm.records import Region

NOT_FOUND = "It was not found in this image."
HELD_BACK = "The site's policy holds back what would be answered."
MORE_HELD_BACK = "more is held back by the site's policy"


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


def known_reply(
    checkpoint: Checkpoint,
    seen: Seen,
    question: str,
    parsed: Parsed,
    region: Drawn | None,
    silent: frozenset[str] = frozenset(),
) -> Reply | None:
    """The answer to what the heads know; None for anything else. `region` in source pixels.
    `silent`: the findings that the site's policy keeps back."""
    match parsed.kind:
        case "place":
            return _place(checkpoint, seen, parsed.findings[0])
        case "region_place" if region is not None:
            words = place_words(place_of([seen.transform.to_grid(box_of(region))], seen.lungs))
            return Reply(words, None, [own_region(seen, region)]) if words else None
        case "part":
            return part_reply(seen, parsed.part)
        case "view":
            return _view(seen, question)
        case "sex":
            return _sex(seen, question)
        case "findings":
            return _findings(checkpoint, seen, silent)
        case "normal":
            return _normal(checkpoint, seen, parsed, silent)
        case "presence":
            return _presence(checkpoint, seen, parsed)
    return None


def lungs_reply(seen: Seen, parsed: Parsed) -> Reply:
    """Where the lungs are."""
    if not seen.check.accepted:
        return Reply("This is not taken for a frontal chest film: no lung is marked.")
    masks = seen.outlined_lungs
    found = [side for side in masks if side in parsed.sides and masks[side].any()]
    if not found:
        return Reply("No lung was found in this image.")
    names = " and ".join(found)
    plural = "s are" if len(found) > 1 else " is"
    size = seen.transform.size
    marked = [
        seen.place.region(box_of_mask(masks[side], size), outline_of_mask(masks[side], size))
        for side in found
    ]
    return Reply(f"The {names} lung{plural} marked.", None, [own for own in marked if own])


def part_reply(seen: Seen, phrase: str) -> Reply | None:
    """Where a part of the lungs is, in their masks; None for a name that rules do not know."""
    part = known_part(phrase)
    if part is None:
        return None
    size = seen.transform.size
    sides: tuple[Side, ...] = ("right", "left") if part.side == "both" else (part.side,)
    own = part_masks(seen.outlined_lungs)
    masks = [own[wanted] for side in sides if (wanted := Part(side, part.name)) in own]
    boxes = [box_of_mask(mask, size) for mask in masks if mask.any()]
    if not boxes:
        return Reply(NOT_FOUND)
    return Reply("It is marked.", None, regions(seen, boxes))


def modality_reply(
    checkpoint: Checkpoint, seen: Seen, question: str, parsed: Parsed
) -> Reply | None:
    """What the image was made by; None where neither its header nor the gate tells.

    "Is this a chest x-ray?" is only answered by yes of an image that was accepted as one.
    """
    gate = checkpoint.config.gate
    known = known_modality(seen.image, seen.check.accepted, gate)
    parts, named = body_parts(question), named_modalities(question)
    if known is None or len(parts) > 1:
        return None
    if not parsed.closed:
        return Reply(known)
    if known not in named:
        return Reply("no")
    if parts and not (seen.check.accepted and gate.frontal_only):
        return None
    return Reply("yes" if parts <= {"chest"} else "no")


def own_region(seen: Seen, region: Drawn) -> Region:
    """A region of the image, given in its own pixels, as a record."""
    box = box_of(region)
    return Region(
        sop_instance_uid=seen.image.sop_instance_uid,
        frame=seen.image.frame,
        x=box.x,
        y=box.y,
        width=box.width,
        height=box.height,
        polygon=list(region.points) if isinstance(region, Polygon) else None,
    )


def _presence(checkpoint: Checkpoint, seen: Seen, parsed: Parsed) -> Reply | None:
    """A named finding: the draft's word; None where the draft is uncertain.

    Asked for on one side, a finding that is present is there if its boxes are; None where it has no
    place.
    """
    (finding,) = parsed.findings
    polarity = decide(checkpoint, finding, seen.probabilities[finding])
    boxes = finding_boxes(checkpoint, seen, finding)
    placed = place(seen, finding, boxes) is not None
    if polarity == "uncertain" or (polarity == "present" and parsed.sides and not placed):
        return None
    if polarity == "present" and parsed.sides:
        return presence_reply(checkpoint, seen, parsed, bool(_on_sides(seen, parsed, boxes)))
    return presence_reply(checkpoint, seen, parsed, (polarity == "present") != parsed.denied)


def presence_reply(checkpoint: Checkpoint, seen: Seen, parsed: Parsed, yes: bool) -> Reply:
    """Yes or no to a named finding, with its boxes where it is there."""
    (finding,) = parsed.findings
    boxes = finding_boxes(checkpoint, seen, finding)
    sided = _on_sides(seen, parsed, boxes)
    shown = regions(seen, [item.box for item in sided]) if yes != parsed.denied else []
    return Reply("yes" if yes else "no", seen.probabilities[finding], shown, PHRASES[finding])


def _on_sides(seen: Seen, parsed: Parsed, boxes: list[ScoredBox]) -> list[ScoredBox]:
    """The boxes on the sides asked for; all where no side was."""
    if not parsed.sides:
        return boxes
    return [item for item in boxes if _side(seen, item.box) in (*parsed.sides, "both")]


def _side(seen: Seen, box: Box) -> str | None:
    location = place_of([box], seen.lungs)
    return None if location is None else location.side


def _findings(checkpoint: Checkpoint, seen: Seen, silent: frozenset[str]) -> Reply:
    """What the draft would state, the most probable first, with its regions."""
    kept_back = False
    by_polarity: dict[str, list[str]] = {"present": [], "uncertain": []}
    boxes: list[Region] = []
    for name, probability in sorted(seen.probabilities.items(), key=lambda item: -item[1]):
        polarity = decide(checkpoint, name, probability)
        if polarity == "absent":
            continue
        if name in silent:
            kept_back = True
            continue
        by_polarity[polarity].append(PHRASES[name])
        if polarity == "present":
            own = regions(seen, [item.box for item in finding_boxes(checkpoint, seen, name)])
            boxes += [region for region in own if region not in boxes]
    if silent and not any(by_polarity.values()):
        return Reply(HELD_BACK)  # "None of the findings" would deny what is only kept back
    said = ", ".join(by_polarity["present"]) or "none of the findings looked for"
    if by_polarity["uncertain"]:
        said += f"; possibly {', '.join(by_polarity['uncertain'])}"
    return Reply(f"{said}; {MORE_HELD_BACK}" if kept_back else said, None, boxes)


def _normal(
    checkpoint: Checkpoint, seen: Seen, parsed: Parsed, silent: frozenset[str]
) -> Reply | None:
    """Not normal if the draft states a finding; None if it does not."""
    stated = {n for n, p in seen.probabilities.items() if decide(checkpoint, n, p) == "present"}
    if stated - silent:
        return Reply("no" if parsed.denied else "yes")
    return Reply(HELD_BACK) if silent else None


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
