"""The engine of many machines: Ray Data on a cluster, or on this machine alone.

Parcels are opened and decoded in tasks and drafted by actors that hold the model, by the same
functions as on one machine. All machines share the folder of results: a study is written into it,
or recorded as failed, where it is drafted.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm.batch.capacity import PROCESS_BYTES, UNLIMITED, core_count, free_bytes
from medvlm.batch.engine import Settings
from medvlm.batch.local import Notice, tell_status
from medvlm.batch.outcome import Outcome
from medvlm.batch.parcel import Parcel
from medvlm.batch.ray_work import Job, Places
from medvlm.batch.worker import Hello, Stopped
from medvlm.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from medvlm.batch.ray_flow import Flow

LARGEST_CHUNK = 64  # parcels, while they are all known from an earlier run
MODELS_A_PARCEL = 16  # for so many more models, chunks have one parcel more
OPENERS_A_GPU = 4
STORE_BYTES = (128 << 20, 8 << 30)  # of Ray's object store on this machine, at least and at most
_PASSED_ON = ("MEDVLM_", "HF_", "TOKENIZERS_", "REQUESTS_CA_BUNDLE")
# Read by Ray when it is imported or starts: it sends nothing anywhere and prints nothing.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# On one machine it listens to that machine only, and there to nobody else's processes. (It would
# run whatever anybody sends.)
_ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}


class RayEngine:
    """`address`: `host:port` of a cluster's head, or `auto`; None: this machine, for this run.

    Where this process is connected to Ray already, it stays so. `notice` is told what the caller
    should know, in words for people.
    """

    def __init__(self, address: str | None = None, notice: Notice = lambda text: None) -> None:
        self.address, self.notice = address, notice

    def run(self, parcels: Iterator[Parcel], settings: Settings) -> Generator[list[Outcome]]:
        """The outcomes of each parcel, as they come.

        Raises:
            MissingExtra: ray is not installed.
            MedVLMError: the cluster cannot be reached or is lost, the model cannot be loaded, or
                nothing more can be written.
        """
        ray = _ray(alone=self.address is None)
        with (
            _typed(ray),
            _connected(ray, self.address, settings.workers),
            contextlib.closing(_flow(places(ray, settings), settings)) as flow,
        ):
            yield from self._run(flow, parcels)

    def _run(self, flow: Flow, parcels: Iterator[Parcel]) -> Iterator[list[Outcome]]:
        chunks = _Chunks(parcels, flow)
        for _ in range(flow.places.window):
            chunks.let_in()
        if not flow.count:
            return
        with contextlib.closing(flow.answers()) as answers:
            for number, answer in enumerate(answers):
                if isinstance(answer, Stopped):
                    raise answer.error
                if number == 0 and isinstance(hello := flow.greeting(), Hello):
                    tell_status(hello.status, self.notice)
                chunks.learn(answer)
                chunks.let_in()
                yield from answer


class _Chunks:
    """Takes parcels as they are needed: few at a time, more where all are known already."""

    def __init__(self, parcels: Iterator[Parcel], flow: Flow) -> None:
        self.parcels, self.flow = parcels, flow
        self.size = self.smallest = 1 + flow.places.models // MODELS_A_PARCEL
        self.more = True

    def let_in(self) -> None:
        """The next chunk, if there is one."""
        if not self.more:
            return
        chunk = list(itertools.islice(self.parcels, self.size))
        if chunk:
            self.flow.put(chunk)
        if len(chunk) < self.size:
            self.more = False
            self.flow.end()

    def learn(self, answer: list[list[Outcome]]) -> None:
        """Known studies are passed as quickly as Ray hands them on."""
        known = all(outcome.resumed for outcomes in answer for outcome in outcomes)
        self.size = min(2 * self.size, LARGEST_CHUNK) if known else self.smallest


def places(ray: Any, settings: Settings) -> Places:
    """Where a run's processes go. Raises ConfigError for a device that there is not."""
    there = ray.cluster_resources()
    cores, gpus = int(there.get("CPU", 1)), int(there.get("GPU", 0))
    if settings.device not in ("auto", "cpu", "cuda"):
        raise ConfigError(
            f"--device {settings.device}: with --engine ray it is Ray that gives out GPUs",
            remedy="say cuda",
        )
    if settings.device == "cuda" and not gpus:
        raise ConfigError("--device cuda: Ray knows of no GPU", remedy="leave it out")
    total = max(UNLIMITED if settings.total is None else settings.total, 1)
    if gpus and settings.device != "cpu":
        models = min(settings.workers or gpus, total)
        spare = cores - models
        openers = max(min(OPENERS_A_GPU * models, spare), 1)
        return Places("cuda", models, openers, cores=int(spare > 0))
    models = min(settings.workers or cores, total)
    return Places("cpu", models, max(models // 2, 1))


def _flow(chosen: Places, settings: Settings) -> Flow:
    from medvlm.batch.ray_flow import Flow

    environment = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
    return Flow(Job(settings, environment, Path.cwd(), chosen.device), chosen)


def _ray(alone: bool) -> Any:
    """The package, made silent unless MEDVLM_DEBUG is set. Raises MissingExtra."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if alone and "ray" not in sys.modules:  # which keeps what it read
        os.environ.update(_ALONE, RAY_AUTH_TOKEN=secrets.token_hex(32))
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtra(
            "--engine ray needs Ray Data", remedy="install it with `pip install 'medvlm[ray]'`"
        ) from error
    if not _debug():
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        # It tells of dead processes on stdout, which is for our results.
        ray._private.worker.print_to_stdstream = lambda *arguments, **options: None
    return ray


def _debug() -> bool:
    return bool(os.environ.get("MEDVLM_DEBUG"))


@contextlib.contextmanager
def _connected(ray: Any, address: str | None, workers: int | None) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    debug = _debug()
    heard = {"log_to_driver": debug, "logging_level": "INFO" if debug else "CRITICAL"}
    with contextlib.ExitStack() as left:
        options = _of_this_machine(left, workers) if address is None else _of_a_cluster(address)
        left.callback(ray.shutdown)
        try:
            with contextlib.nullcontext() if debug else _mute():
                ray.init(**options, **heard)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"Ray {'does not start' if address is None else 'cannot be reached'}",
                remedy="MEDVLM_DEBUG=1 tells more"
                if address is None
                else "give host:port of the head, on a machine of the cluster",
            ) from error
        yield


@contextlib.contextmanager
def _mute() -> Iterator[None]:
    """No stderr: Ray's part that is not Python tells there that it tells nothing."""
    told = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(told, 2)
        os.close(told)
        os.close(nowhere)


def _of_this_machine(left: contextlib.ExitStack, workers: int | None) -> dict[str, Any]:
    """What Ray writes, images among it, is private and goes with it."""
    short = "/tmp" if Path("/tmp").is_dir() else None  # a socket's path has 107 bytes at most
    scratch = tempfile.mkdtemp(prefix="medvlm-", dir=short)
    left.callback(shutil.rmtree, scratch, ignore_errors=True)
    fit = max(min(core_count(), free_bytes() // PROCESS_BYTES), 1)
    least, most = STORE_BYTES
    return {
        "address": "local",
        "num_cpus": workers or fit,
        "include_dashboard": False,
        "object_store_memory": max(least, min(free_bytes() // 4, most)),
        "_temp_dir": scratch,
    }


def _of_a_cluster(address: str) -> dict[str, Any]:
    if "://" in address:
        raise ConfigError(
            "--ray-address: the leading process must run on a machine of the cluster",
            remedy="start it there, with host:port of the head or auto",
        )
    return {"address": address}


@contextlib.contextmanager
def _typed(ray: Any) -> Iterator[None]:
    try:
        yield
    except ray.exceptions.RayError as error:
        if _debug():
            raise
        raise ConfigError(
            f"Ray cannot go on ({type(error).__name__}): machines were lost, or memory ran short",
            remedy="give fewer --workers perhaps; the same command goes on where it stopped",
        ) from error
