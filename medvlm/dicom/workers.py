"""Worker processes in which hostile bytes are decoded: a limit on memory, a limit on time.

Decoders are C code that has crashed, hung and eaten memory on damaged files before. Here that ends
one process, and one file is refused. Results come back in order, and no more are under way at once
than a few for each process, so that memory stays bounded however many files there are.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from threading import Lock
from typing import Any, TypeVar

from medvlm.dicom.limits import limits
from medvlm.errors import InputError, TooLarge, Undecodable

if sys.platform != "win32":
    import resource

Job = TypeVar("Job")
Result = TypeVar("Result")

MOST_PROCESSES = 8
AHEAD = 4  # jobs started, for each process, before the first of them is taken


def in_workers(
    function: Callable[[Job], Result], jobs: Sequence[Job]
) -> Iterator[Result | InputError]:
    """`function` of every job, in order; an InputError that it raised stands in its place.

    Args:
        function: importable by its name; what it takes and gives can be pickled.
        jobs: what it is called with.
    """
    count = min(os.cpu_count() or 1, MOST_PROCESSES, len(jobs))
    ready: dict[int, Result | InputError] = {}
    busy: dict[Connection, tuple[_Worker, int]] = {}
    idle: list[_Worker] = []
    started = given = 0
    try:
        while given < len(jobs):
            while started < min(len(jobs), given + AHEAD * count) and len(busy) < count:
                worker = idle.pop() if idle else _take()
                worker.start(function, jobs[started])
                busy[worker.connection] = worker, started
                started += 1
            while given in ready:
                yield ready.pop(given)
                given += 1
            if given in (number for _, number in busy.values()):
                for connection in _finished(busy):
                    worker, number = busy.pop(connection)
                    ready[number] = worker.result()
                    if worker.alive:
                        idle.append(worker)
    finally:
        for worker, _ in busy.values():  # nobody wants their results any more
            worker.kill()
        _give_back(idle)


def in_worker(function: Callable[[Job], Result], job: Job) -> Result:
    """`function` of one job, in a worker process. Raises InputError."""
    (result,) = in_workers(function, [job])
    if isinstance(result, InputError):
        raise result
    return result


class _Worker:
    """A process that answers one job at a time."""

    def __init__(self) -> None:
        # A fork of this process would take torch's threads and locks along.
        context: SpawnContext | ForkServerContext
        if sys.platform == "win32":
            context = multiprocessing.get_context("spawn")
        else:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["medvlm.dicom.read"])
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, limits().decode_bytes), daemon=True
        )
        self.process.start()
        theirs.close()
        self.alive = True
        self.deadline = 0.0

    def start(self, function: Callable[[Any], Any], job: Any) -> None:
        self.deadline = time.monotonic() + limits().decode_seconds
        # A process that has died is noticed when its result is taken.
        with contextlib.suppress(BrokenPipeError):
            self.connection.send((function, job))

    def result(self) -> Any:
        """The result, or the InputError that tells why there is none."""
        try:
            if self.connection.poll():
                return self.connection.recv()
        except (EOFError, ConnectionError):
            self.kill()
            return Undecodable("It made the decoder crash, or take more memory than it may.")
        self.kill()
        return Undecodable(
            f"Decoding it took longer than {limits().decode_seconds:g} s.",
            remedy="If it is a real image, raise MEDVLM_LIMIT_DECODE_SECONDS.",
        )

    def kill(self) -> None:
        self.alive = False
        self.process.kill()
        self.process.join()
        self.connection.close()


_resting: list[_Worker] = []
_lock = Lock()


def _take() -> _Worker:
    with _lock:
        while _resting:
            worker = _resting.pop()
            if worker.process.is_alive():
                return worker
            worker.kill()
    return _Worker()


def _give_back(workers: Sequence[_Worker]) -> None:
    with _lock:
        _resting.extend(workers)


def _finished(busy: dict[Connection, tuple[_Worker, int]]) -> list[Connection]:
    """The connections with a result, a dead process, or no time left; waits for one of them."""
    while True:
        now = time.monotonic()
        first = min(worker.deadline for worker, _ in busy.values())
        if done := wait(list(busy), timeout=max(0.0, first - now)):
            return [connection for connection in done if isinstance(connection, Connection)]
        if late := [c for c, (worker, _) in busy.items() if worker.deadline <= time.monotonic()]:
            return late


def _serve(connection: Connection, most_bytes: int) -> None:
    """The life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller ends it
    # Decoders print to the terminal, and quote what they read.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    _limit_memory(most_bytes)
    while True:
        try:
            function, job = connection.recv()
        except EOFError:
            return
        try:
            result = function(job)
        except InputError as error:
            error.__cause__ = error.__context__ = None
            result = error
        except MemoryError:
            result = TooLarge("It does not fit into the memory allowed for one file.")
        except Exception as error:
            result = Undecodable(f"It cannot be decoded ({type(error).__name__}).")
        connection.send(result)


def _limit_memory(most_bytes: int) -> None:
    """Lets the process take so much more memory than it has now, where the system can do so."""
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:  # noqa: PTH123
            now = int(stream.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (now + most_bytes, now + most_bytes))
