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
    function: Callable[[Job], Result], jobs: Sequence[Job], chunk: int = 1
) -> Iterator[Result | InputError]:
    """`function` of every job, in order; an InputError that it raised stands in its place.

    Args:
        function: importable by its name; what it takes and gives can be pickled.
        jobs: what it is called with.
        chunk: jobs handed over at once, which pays where each is short. The limit of time is a
            chunk's; where a chunk fails, its jobs are done again one by one.
    """
    chunks = [jobs[start : start + chunk] for start in range(0, len(jobs), chunk)]
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
                    worker = idle.pop() if idle else _take()
                    worker.start(function, chunks[started], answers)
                    busy[worker] = started
                    started += 1
                for worker in _finished(busy, answers):
                    place = busy.pop(worker)
                    result = worker.result()
                    if worker.alive:
                        idle.append(worker)
                    if worker.blameless and len(chunks[place]) == 1:
                        fresh = _Worker()
                        fresh.start(function, chunks[place], answers)
                        busy[fresh] = place
                    else:
                        ready[place] = result
            results = ready.pop(number)
            if not isinstance(results, InputError):
                yield from results
            elif len(part) == 1:
                yield results
            else:
                yield from in_workers(function, part)
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
        self.process = subprocess.Popen(
            [sys.executable, "-c", _MAIN, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **_ENVIRONMENT},
        )
        _widen(self.process.stdin, self.process.stdout)
        self.alive = True
        self.late = False
        self.starts = 0
        self.deadline = 0.0
        self.results: list[Any] = []
        self.expected = 0
        self.answers: SimpleQueue[_Worker] = SimpleQueue()
        Thread(target=self._listen, daemon=True).start()

    def start(
        self, function: Callable[[Any], Any], jobs: Sequence[Any], answers: SimpleQueue[_Worker]
    ) -> None:
        """Begins some jobs; the worker puts itself into `answers` when it has the results."""
        self.answers, self.results, self.expected = answers, [], len(jobs)
        self.starts += 1
        self.deadline = time.monotonic() + limits().decode_seconds
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
                result = pickle.load(self.process.stdout)  # type: ignore[arg-type]
            except Exception:  # the process has ended, in the middle of an answer perhaps
                self.alive = False
                self.answers.put(self)
                return
            self.results.append(result)
            if len(self.results) == self.expected:
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
    first = min(worker.deadline for worker in busy)
    try:
        done = [answers.get(timeout=max(0.0, first - time.monotonic()))]
        while not answers.empty():
            done.append(answers.get())
    except Empty:
        return [worker for worker in busy if worker.deadline <= time.monotonic()]
    return [worker for worker in done if worker in busy]


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
