"""One look at images: everything that drafting, answering and evaluating start from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from medvlm.draft.locate import DENSE_OPACITY, LungSide, lung_masks, mask_boxes
from medvlm.findings import FINDINGS
from medvlm.image.gate import header_reasons
from medvlm.image.geometry import Box, GridTransform
from medvlm.image.load import ImageInput
from medvlm.image.places import Place
from medvlm.image.tiles import cut_tiles
from medvlm.model.checkpoint import Checkpoint
from medvlm.model.encoder import Features
from medvlm.model.heads import ATTRIBUTES
from medvlm.model.pictures import Sight
from medvlm.model.vision import Look
from medvlm.records import ImageCheck, Reason

FINER = 4


@dataclass(frozen=True)
class TileSeen:
    """What the language model sees in one tile: `number` is its row and column, from 0."""

    number: tuple[int, int]
    sight: Sight = field(repr=False)
    place: Place


@dataclass(frozen=True)
class Seen:
    """What the model saw in one image.

    `probabilities` (calibrated) and `attributes` by name; `score_maps` [F, h, w] logits and `dense`
    [3, H, W] probabilities over the grid; `sight` holds the visual tokens, `tiles` those of the
    image's tiles where the checkpoint reads them.
    """

    image: ImageInput
    transform: GridTransform
    probabilities: dict[str, float]
    attributes: dict[str, float]
    score_maps: np.ndarray = field(repr=False)
    dense: np.ndarray = field(repr=False)
    sight: Sight = field(repr=False)
    check: ImageCheck
    tiles: tuple[TileSeen, ...] = ()

    @cached_property
    def place(self) -> Place:
        """Where the image's grid lies."""
        return Place.of_image(self.image, self.transform)

    @cached_property
    def lung_masks(self) -> dict[LungSide, np.ndarray]:
        """The lungs' cells, bool [H, W]; every finding's place asks for them."""
        return lung_masks(self.dense)

    @cached_property
    def outlined_lungs(self) -> dict[LungSide, np.ndarray]:
        """The same on a grid `FINER` times as fine, for outlines: a cell's edge is not a lung's."""
        fine = ndimage.zoom(
            self.dense[:2], (1, FINER, FINER), order=1, grid_mode=True, mode="nearest"
        )
        return lung_masks(fine)

    @cached_property
    def lungs(self) -> dict[LungSide, Box]:
        """The lungs' boxes in grid pixels."""
        return mask_boxes(self.lung_masks, self.transform.size)


def look_at(
    checkpoint: Checkpoint, images: Sequence[ImageInput], batch_size: int = 8
) -> Iterator[Seen]:
    """Looks at images in batches; one `Seen` each, in their order."""
    for start in range(0, len(images), batch_size):
        yield from _look(checkpoint, images[start : start + batch_size])


def read_probabilities(
    checkpoint: Checkpoint, images: Sequence[ImageInput], batch_size: int = 8
) -> Iterator[dict[str, float]]:
    """The findings' probabilities that `look_at` gives, without what else it sees."""
    for start in range(0, len(images), batch_size):
        yield from _read(checkpoint, images[start : start + batch_size])


@torch.no_grad()
def _read(checkpoint: Checkpoint, images: Sequence[ImageInput]) -> list[dict[str, float]]:
    grids = [image.grid(checkpoint.config.model.encoder.size)[0] for image in images]
    pictures = torch.from_numpy(np.stack(grids)).unsqueeze(1).to(checkpoint.model.device)
    look = checkpoint.model.look(pictures)
    return _named(checkpoint, look, checkpoint.model.sight(look.features))


def _named(checkpoint: Checkpoint, look: Look, sight: Sight) -> list[dict[str, float]]:
    """Calibrated probabilities by the findings' names, for each image."""
    calibration = checkpoint.config.calibration
    intercepts = torch.tensor([calibration.intercepts.get(name, 0.0) for name in FINDINGS])
    findings = checkpoint.model.findings(look, sight).cpu()
    rows = (findings * calibration.slope + intercepts).sigmoid().tolist()
    return [dict(zip(FINDINGS, row, strict=True)) for row in rows]


@torch.no_grad()
def _look(checkpoint: Checkpoint, images: Sequence[ImageInput]) -> list[Seen]:
    model, config = checkpoint.model, checkpoint.config
    grids, transforms = zip(
        *(image.grid(config.model.encoder.size) for image in images), strict=True
    )
    pictures = torch.from_numpy(np.stack(grids)).unsqueeze(1).to(model.device)
    look = model.look(pictures)
    sight = model.sight(look.features)
    probabilities = _named(checkpoint, look, sight)
    attributes = look.attributes.sigmoid().cpu().numpy()
    known = checkpoint.extras.familiarity
    distances = known.distances(look.features) if known is not None else [0.0] * len(images)
    dense = _dense(checkpoint, look, pictures).sigmoid().cpu().numpy()
    maps = look.maps.cpu().numpy()
    seen = []
    for i, image in enumerate(images):
        own = dict(zip(ATTRIBUTES, map(float, attributes[i]), strict=True))
        seen.append(
            Seen(
                image=image,
                transform=transforms[i],
                probabilities=probabilities[i],
                attributes=own,
                score_maps=maps[i],
                dense=dense[i],
                sight=sight.row(i),
                check=_check(image, own["frontal_chest"], distances[i], checkpoint),
                tiles=_tiles(checkpoint, image),
            )
        )
    return seen


def _dense(checkpoint: Checkpoint, look: Look, grids: Tensor) -> Tensor:
    """The dense head's logits; the opacity map is the mean over the film and its mirror image.

    No left-right flip as training has none of: nothing learns from it, and it is undone exactly, so
    that every cell speaks of its own place. It is the grid that is mirrored, not the film: its
    width is a whole number of cells, and padding that is wider on one side lies there again
    afterwards. Lungs are told apart by their side and are not averaged. One pass after the other,
    so that no batch is doubled.
    """
    dense = look.dense.clone()
    mirrored = checkpoint.model.vision.encoder(grids.flip(-1))
    there = _opacity(checkpoint, mirrored, checkpoint.model.vision.dense(mirrored))
    dense[:, DENSE_OPACITY] = (_opacity(checkpoint, look.features, dense) + there.flip(-1)) / 2
    return dense


def _opacity(checkpoint: Checkpoint, features: Features, dense: Tensor) -> Tensor:
    """Logits of opacity: the dense head's, averaged with a second head's where there is one."""
    second = checkpoint.extras.opacity
    own = dense[:, DENSE_OPACITY]
    return own if second is None else (own + second(features)[:, DENSE_OPACITY]) / 2


def _tiles(checkpoint: Checkpoint, image: ImageInput) -> tuple[TileSeen, ...]:
    wanted = checkpoint.config.model.pictures.tiles
    if wanted is None:
        return ()
    tiles = cut_tiles(image, checkpoint.config.model.encoder.size, wanted)
    grids = torch.from_numpy(np.stack([tile.grid for tile in tiles])).unsqueeze(1)
    sight = checkpoint.model.glimpse(grids.to(checkpoint.model.device))
    return tuple(
        TileSeen((tile.row, tile.column), sight.row(i), tile.place) for i, tile in enumerate(tiles)
    )


def file_mark(sha256: str) -> str:
    """How a record names a file: a path may carry a patient's name, a hash does not."""
    return f"sha256 {sha256[:12]}"


def _check(
    image: ImageInput, frontal_chest: float, distance: float, checkpoint: Checkpoint
) -> ImageCheck:
    """The gate: what the header says, whether the model takes it for what it was trained on, and
    how far its features lie from those."""
    reasons = header_reasons(image, checkpoint.config.gate)
    if frontal_chest < checkpoint.config.operating_points.frontal_chest:
        message = (
            "The image does not look like a frontal chest radiograph "
            f"(probability {frontal_chest:.2f})."
        )
        reasons.append(Reason(code="not_frontal_chest", message=message))
    if distance > 1:
        message = (
            "The image is unlike the films that this model learned from "
            f"(distance {distance:.2f}, at most 1)."
        )
        reasons.append(Reason(code="unfamiliar", message=message))
    return ImageCheck(
        file=file_mark(image.sha256),
        sop_instance_uid=image.sop_instance_uid,
        accepted=not reasons,
        reasons=reasons,
    )
