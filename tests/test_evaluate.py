"""`medvlm evaluate` on made-up sets: every part of the contract, and controls that are controls."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from medvlm.cli import application
from medvlm.cli.evaluate import compact
from medvlm.data.sets import load_set
from medvlm.errors import UsageError
from medvlm.evaluate import DEFAULT_PARTS, PARTS
from medvlm.evaluate.controls import other_patient
from medvlm.evaluate.report import best_constant, sample
from medvlm.evaluate.run import evaluate_folder, evaluate_set
from medvlm.evaluate.vqa import swapped_images, vqa
from medvlm.model.checkpoint import load_checkpoint
from tests.sets import kermany, nih
from tests.sets import vqa as questions


def scores(folder: Path, parts: tuple[str, ...] = PARTS) -> dict:
    found = evaluate_folder(load_checkpoint(), folder, parts, False, 4)
    json.dumps(found, allow_nan=False)
    return found


@pytest.mark.usefixtures("tiny")
def test_nih(tmp_path: Path) -> None:
    found = scores(nih(tmp_path / "nih", count=32))
    assert set(found) == {
        "model", "data", "classification", "grounding", "calibration", "report", "image_use",
    }  # fmt: skip
    own = found["classification"]["per_finding"]
    assert len(own) == 14
    assert own["Effusion"]["n_positive"] == 11
    assert {"auprc", "f1", "sensitivity", "specificity", "roc"} <= set(own["Effusion"])
    assert set(found["classification"]["subgroups"]) == {"sex", "view", "age"}
    assert found["classification"]["subgroups"]["age"]["41-65"]["n"] == 32
    assert {"bins", "per_finding", "subgroups", "risk_coverage"} <= set(found["calibration"])
    assert found["grounding"]["n_films"] == 32
    sizes = found["grounding"]["by_size"]
    assert sizes["small"] == {"n_boxes": 0}  # 0.3 by 0.3 of the film is large
    assert sizes["large"]["n_boxes"] == found["grounding"]["n_boxes"] == 8
    assert {"precision", "tokens_only_f1", "shuffled_f1", "prevalence_f1"} <= set(found["report"])
    assert found["report"]["text_contradicts_classifier"] == 0
    labels = found["report"]["label_confusion"]
    assert sum(labels["present"].values()) == 11 + 8
    assert sum(labels["absent"].values()) == 32 * 14 - 19


@pytest.mark.usefixtures("tiny")
def test_boxes_of_other_findings_are_scored_where_they_are(tmp_path: Path) -> None:
    root = nih(tmp_path / "nih", count=12)
    with (root / "boxes.csv").open("a") as file:
        file.writelines(f"{i:04}.png,Mass,0.1,0.1,0.2,0.2,made up\n" for i in (1, 2))
    found = scores(root, ("grounding",))["grounding"]
    assert set(found["per_finding"]) == {"Mass"}
    assert found["per_finding"]["Mass"]["n_films"] == found["per_finding"]["Mass"]["n_boxes"] == 2
    assert found["per_finding"]["Mass"]["pointing_game"] is None  # of two patients
    assert found["per_finding"]["Mass"]["too_few"]


@pytest.mark.usefixtures("tiny")
def test_kermany(tmp_path: Path) -> None:
    found = scores(kermany(tmp_path / "k", count=24), DEFAULT_PARTS)
    assert set(found["classification"]["per_finding"]) == {"Pneumonia"}
    assert found["classification"]["subgroups"] == {}
    assert found["anatomy"]["n_films"] == 24
    assert "report" not in found


@pytest.mark.usefixtures("tiny")
def test_vqa(tmp_path: Path) -> None:
    found = scores(questions(tmp_path / "v"), DEFAULT_PARTS)["vqa"]
    assert found["n_closed"] == found["n_open"] == 12
    low, high = found["gain_ci"]
    assert low <= found["gain"] <= high
    for control, gain in (("swapped", "gain"), ("blank", "gain_over_blank")):
        difference = found["closed_accuracy"] - found[f"{control}_closed_accuracy"]
        assert math.isclose(found[gain], difference, abs_tol=1e-9)
    assert {kind: own["n"] for kind, own in found["by_organ"].items()} == {
        "HEAD": 4, "CHEST": 4, "ABD": 4,
    }  # fmt: skip
    assert found["by_organ"]["HEAD"]["gain"] is None  # of four images
    assert found["by_organ"]["HEAD"]["too_few"]
    assert "too_few" not in found["by_type"]["OTHER"]
    whole = found["by_type"]["OTHER"]
    assert (whole["n"], whole["n_open"]) == (12, 12)
    for name in ("closed_accuracy", "gain", "gain_over_blank", "open_token_f1"):
        assert whole[name] == found[name]
        assert whole[f"{name}_ci"] == found[f"{name}_ci"]


@pytest.mark.usefixtures("tiny")
def test_a_question_of_two_kinds_counts_in_both_and_no_organ_s_only_image_is_swapped(
    tmp_path: Path,
) -> None:
    root = questions(tmp_path / "v", count=4)  # HEAD twice, CHEST and ABD once each
    text = (root / "qa.jsonl").read_text().replace('"OTHER"', '"pres, size"', 2)
    (root / "qa.jsonl").write_text(text)
    found = vqa(load_checkpoint(), load_set(root).questions, 2)
    counts = {kind: (own["n"], own["n_open"]) for kind, own in found["by_type"].items()}
    assert counts == {"PRES": (1, 1), "SIZE": (1, 1), "OTHER": (3, 3)}
    assert found["n_closed_without_control"] == 2
    assert "gain" not in found["by_organ"]["CHEST"]
    assert "gain_over_blank" in found["by_organ"]["CHEST"]


@pytest.mark.usefixtures("tiny")
def test_reports_of_people_are_held_against_the_drafts(tmp_path: Path) -> None:
    root = nih(tmp_path / "nih", count=6)
    texts = ["There is a pleural effusion.", "No pneumothorax. Possible mass.", "No effusion."]
    lines = [json.dumps({"image": f"{i:04}.png", "text": text}) for i, text in enumerate(texts)]
    (root / "reports.jsonl").write_text("\n".join(lines))
    found = evaluate_set(load_checkpoint(), root, ("report",), False, 4)
    own = found.scores["report"]["reference_reports"]
    assert own["n"] == 3
    assert sum(own["confusion"]["present"].values()) == 1
    assert sum(own["confusion"]["uncertain"].values()) == 1
    assert sum(own["confusion"]["absent"].values()) == 2
    assert own["too_few"]
    assert own["rouge_l"] is own["polarity"]["absent"]["f1"] is None
    assert [pair.reference for pair in found.reports] == texts
    assert [pair.image for pair in found.reports] == ["0000.png", "0001.png", "0002.png"]
    assert all(pair.draft.endswith(".") for pair in found.reports)


def test_the_swapped_image_is_another_one_of_the_same_organ(tmp_path: Path) -> None:
    asked = load_set(questions(tmp_path / "v")).questions
    organ = {question.image: question.organ for question in asked}
    for image, other in swapped_images(asked).items():
        assert image != other
        assert organ[image] == organ[other]


def test_shuffling_takes_another_patient() -> None:
    groups = ["a", "a", "b", "c", "c"]
    other = other_patient(groups)
    assert other is not None
    assert all(groups[i] != groups[j] for i, j in enumerate(other))
    assert other_patient(["a", "a"]) is None


def test_the_prevalence_baseline_says_the_commonest() -> None:
    truth = np.zeros((10, 14))
    truth[:8, 3] = 1
    truth[0, 5] = 1
    assert np.flatnonzero(best_constant(truth)).tolist() == [3]


def test_a_sample_keeps_the_order_and_repeats() -> None:
    assert sample(range(5), 9) == [0, 1, 2, 3, 4]
    chosen = sample(range(50), 9)
    assert len(chosen) == 9
    assert chosen == sorted(chosen) == sample(range(50), 9)


# ---- the command ----


def run(*arguments: object) -> str:
    result = CliRunner().invoke(application, ["evaluate", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


@pytest.mark.usefixtures("tiny")
def test_the_command_writes_figures_tables_pictures_and_pairs(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    root, out = nih(tmp_path / "nih", count=24), tmp_path / "out"
    (root / "reports.jsonl").write_text('{"image": "0001.png", "text": "No mass, \\"none\\"."}')
    common = ("--data", root, "--out", out / "nih.json", "--parts", "classification,report")
    said = run(*common, "--report", out, "--export-reports", out / "pairs.csv")
    found = json.loads((out / "nih.json").read_text())
    assert (
        f"classification.macro_auroc_all  {found['classification']['macro_auroc_all']:.3f}" in said
    )
    assert "report.text_contradicts_classifier  0\n" in said
    page = (out / "figures.md").read_text()
    pictures = sorted(path.name for path in out.glob("*.png"))
    assert pictures == ["nih_cxr-subgroups.png"]  # no finding has enough positives for a curve
    assert all(f"]({name})" in page for name in pictures)
    with (out / "pairs.csv").open(newline="") as file:
        (pair,) = csv.DictReader(file)
    assert (pair["image"], pair["reference"]) == ("0001.png", 'No mass, "none".')
    again = run(*common, "--json", "--export-reports", out / "pairs.json")
    assert json.loads(again) == found
    assert json.loads((out / "pairs.json").read_text()) == [pair]


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (("--parts", "vqa,taste"), "image_use"),
        (("--split", "train"), "validation"),
        (("--export-reports", "pairs.txt"), ".csv"),
        (("--export-reports", "pairs.csv", "--parts", "vqa"), "--parts"),
        (("--export-reports", "pairs.csv"), "docs/evaluation.md"),
    ],
)
def test_wrong_usage_is_told_before_the_work(
    tmp_path: Path, arguments: tuple[str, ...], remedy: str
) -> None:
    with pytest.raises(UsageError) as caught:
        run("--data", tmp_path, "--out", tmp_path / "out.json", *arguments)
    assert remedy in str(caught.value)


def test_compact_json_says_the_same() -> None:
    content = {"a": [0.5, -1e-9, 3], "b": [{"c": [1]}, "[ 1,  2 ]x"], "d": [], "e": [[1, 2], []]}
    text = compact(content)
    assert json.loads(text) == content
    assert '"a": [0.5, -1e-09, 3]' in text
