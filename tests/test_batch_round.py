"""`medvlm draft` from a PACS and back to it, by one command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medvlm.batch import web
from medvlm.batch.dicomweb import SCHEME
from medvlm.cli import application
from tests.dicoms import shipped, synthetic
from tests.orthanc import PASSWORD, Orthanc
from tests.test_batch_report_back import FILM, ramp, reports

pytest_plugins = ["tests.orthanc"]


@pytest.fixture(autouse=True)
def processes_find_it(tiny: Path, tiny_language: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny language model, where drafts are made in a process of their own."""
    monkeypatch.setenv("MEDVLM_LLM_PATH", str(tiny_language))


def told(out: Path, *arguments: str) -> tuple[int, dict]:  # type: ignore[type-arg]
    done = CliRunner().invoke(
        application, ["draft", *arguments, "--out", str(out), "--workers", "1", "--json"]
    )
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, json.loads(done.stdout)


def test_from_the_pacs_to_drafts_and_back(
    orthanc: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orthanc.upload(shipped(FILM), shipped("CT_small.dcm"), synthetic(ramp()))
    out = tmp_path / "out"
    code, first = told(out, orthanc.url)
    assert (code, first["summary"]["drafted"], first["summary"]["refused"]) == (0, 2, 1)
    before = orthanc.count()
    # A run that sends opens again what an earlier one only drafted; nothing is drafted twice.
    monkeypatch.setenv(web.PASSWORD, "wrong")
    code, _ = told(out, orthanc.url, "--send-sr", "source")
    assert code == 1
    monkeypatch.setenv(web.PASSWORD, PASSWORD)
    code, sent = told(out, orthanc.url, "--send-sr", "source", "--sr-kind", "comprehensive")
    assert (code, sent["summary"]["resumed"], sent["failed"]) == (0, 3, [])
    assert orthanc.count() == before + 2
    for row in sent["studies"]:
        study = Path(row["draft"]).parent.name
        found = reports(orthanc, study)
        assert len(found) == row["accepted"]
        for report in found:
            assert report.PreliminaryFlag == "PRELIMINARY"
            assert report.CompletionFlag == "PARTIAL"
            assert report.VerificationFlag == "UNVERIFIED"
            assert report.StudyInstanceUID == study
    code, again = told(out, orthanc.url, "--send-sr", "source", "--sr-kind", "comprehensive")
    assert (code, again["summary"]["resumed"]) == (0, 3)
    assert orthanc.count() == before + 2


def test_drafts_of_files_go_to_the_server_that_is_named(orthanc: Orthanc, tmp_path: Path) -> None:
    film = shipped(FILM)
    out = tmp_path / "out"
    code, _ = told(out, str(film), "--send-sr", SCHEME + orthanc.address)
    assert (code, orthanc.count()) == (0, 1)


def test_files_come_from_no_server(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        application, ["draft", "film.dcm", "--out", str(tmp_path), "--send-sr", "source"]
    )
    assert "no server" in str(done.exception)
