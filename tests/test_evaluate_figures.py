"""Tables and pictures from evaluation JSON."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medvlm.errors import MissingExtra
from medvlm.evaluate.calibration import calibration_table
from medvlm.evaluate.figures import document, rows, table, write_report
from medvlm.evaluate.metrics import classification_table
from medvlm.evaluate.plots import draw
from medvlm.evaluate.subgroups import calibration_by_group, classification_by_group

NAMES = ["Mass", "Pleural_Thickening", "Hernia"]


def evaluation(name: str = "made_up") -> dict[str, Any]:
    rng = np.random.default_rng(0)
    y = (rng.random((60, 3)) < [0.3, 0.4, 0.0]).astype(float)
    p = np.clip(0.3 * y + 0.6 * rng.random(y.shape), 0, 1)
    patients = [str(i // 2) for i in range(60)]
    members = {"sex": {"male": np.arange(60) < 50, "female": np.arange(60) >= 50}}
    return {
        "model": {"name": "m", "version": "1", "weights_sha256": "ab" * 32},
        "data": {"name": name, "split": "all", "images": 60, "groups": 30, "questions": 0},
        "classification": classification_table(y, p, NAMES, patients, p > 0.5, n=50)
        | {"subgroups": classification_by_group(members, y, p, NAMES, patients)},
        "calibration": calibration_table(y, p, patients, NAMES, n=50)
        | {"subgroups": calibration_by_group(members, y, p, patients)},
        "vqa": {
            "gain": 0.25,
            "gain_ci": [0.125, 0.5],
            "by_type": {"SIZE": {"n": 2, "n_open": 1, "closed_accuracy": 0.5}},
        },
        "grounding": {
            "map50": 0.5,
            "constant_baseline": {"map50": 0.25},
            "by_size": {"small": {"n_boxes": 0}, "small_under": 0.05},
        },
        "image_use": {"probabilities": {"blank": {"n": 3, "mean_change": -0.5}, "other": {"n": 0}}},
    }


def test_rows_name_their_place_and_carry_intervals() -> None:
    found = {row.name: row for row in rows(evaluation())}
    assert found["vqa.gain"].interval == [0.125, 0.5]
    assert found["grounding.constant_baseline.map50"].value == 0.25
    assert "classification.macro_auroc" in found
    assert "report.f1" not in found


def test_one_table_of_several_sets() -> None:
    lines = table([evaluation("a"), evaluation("b")]).splitlines()
    assert "| a | - gain over that, paired | 0.250 | 0.125 to 0.500 |" in lines
    assert sum(line.startswith("| b ") for line in lines) == len(list(rows(evaluation())))


def test_the_page_has_a_section_for_what_is_there() -> None:
    page = document([evaluation()])
    own = evaluation()["classification"]["per_finding"]["Mass"]
    low, high = own["auroc_ci"]
    assert (
        f"| Mass | {own['n_positive']} of 60 | {own['auroc']:.3f} ({low:.3f} to {high:.3f})" in page
    )
    assert "| Hernia | 0 of 60 |" + " too few |" * 5 in page
    assert "| SIZE | 2 | 0.500 | - | - | - | 1 | - |" in page
    assert "| opacity, small | 0 | - | - | - | - |" in page
    assert "| probabilities: blank | 3 | -0.500 | - |" in page
    female = next(line for line in page.splitlines() if line.startswith("| sex: female | 10 |"))
    assert female.split(" | ")[3:] == ["too few"] * 3 + ["-", "too few", "too few |"]
    assert "What the drafts say" not in page
    for block in page.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1


def test_pictures_show_something(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    names = draw(evaluation(), tmp_path, "set")
    assert names == [
        "set-roc.png", "set-reliability.png", "set-risk_coverage.png", "set-subgroups.png",
    ]  # fmt: skip
    for name in names:
        with Image.open(tmp_path / name) as picture:
            assert np.asarray(picture.convert("L")).std() > 5
    bare = {key: evaluation()[key] for key in ("model", "data")}
    assert draw(bare, tmp_path, "bare") == []


def test_no_curve_is_drawn_of_too_few_positives(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    scores = evaluation()
    for own in scores["classification"]["per_finding"].values():
        own["too_few"] = True
    assert "set-roc.png" not in draw(scores, tmp_path, "set")


def test_two_evaluations_of_one_set_keep_their_pictures_apart(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    page = write_report([evaluation(), evaluation()], tmp_path)
    assert page == tmp_path / "figures.md"
    assert (tmp_path / "made_up-roc.png").is_file()
    assert "made_up-2-roc.png" in page.read_text()


def test_without_matplotlib_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingExtra, match=r"medvlm\[plots\]"):
        draw(evaluation(), Path(), "x")
