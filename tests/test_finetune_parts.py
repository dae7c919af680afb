"""The parts of fine-tuning: sides, targets, calibration, comparison, and learning itself."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medvlm.config import DataConfig, FinetuneConfig, FinetunePhase
from medvlm.data.sets import DataSet, Film
from medvlm.errors import DataSetError
from medvlm.findings import FINDINGS
from medvlm.model.checkpoint import Checkpoint, CheckpointConfig, OperatingPoints, load_checkpoint
from medvlm.train.finetune.compare import compare, filled, subgroups
from medvlm.train.finetune.learn import learn, train_config
from medvlm.train.finetune.material import gather, retention_sets, scored, sides
from medvlm.train.finetune.predict import Predictions, predict
from medvlm.train.finetune.recalibrate import correction, logits_of, recalibrate, recalibrated
from medvlm.train.finetune.targets import SiteAsker, taught_sentences
from medvlm.train.targets import Asker
from tests.sets import nih
from tests.site import film_pixels

EFFUSION, HEART = FINDINGS.index("Effusion"), FINDINGS.index("Cardiomegaly")
QUICK = FinetuneConfig(
    heads=FinetunePhase(epochs=4, learning_rate=1e-2),
    text=FinetunePhase(epochs=2, learning_rate=1e-3),
    views=1,
    min_patients=4,
    min_positives=2,
    tuning=0.3,
)


def site(folder: Path, patients: int = 30) -> DataSet:
    """A prepared set as `sides` takes it: one film a patient, an effusion in every second."""
    (folder / "images").mkdir(parents=True)
    films = []
    for i in range(patients):
        image = folder / "images" / f"{i:04}.png"
        pixels = film_pixels(i % 2 == 0, False, np.random.default_rng(i)) / 4095 * 255
        Image.fromarray(pixels.astype(np.uint8)).save(image)
        findings = np.full(len(FINDINGS), np.nan, dtype=np.float32)
        findings[EFFUSION] = float(i % 2 == 0)
        if i % 2:
            findings[HEART] = 1.0  # never denied: nothing can be learned of it
        attributes = np.array([i % 3 == 0, i % 2, 1, 0, 0], dtype=np.float32)
        film = Film(image, f"p{i:03}", findings, attributes, validation=i % 5 == 0, age_years=50)
        films.append(film)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *FINDINGS])
        for film in films:
            said = ["" if np.isnan(v) else "present" if v else "absent" for v in film.findings]
            writer.writerow([film.image.name, *said])
    return DataSet("site", folder, tuple(films))


def test_no_patient_is_on_two_sides_and_parts_do_not_move(tmp_path: Path) -> None:
    data = site(tmp_path)
    own = sides(data, 0.3)
    groups = [{film.group for film in part} for part in (own.training, own.tuning, own.validation)]
    assert not groups[0] & groups[1]
    assert not groups[2] & (groups[0] | groups[1])
    assert len(groups[2]) == 6
    more = replace(data, films=(*data.films, replace(data.films[1], group="new")))
    again = sides(more, 0.3)
    assert groups[1] <= {film.group for film in again.tuning}
    assert groups[0] <= {film.group for film in again.training}


def test_a_finding_without_both_answers_is_not_learned(tmp_path: Path) -> None:
    own = sides(site(tmp_path), 0.3)
    assert own.learnable[EFFUSION]
    assert not own.learnable[HEART]
    assert all(np.isnan(film.findings[HEART]) for film in own.training)
    assert any(film.findings[HEART] == 1 for film in own.validation)


def test_a_site_without_answers_is_refused(tmp_path: Path) -> None:
    data = site(tmp_path)
    silent = [replace(film, findings=np.full(len(FINDINGS), np.nan)) for film in data.films]
    with pytest.raises(DataSetError, match="no patient to train"):
        sides(replace(data, films=tuple(silent)), 0.3)


def test_rehearsal_never_uses_who_is_scored(tmp_path: Path) -> None:
    (kept,) = retention_sets(nih(tmp_path / "kept", 60))
    assert [data.root for data in retention_sets(tmp_path)] == [tmp_path / "kept"]
    own = sides(site(tmp_path / "site"), 0.3)
    material = gather(own, [kept], QUICK, tmp_path / "cache")
    judged = {film.group for film in scored(kept, 100)}
    store = material.store
    rehearsed = {store.films[row].group for row in material.rehearsal}
    recalled = {store.films[row].group for row in material.recall}
    assert judged
    assert rehearsed
    assert recalled
    assert not judged & (rehearsed | recalled)
    assert not rehearsed & recalled
    assert len(material.rehearsal) == len(material.training)
    assert not {film.group for film in own.validation} & {film.group for film in store.films}
    with pytest.raises(DataSetError, match="no set with validation"):
        retention_sets(tmp_path / "cache")


def test_only_whole_patients_are_scored(tmp_path: Path) -> None:
    (kept,) = retention_sets(nih(tmp_path, 60))
    twice = replace(kept, films=tuple(film for film in kept.films for _ in range(2)))
    few = scored(twice, 5)
    assert len(few) == 4
    assert [film.group for film in few] == [film.group for film in scored(twice, 100)][:4]


def test_sentences_are_taught_if_they_say_one_thing_in_common_words() -> None:
    reports = {
        "a.png": ["No pleural effusion.", "Left pleural effusion of Quibbleson."],
        "b.png": ["No pleural effusion.", "Left pleural effusion."],
        "c.png": ["No pleural effusion.", "Left pleural effusion.", "Stable."],
        "d.png": ["Left pleural effusion seen by [NAME].", "No effusion and no pneumothorax."],
        "v.png": ["No pleural effusion."],
    }
    patient_of = {"a.png": "1", "b.png": "2", "c.png": "3", "d.png": "4"}
    taught = taught_sentences(reports, patient_of, 3)
    said = {image: [turn.answer for turn in turns] for image, turns in taught.items()}
    assert said == {
        "a.png": ["No pleural effusion."],
        "b.png": ["No pleural effusion.", "Left pleural effusion."],
        "c.png": ["No pleural effusion.", "Left pleural effusion."],
    }
    assert taught["b.png"][1].question == "Report: pleural effusion, present, left lung."
    # One patient's many reports do not make a word common.
    assert taught_sentences(reports, dict.fromkeys(patient_of, "1"), 2) == {}


def test_a_correction_is_found_and_few_patients_change_little() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(4000, len(FINDINGS))) * 2
    truth = (random.random(logits.shape) < 1 / (1 + np.exp(-(0.5 * logits - 1)))).astype(float)
    slope, intercepts = correction(truth, logits)
    assert slope == pytest.approx(0.5, abs=0.05)
    assert intercepts[0] == pytest.approx(-1, abs=0.15)
    slope, intercepts = correction(truth[:3], logits[:3])
    assert 0.6 < slope < 1.4
    assert abs(intercepts).max() < 1.2
    unknown = np.full((3, len(FINDINGS)), np.nan)
    assert correction(unknown, logits[:3])[0] == pytest.approx(1)


def test_recalibration_goes_through_the_base_calibration() -> None:
    random = np.random.default_rng(0)
    points = OperatingPoints(absent_below={"Effusion": 0.05})
    config = CheckpointConfig(name="x", version="1", operating_points=points)
    once = config.model_copy(
        update={"calibration": config.calibration.model_copy(update={"slope": 2.0})}
    )
    raw = random.normal(size=(3000, len(FINDINGS)))
    before = 1 / (1 + np.exp(-2 * raw))
    truth = (random.random(raw.shape) < 1 / (1 + np.exp(-(raw + 1)))).astype(float)
    after = recalibrate(once, truth, before)
    assert after.calibration.slope == pytest.approx(1, abs=0.1)
    assert after.calibration.intercepts["Effusion"] == pytest.approx(1, abs=0.15)
    # The cut-off for "absent" moved with the probabilities: the same films are below it.
    own = after.calibration
    said = raw[:, EFFUSION] * own.slope + own.intercepts["Effusion"]
    cut = logits_of(np.array([after.operating_points.absent_below["Effusion"]]))
    assert ((said < cut) == (before[:, EFFUSION] < 0.05)).all()
    again = recalibrated(once, after, before)
    assert again[:, EFFUSION] == pytest.approx(1 / (1 + np.exp(-said)), abs=1e-5)


def test_comparison_is_paired_and_silence_is_absence_but_for_one_figure(tmp_path: Path) -> None:
    films = [replace(film, validation=False) for film in site(tmp_path, 40).films]
    random = np.random.default_rng(0)
    noise = random.random((40, len(FINDINGS)))
    before = Predictions(noise, random.normal(size=(40, 14)), 0.5)
    better = noise.copy()
    better[:, EFFUSION] = 0.2 * noise[:, EFFUSION] + 0.8 * (np.arange(40) % 2 == 0)
    after = before._replace(probabilities=better)
    labels = np.array([film.findings for film in films])
    silent = np.isnan(labels)
    silent[0, HEART] = False  # called uncertain
    part = compare("validation", films, before, after, silent, min_patients=20, min_positives=5)
    assert part.enough
    assert part.mentioned_auroc.after == 1.0  # of effusion alone: the heart is never denied
    assert part.mentioned_auroc.change is not None
    assert part.mentioned_auroc.change_ci is not None
    assert part.mentioned_auroc.change_ci[0] > 0.2
    heart = part.findings["Cardiomegaly"]
    assert heart.enough
    assert heart.denied == heart.auroc.change == 0
    # The mean of both, for silence about the heart is absence there.
    assert part.macro_auroc.change == pytest.approx(part.mentioned_auroc.change / 2)
    assert part.language_auroc.change == 0
    assert part.language_auroc.change_ci == pytest.approx((0, 0))
    levels = filled(labels, silent)
    assert np.isnan(levels).sum() == 1
    assert np.nansum(labels) == np.nansum(levels)
    brier = np.nanmean((better - levels) ** 2)
    assert part.brier.after == pytest.approx(brier)
    parts = subgroups(films, before, after, silent, min_patients=30, min_positives=5)
    names = {part.name: part for part in parts}
    assert names["female"].patients == 20
    assert not names["female"].enough


@pytest.fixture
def base(tiny: Path) -> Checkpoint:
    return load_checkpoint(str(tiny))


def test_the_last_stages_of_the_encoder_learn_if_that_is_wanted(
    base: Checkpoint, tmp_path: Path
) -> None:
    none = FinetunePhase(epochs=0, learning_rate=1)
    config = QUICK.model_copy(update={"heads": none, "encoder_stages": 1, "blends": (1.0,)})
    material = gather(sides(site(tmp_path / "site"), 0.3), [], config, tmp_path / "cache")
    start = {name: t.clone() for name, t in base.model.vision.encoder.state_dict().items()}
    place = DataConfig(root=tmp_path, per_epoch={}, cache=tmp_path / "cache")
    run = train_config(config, base.model, place, tmp_path / "run")
    learn(base.model, material, SiteAsker(Asker.build([], 64), {}), config, run, "key")
    now = base.model.vision.encoder.state_dict()
    changed = [name for name, tensor in now.items() if not torch.equal(tensor, start[name])]
    assert 0 < len(changed) < len(start) / 2


def test_the_heads_learn_a_sign_and_resume_to_the_same_weights(
    base: Checkpoint, tmp_path: Path
) -> None:
    data = site(tmp_path / "site", 40)
    own = sides(data, 0.3)
    material = gather(own, [], QUICK, tmp_path / "cache")
    start = {name: t.clone() for name, t in base.model.state_dict().items()}
    run = train_config(
        QUICK,
        base.model,
        DataConfig(root=tmp_path, per_epoch={}, cache=tmp_path / "cache"),
        tmp_path / "run",
    )
    asker = SiteAsker(Asker.build([], 64), {})
    result = learn(base.model, material, asker, QUICK, run, "key")
    assert set(result.blends) == {"heads", "text"}
    assert result.blends["heads"] > 0
    after = predict(base, own.validation, tmp_path / "after.npz", 8, "looking")
    truth = np.array([film.findings[EFFUSION] for film in own.validation])
    said = after.probabilities[:, EFFUSION]
    assert said[truth == 1].mean() > said[truth == 0].mean()
    changed = {
        name for name, t in base.model.state_dict().items() if not torch.equal(t, start[name])
    }
    assert any(name.startswith("vision.classifier") for name in changed)
    assert not any(name.startswith("vision.encoder") for name in changed)
    # The same run again takes up its finished lessons and comes to the same weights.
    learned = {name: t.clone() for name, t in base.model.state_dict().items()}
    base.model.load_state_dict(start)
    learn(base.model, material, asker, QUICK, run, "key")
    for name, tensor in base.model.state_dict().items():
        torch.testing.assert_close(tensor, learned[name], rtol=0, atol=0)
