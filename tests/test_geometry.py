"""Boxes and the letterbox: what goes to the grid comes back to the same source pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.image.geometry import Box, letterbox
from medvlm.image.load import resize_grid

lengths = st.floats(min_value=0, max_value=1e4, allow_nan=False)
boxes = st.builds(Box, lengths, lengths, lengths, lengths)
sizes = st.integers(min_value=1, max_value=6000)
grids = st.integers(min_value=16, max_value=1024)


def close(a: Box, b: Box, tolerance: float = 1e-6) -> bool:
    return bool(
        np.allclose(
            [a.x, a.y, a.width, a.height],
            [b.x, b.y, b.width, b.height],
            rtol=1e-9,
            atol=tolerance,
        )
    )


@given(boxes, sizes, sizes, grids)
def test_grid_and_back_is_the_identity(box: Box, width: int, height: int, size: int) -> None:
    transform = letterbox(width, height, size)
    assert close(transform.to_source(transform.to_grid(box)), box)
    # The other way a long thin image stretches rounding by its small scale.
    assert close(transform.to_grid(transform.to_source(box)), box)


@given(sizes, sizes, grids)
def test_the_content_is_centred_whole_and_inside(width: int, height: int, size: int) -> None:
    transform = letterbox(width, height, size)
    content = transform.content_box()
    right, bottom = size - content.right, size - content.bottom
    assert min(content.x, content.y) >= 0
    assert min(right, bottom) >= -1e-9
    assert abs(content.x - right) < 1 + 1e-6
    assert abs(content.y - bottom) < 1 + 1e-6
    assert max(content.width, content.height) == pytest.approx(size)
    for edge in (content.x, content.y, content.right, content.bottom):
        assert edge == pytest.approx(round(edge), abs=1e-6)
    assert close(transform.to_source(content), Box(0, 0, width, height))


def test_letterbox_by_hand() -> None:
    transform = letterbox(200, 100, 50)
    assert transform.to_grid(Box(0, 0, 200, 100)) == Box(0, 12, 50, 25)
    assert transform.to_source(Box(25, 12, 25, 25)) == Box(100, 0, 100, 100)


@pytest.mark.parametrize("size", [(0, 10, 10), (10, 0, 10), (10, 10, 0)])
def test_no_letterbox_without_a_size(size: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        letterbox(*size)


@given(boxes, boxes)
def test_iou_is_symmetric_and_bounded(a: Box, b: Box) -> None:
    assert a.iou(b) == b.iou(a)
    assert 0 <= a.iou(b) <= 1 + 1e-9


@given(boxes, sizes, sizes)
def test_clipped_boxes_lie_inside(box: Box, width: int, height: int) -> None:
    clipped = box.clip(width, height)
    assert 0 <= clipped.x <= clipped.right <= width + 1e-6
    assert 0 <= clipped.y <= clipped.bottom <= height + 1e-6
    assert clipped.area <= box.area * (1 + 1e-9) + 1e-6


@given(boxes, sizes, sizes)
def test_fractions_round_trip(box: Box, width: int, height: int) -> None:
    assert close(Box.from_fractions(*box.fractions(width, height), width, height), box)


def test_box_by_hand() -> None:
    a, b = Box(0, 0, 10, 10), Box(5, 5, 10, 10)
    assert a.intersection(b) == Box(5, 5, 5, 5)
    assert a.iou(b) == pytest.approx(25 / 175)
    assert a.iou(a) == 1
    assert a.iou(Box(20, 20, 5, 5)) == 0
    assert Box(-5, -5, 10, 10).clip(100, 100) == Box(0, 0, 5, 5)
    assert Box(200, 200, 10, 10).clip(100, 100).area == 0
    assert a.contains(0, 0)
    assert not a.contains(10, 5)
    assert Box.from_fractions(0.5, 0.25, 0.5, 0.5, 200, 100) == Box(100, 25, 100, 50)


@pytest.mark.parametrize("shape", [(100, 300), (301, 77), (40, 40)])
def test_the_pixels_follow_the_transform(shape: tuple[int, int]) -> None:
    """A bright rectangle in the source is bright where the transform says, and only there."""
    box = Box(shape[1] * 0.5, shape[0] * 0.25, shape[1] * 0.25, shape[0] * 0.5)
    pixels = np.zeros(shape, dtype=np.float32)
    pixels[round(box.y) : round(box.bottom), round(box.x) : round(box.right)] = 1
    grid, transform = resize_grid(pixels, 128)
    assert grid.shape == (128, 128)
    assert grid.dtype == np.float32
    assert 0 <= grid.min() <= grid.max() <= 1
    ys, xs = np.nonzero(grid > 0.5)
    found = Box.from_corners(xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert found.iou(transform.to_grid(box)) > 0.9


def test_the_padding_is_black_and_the_content_keeps_its_brightness() -> None:
    grid, transform = resize_grid(np.ones((50, 100), dtype=np.float32), 64)
    content = transform.content_box()
    assert grid[: int(content.y)].max() == 0
    assert grid[int(content.bottom) :].max() == 0
    assert grid.sum() == pytest.approx(content.area)
