"""Boxes are drawn on the right pixels, at any size of film."""

import numpy as np
import pytest
from PIL import ImageColor

from medvlm.draft.overlay import draw_overlay
from medvlm.records import Region

ORANGE = ImageColor.getrgb("#E69F00")


def test_the_film_is_unchanged_where_nothing_is_drawn() -> None:
    film = np.linspace(0, 1, 700 * 650, dtype=np.float32).reshape(700, 650)
    picture = np.asarray(draw_overlay(film, []))
    assert picture.shape == (700, 650, 3)
    np.testing.assert_array_equal(
        picture, np.rint(film * 255).astype(np.uint8)[..., None].repeat(3, 2)
    )


def test_a_box_lies_on_its_source_pixels() -> None:
    region = Region(x=200, y=300, width=100, height=50)
    picture = np.asarray(draw_overlay(np.zeros((800, 700)), [("nodule 81%", region)]))
    coloured = (picture[:800] == ORANGE).all(axis=-1)
    # The edges belong to the box, the pixels just outside of them (below the label) do not.
    assert coloured[300:350, 200].all()
    assert coloured[300:350, 299].all()
    assert coloured[300, 200:300].all()
    assert coloured[349, 200:300].all()
    assert not coloured[320:360, :200].any()
    assert not coloured[320:360, 300:].any()
    assert not coloured[350:].any()
    assert not coloured[310:340, 210:290].any()
    assert (picture[800:] == ORANGE).all(axis=-1).any()  # the legend


def test_a_small_film_is_enlarged_with_its_boxes() -> None:
    region = Region(x=20, y=80, width=30, height=20)
    picture = np.asarray(draw_overlay(np.zeros((128, 100)), [("mass", region)]))
    assert picture.shape[1] == 500
    assert (picture[400:500, 100] == ORANGE).all()
    assert (picture[400:500, 249] == ORANGE).all()
    assert not (picture[500:640] == ORANGE).all(axis=-1).any()


@pytest.mark.parametrize("shape", [(1, 1), (130, 900), (3000, 2500)])
def test_any_size_with_many_labels(shape: tuple[int, int]) -> None:
    height, width = shape
    labels = ["pneumonia 70%", "mass 50%", "pneumonia 70%", *(f"label {i}" for i in range(12))]
    # Regions at the corners and beyond the edge.
    regions = [
        (label, Region(x=width - 1, y=0, width=width, height=height, polygon=[(0, 0), (1, 1)]))
        for label in labels
    ]
    picture = draw_overlay(np.full(shape, np.nan), regions)
    assert picture.mode == "RGB"
    assert picture.height > height
    assert picture.width >= width


def test_lines_grow_with_the_film() -> None:
    def line_width(side: int) -> int:
        region = Region(x=side // 4, y=side // 4, width=side // 2, height=side // 2)
        picture = np.asarray(draw_overlay(np.zeros((side, side)), [("a", region)]))
        row = (picture[side // 2, : side // 2] == ORANGE).all(axis=-1)
        return int(row.sum())

    assert line_width(700) == 2
    assert line_width(2800) == 8


def test_not_a_film() -> None:
    with pytest.raises(ValueError, match=r"\[H, W\]"):
        draw_overlay(np.zeros((4, 4, 3)), [])


def test_notes_stand_in_the_legend() -> None:
    region = Region(x=100, y=100, width=200, height=200)
    film = np.zeros((800, 700))
    plain = draw_overlay(film, [("nodule", region)])
    noted = draw_overlay(film, [("nodule", region)], notes={"nodule": "nodule 81%, supported"})
    # The film above is the same; below, more is written.
    assert plain.crop((0, 0, 700, 800)).tobytes() == noted.crop((0, 0, 700, 800)).tobytes()
    written = [int((np.asarray(p)[800:] > 200).sum()) for p in (plain, noted)]
    assert 0 < written[0] < written[1]


def test_a_note_too_long_for_the_film_goes_on_in_the_next_row() -> None:
    region = Region(x=100, y=100, width=200, height=200)
    film = np.zeros((800, 700))
    short, long = (
        draw_overlay(film, [("mass", region)], notes={"mass": "; ".join(["mass 81%"] * count)})
        for count in (1, 100)
    )
    assert long.height > short.height + 3 * (short.height - 800)
    right = np.asarray(long)[800:, 690:]
    assert (right < 50).all()


def test_a_title_too_long_for_the_film_goes_on_in_the_next_row() -> None:
    film = np.zeros((800, 640))
    one, three = (draw_overlay(film, [], title=" ".join(["opacity"] * n)) for n in (3, 24))
    assert three.height > one.height + (one.height - 800) / 2
    assert (np.asarray(three)[800:, 635:] < 50).all()
