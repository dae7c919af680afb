"""Opacities drawn into films without one: exact boxes, as many as are wanted.

Shapes and places are those of radiologists' boxes, the density that of a cloud with a soft edge and
some texture, thin outside the lung. They are for teaching a map; they are counted nowhere, and
nothing is judged on them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medvlm.draft.locate import LungSide
from medvlm.draft.opacity_boxes import in_lung
from medvlm.image.geometry import Box

Floats = NDArray[np.floating]

DENSITY = (0.12, 0.5)
"""How far the middle of an opacity comes from the film's grey towards `WHITE`."""
WHITE = 0.92
OUTSIDE = 0.15
"""Of its density, what an opacity has outside the lung's mask."""


def draw_lesion(
    film: Floats,
    lungs: dict[LungSide, Box],
    masks: dict[LungSide, NDArray[np.bool_]],
    shape: Floats,
    random: np.random.Generator,
) -> tuple[Floats, Box]:
    """The film [S, S] with one more opacity, and its box in grid pixels.

    `shape`: as `BoxScorer.candidates`, changed a little; in either lung.
    """
    side: LungSide = "left" if random.random() < 0.5 else "right"
    box = in_lung(shape * random.uniform(0.85, 1.15, 4), lungs[side], side)
    cloud = _cloud(film.shape, box, random) * _inside(masks[side], film.shape, box)
    density = random.uniform(*DENSITY)
    drawn = film + density * cloud * np.clip(WHITE - film, 0, 1)
    return np.clip(drawn, 0, 1).astype(np.float32), box


def _cloud(size: tuple[int, ...], box: Box, random: np.random.Generator) -> Floats:
    """About 1 in the middle of a box, falling softly to 0 at its edge, ragged and grained."""
    rows, columns = np.indices(size)
    x, y = box.centre
    power = random.uniform(1.6, 3.5)  # from a rhomb to nearly a box
    across = np.abs((columns + 0.5 - x) / max(box.width / 2, 1)) ** power
    down = np.abs((rows + 0.5 - y) / max(box.height / 2, 1)) ** power
    away = (across + down) ** (1 / power)
    ragged = ndimage.gaussian_filter(random.normal(size=size), random.uniform(4, 12))
    soft = random.uniform(0.05, 0.2)
    body = 1 / (1 + np.exp((away + 0.12 * ragged / ragged.std() - 0.8) / soft))
    grain = ndimage.gaussian_filter(random.normal(size=size), random.uniform(1.5, 4))
    return np.asarray(body * np.clip(1 + grain, 0.4, 1.6))


def _inside(mask: NDArray[np.bool_], size: tuple[int, ...], box: Box) -> Floats:
    zoomed = ndimage.zoom(mask.astype(float), size[0] / len(mask), order=1)
    lung = ndimage.gaussian_filter(zoomed, 3).clip(0, 1)
    columns = np.arange(size[1]) + 0.5
    near = np.abs(columns - box.centre[0]) < box.width / 2
    return np.asarray((1 - OUTSIDE) * lung + OUTSIDE * near)
