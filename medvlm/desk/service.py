"""The processes beside the page's server: the one that drafts, and the one that keeps the desk.

Each is started, and started again with growing pauses when it ends by itself. Whether drafts are
made is told by the sign of life in the database, so that it holds for a worker elsewhere, too.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Literal

from medvlm.config.desk import DeskConfig, desk_config
from medvlm.desk.alone import BUSY
from medvlm.desk.drafter import model_available
from medvlm.errors import StoreError
from medvlm.resources import resource_dir
from medvlm.review import jobs
from medvlm.review import store as stores
from medvlm.review.store import Store

DraftingState = Literal["running", "stopped", "absent", "off"]
"""`stopped`: there is a model, and no process that drafts; `absent`: no model is installed."""

SILENCE = timedelta(seconds=45)
STARTING_S = 30.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
SETTLED_S = 60.0  # after so long, an end by itself is no sign of a fault in the beginning
PATIENCE_S = 12.0  # for a process that was told to end
_MAIN = "import sys; sys.path[:] = sys.argv[1:]; from medvlm.desk.{0} import main; main()"
_log = logging.getLogger(__name__)
_starting: dict[Path, float] = {}


class Child:
    """A process that is kept running: `medvlm.desk.<name>`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.starts = 0
        self._ending = Event()
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = Thread(target=self._supervise, daemon=True, name=f"desk-{name}")

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Tells it to end, and ends it if it takes too long."""
        self._ending.set()
        with self._lock:
            process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._thread.join(PATIENCE_S)

    def _supervise(self) -> None:
        pause = FIRST_PAUSE_S
        while not self._ending.is_set():
            began = time.monotonic()
            code = self._run()
            if self._ending.is_set():
                return
            if time.monotonic() - began > SETTLED_S:
                pause = FIRST_PAUSE_S
            if code != BUSY:
                _log.warning("the desk's %s has ended (%s); it is started again", self.name, code)
            self._ending.wait(pause)
            pause = min(2 * pause, 10 if code == BUSY else LONGEST_PAUSE_S)

    def _run(self) -> int:
        with self._lock:
            if self._ending.is_set():
                return 0
            self._process = subprocess.Popen(_command(self.name), stdin=subprocess.PIPE)
            self.starts += 1
        code = self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        return code


class Service:
    """What runs beside the server while it runs."""

    def __init__(self, store: Store, config: DeskConfig) -> None:
        self.store = store
        self.keeper = Child("keeper")
        self.worker = Child("worker") if config.drafting and model_available() else None

    def start(self) -> None:
        """Starts the processes and returns at once."""
        _starting[self.store.files] = time.monotonic()
        self.keeper.start()
        if self.worker is not None:
            self.worker.start()

    def stop(self) -> None:
        """Ends them, both at a time; a draft under way goes back into the queue."""
        threads = [Thread(target=one.stop) for one in (self.keeper, self.worker) if one is not None]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def drafting_state(store: Store, config: DeskConfig | None = None) -> DraftingState:
    """Whether new studies are drafted, for the page to say."""
    config = config or desk_config()
    if not config.drafting:
        return "off"
    try:
        seen = jobs.worker_seen(store)
    except StoreError:
        seen = None
    if seen is not None and stores.now() - seen < SILENCE:
        return "running"
    if not model_available():
        return "absent"
    started = _starting.get(store.files)
    just_now = started is not None and time.monotonic() - started < STARTING_S
    return "running" if just_now else "stopped"


def _command(name: str) -> list[str]:
    """The same Python with the same places to import from, but for the page's own folder."""
    try:
        pages = str(resource_dir("app"))
    except FileNotFoundError:
        pages = ""
    places = [place or os.getcwd() for place in sys.path]  # noqa: PTH109
    return [sys.executable, "-c", _MAIN.format(name), *(one for one in places if one != pages)]
