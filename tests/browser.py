"""The page in a real browser: Chromium through Playwright, against a real Streamlit server.

Both are optional: `browser()` skips the test, with the reason, where one of them is absent.
Screenshots go to `out/screenshots` or MEDVLM_SCREENSHOTS; MEDVLM_CHROMIUM names another browser.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parent.parent
WAIT_S = 60.0


def chromium_path() -> Path | None:
    """The browser's program, None where there is none."""
    named = os.environ.get("MEDVLM_CHROMIUM")
    found = named or shutil.which("chromium") or shutil.which("google-chrome")
    return Path(found) if found else None


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless Chromium; skips the test where it or Playwright is absent."""
    api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    program = chromium_path()
    if program is None:
        pytest.skip("needs Chromium (set MEDVLM_CHROMIUM)")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=str(program), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield opened
        finally:
            opened.close()


@contextmanager
def page_at(
    opened: Browser, url: str, *, width: int = 1600, height: int = 1000, scale: float = 1.0
) -> Iterator[Page]:
    """A page of its own session at the address. `scale`: device pixels per CSS pixel.

    Raises AssertionError at the end if the page's scripts threw anything.
    """
    context = opened.new_context(
        viewport={"width": width, "height": height}, device_scale_factor=scale, locale="en-GB"
    )
    thrown: list[str] = []
    try:
        page = context.new_page()
        page.on("pageerror", lambda error: thrown.append(str(error)))
        page.goto(url)
        yield page
    finally:
        context.close()
    assert not thrown, thrown


def screenshot(page: Page, name: str) -> Path:
    """The page as a PNG in the screenshots folder."""
    folder = Path(os.environ.get("MEDVLM_SCREENSHOTS", ROOT / "out" / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    page.screenshot(path=str(path))
    return path


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
    return port


@contextmanager
def served(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> Iterator[str]:
    """Runs a server until the block ends; yields its address once it answers.

    `{port}` in the command stands for a free port. Raises RuntimeError with the end of what the
    server said when it ends or does not answer within a minute.
    """
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [part.replace("{port}", str(port)) for part in command],
            stdout=said,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
            start_new_session=True,
        )
        try:
            if not _answers(process, f"{address}/_stcore/health"):
                said.seek(0)
                raise RuntimeError(said.read()[-4000:].decode(errors="replace"))
            yield address
        finally:
            _end(process)


@contextmanager
def streamlit_server(
    script: Path, *, env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> Iterator[str]:
    """`streamlit run` of a script, or of one that makes an `st.App`, on a free port."""
    command = [
        *(sys.executable, "-m", "streamlit", "run", str(script)),
        *("--server.port", "{port}", "--server.address", "127.0.0.1"),
        *("--server.headless", "true", "--browser.gatherUsageStats", "false"),
        *("--server.fileWatcherType", "none"),
    ]
    with served(command, env=env, cwd=cwd) as address:
        yield address


def _answers(process: subprocess.Popen[bytes], url: str) -> bool:
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2) as response:
                if response.status == 200:
                    return True
        except OSError:
            time.sleep(0.1)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the server and what it started."""
    for ending in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, ending)
        except ProcessLookupError:
            break
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            continue
    process.wait(10)
