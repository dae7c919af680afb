"""The engine of many machines: Ray Data on a cluster, or on this machine alone.

Parcels are opened and decoded in tasks and drafted by actors that hold the model, by the same
functions as on one machine. The folder of results must be shared by all machines; each study is
written into it, or recorded as failed, where it is drafted.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

from medvlm.batch.capacity import PROCESS_BYTES, core_count, free_bytes
from medvlm.batch.engine import Settings
from medvlm.batch.outcome import Outcome
from medvlm.batch.parcel import Parcel, StudyParcel
from medvlm.batch.ray_work import CARRIED_BYTES, Job
from medvlm.batch.worker import Hello, Stopped
from medvlm.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from medvlm.batch.local import Notice
    from medvlm.batch.ray_flow import Flow, Places

LARGEST_CHUNK = 64  # parcels, where all of them are known from an earlier run
MODELS_A_PARCEL = 16  # with so many more models, a chunk has another parcel
OPENERS_A_GPU = 4
_PASSED_ON = ("MEDVLM_", "HF_", "TOKENIZERS_", "REQUESTS_CA_BUNDLE", "AWS_", "FSSPEC_")
# Read by Ray when it is started: nothing is sent anywhere, and nothing is printed.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


class RayEngine:
    """`address`: of a cluster's head, `host:port` or `auto`; None: this machine, until the run ends.

    Where this process is connected to Ray already, that is what it uses. `notice` is told what the
    caller should know, in words for people.
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
        _quiet()
        ray = _ray()
        with _connected(ray, self.address, settings):
            places, device = _places(ray, self.address, settings)
            job = Job(settings, _environment(), device)
            with _typed(ray), contextlib.closing(_flow(job, places)) as flow:
                yield from self._drafted(flow, _Chunks(parcels, places.models), places.window)

    def _drafted(self, flow: Flow, chunks: _Chunks, window: int) -> Iterator[list[Outcome]]:
        greeted = False
        for chunk in itertools.islice(chunks, window):
            flow.put(chunk)
        if chunks.ended:
            flow.end()
        with contextlib.closing(flow.answers()) as answers:
            for answer in answers:
                if isinstance(answer, Stopped):
                    raise answer.error
                if not greeted:
                    greeted = True
                    self._greet(flow)
                ...
                yield from answer
