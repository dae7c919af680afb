"""The commands as a user meets them: words, exit codes, files. No traceback, no identifiers."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import generate_uid

from medvlm.cli import main
from medvlm.records import Draft
from medvlm.resources import sample_film
from tests.dicoms import save, shipped, synthetic


class Run:
    """What a command left: exit code, stdout, stderr."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def medvlm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def run(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["medvlm", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return Run(code, captured.out, captured.err)

    return run


@pytest.fixture
def bad_files(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "bad"
    folder.mkdir()
    text, empty = folder / "notes.txt", folder / "empty.dcm"
    text.write_text("Patient Doe^Jane was here")
    empty.touch()
    truncated = folder / "truncated.dcm"
    truncated.write_bytes(sample_film().read_bytes()[:200_000])
    bare = folder / "bare.dcm"
    ds = synthetic(np.zeros((200, 200), np.uint16))
    del ds.PixelData
    ds.save_as(bare, enforce_file_format=True)
    return {"not_dicom": text, "empty": empty, "truncated_pixels": truncated, "no_pixels": bare}


@pytest.mark.usefixtures("tiny")
def test_bad_files_fail_in_clear_words(medvlm, bad_files: dict[str, Path], tmp_path: Path) -> None:
    for code, path in bad_files.items():
        run = medvlm("draft", path, "--out", tmp_path / "out")
        assert run.code == 1, code
        assert path.name in run.err
        assert "Doe" not in run.err + run.out
        if code != "empty":
            assert f"[{code}]" in run.err


@pytest.mark.usefixtures("tiny")
def test_bad_files_leave_the_others_unharmed(
    medvlm, bad_files: dict[str, Path], tmp_path: Path
) -> None:
    run = medvlm("draft", *bad_files.values(), sample_film(), "--out", tmp_path / "out")
    assert run.code == 1
    (draft,) = (tmp_path / "out").glob("*/draft.json")
    assert Draft.model_validate_json(draft.read_text()).input_check.accepted


@pytest.mark.usefixtures("tiny")
def test_a_ct_and_a_wrist_are_refused_with_reasons(medvlm, tmp_path: Path) -> None:
    wrist = synthetic(np.tile(np.arange(300, dtype=np.uint16), (300, 1)))
    wrist.BodyPartExamined = "WRIST"
    wrist.save_as(tmp_path / "wrist.dcm", enforce_file_format=True)
    out = tmp_path / "out"
    run = medvlm("draft", shipped("CT_small.dcm"), tmp_path / "wrist.dcm", "--out", out, "--json")
    assert run.code == 0
    assert [study["accepted"] for study in json.loads(run.out)["studies"]] == [False, False]
    codes = set()
    for path in out.glob("*/draft.json"):
        draft = Draft.model_validate_json(path.read_text())
        codes |= {reason.code for reason in draft.input_check.reasons}
        assert not (path.parent / "overlay.png").exists()
    assert {"wrong_modality", "wrong_body_part"} <= codes


@pytest.mark.usefixtures("tiny")
def test_a_second_run_resumes_and_a_broken_draft_is_redone(medvlm, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = medvlm("draft", sample_film(), "--out", out, "--json")
    assert first.code == 0
    (study,) = json.loads(first.out)["studies"]
    assert not study["resumed"]
    assert sorted(p.name for p in Path(study["draft"]).parent.glob("[!.]*")) == [
        "crops",
        "draft.json",
        "draft.md",
        "overlay.png",
    ]
    again = json.loads(medvlm("draft", sample_film(), "--out", out, "--json").out)
    assert again["studies"][0]["resumed"]
    Path(study["draft"]).write_text('{"schema_version": ')
    redone = json.loads(medvlm("draft", sample_film(), "--out", out, "--json").out)
    assert not redone["studies"][0]["resumed"]
    Draft.model_validate_json(Path(study["draft"]).read_text())


@pytest.mark.usefixtures("tiny")
def test_ask_prints_json_and_nothing_else(medvlm) -> None:
    run = medvlm("ask", sample_film(), "Where is the left lung?", "--json")
    assert run.code == 0
    assert set(json.loads(run.out)) == {
        "question",
        "answer",
        "probability",
        "regions",
        "evidence",
        "input_check",
        "model",
    }


@pytest.mark.usefixtures("tiny")
def test_ask_wants_one_image(medvlm, tmp_path: Path) -> None:
    shutil.copy(sample_film(), tmp_path / "a.dcm")
    shutil.copy(shipped("CT_small.dcm"), tmp_path / "b.dcm")
    run = medvlm("ask", tmp_path, "Is this normal?")
    assert run.code == 2
    assert "--instance" in run.err
    uid = next(line.strip() for line in run.err.splitlines() if line.strip()[:1].isdigit())
    assert medvlm("ask", tmp_path, "Is this normal?", "--instance", uid, "--json").code == 0
    assert medvlm("ask", tmp_path, "Is this normal?", "--instance", "1.2.3").code == 2


@pytest.mark.parametrize("region", ["1,2,3", "a,b,c,d", "1,2,0,5", "nan,1,2,3", "1,2,inf,4"])
def test_a_bad_region_is_wrong_usage(medvlm, region: str) -> None:
    run = medvlm("ask", sample_film(), "What is this?", "--region", region)
    assert run.code == 2
    assert "--region" in run.err


def test_inspect_counts_every_file(medvlm, bad_files: dict[str, Path]) -> None:
    run = medvlm("inspect", bad_files["not_dicom"].parent, sample_film(), "--json")
    assert run.code == 0
    inspection = json.loads(run.out)
    found = sum(s["instances"] for study in inspection["studies"] for s in study["series"])
    assert found + len(inspection["refused"]) == len(bad_files) + 1
    assert medvlm("inspect", bad_files["empty"]).code == 1


@pytest.mark.parametrize(
    "command",
    ["inspect", "draft", "ask", "deidentify", "evaluate", "pretrain", "train", "release", "app"],
)
def test_help(medvlm, command: str) -> None:
    run = medvlm(command, "--help")
    assert run.code == 0
    assert "Usage" in run.out


def test_wrong_usage_and_missing_files(medvlm, tmp_path: Path) -> None:
    assert medvlm("draft").code == 2
    assert medvlm("inspect", tmp_path / "missing").code == 1
    missing = medvlm("train", tmp_path / "missing.yaml")
    assert missing.code == 1
    assert "missing.yaml" in missing.err


@pytest.mark.usefixtures("tiny")
def test_two_patients_under_one_uid_in_two_calls_keep_their_drafts(medvlm, tmp_path: Path) -> None:
    uid = generate_uid()
    for patient in ("A", "B"):
        pixels = np.random.default_rng(ord(patient)).integers(0, 4000, (300, 260))
        ds = synthetic(pixels.astype(np.uint16), StudyInstanceUID=uid, PatientID=patient)
        save(ds, tmp_path / f"{patient}.dcm")
        assert medvlm("draft", tmp_path / f"{patient}.dcm", "--out", tmp_path / "out").code == 0
    folders = sorted(path.parent.name for path in (tmp_path / "out").glob("*/draft.json"))
    assert folders[0] == uid
    assert len(folders) == 2
    assert folders[1].startswith(f"{uid}-")


@pytest.mark.usefixtures("tiny")
def test_results_must_not_lie_in_the_input_itself(medvlm, tmp_path: Path) -> None:
    assert medvlm("draft", tmp_path, "--out", tmp_path).code == 2


def test_results_that_cannot_be_written_are_wrong_usage(medvlm, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = medvlm("draft", sample_film(), "--out", tmp_path / "file")
    assert run.code == 2
    assert "written" in run.err


def test_a_link_to_itself_fails_alone(medvlm, tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to(tmp_path / "x")
    assert medvlm("draft", tmp_path / "x", "--out", tmp_path / "out").code == 1
