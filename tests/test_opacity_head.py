"""Opacity maps: what the second is taught on, averaging with the first and over mirror images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from medvlm.data.sets import load_set
from medvlm.draft.ground import OPACITY
from medvlm.draft.locate import DENSE_OPACITY, map_boxes
from medvlm.draft.look import look_at
from medvlm.errors import CheckpointError
from medvlm.image.geometry import Box
from medvlm.image.load import ImageInput
from medvlm.model.checkpoint import load_checkpoint, save_checkpoint
from medvlm.model.extras import FILE, Extras, load_extras, save_extras
from medvlm.model.heads import DenseHead
from medvlm.model.phrase_head import PhraseHead
from medvlm.train import opacity_head
from medvlm.train.lesions import draw_lesion
from medvlm.train.opacity_head import fit_opacity_head, taught_films
from tests.sets import nih

SIDE = 160
LUNGS = {"right": Box(16, 20, 48, 110), "left": Box(92, 20, 52, 110)}
SHAPE = np.array([0.1, 0.4, 0.7, 0.3])


def masks() -> dict:
    found = {}
    for side, box in LUNGS.items():
        mask = np.zeros((40, 40), bool)
        mask[int(box.y / 4) : int(box.bottom / 4), int(box.x / 4) : int(box.right / 4)] = True
        found[side] = mask
    return found


@pytest.mark.parametrize("seed", range(12))
def test_a_lesion_is_denser_inside_its_box_and_nowhere_else(seed: int) -> None:
    film = np.full((SIDE, SIDE), 0.3, np.float32)
    drawn, box = draw_lesion(film, LUNGS, masks(), SHAPE, np.random.default_rng(seed))
    more = drawn - film
    assert (more >= -1e-6).all()
    assert drawn.max() <= 1
    rows = slice(round(box.y), round(box.bottom))
    columns = slice(round(box.x), round(box.right))
    middle = more[rows, columns]
    assert middle[middle.shape[0] // 3 : -middle.shape[0] // 3].mean() > 0.03
    inside = np.zeros_like(more, bool)
    inside[rows, columns] = True
    assert more[~inside].sum() < 0.25 * more.sum()
    # In one lung: its middle lies in one of the two boxes.
    assert sum(own.contains(*box.centre) for own in LUNGS.values()) == 1


def test_the_same_seed_draws_the_same_lesion() -> None:
    film = np.random.default_rng(5).random((SIDE, SIDE)).astype(np.float32)
    one, two = (
        draw_lesion(film, LUNGS, masks(), SHAPE, np.random.default_rng(3)) for _ in range(2)
    )
    assert (one[0] == two[0]).all()
    assert one[1] == two[1]


@pytest.mark.usefixtures("tiny")
def test_it_is_taught_on_training_films_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opacity_head, "STEPS", 3)
    monkeypatch.setattr(opacity_head, "FEWEST", 2)
    read: list[Path] = []
    load = opacity_head.load_film

    def listening(path: Path) -> ImageInput:
        read.append(path)
        return load(path)

    monkeypatch.setattr(opacity_head, "load_film", listening)
    box = (OPACITY, (0.2, 0.3, 0.2, 0.2))
    films = [
        replace(
            film,
            reviewed=True,
            validation=i % 4 == 3,
            boxes=(box,) if i % 2 == 0 else (),
        )
        for i, film in enumerate(load_set(nih(tmp_path, 16)).films)
    ]
    checkpoint = load_checkpoint()
    head = fit_opacity_head(checkpoint, films)
    assert head is not None
    assert read
    assert not {film.image for film in films if film.validation} & set(read)
    own = checkpoint.model.vision.dense.state_dict()
    changed = [n for n, t in head.state_dict().items() if not torch.equal(t, own[n])]
    assert changed
    assert not any(parameter.requires_grad for parameter in head.parameters())
    again = fit_opacity_head(checkpoint, films)
    assert again is not None
    assert all(
        torch.equal(a, b) for a, b in zip(head.parameters(), again.parameters(), strict=True)
    )
    assert fit_opacity_head(checkpoint, [replace(film, boxes=()) for film in films]) is None


def test_a_reviewed_box_outweighs_a_mined_label(tmp_path: Path) -> None:
    film = replace(load_set(nih(tmp_path, 2)).films[0], validation=False)
    box = ((OPACITY, (0.2, 0.3, 0.2, 0.2)),)
    normal = replace(film, normal=True, reviewed=False, boxes=())
    denied = replace(film, normal=True, reviewed=True, boxes=box)
    looked = replace(film, normal=False, reviewed=True, boxes=())
    unread = replace(film, normal=False, reviewed=False, boxes=())
    assert taught_films([normal, denied, looked, unread]) == ([denied], [normal, looked])
    assert taught_films([replace(denied, validation=True)]) == ([], [])


def test_the_two_maps_are_averaged_and_the_lungs_are_the_first_ones(
    tiny: Path, tmp_path: Path
) -> None:
    loaded = load_checkpoint()
    torch.manual_seed(1)
    head = DenseHead(loaded.model.vision.encoder.channels, loaded.config.model.encoder.dense_width)
    folder = tmp_path / "with"
    save_checkpoint(loaded.model, loaded.config, folder, Extras(opacity=head.eval()))
    again = load_checkpoint(str(folder))
    image = ImageInput(np.random.default_rng(0).random((90, 90), np.float32), "x", "0" * 64, False)
    (first,), (both,) = look_at(loaded, [image]), look_at(again, [image])
    grid, _ = image.grid(loaded.config.model.encoder.size)
    with torch.no_grad():
        film = torch.from_numpy(grid)[None, None]
        maps, there = (loaded.model.vision.encoder(view) for view in (film, film.flip(-1)))
        second = (head(maps) + head(there).flip(-1))[0, DENSE_OPACITY].numpy() / 2
        alone = loaded.model.look(film).dense[0, :DENSE_OPACITY].sigmoid().numpy()
    own = np.log(first.dense[DENSE_OPACITY] / (1 - first.dense[DENSE_OPACITY]))
    expected = 1 / (1 + np.exp(-(own + second) / 2))
    assert (first.dense[:DENSE_OPACITY] == alone).all()
    assert both.dense[DENSE_OPACITY] == pytest.approx(expected, abs=1e-4)
    assert (both.dense[:DENSE_OPACITY] == first.dense[:DENSE_OPACITY]).all()
    broken = DenseHead((4, 6, 8), 16)
    del broken.out
    save_extras(Extras(opacity=broken), tmp_path / FILE)
    with pytest.raises(CheckpointError, match="does not fit"):
        load_extras(tmp_path / FILE, (), (4, 6, 8), 16)


def film(height: int, width: int, seed: int = 0) -> ImageInput:
    """Soft clouds, as large as a few cells."""
    noise = np.random.default_rng(seed).random((height, width))
    soft = ndimage.gaussian_filter(noise, 5)
    pixels = (soft - soft.min()) / (soft.max() - soft.min())
    return ImageInput(pixels.astype(np.float32), "x", "0" * 64, False)


def mirrored(image: ImageInput) -> ImageInput:
    return replace(image, pixels=np.ascontiguousarray(image.pixels[:, ::-1]))


def test_the_mirrored_film_has_the_mirrored_map(tiny: Path, tmp_path: Path) -> None:
    model, config = load_checkpoint().model, load_checkpoint().config
    torch.manual_seed(1)
    head = DenseHead(model.vision.encoder.channels, config.model.encoder.dense_width).eval()
    save_checkpoint(model, config, tmp_path / "with", Extras(opacity=head))
    for checkpoint in (load_checkpoint(), load_checkpoint(str(tmp_path / "with"))):
        images = [film(90, 90), film(90, 62), film(62, 90)]
        (one, *_), (two, *_) = (
            list(look_at(checkpoint, own)) for own in (images, [mirrored(i) for i in images])
        )
        assert one.dense[DENSE_OPACITY] == pytest.approx(
            two.dense[DENSE_OPACITY][:, ::-1], abs=1e-5
        )
        # Not because it is even: each half of the film has its own.
        assert np.ptp(one.dense[DENSE_OPACITY] - one.dense[DENSE_OPACITY][:, ::-1]) > 1e-3
        assert not np.allclose(one.dense[:2], two.dense[:2, :, ::-1], atol=1e-3)


@pytest.mark.parametrize("width", [41, 42, 43, 63])
def test_padding_that_is_wider_on_one_side_moves_no_cell(tiny: Path, width: int) -> None:
    """The grid is mirrored, padding and all; so is this film, which is a grid already."""
    checkpoint = load_checkpoint()
    size = checkpoint.config.model.encoder.size
    narrow = film(size, width)
    grid, transform = narrow.grid(size)
    assert transform.content_box().width == width
    uneven = size - width - 2 * int(transform.offset_x)
    assert uneven == width % 2
    boxed = replace(narrow, pixels=grid)
    assert (boxed.grid(size)[0] == grid).all()
    own, same, there = look_at(checkpoint, [narrow, boxed, mirrored(boxed)])
    assert (own.dense == same.dense).all()
    assert own.dense[DENSE_OPACITY] == pytest.approx(there.dense[DENSE_OPACITY][:, ::-1], abs=1e-5)


@pytest.mark.parametrize("shape", [(90, 90), (90, 59), (59, 90)])
def test_boxes_of_a_mirrored_film_are_mirrored(tiny: Path, shape: tuple[int, int]) -> None:
    checkpoint = load_checkpoint()
    image = film(*shape, seed=3)
    assert image.grid(checkpoint.config.model.encoder.size)[1].content_box().width % 2 == 0
    here, there = (next(look_at(checkpoint, [own])) for own in (image, mirrored(image)))
    cut = float(np.quantile(here.dense[DENSE_OPACITY], 0.8))
    size = here.transform.size
    cell = size / here.dense.shape[-1]
    one, two = (map_boxes(own.dense[DENSE_OPACITY], cut, size) for own in (here, there))
    assert one
    assert len(one) == len(two)
    for item in one:
        back = Box(size - item.box.right, item.box.y, item.box.width, item.box.height)
        assert any(alike(back, other.box, cell) for other in two)


def alike(one: Box, two: Box, within: float) -> bool:
    edges = ((one.x, two.x), (one.y, two.y), (one.right, two.right), (one.bottom, two.bottom))
    return all(abs(a - b) <= within + 1e-6 for a, b in edges)


def test_the_mirrored_pass_holds_no_second_batch(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four views pass through the encoder by fours, not by eights."""
    checkpoint = load_checkpoint()
    seen: list[int] = []
    encoder = checkpoint.model.vision.encoder
    forward = encoder.forward
    monkeypatch.setattr(
        encoder, "forward", lambda images: seen.append(len(images)) or forward(images)
    )
    assert len(list(look_at(checkpoint, [film(90, 90, seed) for seed in range(4)]))) == 4
    assert max(seen) == 4


def test_a_part_that_was_made_for_another_model_is_named(tiny: Path, tmp_path: Path) -> None:
    model = load_checkpoint().model
    channels, words = model.vision.encoder.channels, model.language.width
    wider = tuple(count + 8 for count in channels)
    for part, extras in (
        ("opacity", Extras(opacity=DenseHead(wider, 16))),
        ("phrases", Extras(phrases=PhraseHead(wider, words))),
        ("phrases", Extras(phrases=PhraseHead(channels, words + 1))),
    ):
        save_extras(extras, tmp_path / FILE)
        with pytest.raises(CheckpointError, match=f"{part} does not fit the model: made for"):
            load_extras(tmp_path / FILE, model.connector.maps, channels, words)
    save_extras(Extras(opacity=DenseHead(channels, 16)), tmp_path / FILE)
    assert load_extras(tmp_path / FILE, model.connector.maps, channels, words).opacity is not None
