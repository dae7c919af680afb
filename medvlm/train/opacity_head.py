"""A second opacity map, taught after the encoder: radiologists' boxes and drawn opacities.

The encoder's own dense head saw each of its hundred boxed films some twenty times. This one starts
from it and learns, over frozen features, from changed views of them and from opacities drawn into
films without one (`medvlm.train.lesions`). The two maps are averaged.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medvlm.data.sets import Film
from medvlm.draft.ground import OPACITY
from medvlm.draft.locate import DENSE_OPACITY, lung_masks, mask_boxes, side_of
from medvlm.draft.opacity_boxes import shape_of
from medvlm.evaluate.scan import load_film
from medvlm.image.geometry import Box
from medvlm.model.checkpoint import Checkpoint
from medvlm.model.encoder import Features
from medvlm.model.heads import DenseHead
from medvlm.model.vision import VisionModel
from medvlm.train.augment import random_affine, random_exposure, warp
from medvlm.train.lesions import draw_lesion
from medvlm.train.losses import dice_loss
from medvlm.train.progress import track

VIEWS_OF_BOXED, VIEWS_OF_CLEAR = 5, 2
LESIONS = (0.3, 0.35, 0.28, 0.07)
"""How often 0, 1, 2 and 3 opacities are drawn into a clear film."""
SHARES = {"boxed": 0.3, "drawn": 0.4, "clear": 0.3}
STEPS, BATCH = 500, 32
RATE, DECAY, DICE = 1e-3, 0.05, 0.3
FEWEST = 20
"""Films with a box; with fewer nothing is taught."""


class Example(NamedTuple):
    """Half-precision maps of one view of a film, and the share of opacity in each cell [H, W]."""

    features: Features
    opacity: Tensor


def fit_opacity_head(
    checkpoint: Checkpoint, films: Sequence[Film], seed: int = 0
) -> DenseHead | None:
    """Taught on the training films among `films`; None with too few boxes, or for volumes."""
    boxed, clear = taught_films(films)
    if len(boxed) < FEWEST or not clear or checkpoint.config.model.encoder.slices:
        return None
    vision, size = checkpoint.model.vision, checkpoint.config.model.encoder.size
    random = np.random.default_rng(seed)
    examples: dict[str, list[Example]] = {name: [] for name in SHARES}
    shapes: list[np.ndarray] = []
    for film in track(boxed, "films with opacities"):
        image, true = _film(film, size)
        shapes += _shapes(vision, image, true)
        mask = _mask(true, size)
        examples["boxed"] += [
            _example(vision, image, mask, random if view else None)
            for view in range(VIEWS_OF_BOXED)
        ]
    for film in track(clear, "films without"):
        image, _ = _film(film, size)
        masks = lung_masks(_dense(vision, image))
        lungs = mask_boxes(masks, size)
        for _ in range(VIEWS_OF_CLEAR):
            drawn, boxes = image, []
            count = random.choice(len(LESIONS), p=LESIONS) if len(lungs) == 2 else 0
            for _ in range(count):
                shape = shapes[random.integers(len(shapes))]
                drawn, box = draw_lesion(drawn, lungs, masks, shape, random)
                boxes.append(box)
            kind = "drawn" if boxes else "clear"
            examples[kind].append(_example(vision, drawn, _mask(boxes, size), random))
    return _taught(vision.dense, examples, random, seed)


def taught_films(films: Sequence[Film]) -> tuple[list[Film], list[Film]]:
    """The training films with opacities, and those without one: reviewed, or called normal. A
    radiologist's box outweighs a label that was mined from a report."""
    learned = [film for film in films if not film.validation]
    boxed = [film for film in learned if film.reviewed and film.boxes_of(OPACITY)]
    clear = [f for f in learned if (f.reviewed or f.normal) and not f.boxes_of(OPACITY)]
    return boxed, clear


def _taught(
    start: DenseHead, examples: dict[str, list[Example]], random: np.random.Generator, seed: int
) -> DenseHead:
    torch.manual_seed(seed)
    head = copy.deepcopy(start).requires_grad_(True).train()
    optimiser = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS)
    for _ in track(range(STEPS), "opacity map"):
        drawn = [
            own[i]
            for name, share in SHARES.items()
            if (own := examples[name])
            for i in random.integers(len(own), size=max(1, int(BATCH * share)))
        ]
        maps = zip(*(example.features for example in drawn), strict=True)
        features = Features(*(torch.stack(own).float() for own in maps))
        truth = torch.stack([example.opacity for example in drawn]).float()
        loss = _loss(head(features)[:, DENSE_OPACITY], truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return head.eval().requires_grad_(False)


def _loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy [B, H, W], and Dice on the films that have an opacity."""
    cross = F.binary_cross_entropy_with_logits(logits, truth)
    with_one = truth.flatten(1).amax(dim=1) > 0.5
    dice = dice_loss(logits.sigmoid(), truth) * with_one
    return cross + DICE * dice.sum() / with_one.sum().clamp_min(1)


@torch.no_grad()
def _example(
    vision: VisionModel, image: np.ndarray, mask: np.ndarray, random: np.random.Generator | None
) -> Example:
    """The film as it is, or moved and exposed otherwise."""
    size = len(image)
    both = torch.from_numpy(np.stack([image, mask]).astype(np.float32))[None]
    if random is not None:
        own = torch.Generator().manual_seed(int(random.integers(2**31)))
        both = warp(both, random_affine(1, own), size)
        both[:, :1] = random_exposure(both[:, :1], own)
    features = vision.encoder(both[:, :1])
    cells = F.adaptive_avg_pool2d(both[:, 1:], features.fine.shape[-2:])[0, 0]
    return Example(Features(*(maps[0].half() for maps in features)), cells.half())


def _film(film: Film, size: int) -> tuple[np.ndarray, list[Box]]:
    """The film on the grid [size, size], and its opacity boxes in grid pixels."""
    image = load_film(film.image)
    grid, transform = image.grid(size)
    own = [Box.from_fractions(*box, image.width, image.height) for box in film.boxes_of(OPACITY)]
    return grid, [transform.to_grid(box) for box in own]


def _shapes(vision: VisionModel, image: np.ndarray, boxes: Sequence[Box]) -> list[np.ndarray]:
    lungs = mask_boxes(lung_masks(_dense(vision, image)), len(image))
    if len(lungs) < 2:
        return []
    sides = [side_of(box, lungs) for box in boxes]
    return [shape_of(box, lungs[side], side) for box, side in zip(boxes, sides, strict=True)]


@torch.no_grad()
def _dense(vision: VisionModel, image: np.ndarray) -> np.ndarray:
    features = vision.encoder(torch.from_numpy(image)[None, None])
    dense: np.ndarray = vision.dense(features)[0].sigmoid().numpy()
    return dense


def _mask(boxes: Sequence[Box], size: int) -> np.ndarray:
    mask = np.zeros((size, size), np.float32)
    for box in boxes:
        inside = box.clip(size, size)
        rows = slice(round(inside.y), round(inside.bottom))
        mask[rows, round(inside.x) : round(inside.right)] = 1
    return mask
