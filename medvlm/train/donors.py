"""Which films' features travel in a checkpoint as donors: training films without any finding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from medvlm.data.sets import Film
from medvlm.draft.decide import logit
from medvlm.evaluate.scan import look_at_files
from medvlm.findings import FINDINGS
from medvlm.image.load import ImageInput
from medvlm.model.checkpoint import Checkpoint
from medvlm.model.donors import Donors
from medvlm.model.encoder import Features
from medvlm.model.heads import ATTRIBUTES

DONORS, TRIED = 8, 40
ADULT = 18
_KINDS = [ATTRIBUTES.index(name) for name in ("ap_view", "male")]


def choose_donors(checkpoint: Checkpoint, films: Sequence[Film], count: int = DONORS) -> Donors:
    """The features of `count` training films of adults without any finding, of both projections and
    sexes.

    Of `TRIED` such films those are taken in which the model, too, sees the least: labels that were
    mined from reports are not always right. Raises ValueError if there is no such film.
    """
    normal = [film for film in films if _is_normal(film)]
    tried = [normal[i] for i in _spread(normal, range(len(normal)), TRIED)]
    if not tried:
        raise ValueError("no training film without any finding")
    readings: list[list[float]] = []
    images: list[ImageInput] = []
    for seen in look_at_files(
        checkpoint.uncalibrated(), [film.image for film in tried], 8, "choosing donors"
    ):
        readings.append([logit(seen.probabilities[name]) for name in FINDINGS])
        images.append(seen.image)
    least = sorted(range(len(tried)), key=lambda i: max(readings[i]))
    chosen = _spread(tried, least, count)
    return Donors(
        findings=torch.tensor([readings[i] for i in chosen]),
        lacking=torch.from_numpy(np.stack([tried[i].findings for i in chosen]) == 0),
        features=_features(checkpoint, [images[i] for i in chosen]),
    )


def donors_if_any(checkpoint: Checkpoint, films: Sequence[Film]) -> Donors | None:
    """The same, None where no film is without a finding."""
    return choose_donors(checkpoint, films) if any(map(_is_normal, films)) else None


def _is_normal(film: Film) -> bool:
    adult = film.age_years is None or film.age_years >= ADULT
    return film.normal and adult and not film.validation


def _spread(films: Sequence[Film], order: Sequence[int], count: int) -> list[int]:
    """The first `count` of `order`, taken in turn from each projection and sex."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for i in order:
        groups.setdefault(tuple(str(films[i].attributes[k]) for k in _KINDS), []).append(i)
    rounds = range(max(map(len, groups.values()), default=0))
    return [own[n] for n in rounds for own in groups.values() if n < len(own)][:count]


@torch.no_grad()
def _features(checkpoint: Checkpoint, images: Sequence[ImageInput]) -> Features:
    """The maps that the connector reads."""
    model = checkpoint.model
    grids = np.stack([image.grid(model.config.encoder.size)[0] for image in images])
    maps = model.vision.encoder(torch.from_numpy(grids).unsqueeze(1))._asdict()
    kept = model.connector.maps
    return Features(**{n: t if n in kept else torch.empty(0) for n, t in maps.items()})
