"""A second opacity map: what it is taught on, and that it is averaged with the first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medvlm.data.sets import load_set
from medvlm.draft.ground import OPACITY
from medvlm.draft.locate import DENSE_OPACITY
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
        maps = loaded.model.vision.encoder(torch.from_numpy(grid)[None, None])
        second = head(maps)[0, DENSE_OPACITY].numpy()
    own = np.log(first.dense[DENSE_OPACITY] / (1 - first.dense[DENSE_OPACITY]))
    expected = 1 / (1 + np.exp(-(own + second) / 2))
    assert both.dense[DENSE_OPACITY] == pytest.approx(expected, abs=1e-4)
    assert (both.dense[:DENSE_OPACITY] == first.dense[:DENSE_OPACITY]).all()
    broken = DenseHead((4, 6, 8), 16)
    del broken.out
    save_extras(Extras(opacity=broken), tmp_path / FILE)
    with pytest.raises(CheckpointError, match="does not fit"):
        load_extras(tmp_path / FILE, (), (4, 6, 8), 16)


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
