"""The training loop: one for pretraining, alignment, and whatever else is learned step by step.

A `Lesson` says what is trained, on which films and with which loss; `teach` does the rest. All
that is drawn at random for a film depends on the seed, the epoch and the film's place in the epoch
alone, and dropout on the first of a pass's places. So nothing random needs to be saved, a run that
was stopped anywhere goes on as if it had not been, and a step is the same whether processes or
passes share it. What a lesson takes over one pass (a mean over known labels, a batch norm) depends
on how many passes there are.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from medvlm.config import RunConfig, StopConfig
from medvlm.errors import ConfigError, TrainingError
from medvlm.train.lesson import Chunk, Lesson
from medvlm.train.parallel import Processes
from medvlm.train.progress import Bar, Log, load_state, save_state

STATE = "state.pt"
T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Best:
    """The best epoch so far by `stop.figure`."""

    value: float = math.nan
    epoch: int = -1
    last: int = -1
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def see(self, stop: StopConfig, epoch: int, value: float, tensors: dict[str, Tensor]) -> None:
        """Compares an epoch's figure."""
        self.last = epoch
        better = value > self.value if stop.higher else value < self.value
        if better or math.isnan(self.value):
            self.value, self.epoch = value, epoch
            self.tensors = {name: t.detach().cpu().clone() for name, t in tensors.items()}

    def enough(self, stop: StopConfig) -> bool:
        """Whether `patience` epochs have gone by without a better one."""
        return self.last - self.epoch >= stop.patience


def teach(lessons: Sequence[Lesson], config: RunConfig, key: str, processes: Processes) -> None:
    """Teaches the lessons in order, going on where an earlier run of the same `key` stopped.

    Raises ConfigError if a batch cannot be shared out evenly or `stop` names no figure,
    CheckpointError if `config.out` holds the state of another run, TrainingError if the loss is no
    number any more.
    """
    _Teacher(lessons, config, key, processes).run()


@dataclass(frozen=True)
class _Part:
    """A lesson's place in the run: its number, its steps an epoch, and the steps before it."""

    lesson: Lesson
    number: int
    steps: int
    before: int


class _Teacher:
    def __init__(
        self, lessons: Sequence[Lesson], config: RunConfig, key: str, processes: Processes
    ) -> None:
        self.config, self.key, self.processes = config, key, processes
        self.state_path = config.out / STATE
        names = dict.fromkeys(name for lesson in lessons for name in lesson.parts)
        board = config.log == "tensorboard"
        self.log = Log(config.out, [*names], tensorboard=board, main=processes.main)
        self.parts: list[_Part] = []
        self.total = 0
        for number, lesson in enumerate(lessons):
            steps = self._steps(lesson) if lesson.epochs else 0
            self.parts.append(_Part(lesson, number, steps, self.total))
            self.total += steps * lesson.epochs

    def _steps(self, lesson: Lesson) -> int:
        """Steps of an epoch, after a look at whether batches can be made and shared out."""
        passes, films = self.processes.count * self.config.accumulate, len(lesson.rows(0))
        if lesson.batch_size % passes:
            raise ConfigError(
                f"{lesson.name}: a batch of {lesson.batch_size} cannot be shared out evenly to "
                f"{self.processes.count} process(es) x accumulate {self.config.accumulate}",
                remedy=f"choose batches that are multiples of {passes}",
            )
        if films < lesson.batch_size:
            raise ConfigError(
                f"{lesson.name}: an epoch of {films} films is less than a batch of "
                f"{lesson.batch_size}",
                remedy="lower batch_size, or raise data.per_epoch",
            )
        return films // lesson.batch_size

    def run(self) -> None:
        state = load_state(self.state_path, self.key)
        self.log.resume(state["log"] if state else None)
        try:
            with Bar(self.total, shown=self.processes.main) as self.bar:
                for part in self.parts:
                    if state is None or part.number >= state["lesson"]:
                        self._lesson(part, state)
                        state = None
        finally:
            self.log.close()
        self.processes.wait()

    def _lesson(self, part: _Part, state: dict[str, Any] | None) -> None:
        """One lesson; `state`: where to go on within it."""
        lesson, stop = part.lesson, self.config.stop
        lesson.begin()
        groups = lesson.groups()
        self.rates = [group["lr"] for group in groups]
        self.optimiser = torch.optim.AdamW(groups, weight_decay=self.config.weight_decay)
        self.parameters = [p for group in groups for p in group["params"]]
        self.best, epoch, first, sums = Best(), 0, 0, [0.0] * (len(lesson.parts) + 1)
        if state is not None:
            fill(lesson.tensors(), state["tensors"])
            lesson.remember(state["memory"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.best = Best(**state["best"])
            epoch, first, sums = state["epoch"], state["step"], state["sums"]
        while epoch < lesson.epochs and not (stop and self.best.enough(stop)):
            sums = self._epoch(part, epoch, first, sums)
            self._close_epoch(part, epoch, sums)
            epoch, first, sums = epoch + 1, 0, [0.0] * len(sums)
            self._save(part, epoch, 0, sums)
        if self.best.tensors:
            fill(lesson.tensors(), self.best.tensors)

    def _epoch(self, part: _Part, epoch: int, first: int, sums: list[float]) -> list[float]:
        """The steps of an epoch from `first` on; returns the sums of loss and parts over it."""
        lesson, every = part.lesson, self.config.save_every
        title = f"{lesson.name} {epoch + 1}/{lesson.epochs}"
        lesson.train(True)
        passes = self._prepared(lesson, epoch, range(first, part.steps))
        for step in range(first, part.steps):
            started = time.monotonic()
            factor = lesson.rate(epoch * part.steps + step)
            for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
                group["lr"] = rate * factor
            figures = self._step(lesson, passes)
            done, seconds = self._done(part, epoch, step + 1), time.monotonic() - started
            if not math.isfinite(figures[0]):
                raise TrainingError(
                    f"the loss is {figures[0]} in {title} (step {done})",
                    file=str(self.config.out),
                    remedy="train with a lower learning rate or precision: float32, into another "
                    "`out`",
                )
            sums = [total + one for total, one in zip(sums, figures, strict=True)]
            self.log.step(
                step=done,
                epoch=epoch + 1,
                stage=lesson.name,
                **dict(zip(("loss", *lesson.parts), figures, strict=True)),
                learning_rate=self.rates[0] * factor,
                seconds=seconds,
                samples_per_s=lesson.batch_size / seconds,
            )
            self.bar.update(done, title)
            if every and done % every == 0 and step + 1 < part.steps:
                self._save(part, epoch, step + 1, sums)
        lesson.train(False)
        lesson.after_epoch(epoch)
        return sums

    def _step(self, lesson: Lesson, passes: Iterator[tuple[Chunk, Any]]) -> list[float]:
        """One step of the optimiser: forward, backward, average, clip, move."""
        share = self.config.accumulate
        figures = torch.zeros(len(lesson.parts) + 1, device=self.processes.device)
        self.optimiser.zero_grad()
        for _ in range(share):
            chunk, batch = next(passes)
            torch.manual_seed(int(chunk.shared().integers(2**63)))
            loss, parts = lesson.loss(batch)
            (loss / share).backward()
            each = torch.stack([loss, *(parts[name] for name in lesson.parts)])
            figures += each.detach().float() / share
        self.processes.average_gradients(self.parameters, figures)
        nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        self.optimiser.step()
        self.processes.average(lesson.buffers())
        lesson.after_step()
        values: list[float] = figures.tolist()
        return values

    def _prepared(self, lesson: Lesson, epoch: int, steps: range) -> Iterator[tuple[Chunk, Any]]:
        """This process's passes; beside a GPU, the next is made ready while one is computed."""
        chunks = self._chunks(lesson, epoch, steps)
        if self.processes.device.type == "cpu":
            for chunk in chunks:
                yield chunk, lesson.prepare(chunk, epoch)
        else:
            yield from ahead(chunks, lambda chunk: lesson.prepare(chunk, epoch))

    def _chunks(self, lesson: Lesson, epoch: int, steps: range) -> Iterator[Chunk]:
        """A step's films, cut into processes x passes pieces; those of this process."""
        rows, passes = lesson.rows(epoch), self.config.accumulate
        size = lesson.batch_size // (self.processes.count * passes)
        for step in steps:
            for number in range(passes):
                piece = self.processes.index * passes + number
                start = step * lesson.batch_size + piece * size
                places = np.arange(start, start + size)
                yield Chunk(rows[places], places, lesson.first_epoch + epoch, self.config.seed)

    def _close_epoch(self, part: _Part, epoch: int, sums: list[float]) -> None:
        """Figures, the line in the log, and the comparison with the best epoch."""
        lesson, stop = part.lesson, self.config.stop
        figures: dict[str, float] = {}
        if self.processes.main:
            figures = lesson.figures(epoch, always=stop is not None)
            means = [total / part.steps for total in sums]
            with self.bar.hidden():
                self.log.epoch(
                    self._done(part, epoch + 1, 0),
                    self.total,
                    **lesson.about(epoch),
                    **dict(zip(("loss", *lesson.parts), means, strict=True)),
                    **figures,
                )
        figures = self.processes.agree(figures)
        if stop is None:
            return
        there = [name for name, value in figures.items() if value == value]
        if stop.figure not in there:
            raise ConfigError(
                f"stop.figure: {lesson.name} takes no figure {stop.figure} on these patients",
                remedy=f"choose one of {', '.join(there)}" if there else "leave stop out",
            )
        self.best.see(stop, epoch, figures[stop.figure], lesson.tensors())

    def _done(self, part: _Part, epoch: int, step: int) -> int:
        """Steps of the run that are done, `step` steps into `epoch` of a lesson."""
        return part.before + epoch * part.steps + step

    def _save(self, part: _Part, epoch: int, step: int, sums: list[float]) -> None:
        if not self.processes.main:
            return
        save_state(
            self.state_path,
            {
                "key": self.key,
                "lesson": part.number,
                "epoch": epoch,
                "step": step,
                "sums": sums,
                "tensors": {name: t.detach() for name, t in part.lesson.tensors().items()},
                "memory": part.lesson.memory(),
                "optimiser": self.optimiser.state_dict(),
                "best": vars(self.best),
                "log": self.log.mark(self._done(part, epoch, step)),
            },
        )


def ahead(items: Iterable[T], prepare: Callable[[T], R]) -> Iterator[tuple[T, R]]:
    """Each item with what `prepare` makes of it, made in a thread while the one before is used."""
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[tuple[T, Future[R]]] = deque()
        for item in items:
            waiting.append((item, pool.submit(prepare, item)))
            if len(waiting) > 1:
                ready, future = waiting.popleft()
                yield ready, future.result()
        for ready, future in waiting:
            yield ready, future.result()


@torch.no_grad()
def fill(own: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    """Copies `values` into the tensors of the same names, of which there must be as many."""
    if own.keys() != values.keys():
        odd = sorted(own.keys() ^ values.keys())
        raise RuntimeError(f"{len(odd)} tensors missing or unknown, such as {odd[0]}")
    for name, tensor in own.items():
        tensor.copy_(values[name])
