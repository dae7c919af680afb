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
from weakref import WeakSet

from medvlm.dicom.limits import limits
from medvlm.errors import ConfigError, InputError, TooLarge, Undecodable

if sys.platform != "win32":
    import fcntl
    import resource

Job = TypeVar("Job")
Result = TypeVar("Result")

MOST_PROCESSES = 8
PIPE_BYTES = 1 << 20
AHEAD = 4  # jobs started, for each process, before the first of them is taken
# Not multiprocessing: its children run the caller's main module once more.
_MAIN = "import sys; sys.path[:] = sys.argv[1:]; from medvlm.dicom.workers import serve; serve()"

_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # glibc gives freed memory back at once; asking for it anew costs as much as a quick decoder.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}


def in_workers(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    chunk: int = 1,
    patience: Callable[[Job], float] | None = None,
) -> Iterator[Result | InputError]:
    """`function` of every job, in order; an InputError that it raised stands in its place.

    Args:
        function: importable by its name; what it takes and gives can be pickled.
        jobs: what it is called with.
        chunk: jobs handed over at once, which pays where each is short. The limit of time is a
            chunk's; where a chunk fails, its jobs are done again one by one.
        patience: by how much a job may exceed the limit of time: 2 is twice as long.
    """
    chunks = [jobs[start : start + chunk] for start in range(0, len(jobs), chunk)]

    def start(worker: _Worker, place: int) -> None:
        longer = max(map(patience, chunks[place])) if patience else 1.0
        worker.start(function, chunks[place], answers, longer * limits().decode_seconds)
        busy[worker] = place

    count = min(os.cpu_count() or 1, MOST_PROCESSES, len(chunks))
    ready: dict[int, list[Result | InputError] | InputError] = {}
    busy: dict[_Worker, int] = {}
    idle: list[_Worker] = []
    answers: SimpleQueue[_Worker] = SimpleQueue()
    started = 0
    try:
        for number, part in enumerate(chunks):
            while number not in ready:
                while started < min(len(chunks), number + AHEAD * count) and len(busy) < count:
                    start(idle.pop() if idle else _take(), started)
                    started += 1
                for worker in _finished(busy, answers):
                    place = busy.pop(worker)
                    result = worker.result()
                    if worker.alive:
                        idle.append(worker)
                    else:
                        worker.kill()
                    if worker.blameless and len(chunks[place]) == 1:
                        start(_Worker(), place)
                    else:
                        ready[place] = result
            results = ready.pop(number)
            if not isinstance(results, InputError):
                yield from results
            elif len(part) == 1:
                yield results
            else:
                yield from in_workers(function, part, patience=patience)
    finally:
        for worker in busy:  # nobody wants their results any more
            worker.kill()
        _give_back(idle)


def where_safe(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    guarded: Callable[[Job], bool],
    chunk: int = 1,
) -> Iterator[Result | InputError]:
    """`function` of every job, in order: in worker processes where `guarded`, else in this one.

    Bytes that no decoder touches can do no harm, and are quicker read where they are used.
    """
    away = in_workers(function, [job for job in jobs if guarded(job)], chunk)
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
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _MAIN, *map(str, sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **_ENVIRONMENT},
            )
        except (OSError, TypeError) as error:
            raise ConfigError(
                "no process can be started to decode images in",
                file=str(sys.executable),
                remedy="run medvlm with a Python whose sys.executable can be run",
            ) from error
        _widen(self.process.stdin, self.process.stdout)
        self.alive = True
        self.late = False
        self.starts = 0
        self.seconds = self.deadline = 0.0
        self.results: list[Any] = []
        self.expected = 0
        self.answers: SimpleQueue[_Worker] = SimpleQueue()
        self.listener = Thread(target=self._listen, daemon=True)
        self.listener.start()
        _all.add(self)

    def start(
        self,
        function: Callable[[Any], Any],
        jobs: Sequence[Any],
        answers: SimpleQueue[_Worker],
        seconds: float,
    ) -> None:
        """Begins some jobs; the worker puts itself into `answers` when it has the results."""
        self.answers, self.results, self.expected = answers, [], len(jobs)
        self.starts += 1
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds
        try:
            _send(self.process.stdin, (function, jobs))
        except BrokenPipeError:  # it died at rest, and its listener has gone
            self.alive = False
            answers.put(self)

    @property
    def blameless(self) -> bool:
        """Whether it crashed, but not at its first jobs: earlier ones may have broken the process.

        Damage that a decoder does to its own memory often shows only in the next image.
        """
        crashed = not self.alive and not self.late and len(self.results) < self.expected
        return crashed and self.starts > 1

    def result(self) -> Any:
        """The jobs' results, or the InputError that tells why there are none."""
        if len(self.results) == self.expected:
            return self.results
        self.late = self.alive
        self.kill()
        if self.late:
            return Undecodable(
                f"Decoding it took longer than {self.seconds:g} s.",
                remedy="If it is a real image, raise MEDVLM_LIMIT_DECODE_SECONDS.",
            )
        return Undecodable("It made the decoder crash, or take more memory than it may.")

    def kill(self) -> None:
        self.alive = False
        self.process.kill()
        self.process.wait()
        self.listener.join(1)  # it reads the end, and leaves the pipe alone
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()

    def _listen(self) -> None:
        while True:
            try:
                result = pickle.load(self.process.stdout)  # type: ignore[arg-type]
            except Exception:  # the process has ended, in the middle of an answer perhaps
                self.alive = False
                self.answers.put(self)
                return
            self.results.append(result)
            if len(self.results) == self.expected:
                self.answers.put(self)


_resting: list[_Worker] = []
_all: WeakSet[_Worker] = WeakSet()
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
        spare = [_resting.pop() for _ in range(len(_resting) - MOST_PROCESSES)]
    for worker in spare:
        worker.kill()


def end_resting() -> None:
    """Ends the processes that wait for work; the next ones heed limits set since."""
    with _lock:
        while _resting:
            _resting.pop().kill()


@atexit.register
def _end_all() -> None:
    for worker in list(_all):
        worker.kill()


def _forget() -> None:
    """In a forked child: the workers are the parent's, and their listeners stayed there."""
    global _resting, _lock
    _inherited.extend(_all)  # kept, or their pipes would be closed under the parent
    _all.clear()
    _resting, _lock = [], Lock()


_inherited: list[_Worker] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _finished(busy: dict[_Worker, int], answers: SimpleQueue[_Worker]) -> list[_Worker]:
    """The workers that have answered, died or run out of time; waits for the first of them."""
    first = min(worker.deadline for worker in busy)
    try:
        done = [answers.get(timeout=max(0.0, first - time.monotonic()))]
        while not answers.empty():
            done.append(answers.get())
    except Empty:
        return [worker for worker in busy if worker.deadline <= time.monotonic()]
    # One that died while it was given work is heard of twice.
    return [worker for worker in dict.fromkeys(done) if worker in busy]


def _widen(*pipes: IO[bytes] | None) -> None:
    """Makes room in pipes for a whole frame, so that both ends need not take turns for it."""
    if sys.platform == "linux":
        for pipe in pipes:
            with contextlib.suppress(OSError):
                fcntl.fcntl(pipe or -1, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


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
    fresh = True
    while True:
        try:
            function, jobs = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        for job in jobs:
            # One by one: the next is decoded while the caller still takes the last.
            _send(results, _attempt(function, job, fresh))
            fresh = False


def _attempt(function: Callable[[Job], Result], job: Job, fresh: bool) -> Result | InputError:
    try:
        return function(job)
    except (InputError, MemoryError) as error:
        short = isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError)
        if short and not fresh:
            os._exit(1)  # earlier jobs may have left too little: a fresh process shall try
        if isinstance(error, MemoryError):
            return TooLarge("It does not fit into the memory allowed for one file.")
        error.__cause__ = error.__context__ = None
        return error
    except Exception as error:
        return Undecodable(f"It cannot be decoded ({type(error).__name__}).")


def _limit_memory(most_bytes: int) -> None:
    """Lets the process take so much more memory than it has now, where the system can do so.

    A crash leaves no core file behind: it would hold a patient's image.
    """
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:  # noqa: PTH123
            now = int(stream.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (now + most_bytes, now + most_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
