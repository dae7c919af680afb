"""`medvlm app`: what it refuses, how the server is set up, and that it leaves nothing running."""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from medvlm.cli import application
from medvlm.config.desk import Oidc
from medvlm.desk.discreet import Discreet
from medvlm.errors import ConfigError, UsageError

NAMES = ("DATABASE", "DESK_CONFIG", "DESK_FILES", "DESK_WATCH", "DESK_DRAFTING")


@pytest.fixture(autouse=True)
def _own_desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command sets is unset again."""
    monkeypatch.setenv("MEDVLM_DESK", str(tmp_path / "desk"))
    for name in NAMES:
        monkeypatch.setenv(f"MEDVLM_{name}", "")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """The server's command line that the options make; or raises what they raise."""
    commands: list[list[str]] = []
    pages = importlib.import_module("medvlm.cli.page")
    monkeypatch.setattr(pages, "_run", commands.append)

    def called(*options: str) -> list[str]:
        result = CliRunner().invoke(application, ["app", *options])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0
        return commands[-1]

    return called


def test_it_listens_to_this_machine_only(command: Callable[..., list[str]]) -> None:
    options = command()
    assert "--server.address=localhost" in options
    assert "--browser.gatherUsageStats=false" in options
    assert "--server.enableXsrfProtection=true" in options
    assert "--server.maxUploadSize=2048" in options
    assert options[4].endswith("server.py")


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.7", "desk.example"])
def test_other_machines_need_a_log_in(command: Callable[..., list[str]], address: str) -> None:
    with pytest.raises(UsageError, match="no log-in"):
        command("--address", address)
    assert f"--server.address={address}" in command("--address", address, "--allow-anonymous")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "127.1.2.3"])
def test_these_are_this_machine(command: Callable[..., list[str]], address: str) -> None:
    assert f"--server.address={address}" in command("--address", address)


def test_options_reach_the_desks_processes(
    command: Callable[..., list[str]], tmp_path: Path
) -> None:
    config = tmp_path / "desk.yaml"
    config.write_text("upload_mb: 7\n")
    url = "postgresql://desk:hunter2@db/desk"
    options = command(
        *("--config", str(config), "--database", url, "--files", str(tmp_path / "files")),
        *("--watch", str(tmp_path / "a"), "--watch", str(tmp_path / "b"), "--no-drafting"),
    )
    assert "--server.maxUploadSize=7" in options
    assert not any("hunter2" in option for option in options)  # other users see command lines
    assert os.environ["MEDVLM_DATABASE"] == url
    assert os.environ["MEDVLM_DESK_WATCH"] == f"{tmp_path / 'a'}{os.pathsep}{tmp_path / 'b'}"
    assert os.environ["MEDVLM_DESK_DRAFTING"] == "false"
    config.write_text("upload: 7\n")
    with pytest.raises(ConfigError, match="upload"):
        command("--config", str(config))


def test_log_in_and_hosts() -> None:
    code = (
        "import app.server as s; from medvlm.config.desk import Oidc; import json, sys;"
        "o = Oidc(client_id='c', client_secret='x', redirect_uri='https://d/oauth2callback',"
        " server_metadata_url='https://l/'); print(json.dumps([s.log_in(o)['auth'],"
        " s.allowed_hosts('localhost', ()), s.allowed_hosts('0.0.0.0', ('d',)),"
        " s.allowed_hosts('0.0.0.0', ()), s.allowed_hosts('127.0.0.1', ('d',))]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    auth, own, named, open_, proxied = json.loads(done.stdout)
    assert auth["redirect_uri"] == "https://d/oauth2callback"
    assert len(auth["cookie_secret"]) == 64
    assert auth["sign"]["client_kwargs"]["prompt"] == "login"
    assert auth["sign"]["client_id"] == auth["client_id"] == "c"
    assert "*" not in own
    assert "d" in named
    assert "*" not in named
    assert open_ == ["*"]
    assert proxied == [*own, "d"]
    assert "x" not in repr(Oidc.model_fields)


def test_errors_are_told_without_their_words(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("medvlm.desk.test")
    logger.addFilter(Discreet())
    try:
        raise KeyError("Doe^Jane")
    except KeyError:
        logger.exception("it failed")
    assert "it failed: KeyError" in caplog.text
    assert "Doe" not in caplog.text


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
        return number


def _children(pid: int) -> set[int]:
    """Processes below it, as Linux tells."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if parent == pid:
                found.add(int(entry.name))
    return found


def _gone(pids: set[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def _until(true: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_the_server_and_its_end(port: int, root: Path, tmp_path: Path, end: signal.Signals) -> None:
    url = f"http://localhost:{port}"

    def status(path: str, **headers: str) -> int | None:
        request = urllib.request.Request(url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return None

    command = [sys.executable, "-m", "medvlm", "app", "--port", str(port)]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as server:
        try:
            _until(lambda: status("/_stcore/health") == 200)
            assert status("/") == 200
            assert status("/desk/images/" + "0" * 32) == 401
            assert status("/", Host="elsewhere.example") == 400
            children = _until(lambda: len(found := _children(server.pid)) >= 2 and found)
            time.sleep(3)  # they have come up
        finally:
            server.send_signal(end)
        _until(lambda: server.poll() is not None, 20)
        _until(lambda: _gone(children), 20)
        told_on_stderr = server.stderr.read() if server.stderr else ""
    assert "Traceback" not in told_on_stderr
    assert "Fatal" not in told_on_stderr
