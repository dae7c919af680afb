"""`medvlm serve`: its options, tokens, and the process as a whole."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2 as httpx
import pytest
from typer.testing import CliRunner

from medvlm.cli.serve import serve
from medvlm.config.serve import ServeConfig
from medvlm.errors import CheckpointError, ConfigError, UsageError
from medvlm.serve.tokens import VARIABLE, read_tokens
from tests.dicoms import ramp, save, synthetic


def refused(*options: str) -> BaseException:
    result = CliRunner().invoke(serve, list(options))
    assert result.exception is not None
    return result.exception


def test_a_token_is_printed_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    made = CliRunner().invoke(serve, ["token", "ward-3", "--tokens", str(path)])
    assert made.exit_code == 0
    token = made.stdout.strip()
    assert token not in path.read_text()
    assert read_tokens(path).whose(f"Bearer {token}") == "ward-3"
    again = refused("token", "ward-3", "--tokens", str(path))
    assert isinstance(again, UsageError)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "serve.example"])
def test_other_machines_need_a_token(
    tiny: Path, tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    error = refused("--host", host, "--store", str(tmp_path / "store"))
    assert isinstance(error, UsageError)
    assert "no tokens" in error.message


def test_mistakes_are_told_at_once(tiny: Path, tmp_path: Path) -> None:
    assert isinstance(refused("--checkpoint", "nowhere"), CheckpointError)
    assert isinstance(refused("--tokens", str(tmp_path / "none")), ConfigError)
    wrong = tmp_path / "serve.yaml"
    wrong.write_text("ports: 1\n")
    assert isinstance(refused("--config", str(wrong)), ConfigError)
    (tmp_path / "file").touch()
    assert isinstance(refused("--store", str(tmp_path / "file")), UsageError)


def test_the_example_shows_every_key(root: Path) -> None:
    text = (root / "configs" / "serve.yaml").read_text(encoding="utf-8")
    assert ServeConfig.from_yaml(root / "configs" / "serve.yaml") == ServeConfig()
    shown = {line[1:].split(":")[0] for line in text.splitlines() if line.startswith("#")}
    assert set(ServeConfig.model_fields) <= shown


def test_the_process_serves_and_ends(tiny: Path, tiny_language: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = "t" * 30
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", "from medvlm.cli.serve import serve; serve()"),
            *("--port", str(port), "--store", str(tmp_path / "store")),
            *("--checkpoint", str(tiny), "--llm-path", str(tiny_language)),
        ],
        env={**os.environ, VARIABLE: token, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        made = synthetic(ramp(), PatientName="Planted^Quentin", StudyInstanceUID="1.2.3.4.5")
        film = save(made, tmp_path / "Planted.dcm").read_bytes()
        base, bearer = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=base, headers=bearer, timeout=60) as client:
            for _ in range(600):
                try:
                    if client.get("/health/ready").status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                assert process.poll() is None, process.communicate()
                time.sleep(0.1)
            files = {"files": ("Planted.dcm", film, "application/dicom")}
            assert client.post("/v1/studies", files=files).status_code == 201
            assert client.post("/v1/studies/1.2.3.4.5/draft?wait=60").status_code == 200
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode in (0, -signal.SIGTERM)
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines[-1]["route"] == "/v1/studies/{uid}/draft"
    for secret in ("Planted", "1.2.3.4.5", token):
        assert secret not in out + err
    assert f"http://127.0.0.1:{port}" in err
    assert "Traceback" not in err
