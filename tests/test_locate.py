"""From maps to boxes and places."""

from __future__ import annotations

import numpy as np
import pytest

from medvlm.draft.locate import (
    box_of_mask,
    lung_boxes,
    map_boxes,
    outline_of_mask,
    peak_boxes,
    place_of,
)
from medvlm.draft.parse import Location
from medvlm.image.geometry import Box

LUNGS = {"right": Box(20, 20, 100, 240), "left": Box(200, 20, 100, 240)}


def dense(right: slice, left: slice) -> np.ndarray:
    maps = np.zeros((3, 40, 40))
    maps[0, 5:30, right] = 0.9
    maps[1, 5:30, left] = 0.9
    return maps


def test_lungs_have_the_patients_sides() -> None:
    boxes = lung_boxes(dense(slice(3, 15), slice(22, 36)), 320)
    assert boxes["right"] == Box(24, 40, 96, 200)
    assert boxes["left"] == Box(176, 40, 112, 200)


def test_a_lung_is_its_largest_part() -> None:
    maps = dense(slice(3, 15), slice(22, 36))
    maps[0, 38, 38] = 0.9
    assert lung_boxes(maps, 320)["right"] == Box(24, 40, 96, 200)


def test_an_absent_lung_is_left_out() -> None:
    assert set(lung_boxes(dense(slice(3, 15), slice(0, 0)), 320)) == {"right"}


def test_boxes_are_the_surest_three_and_grain_is_dropped() -> None:
    heat = np.zeros((40, 40))
    for i, score in enumerate((0.5, 0.9, 0.7, 0.6)):
        heat[i * 10 : i * 10 + 6, 0:6] = score
    heat[0, 39] = 1.0
    found = map_boxes(heat, 0.3, 320)
    assert [item.score for item in found] == [0.9, 0.7, 0.6]
    assert found[0].box == Box(0, 80, 48, 48)


def test_a_flat_map_has_no_peak() -> None:
    everywhere = np.ones((20, 20), dtype=bool)
    assert peak_boxes(np.ones((20, 20)), 320, everywhere) == []


def test_a_peak_is_sought_among_the_valid_cells() -> None:
    scores = np.full((20, 20), -8.0)
    scores[5:15, 5:15] = -3.0
    scores[6:9, 6:9] = -1.0
    scores[0, 0] = 5.0
    valid = np.zeros((20, 20), dtype=bool)
    valid[5:15, 5:15] = True
    (found,) = peak_boxes(scores, 320, valid)
    assert found.box == Box(96, 96, 48, 48)


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([Box(40, 200, 20, 20)], Location("right", "lower")),
        ([Box(240, 30, 20, 20)], Location("left", "upper")),
        ([Box(40, 200, 20, 20), Box(240, 200, 20, 20)], Location("both", "lower")),
        ([Box(40, 30, 20, 20), Box(40, 200, 20, 20)], Location("right", None)),
        ([], None),
    ],
)
def test_place(boxes: list[Box], expected: Location | None) -> None:
    assert place_of(boxes, LUNGS) == expected  # type: ignore[arg-type]


def test_no_place_without_both_lungs() -> None:
    assert place_of([Box(40, 200, 20, 20)], {"right": LUNGS["right"]}) is None


def test_an_outline_goes_around_a_mask() -> None:
    rows, columns = np.indices((160, 160)) + 0.5
    mask = ((rows - 70) / 50) ** 2 + ((columns - 60) / 30) ** 2 < 1
    outline = outline_of_mask(mask, 320)
    box, around = box_of_mask(mask, 320), outline.box
    assert (around.x, around.y) == pytest.approx((box.x, box.y), abs=2)
    assert (around.width, around.height) == pytest.approx((box.width, box.height), abs=4)
    inside = outline.coverage(160, 160, 2) > 0.5
    assert 2 * (inside & mask).sum() / (inside.sum() + mask.sum()) > 0.98
    assert len(outline.points) < 120
    dot = np.zeros((160, 160), bool)
    dot[80, 40] = True
    assert outline_of_mask(dot, 320).box == Box(80, 160, 2, 2)
