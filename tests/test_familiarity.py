"""Images unlike those that an encoder learned from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medvlm.data.sets import load_set
from medvlm.draft.look import look_at
from medvlm.image.load import ImageInput
from medvlm.model.checkpoint import load_checkpoint, save_checkpoint
from medvlm.model.encoder import Features
from medvlm.model.extras import Extras
from medvlm.model.familiarity import Familiarity, fit_familiarity, mean_features
from medvlm.train import familiarity
from medvlm.train.familiarity import familiarity_of
from tests.sets import nih

CHANNELS = 12


def films(count: int, seed: int) -> np.ndarray:
    """Mean features along three axes, with a little beside them."""
    random = np.random.default_rng(seed)
    axes = np.random.default_rng(9).normal(size=(3, CHANNELS))
    own = random.normal(size=(count, 3)) @ axes + 0.1 * random.normal(size=(count, CHANNELS))
    return (own + 5).astype(np.float32)


@pytest.fixture
def known() -> Familiarity:
    return fit_familiarity(films(400, 0), films(300, 1), 3, 0.99)


def test_new_films_are_familiar_and_others_are_not(known: Familiarity) -> None:
    assert np.mean(known.raw(films(300, 1)) > known.limit) == pytest.approx(0.01, abs=0.004)
    assert np.mean(known.raw(films(500, 2)) > known.limit) < 0.04
    beside = films(50, 3) + np.random.default_rng(1).normal(size=CHANNELS).astype(np.float32) * 2
    assert (known.raw(beside) > known.limit).all()
    far_along = 5 + 6 * (films(50, 3) - 5)
    assert np.mean(known.raw(far_along) > known.limit) > 0.9


def test_the_mean_features_are_those_of_two_strides() -> None:
    maps = Features(
        torch.ones(2, 3, 8, 8), torch.full((2, 4, 4, 4), 2.0), torch.full((2, 5, 2, 2), 3.0)
    )
    means = mean_features(maps)
    assert means.shape == (2, 9)
    assert means[0].tolist() == [2.0] * 4 + [3.0] * 5


def test_the_gate_refuses_what_is_unfamiliar(tiny: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint()
    image = ImageInput(np.random.default_rng(0).random((90, 90), np.float32), "x", "0" * 64, False)
    (before,) = look_at(loaded, [image])
    size = loaded.config.model.encoder.size
    maps = loaded.model.vision.encoder(torch.rand(200, 1, size, size))
    means = mean_features(maps).numpy()
    near = fit_familiarity(means[:150], means[150:], 4, 1.0)
    for limit, codes in ((1e-6, ["unfamiliar"]), (1e9, [])):
        own = Familiarity(**{**vars(near), "limit": np.array([limit], np.float32)})
        folder = tmp_path / f"{limit}"
        save_checkpoint(loaded.model, loaded.config, folder, Extras(familiarity=own))
        again = load_checkpoint(str(folder))
        assert again.extras.familiarity is not None
        (seen,) = look_at(again, [image])
        added = [r.code for r in seen.check.reasons if r not in before.check.reasons]
        assert added == codes


def test_it_is_fitted_on_training_films_and_limited_by_others(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(familiarity, "FEWEST", 6)
    monkeypatch.setattr(familiarity, "AXES", 3)
    loaded = load_checkpoint()
    own = [
        replace(film, validation=i % 2 == 0)
        for i, film in enumerate(load_set(nih(tmp_path, 24)).films)
    ]
    found = familiarity_of(loaded, [own])
    assert found is not None
    assert found.axes.shape[0] == 3
    seen = look_at(replace(loaded, extras=Extras(familiarity=found)), _images(own))
    assert not any(r.code == "unfamiliar" for item in seen for r in item.check.reasons)
    assert familiarity_of(loaded, [own[:8]]) is None


def _images(own: list) -> list[ImageInput]:
    from medvlm.evaluate.scan import load_film

    return [load_film(film.image) for film in own if film.validation]
