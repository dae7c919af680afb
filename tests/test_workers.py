"""Worker processes in the lives of the programs that use them: endings, forks, deaths."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from medvlm.dicom import workers
from medvlm.errors import ConfigError
from tests.dicoms import shipped

FILM = shipped("MR_small_RLE.dcm")


def script(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Runs a script as a user writes it, with no guard around its main part."""
    path = folder / "script.py"
    head = f"""
        import os, sys
        from medvlm.dicom.read import read_inputs
        from medvlm.image.load import load_image, load_images
        instances = read_inputs({str(FILM)!r}).instances
    """
    path.write_text(textwrap.dedent(head) + textwrap.dedent(body))
    command = [sys.executable, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_program_may_end_with_work_under_way(tmp_path: Path) -> None:
    done = script(tmp_path, "rest = load_images(instances * 500)\nnext(rest)\nprint('end')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_has_workers_of_its_own(tmp_path: Path) -> None:
    body = """
        load_image(instances[0])
        child = os.fork()
        if child == 0:
            os._exit(load_image(instances[0]).height != 64)
        print(os.waitpid(child, 0)[1], load_image(instances[0]).height)
    """
    done = script(tmp_path, body)
    assert done.stdout == "0 64\n", done.stderr


def test_a_python_that_cannot_be_started_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    workers.end_resting()
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(ConfigError, match="/no/such/python"):
        workers.in_worker(len, "abc")


def test_no_more_processes_rest_than_may_work() -> None:
    spare = [workers._take() for _ in range(3)]
    workers.end_resting()
    limit = workers.MOST_PROCESSES
    try:
        workers.MOST_PROCESSES = 2
        workers._give_back(spare)
    finally:
        workers.MOST_PROCESSES = limit
    assert [worker.alive for worker in spare].count(True) == 2
    workers.end_resting()
    assert not any(worker.alive for worker in spare)
