"""Worker processes in which hostile bytes are decoded: a limit on memory, a limit on time.

Decoders are C code that has crashed, hung and eaten memory on damaged files before. Here that ends
one process, and one file is refused. Results come back in order, and no more are under way at once
than a few for each process, so that memory stays bounded however many files there are.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import IO, Any, TypeVar

from medvlm.dicom.limits import limits
from medvlm.errors import InputError, TooLarge, Undecodable

if sys.platform != "win32":
    import resource

Job = TypeVar("Job")
Result = TypeVar("Result")

MOST_PROCESSES = 8
AHEAD = 4  # jobs started, for each process, before the first of them is taken
# Not multiprocessing: its children run the caller's main module once more.
_MAIN = "import sys; sys.path[:] = sys.argv[1:]; from medvlm.dicom.workers import serve; serve()"


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
    busy: dict[_Worker, int] = {}
    idle: list[_Worker] = []
    answers: SimpleQueue[_Worker] = SimpleQueue()
    started = given = 0
    try:
        while given < len(jobs):
            while started < min(len(jobs), given + AHEAD * count) and len(busy) < count:
                worker = idle.pop() if idle else _take()
                worker.start(function, jobs[started], answers)
                busy[worker] = started
                started += 1
            while given in ready:
                yield ready.pop(given)
                given += 1
            if given in busy.values():
                for worker in _finished(busy, answers):
                    ready[busy.pop(worker)] = worker.result()
                    if worker.alive:
                        idle.append(worker)
    finally:
        for worker in busy:  # nobody wants their results any more
            worker.kill()
        _give_back(idle)


def where_safe(
    function: Callable[[Job], Result], jobs: Sequence[Job], guarded: Callable[[Job], bool]
) -> Iterator[Result | InputError]:
    """`function` of every job, in order: in worker processes where `guarded`, else in this one.

    Bytes that no decoder touches can do no harm, and are quicker read where they are used.
    """
    away = in_workers(function, [job for job in jobs if guarded(job)])
    for job in jobs:
        if guarded(job):
            yield next(away)
            continue
        try:
            result = function(job)
        except InputError as error:
            yield error
        else:
            yield result


def in_worker(function: Callable[[Job], Result], job: Job) -> Result:
    """`function` of one job, in a worker process. Raises InputError."""
    (result,) = in_workers(function, [job])
    if isinstance(result, InputError):
        raise result
    return result


class _Worker:
    """A process that answers one job at a time, and a thread that waits for the answers."""

    def __init__(self) -> None:
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _MAIN, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **one_thread},
        )
        self.alive = True
        self.deadline = 0.0
        self.answer: Any = None
        self.answers: SimpleQueue[_Worker] = SimpleQueue()
        Thread(target=self._listen, daemon=True).start()

    def start(
        self, function: Callable[[Any], Any], job: Any, answers: SimpleQueue[_Worker]
    ) -> None:
        """Begins a job; the worker puts itself into `answers` when it has the result."""
        self.answers, self.answer = answers, None
        self.deadline = time.monotonic() + limits().decode_seconds
        # A process that has died is noticed by its listener.
        with contextlib.suppress(BrokenPipeError):
            _send(self.process.stdin, (function, job))

    def result(self) -> Any:
        """The result, or the InputError that tells why there is none."""
        if self.answer is not None:
            return self.answer[0]
        late = self.alive
        self.kill()
        if late:
            return Undecodable(
                f"Decoding it took longer than {limits().decode_seconds:g} s.",
                remedy="If it is a real image, raise MEDVLM_LIMIT_DECODE_SECONDS.",
            )
        return Undecodable("It made the decoder crash, or take more memory than it may.")

    def kill(self) -> None:
        self.alive = False
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()

    def _listen(self) -> None:
        while True:
            try:
                self.answer = (pickle.load(self.process.stdout),)  # type: ignore[arg-type]
            except Exception:  # the process has ended, in the middle of an answer perhaps
                self.alive = False
                self.answers.put(self)
                return
            self.answers.put(self)


_resting: list[_Worker] = []
_lock = Lock()


def _take() -> _Worker:
    with _lock:
        while _resting:
            worker = _resting.pop()
            if worker.alive:
                return worker
            worker.kill()
    return _Worker()


def _give_back(workers: Sequence[_Worker]) -> None:
    with _lock:
        _resting.extend(workers)


@atexit.register
def _end() -> None:
    for worker in _resting:
        worker.kill()


def _finished(busy: dict[_Worker, int], answers: SimpleQueue[_Worker]) -> list[_Worker]:
    """The workers that have answered, died or run out of time; waits for the first of them."""
    while True:
        first = min(worker.deadline for worker in busy)
        try:
            worker = answers.get(timeout=max(0.0, first - time.monotonic()))
        except Empty:
            return [worker for worker in busy if worker.deadline <= time.monotonic()]
        if worker in busy:
            return [worker]


def _send(stream: IO[bytes] | None, content: Any) -> None:
    if stream is not None:
        pickle.dump(content, stream, protocol=pickle.HIGHEST_PROTOCOL)
        stream.flush()


def serve() -> None:
    """The life of a worker process: jobs come on stdin, results go to stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller ends it
    # Decoders print, and quote what they read.
    results = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    _limit_memory(limits().decode_bytes)
    while True:
        try:
            function, job = pickle.load(sys.stdin.buffer)
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
        _send(results, result)


def _limit_memory(most_bytes: int) -> None:
    """Lets the process take so much more memory than it has now, where the system can do so."""
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:  # noqa: PTH123
            now = int(stream.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (now + most_bytes, now + most_bytes))
