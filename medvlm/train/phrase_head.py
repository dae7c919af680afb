"""Teaches phrases their places: parts of lungs from their masks, opacities from boxes.

Encoder and language model are frozen; what learns is the small head between them, in minutes: first
what words mean, in closed form, then where that lies. Films without lung masks lend the lungs that
the dense head sees, so that adults take part.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medvlm.draft.anatomy import Mask, Part, part_masks
from medvlm.draft.locate import DENSE_OPACITY, LungSide, lung_masks
from medvlm.model.encoder import Features
from medvlm.model.phrase_head import PhraseHead
from medvlm.model.prompting import Prompter
from medvlm.model.vision import VisionModel
from medvlm.train.films import FilmStore
from medvlm.train.losses import dice_loss
from medvlm.train.phrase_reading import Meaning, Taught, fit_choices, fit_familiarity
from medvlm.train.phrase_words import OPAQUE_PARTS
from medvlm.train.progress import track

FILMS, VIEWS = 900, 2
"""Films at most, half of them with lung masks, each in so many views."""
STEPS, BATCH = 2000, 8
RATE, DECAY = 3e-3, 1e-4
LOOKED_AT = 16
SEED = 0
LUNG_FROM = 0.5
ANY_OPACITY = Meaning("opacity", Part("both", "lung"))


class Target(NamedTuple):
    """One film and phrase: what the phrase means, and where that lies [H, W]."""

    meaning: Meaning
    mask: Mask


class Example(NamedTuple):
    """One view of a film: its maps (half precision), the lungs that the dense head sees [2, H, W],
    the lungs to teach, and the opacities, None where nobody looked for them."""

    features: Features
    seen: Tensor
    lungs: dict[LungSide, Mask]
    opacity: Mask | None


def fit_phrase_head(
    vision: VisionModel, language: Prompter, store: FilmStore, size: int
) -> PhraseHead | None:
    """The head, taught on training films of `store`; None if none has a lung mask."""
    random = np.random.default_rng(SEED)
    training = np.flatnonzero(store.sides == "training")
    masked = store.dense_known[training][:, 0].numpy()
    if not masked.any():
        return None
    rows = [
        own[: FILMS // 2] for own in map(random.permutation, (training[masked], training[~masked]))
    ]
    examples = _examples(vision, store, np.concatenate(rows), size)
    torch.manual_seed(SEED)
    head = PhraseHead(vision.encoder.channels, language.width)
    taught = Taught.of(language)
    fit_choices(head, taught)
    fit_familiarity(head, taught, language)
    optimiser = torch.optim.AdamW(
        [own for own in head.parameters() if own.requires_grad], lr=RATE, weight_decay=DECAY
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS)
    for _ in track(range(STEPS), "phrases"):
        loss = torch.zeros(())
        for i in random.integers(len(examples), size=BATCH):
            own = examples[i]
            targets = film_targets(own.lungs, own.opacity)
            if not targets:
                continue
            words = torch.stack([taught.drawn(target.meaning, random) for target in targets])
            features = Features(*(maps[None].float() for maps in own.features))
            logits = head(features, own.seen[None], words)[0]
            loss = loss + _loss(logits, torch.from_numpy(np.stack([t.mask for t in targets])))
        optimiser.zero_grad()
        (loss / BATCH).backward()
        optimiser.step()
        schedule.step()
    return head.eval().requires_grad_(False)


@torch.no_grad()
def _examples(vision: VisionModel, store: FilmStore, rows: np.ndarray, size: int) -> list[Example]:
    found = []
    for start in track(range(0, len(rows), LOOKED_AT), "films for phrases"):
        part = rows[start : start + LOOKED_AT]
        for view in range(VIEWS):
            seeds = [(SEED, int(row), view) for row in part]
            generators = [_generator(seed) for seed in seeds] if view else None
            batch = store.batch(part, size, generators)
            look = vision(batch.images)
            dense = look.dense.sigmoid()
            for i in range(len(part)):
                lungs = _lungs(batch.dense[i], batch.dense_known[i], dense[i])
                opacity = _opacity(batch.dense[i], batch.dense_known[i])
                maps = Features(*(maps[i].half() for maps in look.features))
                found.append(Example(maps, dense[i, :2].clone(), lungs, opacity))
    return found


def _generator(seed: tuple[int, ...]) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.default_rng(seed).integers(2**31)))


def film_targets(lungs: dict[LungSide, Mask], opacity: Mask | None) -> list[Target]:
    """Each part of the lungs; opacities, where they were looked for: anywhere, and in a part of the
    lungs."""
    parts = part_masks(lungs)
    targets = [Target(Meaning("part", part), mask) for part, mask in parts.items()]
    if opacity is not None:
        targets.append(Target(ANY_OPACITY, opacity))
        for part, mask in parts.items():
            if part.name in OPAQUE_PARTS and part.side != "both":
                targets.append(Target(Meaning("opacity", part), opacity & _column(mask)))
    return targets


def _lungs(dense: Tensor, known: Tensor, seen: Tensor) -> dict[LungSide, Mask]:
    """The true lungs, else those that the dense head sees."""
    if known[0]:
        masks: dict[LungSide, Mask] = {
            "right": (dense[0] > LUNG_FROM).numpy(),
            "left": (dense[1] > LUNG_FROM).numpy(),
        }
    else:
        masks = lung_masks(seen.numpy())
    return {side: mask for side, mask in masks.items() if mask.any()}


def _opacity(dense: Tensor, known: Tensor) -> Mask | None:
    if not known[DENSE_OPACITY]:
        return None
    return np.asarray((dense[DENSE_OPACITY] > LUNG_FROM).numpy())


def _column(mask: Mask) -> Mask:
    """The box around a part: an opacity at its edge is in it too."""
    rows, columns = mask.any(axis=1, keepdims=True), mask.any(axis=0, keepdims=True)
    return np.asarray(rows & columns)


def _loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy and Dice [P, H, W], so that small parts count like large ones."""
    truth = masks.float()
    cross = F.binary_cross_entropy_with_logits(logits, truth)
    dice = dice_loss(logits.sigmoid(), truth)
    return cross + dice[masks.flatten(1).any(dim=1)].sum() / len(masks)
