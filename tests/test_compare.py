"""Comparisons: one factor at a time, equal budget, paired figures, runs that go on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from medvlm.cli import application
from medvlm.config.compare import CompareConfig, merged
from medvlm.data.sets import Film
from medvlm.errors import CheckpointError, ConfigError
from medvlm.evaluate.comparison import compare, markdown
from medvlm.train.compare import COST, SCORES, _Sets, finished, runs
from medvlm.train.scores import _places
from tests.sets import pack

TINY_ENCODER = {"name": "test_efficientnet", "size": 64, "dense_width": 8}


def _content(root: Path) -> dict:
    return {
        "name": "encoders",
        "title": "Tiny encoders",
        "out": str(root / "runs"),
        "work": str(root / "work"),
        "factors": ["pretrain.encoder"],
        "reference": "one",
        "seeds": [0, 1],
        "pretrain": {
            "data": {
                "root": str(root),
                "per_epoch": {"nih_cxr": 8, "kermany_cxr": 4},
                "cache": str(root / "cache"),
            },
            "encoder": TINY_ENCODER,
            "weights": {"source": "none"},
            "phases": [{"epochs": 1, "size": 64}],
            "batch_size": 4,
            "watch_every": 100,
        },
        "variants": [
            {"name": "one"},
            {"name": "two", "pretrain": {"encoder": {"name": "test_resnet"}}},
        ],
    }


def _config(root: Path, **changes: object) -> CompareConfig:
    return CompareConfig.model_validate(_content(root) | changes)


def test_every_comparison_of_the_repository_is_valid(root: Path) -> None:
    files = sorted((root / "configs" / "compare").glob("*.yaml"))
    assert len(files) >= 3
    for file in files:
        config = CompareConfig.from_yaml(file)
        assert len(config.seeds) == 3


def test_changes_are_laid_over_key_by_key() -> None:
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merged(base, {"a": {"b": 5}, "d": {"e": 1}}) == {"a": {"b": 5, "c": 2}, "d": {"e": 1}}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"factors": ["pretrain.data"]}, "pretrain.encoder.name is not among the factors"),
        ({"reference": "three"}, "reference"),
        ({"variants": [{"name": "one"}, {"name": "one"}]}, "same name"),
        ({"variants": [{"name": "one"}, {"name": "../two"}]}, "name"),
        ({"pretrain": None, "variants": [{"name": "one"}, {"name": "two"}]}, "one of them"),
        (
            {"variants": [{"name": "one"}, {"name": "two", "train": {"seed": 3}}]},
            "train.seed is not among",
        ),
    ],
)
def test_what_is_no_comparison_is_refused(tmp_path: Path, changes: dict, named: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(_content(tmp_path) | changes))
    with pytest.raises(ConfigError, match=named):
        CompareConfig.from_yaml(file)


def test_a_wrong_key_of_a_variant_is_named(tmp_path: Path) -> None:
    variants = [{"name": "one"}, {"name": "two", "pretrain": {"encoder": {"nmae": "x"}}}]
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(_content(tmp_path) | {"variants": variants}))
    with pytest.raises(ConfigError, match="nmae"):
        CompareConfig.from_yaml(file)


def test_a_comparison_is_trained_scored_and_gone_on_with(tmp_path: Path) -> None:
    pack(tmp_path)
    config = _config(tmp_path)
    found = list(runs(config))
    assert [(run.variant, run.seed) for run in found] == [
        ("one", 0),
        ("two", 0),
        ("one", 1),
        ("two", 1),
    ]
    first, second = found[0].scores, found[1].scores
    assert first["findings"].shape == first["truth"].shape
    assert np.array_equal(first["film_groups"], second["film_groups"])
    assert not np.array_equal(first["findings"], second["findings"])
    assert found[0].cost["parameters"] != found[1].cost["parameters"]

    # Nothing is trained twice: a folder without its encoder is enough.
    again = list(runs(config))
    assert all(
        np.array_equal(a.scores["findings"], b.scores["findings"])
        for a, b in zip(found, again, strict=True)
    )
    (config.folder(config.variants[1], 1) / COST).unlink()
    assert len(finished(config)) == 3
    (rerun,) = [run for run in runs(config) if (run.variant, run.seed) == ("two", 1)]
    np.testing.assert_allclose(rerun.scores["findings"], found[3].scores["findings"], atol=1e-6)

    other = _config(tmp_path, films=2)
    with pytest.raises(CheckpointError, match="another configuration"):
        list(runs(other))


def test_what_is_kept_holds_no_data_and_belongs_to_its_films(tmp_path: Path) -> None:
    pack(tmp_path)
    config = _config(tmp_path, seeds=[0])
    list(runs(config))
    with np.load(config.folder(config.variants[0], 0) / SCORES) as kept:
        assert not {"truth", "film_groups", "box_groups"} & set(kept.files)
    labels = tmp_path / "nih_cxr" / "labels.csv"
    lines = labels.read_text().splitlines()
    held = [i for i, line in enumerate(lines) if "No Finding" in line]
    for i in held:
        lines[i] = lines[i].replace("No Finding", "Hernia")
    labels.write_text("\n".join(lines) + "\n")
    with pytest.raises(CheckpointError, match="other films or labels"):
        finished(config)


def test_alignment_is_scored_on_its_own_sets_too(tmp_path: Path) -> None:
    pack(tmp_path)
    stage = {"epochs": 1, "learning_rate": 1e-3}
    counts = {"nih_cxr": 8, "vqa_rad": 8}
    train = {
        "data": {"root": str(tmp_path), "per_epoch": counts, "cache": str(tmp_path / "cache")},
        **dict.fromkeys(("warm_up", "stage1", "stage2"), stage),
    }
    sets = _Sets(_config(tmp_path, train=train))
    assert len(sets.samples["closed_groups"])
    assert set(sets.store.kinds) == {"nih_cxr", "kermany_cxr", "vqa_rad"}


def test_pretraining_is_given_the_language_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(tmp_path)
    given: list[Path | None] = []

    def stopped(config: object, llm_path: Path | None = None) -> Path:
        given.append(llm_path)
        raise InterruptedError

    monkeypatch.setattr("medvlm.train.compare.pretrain", stopped)
    with pytest.raises(InterruptedError):
        list(runs(_config(tmp_path), tmp_path / "llm"))
    assert given == [tmp_path / "llm"]


def test_places_asked_about_are_opacities_and_their_mirror_images() -> None:
    def places(*boxes: tuple[float, float, float, float]) -> list:
        opacities = tuple(("Lung_Opacity", box) for box in boxes)
        unknown = np.full(1, np.nan)
        return _places(Film(Path("film"), "patient", unknown, unknown, opacities, reviewed=True))

    left = (0.125, 0.25, 0.25, 0.5)
    assert places(left) == [(left, True), ((0.625, 0.25, 0.25, 0.5), False)]
    both = (left, (0.75, 0.625, 0.125, 0.125))
    assert places(*both) == [(box, True) for box in both]  # each hides the other's mirror image
    below = (left, (0.625, 0.75, 0.25, 0.125))
    assert [present for _, present in places(*below)] == [True, True, False, False]
    assert places() == []


def test_the_command_reports_what_is_there(tmp_path: Path) -> None:
    pack(tmp_path)
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(_content(tmp_path) | {"seeds": [0]}))
    report = ["compare", str(file), "--out", str(tmp_path / "out"), "--only-report"]
    result = CliRunner().invoke(application, report)
    assert result.exit_code == 0
    assert "no seed is complete" in result.output
    result = CliRunner().invoke(application, report[:-1])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "out" / "encoders.md").read_text()
    assert "one (reference)" in text
    assert (tmp_path / "out" / "encoders.png").stat().st_size > 5000
    cost = json.loads((tmp_path / "runs" / "one" / "seed-0" / COST).read_text())
    assert cost["seconds"] >= 0


def test_differences_are_paired_and_adjusted() -> None:
    random = np.random.default_rng(0)
    groups = np.array([f"p{i // 2}" for i in range(200)])
    truth = (random.random((200, 3)) < 0.4).astype(float)
    noise = random.normal(size=(200, 3))

    def scores(signal: float, seed: int) -> dict[str, np.ndarray]:
        own = np.random.default_rng(seed).normal(size=truth.shape)
        return {
            "findings": signal * truth + noise + 0.1 * own,
            "truth": truth,
            "film_groups": groups,
        }

    found = compare(
        {
            "strong": [scores(1.5, i) for i in range(3)],
            "weak": [scores(0.5, i) for i in range(3)],
            "same": [scores(1.5, i + 10) for i in range(3)],
        },
        "strong",
    )
    (item,) = found
    assert item.figure.name == "findings"
    assert item.values["strong"].mean > item.values["weak"].mean
    assert item.against["weak"].says == "worse"
    assert item.against["same"].says == "not told apart"
    assert item.against["weak"].gain.high < 0
    costs = {n: {"parameters": 1e6, "tokens": 0, "seconds": 60} for n in item.values}
    text = markdown("T", "strong", found, costs, 3)
    assert "**-0." in text
    assert text.count("strong (reference)") == 1


def test_runs_over_other_samples_are_not_compared() -> None:
    one = {"findings": np.ones((4, 1)), "truth": np.eye(4)[:, :1], "film_groups": np.arange(4)}
    with pytest.raises(ValueError, match="same samples"):
        compare({"a": [one], "b": [one | {"film_groups": np.arange(4) + 1}]}, "a")
