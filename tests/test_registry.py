"""Promotion: only what was evaluated and passes comes into use, and there is a way back."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from medvlm.cli import application
from medvlm.cli.common import load_with_notice
from medvlm.config import PromotionGates
from medvlm.draft.compose import model_record
from medvlm.errors import CheckpointError, PromotionRefused
from medvlm.model import registry
from medvlm.model.candidates import note_candidate
from medvlm.model.checkpoint import (
    CONFIG,
    DEFAULT,
    CheckpointConfig,
    load_checkpoint,
    resolve_checkpoint,
    save_checkpoint,
)
from medvlm.resources import resource_dir
from medvlm.train.finetune.promote import judge, promote, read_evaluation
from medvlm.train.finetune.record import (
    EVALUATION,
    Evaluation,
    Figure,
    FindingFigures,
    Identity,
    Part,
    SiteData,
)

RUN = CliRunner()
LOW = PromotionGates(min_patients=2)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDVLM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MEDVLM_CHECKPOINT", raising=False)
    return tmp_path / "home"


@pytest.fixture
def base(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny checkpoint as a folder; nothing in the environment names it."""
    monkeypatch.delenv("MEDVLM_CHECKPOINT")
    return tiny


def figure(before: float | None, after: float | None) -> Figure:
    change = None if before is None or after is None else after - before
    ci = None if change is None else (change - 0.01, change + 0.01)
    return Figure(before=before, after=after, change=change, change_ci=ci)


def part(name: str, before: float | None = 0.7, after: float | None = 0.8, n: int = 40) -> Part:
    return Part(
        name=name,
        patients=n,
        films=n,
        enough=n >= 20,
        macro_auroc=figure(before, after),
        mentioned_auroc=figure(before, after),
        language_auroc=figure(before, after),
        ece=figure(0.05, 0.04),
        brier=figure(0.1, 0.09),
        log_loss=figure(0.3, 0.28),
        stated_f1=figure(0.2, 0.3),
        findings={
            "Effusion": FindingFigures(
                positives=9, negatives=20, denied=12, enough=True, auroc=figure(before, after)
            )
        },
    )


def candidate(folder: Path, base: Path, name: str = "site", **changed: Any) -> Path:
    """A candidate made of the tiny checkpoint, evaluated as `changed` says."""
    loaded = load_checkpoint(str(base))
    config = loaded.config.model_copy(update={"name": name, "status": "candidate"})
    save_checkpoint(loaded.model, config, folder)
    digest = hashlib.sha256((folder / CONFIG).read_bytes()).hexdigest()
    config = CheckpointConfig.from_yaml(folder / CONFIG)
    own = Identity(
        name=name,
        version=config.version,
        weights_sha256=config.weights_sha256,
        config_sha256=digest,
    )
    parts: dict[str, Any] = {
        "validation": part("validation"),
        "subgroups": (part("under 18", n=3), part("male")),
        "retention": (part("nih_cxr", 0.75, 0.745),),
    }
    evaluation = Evaluation(
        base=own,
        candidate=own,
        site=SiteData(
            data_sha256="d",
            split_sha256="s",
            key_id="k",
            patients={"training": 100, "tuning": 20, "validation": 40},
            films={},
            labels={},
            boxes=0,
            sentences=0,
        ),
        blend={"heads": 1.0},
        min_patients=20,
        min_positives=5,
        seconds=1.0,
        **(parts | changed),
    )
    (folder / EVALUATION).write_text(evaluation.model_dump_json())
    return folder


def embedded_version() -> str:
    return CheckpointConfig.from_yaml(resource_dir("checkpoints") / DEFAULT / CONFIG).version


def test_a_candidate_is_promoted_and_rolled_back(base: Path, tmp_path: Path) -> None:
    default = resolve_checkpoint()
    first = promote(candidate(tmp_path / "a", base, "first"), LOW)
    assert load_checkpoint().config.name == "first"
    assert load_checkpoint().config.status == "released"
    promote(candidate(tmp_path / "b", base, "second"), LOW)
    assert resolve_checkpoint().is_relative_to(registry.home_dir())
    assert load_checkpoint().config.name == "second"
    assert registry.rollback().checkpoint == first.checkpoint
    assert load_checkpoint().config.name == "first"
    assert load_checkpoint("second").config.name == "second"  # still there by name
    assert registry.rollback().checkpoint is None
    assert resolve_checkpoint() == default
    with pytest.raises(CheckpointError, match="nothing is promoted"):
        registry.rollback()
    events = [entry.event for entry in registry.read_history()]
    assert events == ["promote", "promote", "rollback", "rollback"]


def test_the_order_in_which_a_checkpoint_is_found(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = resolve_checkpoint()
    promote(candidate(tmp_path / "a", base), LOW)
    assert resolve_checkpoint("site") == resolve_checkpoint()
    monkeypatch.setenv("MEDVLM_CHECKPOINT", str(base))
    assert resolve_checkpoint() == base
    assert resolve_checkpoint("medvlm-cxr-lite") == embedded


def test_a_candidate_has_no_name_before_promotion_and_says_what_it_is(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = candidate(tmp_path / "a", base)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        resolve_checkpoint("site")
    loaded = load_with_notice(str(folder), None)
    assert "candidate" in capsys.readouterr().err
    assert model_record(loaded).version == "0.0-candidate"


@pytest.mark.parametrize(
    ("changed", "gate"),
    [
        ({"validation": part("validation", 0.8, 0.79)}, "min_gain"),
        ({"validation": part("validation", 0.5, 0.55)}, "min_macro_auroc"),
        ({"validation": part("validation", n=6)}, "min_patients"),
        ({"validation": part("validation", None, None)}, "min_macro_auroc"),
        ({"retention": (part("nih_cxr", 0.75, 0.7),)}, r"max_retention_drop \(nih_cxr\)"),
        ({"subgroups": (part("under 18", 0.8, 0.7),)}, r"max_subgroup_drop \(under 18\)"),
    ],
)
def test_every_gate_refuses(base: Path, tmp_path: Path, changed: dict[str, Any], gate: str) -> None:
    folder = candidate(tmp_path / "a", base, **changed)
    before = resolve_checkpoint()
    with pytest.raises(PromotionRefused, match=gate):
        promote(folder, PromotionGates())
    assert resolve_checkpoint() == before
    assert registry.read_history() == []


def test_what_cannot_be_told_is_a_warning_where_it_is_no_gate(base: Path, tmp_path: Path) -> None:
    evaluation, _ = read_evaluation(candidate(tmp_path / "a", base, retention=()))
    verdict = judge(evaluation, PromotionGates())
    assert not verdict.failed
    assert any("retention was not measured" in warning for warning in verdict.warnings)
    assert any("under 18: 3 patients are too few" in warning for warning in verdict.warnings)
    strict = judge(evaluation, PromotionGates(retention_required=True))
    assert [result.gate for result in strict.failed] == ["retention_required"]


def test_a_candidate_of_another_line_is_a_warning(base: Path, tmp_path: Path) -> None:
    first, _ = read_evaluation(candidate(tmp_path / "first", base))
    # The tiny checkpoint is not the default, which is in use as long as nothing is promoted.
    (said,) = [w for w in judge(first, LOW).warnings if "which is in use" in w]
    assert f"not from medvlm-cxr-lite {embedded_version()}" in said
    assert any("which is in use" in w for w in promote(tmp_path / "first", LOW).warnings)
    second, _ = read_evaluation(candidate(tmp_path / "second", base, name="next"))
    assert not [w for w in judge(second, LOW).warnings if "which is in use" in w]
    other = second.base.model_copy(update={"weights_sha256": "0" * 64})
    of_another = second.model_copy(update={"base": other})
    (said,) = [w for w in judge(of_another, LOW).warnings if "which is in use" in w]
    assert "not from site" in said
    registry.rollback()
    assert [w for w in judge(second, LOW).warnings if "medvlm-cxr-lite" in w]


@pytest.mark.parametrize("what", ["weights", "configuration", "evaluation", "name", "link"])
def test_a_candidate_that_was_changed_is_refused(base: Path, tmp_path: Path, what: str) -> None:
    folder = candidate(tmp_path / "a", base, "medvlm-cxr-lite" if what == "name" else "site")
    if what == "weights":
        other = load_checkpoint(str(base))
        other.model.probe.bias.data += 1
        config = CheckpointConfig.from_yaml(folder / CONFIG)
        save_checkpoint(other.model, config, tmp_path / "b")
        (tmp_path / "b" / CONFIG).write_bytes((folder / CONFIG).read_bytes())
        (tmp_path / "b" / EVALUATION).write_bytes((folder / EVALUATION).read_bytes())
        folder = tmp_path / "b"
    elif what == "configuration":
        text = (folder / CONFIG).read_text()
        (folder / CONFIG).write_text(text.replace("present_from: 0.5", "present_from: 0.1"))
    elif what == "evaluation":
        (folder / EVALUATION).unlink()
    elif what == "link":
        (folder / "more").symlink_to(tmp_path)
    with pytest.raises(CheckpointError):
        promote(folder, LOW)
    assert registry.read_history() == []
    assert not list((registry.home_dir() / "checkpoints").glob("*"))


def test_a_promoted_checkpoint_that_was_changed_stops_everything(
    base: Path, tmp_path: Path
) -> None:
    promote(candidate(tmp_path / "a", base), LOW)
    path = resolve_checkpoint() / CONFIG
    path.write_text(path.read_text().replace("present_from: 0.5", "present_from: 0.1"))
    with pytest.raises(CheckpointError, match="rollback"):
        resolve_checkpoint()
    registry.rollback()
    assert resolve_checkpoint().name == "medvlm-cxr-lite"


def test_a_line_cut_short_by_a_crash_never_was(base: Path, tmp_path: Path, home: Path) -> None:
    promote(candidate(tmp_path / "a", base, "first"), LOW)
    path = home / registry.HISTORY
    whole = path.read_text()
    path.write_text(whole + whole[: len(whole) // 2])
    assert load_checkpoint().config.name == "first"
    promote(candidate(tmp_path / "b", base, "second"), LOW)
    assert path.read_text().startswith(whole)
    assert [entry.name for entry in registry.read_history()] == ["first", "second"]
    path.write_text("nonsense\n")
    with pytest.raises(CheckpointError, match="not a history"):
        resolve_checkpoint()


def test_a_failure_while_copying_leaves_nothing(base: Path, tmp_path: Path, home: Path) -> None:
    folder = candidate(tmp_path / "a", base)

    def fail(copy: Path) -> None:
        assert (copy / CONFIG).is_file()
        raise CheckpointError("no")

    with pytest.raises(CheckpointError, match="no"):
        registry.add(
            folder,
            fail,
            name="x",
            version="1",
            weights_sha256="",
            evaluation_sha256="",
            gates=(),
            warnings=(),
        )
    assert not list((home / "checkpoints").iterdir())
    assert registry.read_history() == []


def test_promotions_at_the_same_time_wait_for_each_other(
    base: Path, tmp_path: Path, home: Path
) -> None:
    folder = candidate(tmp_path / "a", base)
    threads = [threading.Thread(target=promote, args=(folder, LOW)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = registry.read_history()
    assert len({entry.checkpoint for entry in entries}) == len(entries) == 3
    assert all(registry.folder_of(entry).is_dir() for entry in entries)


def test_the_command_line(base: Path, tmp_path: Path, home: Path) -> None:
    folder = candidate(tmp_path / "a", base)
    digest = hashlib.sha256((folder / CONFIG).read_bytes()).hexdigest()
    note_candidate(folder, "site", "0.0", digest)
    (tmp_path / "gates.yaml").write_text("min_macro_auroc: 0.9\n")
    refused = RUN.invoke(
        application, ["model", "promote", str(folder), "--gates", str(tmp_path / "gates.yaml")]
    )
    assert isinstance(refused.exception, PromotionRefused)
    assert "FAILS  min_macro_auroc: 0.8, must be at least 0.9" in refused.stdout
    home.mkdir(exist_ok=True)
    (home / "gates.yaml").write_text("min_macro_auroc: 0.95\n")  # the site's own, if none is given
    assert RUN.invoke(application, ["model", "promote", str(folder)]).exception
    (home / "gates.yaml").unlink()
    done = RUN.invoke(application, ["model", "promote", str(folder), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["promoted"] == registry.stack()[-1].checkpoint
    listed = RUN.invoke(application, ["model", "list", "--json"])
    roles = {row["role"]: row["name"] for row in json.loads(listed.stdout)}
    assert roles == {"default": "medvlm-cxr-lite", "promoted, in use": "site"}
    back = RUN.invoke(application, ["model", "rollback"])
    assert "embedded default" in back.stdout
    listed = RUN.invoke(application, ["model", "list"])
    assert f"medvlm-cxr-lite {embedded_version()} (default, in use)" in listed.stdout.replace(
        "\n", ""
    )
    assert f"site 0.0 (candidate): --checkpoint {folder.resolve()}" in listed.stdout


def test_the_history_names_no_user(base: Path, tmp_path: Path, home: Path) -> None:
    promote(candidate(tmp_path / "a", base), LOW)
    (line,) = (home / registry.HISTORY).read_text().splitlines()
    assert set(json.loads(line)) == set(registry.Entry.model_fields)
    assert str(tmp_path) not in line
    assert yaml.safe_load(line)["gates"][0]["gate"] == "min_patients"
