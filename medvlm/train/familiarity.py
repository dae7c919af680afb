"""Fits what looks familiar to an encoder: on training films, with the limit set by others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from medvlm.data.sets import Film
from medvlm.evaluate.scan import load_film
from medvlm.model.checkpoint import Checkpoint
from medvlm.model.familiarity import Familiarity, fit_familiarity, mean_features
from medvlm.train.progress import track

AXES = 32
FEWEST = 4 * AXES
"""Films; with fewer the axes would be those of the sample."""
MOST = 400
"""Of each set."""
FAMILIAR = 0.995
MARGIN = 1.1
"""The limit lies so far beyond what that share of the others reaches."""
BATCH = 8


def familiarity_of(
    checkpoint: Checkpoint, sets: Sequence[Sequence[Film]], seed: int = 0
) -> Familiarity | None:
    """From the sets' films, training and validation apart; None with fewer than `FEWEST` of
    either, or of volumes."""
    if checkpoint.config.model.encoder.slices:
        return None
    random = np.random.default_rng(seed)
    sides: list[list[Film]] = [[], []]
    for films in sets:
        for side, wanted in zip(sides, (False, True), strict=True):
            own = [film for film in films if film.validation == wanted]
            side += [own[i] for i in sorted(random.permutation(len(own))[:MOST])]
    learned, others = sides
    if min(len(learned), len(others)) < FEWEST:
        return None
    found = fit_familiarity(_means(checkpoint, learned), _means(checkpoint, others), AXES, FAMILIAR)
    return Familiarity(**{**vars(found), "limit": found.limit * np.float32(MARGIN)})


@torch.no_grad()
def _means(checkpoint: Checkpoint, films: Sequence[Film]) -> np.ndarray:
    encoder, size = checkpoint.model.vision.encoder, checkpoint.config.model.encoder.size
    rows = []
    for start in track(range(0, len(films), BATCH), "what is familiar"):
        part = films[start : start + BATCH]
        grids = np.stack([load_film(film.image).grid(size)[0] for film in part])
        rows.append(mean_features(encoder(torch.from_numpy(grids).unsqueeze(1))).numpy())
    return np.concatenate(rows)
