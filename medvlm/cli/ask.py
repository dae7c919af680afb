"""`medvlm ask`: a question about one image, with its region."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from medvlm.cli.common import (
    AsJson,
    CheckpointName,
    LlmPath,
    PolicyFile,
    load_with_notice,
    print_json,
    read_with_progress,
    report_refused,
)
from medvlm.cli.prior import PriorInput, prior_finder
from medvlm.config.policy import site_policy
from medvlm.dicom.instance import Instance
from medvlm.dicom.read import Reading
from medvlm.dicom.study import group_studies
from medvlm.errors import InputError, InputNotFound, UsageError
from medvlm.image.geometry import Box
from medvlm.image.load import load_image
from medvlm.image.polygon import Drawn, Polygon, box_of
from medvlm.records import Answer, answer_words


def ask(
    path: Annotated[Path, typer.Argument(help="File, folder, zip archive.", metavar="INPUT")],
    question: Annotated[str, typer.Argument(help="The question, in English.")],
    region: Annotated[
        str | None,
        typer.Option(
            help="x,y,width,height, or an outline x,y x,y x,y ..., in the image's pixels."
        ),
    ] = None,
    instance: Annotated[
        str | None, typer.Option(help="SOPInstanceUID[:frame] of the image meant.")
    ] = None,
    prior: PriorInput = None,
    checkpoint: CheckpointName = None,
    llm_path: LlmPath = None,
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Answers a question about an image, with the regions it speaks of."""
    box = parse_region(region) if region is not None else None
    reading = read_with_progress([path])
    chosen, frame = choose_instance(reading, instance)
    image = load_image(chosen, frame)
    studies = group_studies(reading)
    (study,) = (one for one in studies if chosen in one.instances)
    found = prior_finder(prior, studies, reading.refused)(study)
    loaded = load_with_notice(checkpoint, llm_path, site_policy(policy))
    from medvlm.draft.answer import answer_question

    answer = answer_question(loaded, image, question, box, study=study, prior=found)
    if as_json:
        print_json(answer.model_dump(mode="json"))
    else:
        typer.echo(in_words(answer))
        for reason in answer.input_check.reasons:
            typer.echo(f"Beware: {reason.message}", err=True)
    report_refused(reading.failed)
    if reading.failed:
        raise typer.Exit(1)


def in_words(answer: Answer) -> str:
    """An answer for people, with its regions."""
    lines = [answer_words(answer)]
    for box in answer.regions:
        lines.append(f"  region {box.x:.0f},{box.y:.0f},{box.width:.0f},{box.height:.0f}")
    return "\n".join(lines)


def parse_region(text: str) -> Drawn:
    """`x,y,width,height` as a box, `x,y x,y x,y ...` as an outline.

    Raises UsageError for anything else.
    """
    try:
        told = re.sub(r"\s*,\s*", ",", text)
        parts = [[float(number) for number in part.split(",")] for part in told.split()]
        if not parts or not all(math.isfinite(n) for part in parts for n in part):
            raise ValueError
        if len(parts) == 1:
            x, y, width, height = parts[0]
        else:
            points = tuple((x, y) for x, y in parts)
    except ValueError as error:
        raise UsageError(
            f"--region {text!r} is not x,y,width,height or x,y x,y x,y",
            remedy="give four numbers in the image's own pixels, such as 100,200,50,80, or the "
            'points of an outline, such as "100,200 150,180 190,260"',
        ) from error
    drawn: Drawn = Box(x, y, width, height) if len(parts) == 1 else Polygon(points)
    box = box_of(drawn)
    flat = len(parts) == 2 or (isinstance(drawn, Polygon) and drawn.flat)
    if flat or not (box.width > 0 and box.height > 0):
        raise UsageError(
            f"--region {text!r} has no area",
            remedy="width and height must be above 0; an outline has at least three points",
        )
    if max(map(abs, (box.x, box.y, box.right, box.bottom))) >= 1e7:
        raise UsageError(f"--region {text!r} is far outside any image", remedy="give its pixels")
    return drawn


def choose_instance(reading: Reading, wanted: str | None) -> tuple[Instance, int]:
    """The image meant and its frame.

    Raises UsageError if there are several and none was named, InputError if there is none.
    """
    if not reading.instances:
        if len(reading.failed) == 1:
            refused = reading.failed[0]
            raise InputError(
                refused.message, file=refused.file, remedy=refused.remedy, code=refused.code
            )
        report_refused(reading.failed)
        raise InputNotFound("holds no image", remedy="give a DICOM file, a PNG or a JPEG")
    distinct = {item.sha256: item for item in reversed(reading.instances)}
    candidates = list(reversed(distinct.values()))
    if wanted is not None:
        named = [item for item in candidates if wanted in (item.sop_instance_uid, item.file)]
        if not named:
            uid, _, number = wanted.rpartition(":")
            framed = [
                item
                for item in candidates
                if uid in (item.sop_instance_uid, item.file)
                and number.isdecimal()
                and int(number) < item.frames
            ]
            if len(framed) == 1:
                return framed[0], int(number)
            named = framed
        if not named:
            raise UsageError(f"no image is {wanted}", remedy=_listing(candidates))
        candidates = named
    # A file's number of frames may be any number: they are counted, not listed in memory.
    count = sum(max(1, item.frames) for item in candidates)
    if count == 1:
        return candidates[0], 0
    raise UsageError(
        f"there are {count} images; say which with --instance", remedy=_listing(candidates)
    )


def _listing(candidates: list[Instance], most: int = 20) -> str:
    """The first images by what `--instance` takes; by file where two share a UID."""
    shared = Counter(item.sop_instance_uid for item in candidates)
    lines: list[str] = []
    for item in candidates:
        uid = item.sop_instance_uid
        name = uid if uid and shared[uid] == 1 else item.file
        frames = range(min(item.frames, most)) if item.frames > 1 else [None]
        lines += [f"  {name}" + ("" if frame is None else f":{frame}") for frame in frames]
    count = sum(max(1, item.frames) for item in candidates)
    shown = lines[:most]
    rest = count - len(shown)
    return "\n" + "\n".join(shown) + (f"\n  ... and {rest} more" if rest else "")
