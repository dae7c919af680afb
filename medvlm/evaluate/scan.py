"""One pass of the product over a set's films: what it saw, kept small."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from medvlm.data.sets import Film
from medvlm.dicom.read import read_instance
from medvlm.draft.answer import reply
from medvlm.draft.decide import decide, released_boxes
from medvlm.draft.ground import OPACITY, regions
from medvlm.draft.look import Seen, look_at
from medvlm.draft.parse import Polarity
from medvlm.evaluate.phrases import PartDice, Phrasebook, dice, part_dice, to_source
from medvlm.evaluate.region_questions import Asked, ask_regions
from medvlm.findings import FINDINGS
from medvlm.image.load import ImageInput, load_image
from medvlm.model.checkpoint import Checkpoint
from medvlm.records import Region

Fractions = tuple[float, float, float, float]


@dataclass(frozen=True)
class Scanned:
    """What is kept of one film. Boxes are fractions of the image, the surest first.

    `probabilities` and `polarities` [len(FINDINGS)]: what a draft would say of each finding;
    `boxes`: those that a draft would release, with their scores, for Lung_Opacity and for the
    findings that have a true box on this film;
    `lungs`: (box said, box true, Dice, box of the other true lung) by side, where masks are known;
    `parts`: of the lungs, as phrases find them, on the same films;
    `on_negated`: how many boxes a draft would release for the findings that it denies; `asked`:
    questions over its regions.
    """

    film: Film
    accepted: bool
    probabilities: np.ndarray
    polarities: tuple[Polarity, ...]
    boxes: dict[str, list[tuple[Fractions, float]]]
    lungs: dict[str, tuple[Fractions | None, Fractions, float, Fractions | None]]
    parts: PartDice = field(default_factory=dict)
    on_negated: int = 0
    asked: tuple[Asked, ...] = ()


def progress_bar() -> Progress:
    """A bar on stderr, so that stdout stays free for results."""
    return Progress(console=Console(stderr=True), transient=True)


def load_film(path: Path) -> ImageInput:
    """A set's image through the product's own reading."""
    return load_image(read_instance(path))


def look_at_files(
    checkpoint: Checkpoint, paths: Sequence[Path], batch_size: int, title: str
) -> Iterator[Seen]:
    """Looks at image files in order, a batch in memory at a time, showing progress."""
    with progress_bar() as progress:
        task = progress.add_task(title, total=len(paths))
        for start in range(0, len(paths), batch_size):
            images = [load_film(path) for path in paths[start : start + batch_size]]
            yield from look_at(checkpoint, images, batch_size)
            progress.advance(task, len(images))


def scan(checkpoint: Checkpoint, films: Sequence[Film], batch_size: int) -> list[Scanned]:
    """Looks at every film once."""
    paths = [film.image for film in films]
    seen = look_at_files(checkpoint, paths, batch_size, "looking")
    book = Phrasebook.of(checkpoint) if any(film.lung_mask for film in films) else None
    return [_scanned(checkpoint, book, film, item) for film, item in zip(films, seen, strict=True)]


def _scanned(checkpoint: Checkpoint, book: Phrasebook | None, film: Film, seen: Seen) -> Scanned:
    return Scanned(
        film=film,
        accepted=seen.check.accepted,
        probabilities=np.array([seen.probabilities[name] for name in FINDINGS]),
        polarities=tuple(decide(checkpoint, name, seen.probabilities[name]) for name in FINDINGS),
        boxes={
            name: [
                (fractions(seen, region), item.score)
                for item in released_boxes(checkpoint, seen, name)
                for region in regions(seen, [item.box])
            ]
            for name in {OPACITY} | {name for name, _ in film.boxes}
        },
        lungs=_lungs(checkpoint, film, seen) if film.lung_mask else {},
        parts=_parts(checkpoint, book, film, seen) if book and film.lung_mask else {},
        on_negated=sum(
            len(released_boxes(checkpoint, seen, name))
            for name in FINDINGS
            if decide(checkpoint, name, seen.probabilities[name]) == "absent"
        ),
        asked=ask_regions(checkpoint, film, seen),
    )


def fractions(seen: Seen, region: Region) -> Fractions:
    """A region as fractions of its image."""
    width, height = seen.image.width, seen.image.height
    return region.x / width, region.y / height, region.width / width, region.height / height


def _lungs(
    checkpoint: Checkpoint, film: Film, seen: Seen
) -> dict[str, tuple[Fractions | None, Fractions, float, Fractions | None]]:
    truth = _mask(film)
    true_boxes = {
        side: _mask_box(truth == value)
        for side, value in (("right", 1), ("left", 2))
        if (truth == value).any()
    }
    masks = seen.outlined_lungs
    out = {}
    for side, value in (("right", 1), ("left", 2)):
        if side not in true_boxes:
            continue
        # The box is the answer that a user gets; the Dice is that of the mask behind it.
        said = reply(checkpoint, seen, f"Where is the {side} lung?").regions
        box = fractions(seen, said[0]) if said else None
        mask = to_source(seen, masks[side], truth.shape)  # type: ignore[index]
        own = truth == value
        other = true_boxes.get("left" if side == "right" else "right")
        out[side] = (box, true_boxes[side], dice(mask, own), other)
    return out


def _parts(checkpoint: Checkpoint, book: Phrasebook, film: Film, seen: Seen) -> PartDice:
    truth = _mask(film)
    return part_dice(checkpoint, book, seen, {"right": truth == 1, "left": truth == 2})


def _mask(film: Film) -> np.ndarray:
    assert film.lung_mask is not None
    with Image.open(film.lung_mask) as picture:
        return np.asarray(picture)


def _mask_box(mask: np.ndarray) -> Fractions:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = mask.shape
    return (
        columns[0] / width,
        rows[0] / height,
        (columns[-1] + 1 - columns[0]) / width,
        (rows[-1] + 1 - rows[0]) / height,
    )
