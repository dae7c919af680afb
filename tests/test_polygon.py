"""Freehand outlines: what lies inside, clipping, and what the connector reads of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medvlm.cli.ask import parse_region
from medvlm.errors import UsageError
from medvlm.image.geometry import Box, letterbox
from medvlm.image.polygon import Polygon
from tests.test_connectors import KIND_AND_DIMS, connector, features

SQUARE = Polygon(((10, 20), (50, 20), (50, 80), (10, 80)))
numbers = st.floats(-100, 200).map(lambda value: round(value, 3))
outlines = st.lists(st.tuples(numbers, numbers), min_size=3, max_size=9).map(
    lambda points: Polygon(tuple(points))
)


def ellipse(x: float, y: float, wide: float, high: float, corners: int = 40) -> Polygon:
    turns = [2 * math.pi * i / corners for i in range(corners)]
    return Polygon(tuple((x + wide * math.cos(t), y + high * math.sin(t)) for t in turns))


def test_coverage_counts_parts_of_cells() -> None:
    covered = SQUARE.coverage(6, 4, 20)
    expected = np.zeros((6, 4))
    expected[1:4, 0:3] = [[0.5, 1, 0.5]] * 3
    assert covered == pytest.approx(expected)


@given(st.floats(20, 80), st.floats(20, 80), st.floats(8, 20), st.floats(8, 20))
def test_the_area_of_an_ellipse(x: float, y: float, wide: float, high: float) -> None:
    covered = ellipse(x, y, wide, high).coverage(25, 25, 4).sum() * 16
    assert covered == pytest.approx(math.pi * wide * high, rel=0.02)


@given(outlines)
def test_clipping_keeps_what_is_inside_and_nothing_else(outline: Polygon) -> None:
    inside = outline.clip(100, 60)
    kept = np.zeros((60, 100), np.float32) if inside is None else inside.coverage(60, 100, 1, 1)
    whole = outline.moved(lambda point: (point[0] + 100, point[1] + 100)).coverage(360, 400, 1, 1)
    window = whole[100:160, 100:200]
    if inside is not None:
        box = inside.box
        assert box.x >= 0
        assert box.y >= 0
        assert box.right <= 100 + 1e-9
        assert box.bottom <= 60 + 1e-9
    # Pixels that an edge runs through may fall to either side.
    assert (kept != window).sum() <= 4 * (60 + 100) + 2 * 9 * 8


def test_an_outline_beside_the_image_is_none() -> None:
    assert SQUARE.moved(lambda point: (point[0] + 200, point[1])).clip(100, 100) is None
    assert SQUARE.clip(100, 100) == SQUARE


@given(st.integers(50, 3000), st.integers(50, 3000), outlines)
def test_points_go_to_the_grid_as_boxes_do(width: int, height: int, outline: Polygon) -> None:
    transform = letterbox(width, height, 320)
    on_grid = outline.moved(transform.point_to_grid).box
    by_box = transform.to_grid(outline.box)
    for name in ("x", "y", "width", "height"):
        assert getattr(on_grid, name) == pytest.approx(getattr(by_box, name), abs=1e-6)


# ---- what the connector reads ----


@pytest.mark.parametrize(("kind", "dims"), KIND_AND_DIMS)
def test_an_outline_reads_what_is_inside(kind: str, dims: int) -> None:
    model = connector(kind, dims)
    with torch.no_grad():
        local = model(features(dims)).local
    box = torch.tensor([[0, 16.0, 16, 144, 80]])
    rows, columns = local.shape[-2:]
    triangle = Polygon(((16, 16), (144, 16), (16, 80)))
    covers = torch.from_numpy(triangle.coverage(rows, columns, 16))[None]
    outside = (covers[0] == 0).expand_as(local[0])
    changed = local.clone()
    changed[0][outside] = torch.randn(
        int(outside.sum()), generator=torch.Generator().manual_seed(2)
    )
    with torch.no_grad():
        own, other = (model.region_tokens(x, box, covers) for x in (local, changed))
        by_box, box_other = (model.region_tokens(x, box) for x in (local, changed))
    assert own == pytest.approx(other, abs=1e-5)
    assert (by_box - box_other).abs().max() > 1e-3
    assert (own - by_box).abs().max() > 1e-3
    with torch.no_grad():
        everything = model.region_tokens(local, box, torch.ones_like(covers))
        both = model.region_tokens(
            local, box.repeat(2, 1), torch.cat([covers, torch.ones_like(covers)])
        )
    assert everything.equal(by_box)
    assert torch.allclose(both, torch.cat([own, by_box]), atol=1e-6)


# ---- on the command line ----


def test_a_region_is_a_box_or_an_outline() -> None:
    assert parse_region("1,2,3,4.5") == Box(1, 2, 3, 4.5)
    assert parse_region(" 1, 2, 3 ,4.5") == Box(1, 2, 3, 4.5)
    assert parse_region("1,2 3,4 5,1") == Polygon(((1, 2), (3, 4), (5, 1)))


@pytest.mark.parametrize(
    "text",
    ["", "1,2,3", "1,2 3,4", "1,2 3,4 5", "1,1 2,2 3,3", "a,b c,d e,f", "1,1 1,2 1,3",
     "0,0 nan,1 1,0", "0,0,inf,1", "0,0,0,5", "0,0 1e9,0 0,1"],
)  # fmt: skip
def test_what_is_no_region_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError):
        parse_region(text)
