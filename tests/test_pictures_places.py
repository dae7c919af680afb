"""A token's cell, a tile, a slice: all lead back to the very source pixels they were made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import generate_uid

from medvlm.config import PicturesConfig
from medvlm.dicom.read import read_inputs
from medvlm.dicom.study import Study, group_studies
from medvlm.draft.admit import look_at_study
from medvlm.draft.answer import answer_question
from medvlm.draft.compose import describe, draft_study
from medvlm.draft.trunk import Trunk, best_views, read_together
from medvlm.errors import UsageError
from medvlm.image.geometry import Box, letterbox
from medvlm.image.load import ImageInput, load_image, resize_grid
from medvlm.image.tiles import cut_tiles, tile_transforms
from medvlm.model.checkpoint import Checkpoint, load_checkpoint
from medvlm.records import Region
from tests.dicoms import save, synthetic

sizes = st.integers(20, 900)
counts = st.tuples(st.integers(1, 4), st.integers(1, 4))


def film(width: int, height: int, uid: str | None = "1.2.3") -> ImageInput:
    pixels = np.zeros((height, width), np.float32)
    return ImageInput(pixels, "film", "ab" * 32, True, sop_instance_uid=uid)


@given(width=sizes, height=sizes, tiles=counts)
def test_tiles_cover_the_image_once(width: int, height: int, tiles: tuple[int, int]) -> None:
    whole = Box(0, 0, width, height)
    parts = [
        transform.to_source(Box(0, 0, 64, 64)).intersection(whole)
        for _, _, transform in tile_transforms(width, height, 64, tiles)
    ]
    assert sum(part.area for part in parts) == pytest.approx(width * height)
    for i, one in enumerate(parts):
        assert all(one.intersection(other).area < 1e-6 * one.area for other in parts[i + 1 :])


@given(width=sizes, height=sizes)
def test_one_tile_is_the_letterboxed_image(width: int, height: int) -> None:
    ((row, column, transform),) = tile_transforms(width, height, 96, (1, 1))
    assert (row, column, transform) == (0, 0, letterbox(width, height, 96))


@settings(deadline=None)
@given(
    width=sizes,
    height=sizes,
    tiles=counts,
    grid=st.integers(1, 8),
    at=st.tuples(st.floats(0.001, 0.999), st.floats(0.001, 0.999)),
)
def test_the_token_over_a_point_leads_back_to_it(
    width: int, height: int, tiles: tuple[int, int], grid: int, at: tuple[float, float]
) -> None:
    """Any point lies in one tile; there, the cell around it covers it in source pixels too."""
    x, y = at[0] * width, at[1] * height
    image = film(width, height)
    held = [tile for tile in cut_tiles(image, 64, tiles) if tile.place.extent.contains(x, y)]
    assert held
    for other in held[1:]:
        # By rounding, a point on the seam of two tiles may lie in both.
        seam = other.place.extent
        assert min(abs(x - seam.x), abs(y - seam.y)) < 1e-9
    place = held[0].place
    point = place.transform.to_grid(Box(x, y, 0, 0))
    cell = Box(
        point.x // (64 / grid) * 64 / grid, point.y // (64 / grid) * 64 / grid, *[64 / grid] * 2
    )
    back = place.to_source(cell)
    assert back.x - 1e-6 <= x <= back.right + 1e-6
    assert back.y - 1e-6 <= y <= back.bottom + 1e-6
    again = place.to_grid(place.to_source(cell))
    inside = cell.intersection(place.to_grid(place.extent))
    for one, other in zip(
        (again.x, again.y, again.width, again.height),
        (inside.x, inside.y, inside.width, inside.height),
        strict=True,
    ):
        assert one == pytest.approx(other, abs=1e-6)


def test_a_tile_shows_the_pixels_of_its_place() -> None:
    image = film(300, 200)
    image.pixels[120:124, 250:254] = 1
    bright = [tile for tile in cut_tiles(image, 128, (2, 2)) if tile.grid.max() > 0.4]
    (tile,) = bright
    assert (tile.row, tile.column) == (1, 1)
    row, column = np.unravel_index(tile.grid.argmax(), tile.grid.shape)
    found = tile.place.to_source(Box(float(column), float(row), 1, 1))
    assert abs(found.centre[0] - 252) < 2
    assert abs(found.centre[1] - 122) < 2


def test_tiles_of_the_image_are_its_canvas_cut_up() -> None:
    image = film(150, 150)
    image.pixels[:] = np.random.default_rng(0).random((150, 150))
    tiles = cut_tiles(image, 64, (2, 2))
    canvas, _ = resize_grid(image.pixels, 128)
    rows = [np.hstack([tile.grid for tile in tiles if tile.row == row]) for row in (0, 1)]
    assert np.array_equal(np.vstack(rows), canvas)


@pytest.fixture
def checkpoint(tiny: Path) -> Checkpoint:
    return load_checkpoint()


def reading(checkpoint: Checkpoint, **settings: object) -> Checkpoint:
    """The checkpoint as if trained with these pictures."""
    pictures = PicturesConfig(**settings)
    model = checkpoint.config.model.model_copy(update={"pictures": pictures})
    return replace(checkpoint, config=checkpoint.config.model_copy(update={"model": model}))


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Three films of one study."""
    uid = generate_uid()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 4000, (320, 240)).astype(np.uint16)
        ds = synthetic(pixels, StudyInstanceUID=uid, InstanceNumber=number)
        save(ds, tmp_path / f"{number}.dcm")
    (found,) = group_studies(read_inputs(tmp_path))
    return found


def uids(trunk: Trunk) -> list[str | None]:
    return [place.sop_instance_uid for (place,) in trunk.places]


def test_views_stand_together_and_each_token_names_its_film(
    checkpoint: Checkpoint, study: Study
) -> None:
    seen = look_at_study(checkpoint, study).accepted
    trunk = read_together(reading(checkpoint, views=2), best_views(seen, 3))
    best = sorted(seen, key=lambda one: -one.attributes["frontal_chest"])[:2]
    assert uids(trunk) == [one.image.sop_instance_uid for one in best]
    regions = [trunk.token_region(token) for token in range(len(trunk.sources))]
    # 2 x 2 tokens on 64 px; the film is 240 wide and 320 high, so each is half of it.
    assert [region.sop_instance_uid for region in regions] == [uids(trunk)[0]] * 4 + [
        uids(trunk)[1]
    ] * 4
    assert (regions[7].x, regions[7].y) == (120, 160)
    assert (regions[7].width, regions[7].height) == (120, 160)
    scores = [0.1, 0.2, 0.0, 0.0, 0.0, 0.9, 0.0, 0.0]
    (first, top), (second, _) = trunk.best_regions(scores, most=2)
    assert (top, first, second) == (0.9, regions[5], regions[1])
    with pytest.raises(ValueError, match="3 scores for 8"):
        trunk.best_regions([1, 2, 3])


def test_a_model_of_one_picture_reads_the_best_view_alone(
    checkpoint: Checkpoint, study: Study
) -> None:
    one = reading(checkpoint, views=1)
    seen = look_at_study(one, study).accepted
    trunk = read_together(one, best_views(seen, 3), seen)
    assert trunk.sight is max(seen, key=lambda item: item.attributes["frontal_chest"]).sight


def test_tiles_follow_their_view_and_a_prior_comes_last(
    checkpoint: Checkpoint, study: Study
) -> None:
    tiled = reading(checkpoint, views=2, prior=True, tiles=(1, 2))
    seen = look_at_study(tiled, study).accepted
    trunk = read_together(tiled, seen[:2], seen[2:])
    own = [one.image.sop_instance_uid for one in seen]
    assert uids(trunk) == [own[0]] * 3 + [own[1]] * 3 + [own[2]]
    roles = [picture.role for _, picture in trunk.sight.shown[0]]
    assert roles == ["view", "tile", "tile", "view", "tile", "tile", "prior"]
    # The right tile of 1 x 2 shows the right half.
    assert trunk.places[2][0].extent.x == pytest.approx(120)


def test_a_question_over_a_region_is_put_to_the_picture_that_shows_it(
    checkpoint: Checkpoint, study: Study
) -> None:
    two = reading(checkpoint, views=2)
    seen = look_at_study(two, study).accepted
    trunk = read_together(two, seen)
    box = {"x": 13.0, "y": 30.0, "width": 26.0, "height": 60.0}
    turn = trunk.turn("mass?", Region(sop_instance_uid=uids(trunk)[1], polygon=None, **box))
    assert turn.picture == 1
    back = trunk.places[1][0].to_source(Box.from_corners(*turn.region or ()))
    assert (back.x, back.y, back.width, back.height) == pytest.approx(tuple(box.values()))
    elsewhere = Region(sop_instance_uid=seen[2].image.sop_instance_uid, polygon=None, **box)
    with pytest.raises(UsageError, match="none of the pictures"):
        trunk.turn("mass?", elsewhere)


def test_a_draft_and_an_answer_read_several_views(
    checkpoint: Checkpoint, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = reading(checkpoint, views=3, tiles=(2, 2))
    read: list[int] = []
    sequences, write = several.model.language.sequences, several.model.language.write
    monkeypatch.setattr(
        several.model.language,
        "sequences",
        lambda visual, *rest: read.append(len(visual[0])) or sequences(visual, *rest),
    )
    monkeypatch.setattr(
        several.model.language,
        "write",
        lambda visual, *rest, **how: read.append(len(visual[0])) or write(visual, *rest, **how),
    )
    assert len(draft_study(several, study).draft.findings) >= 14
    assert read == [15]
    image = load_image(study.instances[1])
    answer = answer_question(several, image, "Are there rib fractures?", study=study)
    assert answer.answer in ("yes", "no")
    assert read == [15, 15]
    answer_question(several, image, "Are there rib fractures?")
    assert read == [15, 15, 5]


def test_regions_carry_the_film_that_shows_the_finding_best(
    checkpoint: Checkpoint, study: Study
) -> None:
    seen = look_at_study(checkpoint, study).accepted
    for finding in describe(checkpoint, seen):
        best = max(seen, key=lambda one: one.probabilities[finding.finding])
        assert {region.sop_instance_uid for region in finding.regions} <= {
            best.image.sop_instance_uid
        }
        mean = np.mean([one.probabilities[finding.finding] for one in seen])
        assert finding.probability == pytest.approx(mean, abs=1e-4)
