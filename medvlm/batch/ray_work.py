"""What Ray's processes do with a chunk of parcels: one opens and decodes it, another drafts it.

Ray does again whatever a process had in hand when it died. A journal beside the claims of the run
tells the next process what was begun and what is done, so that nothing is drafted twice, and a
parcel over which two processes have died is given up. Nothing here imports ray.
"""

from __future__ import annotations

import contextlib
import os
import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medvlm.batch.ahead import ahead
from medvlm.batch.drafting import draft_steps, rules_of
from medvlm.batch.engine import DEVICE, Settings
from medvlm.batch.files import CannotWrite, lines
from medvlm.batch.local import MOST_DEATHS
from medvlm.batch.outcome import Outcome
from medvlm.batch.parcel import Parcel
from medvlm.batch.prepare import Ready, Rules, Step, give_up, prepare
from medvlm.batch.results import CLAIMS
from medvlm.batch.worker import Hello, Stopped
from medvlm.errors import ConfigError, MedVLMError

CARRIED_BYTES = 128 << 20  # of decoded images in a chunk; a parcel with more is opened by the model
_OPENED, _DRAFTED = "opened", "drafted"

Buffer = bytes | memoryview
Greeting = Hello | Stopped
Heading = list[tuple[Parcel, int | None, int]]
Answer = list[list[Outcome]] | Stopped


@dataclass(frozen=True)
class Places:
    """How many processes draft and how many open, and what each takes of a machine.

    `cores`: of a process that opens; none where the models take all, for it has little to do.
    """

    device: str
    models: int
    openers: int
    cores: int = 0

    @property
    def gpus(self) -> int:
        """Of a model."""
        return int(self.device == "cuda")

    @property
    def window(self) -> int:
        """Chunks on their way that keep everybody at work."""
        return 2 * self.models + self.openers + 1


@dataclass(frozen=True)
class Job:
    """A run, as every process of it knows it. Can be pickled.

    `environment`: what steers medvlm in the leading process; it may hold log-ins. `folder`: where
    that process runs, for paths that start there.
    """

    settings: Settings = field(repr=False)
    environment: dict[str, str] = field(repr=False)
    folder: Path = field(repr=False)
    device: str

    def begin(self) -> None:
        """Makes this process one of the run's."""
        os.environ.update({**self.environment, DEVICE: self.device})
        with contextlib.suppress(OSError):  # all paths may be whole ones
            os.chdir(self.folder)

    def journal(self, chunk: int, work: str) -> Journal:
        """Of a chunk, in a folder that is removed together with the run's claims."""
        return Journal(self._place(chunk, work))

    def forget(self, chunk: int) -> None:
        """The leading process has the outcomes of a chunk."""
        for work in (_OPENED, _DRAFTED):
            self._place(chunk, work).unlink(missing_ok=True)

    def _place(self, chunk: int, work: str) -> Path:
        return self.settings.out / CLAIMS / f"{self.settings.run}.chunks" / f"{chunk}.{work}"


class Journal:
    """What was begun and what is done: a process that dies leaves the first without the second.

    `done`: results by number, as earlier processes left them; `deaths`: how many died, by number.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.done: dict[int, Any] = {}
        self.deaths: Counter[int] = Counter()
        for line in lines(place):
            number, _, result = line.partition(" ")
            if number.isdecimal() and not result:
                self.deaths[int(number)] += 1
            elif number.isdecimal() and result.endswith("."):  # else it was cut off
                del self.deaths[int(number)]
                self.done[int(number)] = pickle.loads(bytes.fromhex(result[:-1]))

    def begin(self, number: int) -> None:
        """Raises CannotWrite."""
        self._add(f"{number}")

    def end(self, number: int, result: object) -> None:
        """Raises CannotWrite."""
        self._add(f"{number} {pickle.dumps(result).hex()}.")

    def _add(self, line: str) -> None:
        try:
            self.place.parent.mkdir(parents=True, exist_ok=True)
            with self.place.open("a", encoding="ascii") as stream:
                stream.write(f"\n{line}\n")  # the line before may have been cut off
        except OSError as error:
            raise CannotWrite from error


def open_chunk(job: Job, greeting: Greeting, chunk: int, parcels: Sequence[Parcel]) -> list[bytes]:
    """A chunk as it travels to a model: a heading, then every step of its parcels.

    The heading has each parcel, how many steps of it follow, and how many processes died over it.
    None follow (None) where they are too much to carry, or where a process died over the chunk: the
    parcel is opened beside the model, which Ray starts again as often as it takes.
    """
    if isinstance(greeting, Stopped):
        return [pickle.dumps(greeting)]
    job.begin()
    journal = job.journal(chunk, _OPENED)
    heading: Heading = []
    carried: list[bytes] = []
    left = CARRIED_BYTES
    try:
        for number, parcel in enumerate(parcels):
            steps = _opened(job, greeting.rules, journal, number, parcel, left)
            count = None if steps is None else len(steps)
            heading.append((parcel, count, journal.deaths[number]))
            carried += steps or []
            left -= sum(map(len, steps or []))
    except Exception as error:
        return [pickle.dumps(stopped(error))]
    return [pickle.dumps(heading), *carried]


def _opened(
    job: Job, rules: Rules, journal: Journal, number: int, parcel: Parcel, most: int
) -> list[bytes] | None:
    told: list[bytes] | None = journal.done.get(number)
    if told is not None or journal.deaths:
        return told
    journal.begin(number)
    with contextlib.closing(prepare(parcel, rules, job.settings.results)) as steps:
        carried, images = _within(most, steps)
    # Another process would call what this one recorded as failed known from an earlier run.
    journal.end(number, None if images else carried)
    return carried


def _within(most: int, steps: Iterable[Step]) -> tuple[list[bytes] | None, bool]:
    """The steps, if they have not more bytes than that; whether there are images among them."""
    carried: list[bytes] = []
    images = False
    for step in steps:
        images |= isinstance(step, Ready)
        carried.append(pickle.dumps(step, protocol=pickle.HIGHEST_PROTOCOL))
        most -= len(carried[-1])
        if most < 0:
            return None, True
    return carried, images


class Drafter:
    """A model, and what it makes of chunks.

    `greet` tells the run that the model is loaded, or why not, and returns what the run was told
    first.
    """

    def __init__(self, job: Job, greet: Callable[[Greeting], Greeting]) -> None:
        job.begin()
        self.job = job
        self.stopped: Stopped | None = None
        try:
            self._load()
        except Exception as error:
            self.stopped = stopped(error, "the model cannot be loaded")
        first = greet(self.stopped or Hello(self.rules, self.checkpoint.config.status))
        if self.stopped is None and isinstance(first, Hello) and first.rules != self.rules:
            exchanged = "the checkpoint is not the same on every machine, or was exchanged"
            self.stopped = Stopped(ConfigError(exchanged, remedy="see to it, and start again"))

    def _load(self) -> None:
        import torch

        # One thread, for sums are rounded otherwise with another number of them.
        torch.set_num_threads(1)
        self.checkpoint = self.job.settings.load()
        self.rules = rules_of(
            self.checkpoint, self.job.settings.retry_failed, self.job.settings.send
        )

    def draft(self, chunk: int, pieces: Sequence[Buffer]) -> Answer:
        """The outcomes of each parcel of an opened chunk, or why the run cannot go on."""
        if self.stopped is not None:
            return self.stopped
        heading: Heading | Stopped = pickle.loads(pieces[0])
        if isinstance(heading, Stopped):
            return heading
        journal = self.job.journal(chunk, _DRAFTED)
        answer, place = [], 1
        try:
            for number, (parcel, count, deaths) in enumerate(heading):
                journal.deaths[number] += deaths
                carried = None if count is None else pieces[place : place + count]
                answer.append(self._parcel(journal, number, parcel, carried))
                place += count or 0
        except Exception as error:
            return stopped(error)
        return answer

    def _parcel(
        self, journal: Journal, number: int, parcel: Parcel, carried: Sequence[Buffer] | None
    ) -> list[Outcome]:
        if number in journal.done:
            known: list[Outcome] = journal.done[number]
            return known
        results = self.job.settings.results
        if journal.deaths[number] >= MOST_DEATHS:
            outcomes = [give_up(parcel, self.rules, results)]
        else:
            # After a death some of it may be drafted already.
            fresh = carried is None or journal.deaths[number] > 0
            journal.begin(number)
            steps = self._opened(parcel) if fresh else map(pickle.loads, carried or ())
            (outcomes,) = draft_steps(self.checkpoint, steps, self.rules, results)
        journal.end(number, outcomes)
        return outcomes

    def _opened(self, parcel: Parcel) -> Iterator[Step]:
        return ahead(prepare(parcel, self.rules, self.job.settings.results))


def stopped(error: Exception, what: str = "an error of medvlm's own") -> Stopped:
    """Why a run cannot go on; raised again where MEDVLM_DEBUG asks for that."""
    if isinstance(error, MedVLMError | ImportError):
        error.__cause__ = error.__context__ = None
        return Stopped(error)
    if os.environ.get("MEDVLM_DEBUG"):
        raise error
    remedy = "see whether memory ran short; MEDVLM_DEBUG=1 tells more"
    return Stopped(ConfigError(f"{what} ({type(error).__name__})", remedy=remedy))
