"""`medvlm evaluate` on made-up sets: every part of the contract, and controls that are controls."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from medvlm.data.sets import load_set
from medvlm.evaluate.controls import other_patient
from medvlm.evaluate.report import _best_constant
from medvlm.evaluate.run import evaluate_folder
from medvlm.evaluate.vqa import swapped_images
from medvlm.model.checkpoint import load_checkpoint
from tests.sets import kermany, nih, vqa

PARTS = ("classification", "vqa", "grounding", "anatomy", "calibration", "report")


def scores(folder: Path) -> dict:
    found = evaluate_folder(load_checkpoint(), folder, PARTS, False, 4)
    json.dumps(found, allow_nan=False)
    return found


@pytest.mark.usefixtures("tiny")
def test_nih(tmp_path: Path) -> None:
    found = scores(nih(tmp_path / "nih", count=32))
    assert {"classification", "grounding", "calibration", "report", "data", "model"} <= set(found)
    assert found["classification"]["per_finding"]["Effusion"]["n_positive"] == 11
    assert found["grounding"]["n_films"] == 32
    assert {"precision", "tokens_only_f1", "shuffled_f1", "prevalence_f1"} <= set(found["report"])
    assert found["report"]["text_contradicts_classifier"] == 0


@pytest.mark.usefixtures("tiny")
def test_kermany(tmp_path: Path) -> None:
    found = scores(kermany(tmp_path / "k", count=24))
    assert set(found["classification"]["per_finding"]) == {"Pneumonia"}
    assert found["anatomy"]["n_films"] == 24


@pytest.mark.usefixtures("tiny")
def test_vqa(tmp_path: Path) -> None:
    found = scores(vqa(tmp_path / "v"))["vqa"]
    assert found["n_closed"] == found["n_open"] == 12
    low, high = found["gain_ci"]
    assert low <= found["gain"] <= high
    assert math.isclose(
        found["gain"], found["closed_accuracy"] - found["swapped_closed_accuracy"], abs_tol=1e-9
    )


def test_the_swapped_image_is_another_one_of_the_same_organ(tmp_path: Path) -> None:
    questions = load_set(vqa(tmp_path / "v")).questions
    organ = {question.image: question.organ for question in questions}
    for image, other in swapped_images(questions).items():
        assert image != other
        assert organ[image] == organ[other]


def test_shuffling_takes_another_patient() -> None:
    groups = ["a", "a", "b", "c", "c"]
    other = other_patient(groups)
    assert other is not None
    assert all(groups[i] != groups[j] for i, j in enumerate(other))
    assert other_patient(["a", "a"]) is None


def test_the_prevalence_baseline_says_the_commonest() -> None:
    truth = np.zeros((10, 14), dtype=bool)
    truth[:8, 3] = True
    truth[0, 5] = True
    assert np.flatnonzero(_best_constant(truth)).tolist() == [3]
