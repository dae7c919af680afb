"""The processes beside the server: kept running, ended with it; and the page without a model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from medvlm.config.desk import DeskConfig
from medvlm.desk import service as services
from medvlm.desk.service import Child, Service, drafting_state
from medvlm.review import jobs
from medvlm.review import store as stores
from medvlm.review.store import Store
from medvlm.review.worklist import Filter, worklist
from tests.dicoms import save, synthetic

pytest_plugins = ["tests.desk"]

GREY = np.arange(20, dtype=np.uint16).reshape(4, 5)
TORCH = ("torch", "torchvision", "timm", "transformers", "peft")


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def test_whether_drafts_are_made(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    on = DeskConfig()
    assert drafting_state(store, DeskConfig(drafting=False)) == "off"
    assert drafting_state(store, on) == "stopped"
    jobs.claim(store, "somewhere")
    assert drafting_state(store, on) == "running"
    monkeypatch.setattr(services, "model_available", lambda: False)
    assert drafting_state(store, on) == "running"  # on another machine
    later = stores.now() + timedelta(minutes=5)
    monkeypatch.setattr(stores, "now", lambda: later)
    assert drafting_state(store, on) == "absent"


def test_without_a_model_nothing_drafts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "model_available", lambda: False)
    assert Service(store, DeskConfig()).worker is None
    monkeypatch.setattr(services, "model_available", lambda: True)
    assert Service(store, DeskConfig()).worker is not None
    assert Service(store, DeskConfig(drafting=False)).worker is None


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Child]:
    """A child that runs a piece of Python instead."""

    def made(code: str) -> Child:
        monkeypatch.setattr(services, "_command", lambda _: [sys.executable, "-c", code])
        return Child("stand-in")

    return made


def test_a_child_that_dies_is_started_again(
    child: Callable[[str], Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "FIRST_PAUSE_S", 0.01)
    one = child("import time; time.sleep(60)")
    one.start()
    try:
        until(lambda: one.pid is not None)
        first = one.pid
        os.kill(first or 0, signal.SIGKILL)
        until(lambda: one.pid not in (None, first))
        assert one.starts == 2
    finally:
        one.stop()
    assert one.pid is None


def test_pauses_grow(child: Callable[[str], Child], monkeypatch: pytest.MonkeyPatch) -> None:
    one = child("raise SystemExit(3)")
    pauses: list[float] = []

    def wait(seconds: float | None = None) -> bool:
        pauses.append(seconds or 0)
        if len(pauses) > 8:
            one._ending.set()
        return False

    monkeypatch.setattr(one._ending, "wait", wait)
    one._supervise()
    assert pauses[:8] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_child_that_will_not_end_is_ended(
    child: Callable[[str], Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "PATIENCE_S", 0.3)
    one = child("import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)")
    one.start()
    until(lambda: one.pid is not None)
    one.stop()
    assert one.pid is None


@pytest.mark.slow
def test_the_keeper_watches_and_prepares(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    save(synthetic(GREY), incoming / "film.dcm")
    config = tmp_path / "desk.yaml"
    config.write_text(
        f"database: sqlite:///{store.engine.url.database}\nfiles: {store.files}\ndrafting: false\n"
        f"watch:\n  - folder: {incoming}\n    stable_seconds: 1\n"
    )
    monkeypatch.setenv("MEDVLM_DESK_CONFIG", str(config))
    service = Service(store, DeskConfig.from_yaml(config))
    service.start()
    try:
        until(lambda: bool(worklist(store, Filter()).rows))
        row = worklist(store, Filter()).rows[0]
        cache = store.files / row.id / "cache"
        until(lambda: any(cache.glob("*.raw")) and not (cache / ".wanted").exists())
        pid = service.keeper.pid
    finally:
        service.stop()
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


_PAGE = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(name)
if {blocked}:
    sys.meta_path.insert(0, Absent())
from pathlib import Path
from medvlm.desk.drafter import model_available
assert model_available() is not {blocked}
import app.server
from medvlm.desk.intake import take_in
from medvlm.desk.pixels import frame_bytes, image_header
from medvlm.desk.service import drafting_state
from medvlm.review import worklist
from medvlm.review.people import local_person
store = app.server._store()
taken = take_in(store, [Path(sys.argv[1])], local_person(store))
image = worklist.images(store, taken.added[0])[0]
assert image_header(store, image.id).rows == 4
assert len(frame_bytes(store, image.id, 0).data) == 40
print(drafting_state(store))
store.close()
loaded = [name for name in {names!r} if name in sys.modules]
assert not loaded, loaded
"""


@pytest.mark.parametrize(("blocked", "state"), [(False, "stopped"), (True, "absent")])
def test_the_page_imports_no_torch(
    store: Store, tmp_path: Path, root: Path, blocked: bool, state: str
) -> None:
    film = save(synthetic(GREY), tmp_path / "film.dcm")
    done = subprocess.run(
        [sys.executable, "-c", _PAGE.format(names=TORCH, blocked=blocked), str(film)],
        env={**os.environ, "MEDVLM_DESK": str(tmp_path / "desk")},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == state
