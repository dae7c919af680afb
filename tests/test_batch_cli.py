"""`medvlm draft` over many studies: exit codes, summary, JSON, resuming, interruption."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from medvlm.batch.local import LocalEngine
from medvlm.batch.outcome import Outcome
from medvlm.batch.tally import Tally
from medvlm.cli import main, run
from medvlm.cli.run import Report, followed
from medvlm.dicom.read import Refused
from tests.dicoms import shipped
from tests.night import film, night


class Command(Counter[str]):
    """What a command left."""

    code: int
    out: str
    err: str


@pytest.fixture
def medvlm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def call(*arguments: object) -> Command:
        monkeypatch.setattr(sys, "argv", ["medvlm", *map(str, arguments)])
        capsys.readouterr()
        left = Command()
        try:
            main()
            left.code = 0
        except SystemExit as stop:
            left.code = int(stop.code or 0)
        left.out, left.err = capsys.readouterr()
        assert "Traceback" not in left.err + left.out
        return left

    return call


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four films of which two are broken, and a CT that the gate refuses."""
    folder = tmp_path / "in"
    night(folder, 4, 2)
    (folder / "ct.dcm").write_bytes(shipped("CT_small.dcm").read_bytes())
    return folder


@pytest.mark.usefixtures("tiny")
def test_a_run_tells_what_became_of_every_input(medvlm, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = medvlm("draft", source, "--out", out)
    assert first.code == 1
    assert "2 drafted, 1 refused by the gate, 2 failed" in first.out
    for words in ("wrong_modality", "truncated_pixels", "not_dicom", "studies per hour"):
        assert words in first.err
    assert first.err.count("failed: ") == 2
    assert len(list(out.glob("quarantine/*.json"))) == 2
    assert (out / "findings.parquet").is_file()
    assert not (out / ".claims").exists()
    assert not (out / ".scratch").exists()
    again = medvlm("draft", source, "--out", out, "--json")
    assert again.code == 1
    told = json.loads(again.out)
    assert [study["resumed"] for study in told["studies"]] == [True] * 3
    assert {Path(item["file"]).name: item["code"] for item in told["failed"]} == {
        "0001.dcm": "truncated_pixels",
        "0003.dcm": "not_dicom",
    }
    summary = told["summary"]
    assert summary["drafted"] == 2
    assert summary["resumed"] == 3
    assert summary["refused_for"] == {"wrong_modality": 1}
    assert summary["failed_for"] == {"not_dicom": 1, "truncated_pixels": 1}


@pytest.mark.usefixtures("tiny")
def test_what_failed_is_told_again_and_tried_again_when_asked(
    medvlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film(1).save_as(tmp_path / "film.dcm", enforce_file_format=True)
    command = ("draft", tmp_path / "film.dcm", "--out", tmp_path / "out")

    def failing(*arguments: object, **options: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr("medvlm.draft.compose.draft_study", failing)
        assert medvlm(*command).code == 1
    again = medvlm(*command)
    assert again.code == 1
    assert "film.dcm" in again.err
    assert "[internal]" in again.err
    assert medvlm(*command, "--retry-failed").code == 0
    assert medvlm(*command).code == 0


@pytest.mark.usefixtures("tiny")
def test_a_manifest_names_inputs(medvlm, source: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"path\n{source / '0000.dcm'}\n{source / '0001.dcm'}\n")
    done = medvlm("draft", "--manifest", manifest, "--out", tmp_path / "out", "--json")
    assert done.code == 1
    told = json.loads(done.out)
    assert [study["accepted"] for study in told["studies"]] == [True]
    assert [item["code"] for item in told["failed"]] == ["truncated_pixels"]


@pytest.mark.usefixtures("tiny")
def test_an_interrupted_run_says_how_to_go_on(
    medvlm, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> Iterator[list[Outcome]]:
        yield from ()
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalEngine, "run", interrupted)
    done = medvlm("draft", source, "--out", tmp_path / "out")
    assert done.code == 130
    assert "the same command goes on" in done.err


def test_a_run_needs_an_input(medvlm, tmp_path: Path) -> None:
    assert medvlm("draft", "--out", tmp_path / "out").code == 2
    assert medvlm("draft", tmp_path, "--out", tmp_path / "out", "--workers", 0).code == 2


def outcomes(count: int) -> Iterator[list[Outcome]]:
    for number in range(count):
        yield [Outcome("drafted", f"study-{number}", summary="nothing found")]
        if number % 10 == 0:
            failure = Refused(f"film {number}", "undecodable", "It does not decode.", "Send it.")
            yield [Outcome.of_failure(failure)]


def test_many_studies_are_counted_and_not_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for count, listed in ((50, True), (51, False)):
        report = Report(tmp_path)
        followed(outcomes(count), report, None)
        report.tell()
        report.tell_failures()
        report.close()
        told = capsys.readouterr()
        assert ("study-7" in told.out) == listed
        assert f"{count} drafted" in told.out
        assert told.err.count("failed: film") == report.tally.failed.total()


def test_progress_is_told_in_lines_where_there_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = Report(tmp_path)
    monkeypatch.setattr(run, "EVERY_S", 0.0)
    followed(outcomes(3), report, 4)
    report.close()
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 4
    assert told[-1].startswith("4 of 4 done, ")
    assert "1 failed" in told[-1]


def test_the_pace_is_of_what_was_drafted_lately() -> None:
    now = 0.0
    tally = Tally(clock=lambda: now)
    for _ in range(100):  # an earlier run's, passed at once
        tally.add([Outcome("drafted", "x", resumed=True)])
    assert tally.per_hour == 0
    for _ in range(20):
        now += 36.0
        tally.add([Outcome("drafted", "x"), Outcome.of_failure(Refused("f", "internal", "m"))])
    assert "100 studies/h" in tally.pace(None)
    assert "20 failed" in tally.pace(None)
    assert "0:36:00 left" in tally.pace(180)
    assert tally.per_hour == pytest.approx(100)
    assert tally.record()["drafted"] == 120
    assert tally.record()["resumed"] == 100
