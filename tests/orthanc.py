"""A real PACS for tests: Debian's Orthanc with its DICOMweb plug-in, on a free port.

A test module asks for the fixtures with ``pytest_plugins = ["tests.orthanc"]``, and imports the
rest. PYTEST_DONT_REWRITE: pytest would warn of the one before the other.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom import dcmread
from pydicom.dataset import Dataset

from medvlm.batch import web

USER, PASSWORD = "night", "hunter2-secret"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
PATIENCE = 60  # seconds for it to start


@dataclass
class Orthanc:
    """A running server; `clear` and `upload` use its own interface, not the one under test."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/dicom-web"

    @property
    def url(self) -> str:
        return f"dicomweb+{self.address}"

    def upload(self, *files: Path | Dataset) -> None:
        for file in files:
            if isinstance(file, Path):
                content = file.read_bytes()
            else:
                with BytesIO() as stream:
                    file.save_as(stream, enforce_file_format=True)
                    content = stream.getvalue()
            self.own("POST", "instances", content)

    def clear(self) -> None:
        for study in json.loads(self.own("GET", "studies")):
            self.own("DELETE", f"studies/{study}")

    def count(self) -> int:
        """Instances in all studies."""
        return int(json.loads(self.own("GET", "statistics"))["CountInstances"])

    def instances(self, study: str) -> dict[str, Dataset]:
        """By Orthanc's own interface: the objects of a study by SOPInstanceUID."""
        query = json.dumps({"Level": "Instance", "Query": {"StudyInstanceUID": study}})
        found = json.loads(self.own("POST", "tools/find", query.encode()))
        files = [dcmread(BytesIO(self.own("GET", f"instances/{one}/file"))) for one in found]
        return {str(ds.SOPInstanceUID): ds for ds in files}

    def qido(self, path: str) -> list[dict[str, Any]]:
        """As another client of the PACS would ask."""
        return list(json.loads(self.own("GET", f"dicom-web/{path}")))

    def own(self, method: str, path: str, body: bytes | None = None) -> bytes:
        answer = requests.request(
            method,
            f"http://127.0.0.1:{self.port}/{path}",
            data=body,
            auth=(USER, PASSWORD),
            headers={"Accept": "application/json, application/dicom+json, */*"},
            timeout=60,
        )
        answer.raise_for_status()
        return answer.content

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def running_orthanc() -> Iterator[Orthanc]:
    """Starts one with an empty storage, and removes it; skips where it cannot start."""
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    if program is None or not PLUGIN.is_file():
        pytest.skip("needs Orthanc with DICOMweb (Debian packages orthanc, orthanc-dicomweb)")
    folder = Path(tempfile.mkdtemp(prefix="medvlm-orthanc-"))
    port = free_port()
    settings = {
        "Name": "MEDVLM-TEST",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "Plugins": [str(PLUGIN)],
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False},
        "OverwriteInstances": False,
        "HttpThreadsCount": 8,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, str(folder / "orthanc.json")], cwd=folder, stdout=log, stderr=log
        )
    orthanc = Orthanc(port, process)
    try:
        if not _is_up(orthanc):
            pytest.skip(f"Orthanc does not start here: {(folder / 'log').read_text()[-500:]}")
        yield orthanc
    finally:
        orthanc.stop()
        shutil.rmtree(folder)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _is_up(orthanc: Orthanc) -> bool:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and orthanc.process.poll() is None:
        try:
            orthanc.own("GET", "system")
            return True
        except requests.RequestException:
            time.sleep(0.1)
    return False


@pytest.fixture(scope="session")
def _orthanc() -> Iterator[Orthanc]:
    with running_orthanc() as one:
        yield one


@pytest.fixture
def log_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The right user and password, as a site would set them; little patience with a server."""
    monkeypatch.delenv(web.TOKEN, raising=False)
    monkeypatch.setenv(web.USER, USER)
    monkeypatch.setenv(web.PASSWORD, PASSWORD)
    monkeypatch.setattr(web, "BACK_OFF", 0.01)
    web._session.cache_clear()


@pytest.fixture
def orthanc(_orthanc: Orthanc, log_in: None) -> Iterator[Orthanc]:
    """An empty PACS on which the test is logged in."""
    _orthanc.clear()
    yield _orthanc
    web._session.cache_clear()
