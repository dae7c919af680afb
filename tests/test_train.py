"""Training end to end on made-up sets with tiny models: it runs, resumes, repeats, and learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from shutil import copyfile

import numpy as np
import pytest
import torch

from medvlm.config import PretrainConfig, StageConfig, TrainConfig
from medvlm.data.cache import cached_pixels
from medvlm.data.sets import in_validation, load_set
from medvlm.errors import CheckpointError, ConfigError, DataCardError, DataSetError
from medvlm.evaluate.run import evaluate_folder
from medvlm.model.checkpoint import load_checkpoint
from medvlm.model.vision import VisionModel
from medvlm.train.align import align
from medvlm.train.augment import random_affine, random_crop, random_exposure
from medvlm.train.features import feature_store
from medvlm.train.films import FilmStore, epoch_rows, in_tuning
from medvlm.train.lesson import Chunk
from medvlm.train.losses import masked_bce, mixup
from medvlm.train.pretrain import pretrain
from medvlm.train.release import fit_calibration, release
from medvlm.train.targets import Asker
from tests.sets import pack
from tests.tiny import TINY
from tests.training import COUNTS, pretrain_config, train_config


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(tmp_path_factory.mktemp("pack"))


def test_from_pictures_to_a_released_checkpoint(
    data: Path, tmp_path: Path, tiny_language: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medvlm.train.phrase_head.STEPS", 3)
    pretrain(pretrain_config(data, tmp_path))
    folder = align(train_config(data, tmp_path, tiny_language), "tiny", "0.1")
    out = release(folder, data, tmp_path / "released", cache=tmp_path / "cache")
    loaded = load_checkpoint(str(out))
    assert loaded.extras.references is not None
    assert loaded.extras.phrases is not None
    anatomy = evaluate_folder(loaded, data / "kermany_cxr", ("anatomy",), False, 8)["anatomy"]
    assert 0 <= anatomy["phrases"]["mean_dice_untaught_words"] <= 1
    assert loaded.config.name == "tiny"
    assert set(loaded.config.calibration.intercepts) == set(loaded.config.findings)
    log = [json.loads(line) for line in (tmp_path / "train" / "log.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in log] == ["warm_up", "stage1", "stage2"]
    assert {"loss", "spoken_loss", "probe_loss", "closed", "closed_swapped"} <= set(log[-1])


def test_a_second_reader_travels_in_the_checkpoint(
    data: Path, tmp_path: Path, tiny_language: Path
) -> None:
    pretrain(pretrain_config(data, tmp_path))
    config = train_config(data, tmp_path, tiny_language)
    model = config.model.model_copy(update={"second": TINY.encoder})
    never = StageConfig(epochs=0, learning_rate=1e-3)
    config = config.model_copy(
        update={"model": model, "warm_up": never, "stage1": never, "stage2": never}
    )
    with pytest.raises(ConfigError, match="second"):
        align(config, "tiny", "0.1")
    config = config.model_copy(update={"second": tmp_path / "pretrain"})
    loaded = load_checkpoint(str(align(config, "tiny", "0.1"))).model
    assert loaded.second is not None
    images = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded.second(images), loaded.vision(images).findings)


def test_training_refuses_a_set_without_a_card(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medvlm.data.cards.resource_dir", lambda name: tmp_path)
    with pytest.raises(DataCardError, match="nih_cxr"):
        pretrain(pretrain_config(data, tmp_path))


def test_alignment_refuses_a_missing_encoder(
    data: Path, tmp_path: Path, tiny_language: Path
) -> None:
    with pytest.raises(CheckpointError, match="medvlm pretrain"):
        align(train_config(data, tmp_path, tiny_language), "tiny", "0.1")


def test_unknown_keys_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("out: x\nlearning_rat: 1\n")
    with pytest.raises(ConfigError, match="learning_rat"):
        PretrainConfig.from_yaml(path)


def test_shipped_configurations_are_valid(root: Path) -> None:
    kinds = {"pretrain": PretrainConfig, "train": TrainConfig}
    for name, kind in kinds.items():
        paths = [*(root / "configs").glob(f"{name}_*.yaml")]
        assert paths
        for path in paths:
            kind.from_yaml(path)


def test_no_patient_is_on_both_sides(data: Path) -> None:
    for name in COUNTS:
        films = load_set(data / name).films
        sides = {film.group: film.validation for film in films}
        assert all(film.validation == sides[film.group] for film in films)
        assert all(film.validation == in_validation(name, film.group) for film in films)


def test_the_split_is_about_a_fifth_and_never_moves() -> None:
    share = np.mean([in_validation("nih_cxr", str(i)) for i in range(5000)])
    assert 0.18 < share < 0.22
    assert [in_validation("nih_cxr", str(i)) for i in (0, 1, 2, 3, 5, 61)] == EXPECTED_SPLIT


EXPECTED_SPLIT = [False, False, False, True, True, False]


def test_epochs_hold_no_validation_film_and_come_round(data: Path, tmp_path: Path) -> None:
    store = FilmStore.build([load_set(data / "nih_cxr")], tmp_path)
    seen: set[int] = set()
    for epoch in range(6):
        rows = epoch_rows(store, {"nih_cxr": 6}, seed=0, epoch=epoch)
        assert not any(store.films[row].validation for row in rows)
        assert (rows == epoch_rows(store, {"nih_cxr": 6}, seed=0, epoch=epoch)).all()
        seen |= set(rows.tolist())
    assert seen == set(store.rows("nih_cxr", "training").tolist())


def test_a_tuning_part_is_taken_from_the_training_patients_alone(
    data: Path, tmp_path: Path
) -> None:
    sets = [load_set(data / "nih_cxr")]
    plain = FilmStore.build(sets, tmp_path)
    store = FilmStore.build(sets, tmp_path, tuning=True)
    assert not len(plain.rows("nih_cxr", "tuning"))
    tuning, training = store.rows("nih_cxr", "tuning"), store.rows("nih_cxr", "training")
    assert {*tuning, *training} == set(plain.rows("nih_cxr", "training"))
    assert len(tuning)
    assert not set(tuning) & set(training)
    assert (store.rows("nih_cxr", "validation") == plain.rows("nih_cxr", "validation")).all()
    rows = [epoch_rows(store, {"nih_cxr": 6}, seed=0, epoch=epoch) for epoch in range(6)]
    assert set(np.concatenate(rows)) == set(training)
    share = np.mean([in_tuning("nih_cxr", str(i)) for i in range(5000)])
    assert 0.08 < share < 0.12
    assert [i for i in range(40) if in_tuning("nih_cxr", str(i))] == EXPECTED_TUNING


EXPECTED_TUNING = [5, 9, 15, 19, 23, 27, 36]


def test_kept_features_stay_with_their_film(data: Path, tmp_path: Path) -> None:
    nih, kermany = load_set(data / "nih_cxr"), load_set(data / "kermany_cxr")
    model = VisionModel(TINY.encoder)
    found = []
    for sets in ([nih], [kermany, nih]):
        store = FilmStore.build(sets, tmp_path)
        row = int(np.flatnonzero(store.kinds == "nih_cxr")[0])
        kept = feature_store(model, store, np.array([row]), 1, (16,), tmp_path, 0, "key")
        found.append(kept.batch(np.array([row]), np.array([0])).middle)
    assert found[0].any()
    assert torch.equal(*found)


def test_a_set_without_a_training_film_is_refused(data: Path, tmp_path: Path) -> None:
    store = FilmStore.build([load_set(data / "nih_cxr")], tmp_path, share=1e-9)
    with pytest.raises(ConfigError, match="nih_cxr"):
        epoch_rows(store, {"nih_cxr": 6}, seed=0, epoch=0)
    assert not len(epoch_rows(store, {"nih_cxr": 0}, seed=0, epoch=0))


def test_what_is_drawn_for_a_film_does_not_depend_on_its_neighbours(
    data: Path, tmp_path: Path
) -> None:
    store = FilmStore.build([load_set(data / "nih_cxr")], tmp_path)
    rows, places = np.array([3, 5, 7, 9]), np.arange(4)
    whole = Chunk(rows, places, epoch=2, seed=1)
    half = Chunk(rows[2:], places[2:], epoch=2, seed=1)
    for draw in (
        lambda chunk: store.batch(chunk.rows, 32, chunk.generators()).images,
        lambda chunk: store.crops(chunk.rows, 32, chunk.generators()),
    ):
        assert torch.equal(draw(whole)[2:], draw(half))
        assert not torch.equal(draw(whole), draw(Chunk(rows, places, epoch=3, seed=1)))


def test_augmentation_never_mirrors() -> None:
    affine = random_affine(500, torch.Generator().manual_seed(0))
    assert (torch.linalg.det(affine[:, :, :2]) > 0).all()
    assert (affine[:, 0, 0] > 0.5).all()
    crops = random_crop(500, torch.Generator().manual_seed(0))
    assert (crops[:, 0, 0] >= 0.5).all()
    assert (crops[:, 1, 1] >= 0.5).all()
    # Corners of a piece lie inside the film.
    reach = crops[:, :, :2].abs().sum(dim=2) + crops[:, :, 2].abs()
    assert reach.max() <= 1 + 1e-6
    images = random_exposure(torch.rand(4, 1, 8, 8), torch.Generator().manual_seed(0))
    assert images.min() >= 0
    assert images.max() <= 1


def test_unknown_labels_cost_nothing() -> None:
    logits = torch.tensor([[0.0, 5.0]])
    loss = masked_bce(logits, torch.tensor([[1.0, float("nan")]]))
    assert loss.item() == pytest.approx(np.log(2))
    assert masked_bce(logits, torch.full((1, 2), float("nan"))).item() == 0


def test_mixup_blends_labels_as_it_blends_pixels(data: Path, tmp_path: Path) -> None:
    store = FilmStore.build([load_set(data / "nih_cxr")], tmp_path)
    batch = store.batch(np.arange(8), 32, None)
    mixed = mixup(batch, 0.5, np.random.default_rng(0))
    assert mixed.images.shape == batch.images.shape
    assert (mixed.findings[:, :14] >= 0).all()
    assert (mixed.findings[:, :14] <= 1).all()
    torch.testing.assert_close(batch.findings[:, 0], store.findings[:8, 0])


def test_targets_are_true_of_the_film(data: Path) -> None:
    nih = load_set(data / "nih_cxr")
    asker = Asker.build([], size=64)
    film = next(f for f in nih.films if f.boxes)
    said: dict[str, set[str]] = {}
    for seed in range(60):
        for turn in asker.turns(film, {}, True, np.random.default_rng(seed)):
            said.setdefault(turn.question, set()).add(turn.answer)
    assert said["pneumonia?"] == {"yes"}
    assert said["hiatal hernia?"] == {"no"}
    assert said["AP view?"] == {"no"}
    assert said["Is this a PA film?"] == {"yes"}
    assert said["What is in this region?"] == {"lung opacity"}


def test_calibration_finds_slope_and_shift() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(4000, 15)) * 2
    truth = (random.random(logits.shape) < 1 / (1 + np.exp(-(0.5 * logits - 1)))).astype(float)
    fitted = fit_calibration(truth, logits)
    assert fitted.slope == pytest.approx(0.5, abs=0.05)
    assert fitted.intercepts["Mass"] == pytest.approx(-1, abs=0.15)


def test_a_folder_that_is_no_set_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match=r"labels\.csv"):
        load_set(tmp_path)


def test_a_film_that_was_replaced_is_read_anew(data: Path, tmp_path: Path) -> None:
    films = load_set(data / "nih_cxr").films[:2]
    copies = [replace(film, image=tmp_path / f"{i}.png") for i, film in enumerate(films)]
    for copy, film in zip(copies, films, strict=True):
        copyfile(film.image, copy.image)
    before = cached_pixels(copies, 32, tmp_path)
    assert (cached_pixels(copies, 32, tmp_path) == before).all()
    copyfile(films[1].image, copies[0].image)
    after = cached_pixels(copies, 32, tmp_path)
    assert (after[0] == after[1]).all()
    assert not (before[0] == before[1]).all()
