"""`medvlm finetune` from a folder of DICOM and reports to a promoted checkpoint, on tiny models."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from filelock import FileLock
from typer.testing import CliRunner, Result

from medvlm.cli import application
from medvlm.config import FinetuneConfig, PromotionGates
from medvlm.data.sets import load_set
from medvlm.errors import DataSetError, UsageError
from medvlm.model.checkpoint import load_checkpoint
from medvlm.train.finetune import run as run_module
from medvlm.train.finetune.key import site_key
from medvlm.train.finetune.predict import predict
from medvlm.train.finetune.record import EVALUATION, Evaluation
from tests.sets import nih
from tests.site import Hospital, hospital

RUN = CliRunner()
SETTINGS = {
    "heads": {"epochs": 12, "learning_rate": 1e-2},
    "text": {"epochs": 1, "learning_rate": 1e-3},
    "views": 1,
    "min_patients": 3,
    "min_positives": 2,
    "patients_per_word": 3,
    "rehearsal": 0.3,
}
GATES = {"min_patients": 3, "max_ece": None, "max_likely_loss": 0.3, "max_subgroup_drop": None}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a key of its own, the same every time, so that splits are too."""
    monkeypatch.setenv("MEDVLM_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "site.key").write_text("the same key every time")
    return tmp_path / "home"


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "finetune.yaml"
    path.write_text(yaml.safe_dump(SETTINGS))
    return path


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    return hospital(tmp_path_factory.mktemp("hospital"), patients=24)


def finetune(*words: object) -> Result:
    return RUN.invoke(application, ["finetune", *map(str, words)])


def evaluation_of(out: Path) -> Evaluation:
    return Evaluation.model_validate_json((out / "checkpoint" / EVALUATION).read_text())


def leaks(place: Path, secrets: set[str]) -> list[str]:
    """Files that hold a secret in their bytes or name, in any case, also as UTF-16."""
    written = [w.lower().encode(code) for w in secrets for code in ("utf-8", "utf-16-le")]
    found = []
    for path in place.rglob("*"):
        content = path.name.encode() + (path.read_bytes() if path.is_file() else b"")
        lowered = content.lower()
        found += [str(path) for word in written if word in lowered]
    return found


def test_from_a_folder_to_a_promoted_checkpoint(
    ward: Hospital, tiny: Path, settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    kept = nih(tmp_path / "kept", 40)
    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", lambda *_, **__: None)  # `work` stays
        result = finetune(ward.folder, "--out", out, "--config", settings, "--retention", kept)
    assert result.exit_code == 0, result.output
    # Nothing of the folder is anywhere: kept, to be removed later, or said.
    assert (out / "work").is_dir()
    assert leaks(ward.folder, ward.secrets)  # what is looked for can be found
    assert leaks(out, ward.secrets) == []
    said = (result.stdout + result.stderr).casefold()
    assert not [secret for secret in ward.secrets if secret.casefold() in said]
    assert str(ward.folder) not in said

    evaluation = evaluation_of(out)
    auroc = evaluation.validation.macro_auroc
    assert auroc.change is not None
    assert auroc.change > 0.1
    assert evaluation.site.sentences > 0
    assert [part.name for part in evaluation.retention] == ["retention: nih_cxr"]
    card = (out / "checkpoint" / "README.md").read_text()
    assert evaluation.site.split_sha256 in card
    assert f"{auroc.before:.3f} | {auroc.after:.3f}" in card
    split = json.loads((out / "data" / "split.json").read_text())
    assert split["sha256"] == evaluation.site.split_sha256
    candidate = load_checkpoint(str(out / "checkpoint"))
    assert candidate.config.status == "candidate"
    assert candidate.extras.donors is not None
    assert candidate.extras.references is not None
    for lesson, epochs in (("heads", 12), ("text", 1)):
        rows = [json.loads(row) for row in (out / f"log-{lesson}.jsonl").read_text().splitlines()]
        assert 0 < sum("held_out_loss" in row for row in rows) <= epochs


def test_classifiers_alone_leave_the_language_model_as_it_was(
    ward: Hospital, tiny: Path, tmp_path: Path
) -> None:
    path = tmp_path / "finetune.yaml"
    path.write_text(yaml.safe_dump(SETTINGS | {"text": {"epochs": 0, "learning_rate": 1e-3}}))
    assert finetune(ward.folder, "--out", tmp_path / "out", "--config", path).exit_code == 0
    found = evaluation_of(tmp_path / "out")
    assert set(found.blend) == {"heads"}
    language = found.validation.language_auroc
    assert language.before == language.after != found.validation.macro_auroc.after
    # It is not taken on trust: asked again, the candidate answers as the base did.
    films = [film for film in load_set(tmp_path / "out" / "data").films if film.validation]
    answers = [
        predict(load_checkpoint(str(folder)), films, tmp_path / f"{i}.npz", 8, "asked")
        for i, folder in enumerate((tiny, tmp_path / "out" / "checkpoint"))
    ]
    np.testing.assert_allclose(answers[0].margins, answers[1].margins, rtol=0, atol=1e-5)
    assert not np.allclose(answers[0].probabilities, answers[1].probabilities, atol=1e-3)


@pytest.fixture
def done(ward: Hospital, tiny: Path, settings: Path, tmp_path: Path) -> Path:
    """A finished run without a retention set."""
    result = finetune(ward.folder, "--out", tmp_path / "done", "--config", settings)
    assert result.exit_code == 0, result.output
    return tmp_path / "done"


def test_promotion_and_what_comes_after(
    done: Path, ward: Hospital, settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not (done / "work").exists()
    gates = tmp_path / "gates.yaml"
    gates.write_text(yaml.safe_dump(GATES))
    refused = RUN.invoke(application, ["model", "promote", str(done / "checkpoint")])
    assert refused.exit_code == 1
    assert "FAILS  min_patients" in refused.stdout
    promoted = RUN.invoke(
        application, ["model", "promote", str(done / "checkpoint"), "--gates", str(gates)]
    )
    assert promoted.exit_code == 0, promoted.output
    assert "retention was not measured" in promoted.stderr
    # A finished run says again what it found; from another base it is another run.
    again = finetune(ward.folder, "--out", done, "--config", settings)
    assert again.exit_code == 0
    monkeypatch.delenv("MEDVLM_CHECKPOINT")
    assert load_checkpoint().config.name == "tiny-site"
    again = finetune(ward.folder, "--out", done, "--config", settings)
    assert isinstance(again.exception, DataSetError)
    assert "another base" in str(again.exception)


def test_a_run_that_is_killed_goes_on(
    ward: Hospital, tiny: Path, settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    calls = []

    def counted(name: str) -> None:
        whole = getattr(run_module, name)

        def stop(*args: object, **more: object) -> object:
            calls.append(name)
            if calls.count(name) == 1:
                raise KeyboardInterrupt
            return whole(*args, **more)

        monkeypatch.setattr(run_module, name, stop)

    for name in ("write_prepared", "learn", "recalibrate", "model_card"):
        counted(name)
    for name in ("write_prepared", "learn", "recalibrate", "model_card"):
        stopped = finetune(ward.folder, "--out", out, "--config", settings)
        assert stopped.exit_code == 130
        assert calls[-1] == name
        assert not (out / "checkpoint").exists()
    assert finetune(ward.folder, "--out", out, "--config", settings).exit_code == 0
    # What was there was not done again, and what came out is what comes out at one go.
    assert calls.count("write_prepared") == calls.count("learn") == 2
    straight = tmp_path / "straight"
    assert finetune(ward.folder, "--out", straight, "--config", settings).exit_code == 0
    assert evaluation_of(straight).candidate == evaluation_of(out).candidate
    assert evaluation_of(straight).validation == evaluation_of(out).validation


def test_a_base_tuned_with_another_key_is_a_warning(
    done: Path, ward: Hospital, settings: Path, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("another key altogether")
    options = ["--config", settings, "--checkpoint", done / "checkpoint"]
    same = finetune(ward.folder, "--out", tmp_path / "same", *options)
    assert same.exit_code == 0, same.output
    assert evaluation_of(tmp_path / "same").warnings == ()
    other = finetune(
        ward.folder, "--out", tmp_path / "other", *options, "--key-file", tmp_path / "key"
    )
    assert other.exit_code == 0, other.output
    (warning,) = evaluation_of(tmp_path / "other").warnings
    assert "may have trained it" in warning
    card = (tmp_path / "other" / "checkpoint" / "README.md").read_text()
    assert warning[1:] in card


def test_two_processes_do_not_work_in_one_folder(
    ward: Hospital, tiny: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / ".lock"), pytest.raises(DataSetError, match="another process"):
        raise finetune(ward.folder, "--out", out).exception  # type: ignore[misc]


def test_a_dry_run_counts_and_writes_nothing(
    ward: Hospital, tiny: Path, settings: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = finetune(ward.folder, "--out", out, "--config", settings, "--dry-run")
    assert result.exit_code == 0
    assert not out.exists()
    assert re.search(r"Effusion\W+\d+", result.stdout)
    assert not [secret for secret in ward.secrets if secret in result.output]
    counted = finetune(ward.folder, "--out", out, "--dry-run", "--json")
    summary = json.loads(counted.stdout)
    assert summary["found"]["reports_matched"] == 48
    plain = finetune(ward.folder, "--out", out, "--dry-run").stdout
    assert "too few" in plain


def test_a_broken_file_harms_only_itself_and_shows_in_the_exit_code(
    ward: Hospital, tiny: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(ward.folder, folder)
    first = next(folder.rglob("*.dcm"))
    first.write_bytes(first.read_bytes()[:-20000])
    result = finetune(folder, "--out", tmp_path / "out", "--dry-run", "--json")
    assert result.exit_code == 1
    assert sum(part["films"] for part in json.loads(result.stdout)["prepared"].values()) >= 46
    assert first.name not in result.output


def test_wrong_usage(ward: Hospital, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match="no image"):
        raise finetune(tiny, "--out", tmp_path / "out", "--dry-run").exception  # type: ignore[misc]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(DataSetError, match="not empty"):
        raise finetune(ward.folder, "--out", tmp_path / "full").exception  # type: ignore[misc]


def test_the_split_does_not_move_when_the_folder_grows(tiny: Path, tmp_path: Path) -> None:
    small, large = hospital(tmp_path / "a", patients=8), hospital(tmp_path / "b", patients=16)
    sides = []
    for i, place in enumerate((small, large)):
        out = tmp_path / f"out{i}"
        assert finetune(place.folder, "--out", out, "--dry-run", "--json").exit_code == 0
        sides.append(_split(place.folder, tmp_path))
    trained = {patient for patient, side in sides[0].items() if side == "training"}
    assert trained
    # Whoever trained never judges later.
    assert all(sides[1][patient] == "training" for patient in trained)


def _split(folder: Path, out: Path) -> dict[str, str]:
    from medvlm.data.prepare import plan
    from medvlm.data.site import read_site

    return dict(plan(read_site(folder), salt=site_key(None, out / "elsewhere")).sides)


def test_the_key_is_made_once_and_never_lies_among_results(home: Path, tmp_path: Path) -> None:
    (home / "site.key").unlink()
    first = site_key(None, tmp_path / "out")
    assert site_key(None, tmp_path / "out") == first
    assert (home / "site.key").stat().st_mode & 0o077 == 0
    with pytest.raises(UsageError, match="lies in --out"):
        site_key(tmp_path / "out" / "key", tmp_path / "out")
    (tmp_path / "short").write_text("abc")
    with pytest.raises(UsageError, match="shorter"):
        site_key(tmp_path / "short", tmp_path / "out")
    with pytest.raises(UsageError, match="cannot be read"):
        site_key(tmp_path / "none", tmp_path / "out")


def test_shipped_configurations_are_the_defaults(root: Path) -> None:
    assert FinetuneConfig.from_yaml(root / "configs" / "finetune.yaml") == FinetuneConfig()
    gates = PromotionGates.from_yaml(root / "configs" / "finetune_gates.yaml")
    assert gates == PromotionGates()
