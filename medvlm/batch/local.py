"""The engine of one machine: model processes, each of which reads ahead while its model works.

Few studies are drafted in this very process. A process that dies is started again, and the parcels
that it had are tried alone, so that it shows which of them kills. One over which two processes have
died, with nothing else in them, is given up.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from queue import SimpleQueue
from threading import Thread

from medvlm.batch.capacity import devices, process_devices
from medvlm.batch.drafting import draft_parcels
from medvlm.batch.engine import DEVICE, Settings
from medvlm.batch.outcome import Outcome
from medvlm.batch.parcel import Parcel, StudyParcel
from medvlm.batch.prepare import Rules, give_up
from medvlm.batch.worker import Done, Hello, Stopped, send
from medvlm.errors import ConfigError, MedVLMError

MOST_DEATHS = 2
AHEAD = 2  # parcels given to a process beside the one in work
# Not multiprocessing: its children run the caller's main module once more.
_MAIN = "import sys; sys.path[:] = sys.argv[1:]; from medvlm.batch.worker import serve; serve()"
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_SECONDS_TO_END = 10

Message = Hello | Done | Stopped | None  # None: the process is dead
Notice = Callable[[str], None]


class LocalEngine:
    """`notice` is told what the caller should know, in words for people."""

    def __init__(self, notice: Notice = lambda text: None) -> None:
        self.notice = notice

    def run(self, parcels: Iterator[Parcel], settings: Settings) -> Generator[list[Outcome]]:
        """The outcomes of each parcel, as they come.

        Raises MedVLMError if the model cannot be loaded or nothing more can be written.
        """
        if places := process_devices(settings):
            yield from _Crew(places, parcels, settings, self.notice).run()
        else:
            yield from _here(parcels, settings, self.notice)


def _here(parcels: Iterator[Parcel], settings: Settings, notice: Notice) -> Iterator[list[Outcome]]:
    import torch

    before = os.environ.get(DEVICE)
    os.environ[DEVICE] = devices(settings.device)[0]
    # Whatever the number of threads, ONNX Runtime sums alike and PyTorch does not: a study drafted
    # here is to equal one drafted in a process of its own.
    threads = torch.get_num_threads()
    try:
        checkpoint = settings.load()
        torch.set_num_threads(1)
        tell_status(checkpoint.config.status, notice)
        yield from draft_parcels(
            checkpoint, parcels, settings.results, settings.retry_failed, settings.send
        )
    finally:
        torch.set_num_threads(threads)
        if before is None:
            del os.environ[DEVICE]
        else:
            os.environ[DEVICE] = before


@dataclass(frozen=True)
class _Task:
    """A parcel, and how many processes died while they had it alone."""

    parcel: Parcel
    deaths: int = 0


class _Process:
    """A model process, the parcels that it has, and a thread that hears it."""

    def __init__(
        self, device: str, settings: Settings, messages: SimpleQueue[tuple[_Process, Message]]
    ) -> None:
        self.device, self.messages = device, messages
        self.ready = False
        self.tasks: deque[_Task] = deque()
        self.alone = False
        silent = None if os.environ.get("MEDVLM_DEBUG") else subprocess.DEVNULL
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _MAIN, *map(str, sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=silent,
                env={**os.environ, **_ENVIRONMENT, DEVICE: device},
            )
        except (OSError, TypeError) as error:
            raise ConfigError(
                "no process can be started to draft in",
                file=str(sys.executable),
                remedy="run medvlm with a Python whose sys.executable can be run",
            ) from error
        Thread(target=self._listen, daemon=True).start()
        self._send(settings)

    def give(self, task: _Task, alone: bool) -> None:
        self.tasks.append(task)
        self.alone = alone
        parcel = task.parcel
        self._send(parcel.light() if isinstance(parcel, StudyParcel) else parcel)

    def end(self) -> None:
        """At the end of stdin the process ends itself; one that does not is killed."""
        with contextlib.suppress(OSError):
            if self.process.stdin:
                self.process.stdin.close()
        try:
            self.process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _send(self, content: object) -> None:
        with contextlib.suppress(BrokenPipeError):  # its death is heard of
            if self.process.stdin:
                send(self.process.stdin, content)

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            while True:
                try:
                    message = pickle.load(stream)
                except Exception:  # the process has ended, in the middle of a message perhaps
                    self.messages.put((self, None))
                    return
                self.messages.put((self, message))


class _Crew:
    """The processes of a run."""

    def __init__(
        self, places: list[str], parcels: Iterator[Parcel], settings: Settings, notice: Notice
    ) -> None:
        self.parcels, self.settings, self.notice = parcels, settings, notice
        self.messages: SimpleQueue[tuple[_Process, Message]] = SimpleQueue()
        self.rules: Rules | None = None
        self.suspects: deque[_Task] = deque()
        self.more = True
        self.processes: list[_Process] = []
        self.places = places

    def run(self) -> Iterator[list[Outcome]]:
        try:
            for place in self.places:
                self._start(place)
            while True:
                for process in self.processes:
                    self._feed(process)
                if not self._at_work():
                    return
                process, message = self.messages.get()
                if process not in self.processes:
                    continue  # it said why it stops, and is buried
                if isinstance(message, Hello):
                    self._greet(process, message)
                elif isinstance(message, Done):
                    process.tasks.popleft()
                    yield message.outcomes
                else:
                    yield from self._bury(process, message)
        finally:
            for process in self.processes:
                process.end()

    def _start(self, place: str) -> None:
        self.processes.append(_Process(place, self.settings, self.messages))

    def _at_work(self) -> bool:
        """Whether anything is still to come; a model that is only being loaded is no work."""
        return bool(self.more or self.suspects or any(p.tasks for p in self.processes))

    def _feed(self, process: _Process) -> None:
        if not process.ready:
            return
        while len(process.tasks) <= (0 if process.alone or self.suspects else AHEAD):
            if self.suspects:
                process.give(self.suspects.popleft(), alone=True)
            elif (parcel := next(self.parcels, None)) is not None:
                process.give(_Task(parcel), alone=False)
            else:
                self.more = False
                return

    def _greet(self, process: _Process, hello: Hello) -> None:
        process.ready = True
        if self.rules is None:
            self.rules = hello.rules
            tell_status(hello.status, self.notice)
        elif self.rules != hello.rules:
            raise ConfigError(
                "the checkpoint was exchanged while studies were drafted with it",
                remedy="run the same command again",
            )

    def _bury(self, process: _Process, last: Stopped | None) -> Iterator[list[Outcome]]:
        """What a process leaves behind: an error that is everybody's, or parcels to try again."""
        self.processes.remove(process)
        process.end()
        error = last.error if isinstance(last, Stopped) else None
        if isinstance(error, MedVLMError | ImportError):
            raise error
        if not process.ready:
            self._do_without(error)
            return
        for task in process.tasks:
            died = replace(task, deaths=task.deaths + process.alone)
            if died.deaths < MOST_DEATHS:
                self.suspects.append(died)
                continue
            assert self.rules is not None
            yield [give_up(task.parcel, self.rules, self.settings.results)]
        if self._at_work():
            self._start(process.device)

    def _do_without(self, error: Exception | None) -> None:
        """A model that does not fit beside the others: there may be memory for fewer."""
        if not self.processes:
            kind = f" ({type(error).__name__})" if error else ""
            raise ConfigError(
                f"the process that loads the model died{kind}, for want of memory perhaps",
                remedy="close other programs, or give fewer --workers",
            )
        self.notice(f"a model process died while it started; {len(self.processes)} go on")


def tell_status(status: str, notice: Notice) -> None:
    """Of the checkpoint: whether it was promoted."""
    if status == "candidate":
        notice("this checkpoint is a candidate that nobody promoted yet")
