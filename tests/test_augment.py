"""Films as they are changed for training: what is made smaller is not aliased."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medvlm.image.load import resize_grid
from medvlm.train.augment import random_affine, warp

IDENTITY = torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]]])


@pytest.mark.parametrize("size", [224, 256])
def test_lines_finer_than_the_grid_become_grey(size: int) -> None:
    lines = (torch.arange(384) % 2).float().expand(1, 1, 384, 384)
    for affine in (IDENTITY, random_affine(1, torch.Generator().manual_seed(0))):
        inside = warp(lines, affine, size)[..., size // 4 : -size // 4, size // 4 : -size // 4]
        assert inside.mean() == pytest.approx(0.5, abs=0.02)
        assert inside.std() < 0.1, "coarse lines that the film does not have"


def test_an_unchanged_film_is_what_the_product_reads() -> None:
    random = np.random.default_rng(0)
    film = random.random((384, 384)).astype(np.float32)
    grid, _ = resize_grid(film, 224)
    found = warp(torch.from_numpy(film)[None, None], IDENTITY, 224)[0, 0].numpy()
    assert np.abs(found - grid).max() < 0.02


def test_a_film_is_not_shrunk_where_it_need_not_be() -> None:
    film = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(warp(film, IDENTITY, 64), film, atol=1e-4, rtol=0)
    assert warp(film, IDENTITY, 96).shape == (1, 1, 96, 96)
