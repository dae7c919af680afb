"""What a training run leaves behind: a row per step, a line per epoch, a state to go on from."""

from __future__ import annotations

import csv
import hashlib
import json
import pickle
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO, TypeVar

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import track as rich_track

from medvlm.config import Config
from medvlm.errors import CheckpointError, ConfigError

T = TypeVar("T")
STEPS, EPOCHS = "steps.csv", "log.jsonl"
# A speed taken over some minutes: steps differ, and epochs end with a pause for their figures.
SPEED_WINDOW_S = 600
# What a run may change and still be the same run.
FREE_KEYS = {"out", "log", "save_every", "device"}


def track(items: Sequence[T], title: str) -> Iterable[T]:
    """The items, with a bar on stderr that goes when they do."""
    return rich_track(items, title, console=Console(stderr=True), transient=True)


class Bar:
    """A bar on stderr over all steps of a run, with the time that is left."""

    def __init__(self, total: int, *, shown: bool = True) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            speed_estimate_period=SPEED_WINDOW_S,
            disable=not shown,
        )
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, step: int, title: str) -> None:
        """`step` steps of the run are done."""
        self._progress.update(self._task, completed=step, description=title)

    @contextmanager
    def hidden(self) -> Any:
        """Room for other lines."""
        self._progress.stop()
        yield
        self._progress.start()


class Log:
    """`steps.csv`, `log.jsonl` (echoed to the terminal) and, if wanted, TensorBoard's files.

    `resume` cuts off what was written after the state that a run goes on from, so that no step or
    epoch stands there twice. A log that is not `main` writes nothing.

    Raises ConfigError if TensorBoard is wanted but not installed.
    """

    def __init__(
        self, folder: Path, parts: Sequence[str], *, tensorboard: bool = False, main: bool = True
    ) -> None:
        self.folder = folder
        self.main = main
        self.columns = ["step", "epoch", "stage", "loss", *parts]
        self.columns += ["learning_rate", "seconds", "samples_per_s"]
        self._board = _board_class() if tensorboard else None
        self._writer: Any = None
        self._files: dict[str, TextIO] = {}
        self._began = time.monotonic()

    def resume(self, mark: Mapping[str, float] | None) -> None:
        """Opens the files where `mark` says; None begins them anew."""
        mark = mark or {}
        self._began = time.monotonic() - mark.get("seconds", 0.0)
        if not self.main:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in (STEPS, EPOCHS):
            file = (self.folder / name).open("a", encoding="utf-8", newline="")
            file.truncate(min(int(mark.get(name, 0)), file.tell()))
            self._files[name] = file
        if not mark:
            self._row(self.columns)
        if self._board is not None:
            step = int(mark.get("step", 0)) + 1
            self._writer = self._board(str(self.folder / "tensorboard"), purge_step=step)

    def mark(self, step: int) -> dict[str, float]:
        """Where the log stands after `step`, for `resume`."""
        sizes = {}
        for name, file in self._files.items():
            file.flush()
            sizes[name] = float((self.folder / name).stat().st_size)
        return {**sizes, "step": float(step), "seconds": self.seconds}

    @property
    def seconds(self) -> float:
        """Since the run began, without the time between its parts."""
        return time.monotonic() - self._began

    def step(self, **figures: Any) -> None:
        """A row of `steps.csv`; columns that are not given stay empty."""
        if not self.main:
            return
        row = [figures.get(name, "") for name in self.columns]
        self._row([f"{v:.7g}" if isinstance(v, float) else v for v in row])
        self._scalars("step", int(figures["step"]), figures)

    def epoch(self, step: int, total: int, **figures: Any) -> None:
        """A line of `log.jsonl`; a figure that is undefined (NaN) is left out.

        The terminal is told too, with the time that is left when `step` of `total` steps are done.
        """
        if not self.main:
            return
        row = {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in figures.items()
            if value == value
        }
        row["seconds"] = round(self.seconds)
        self._files[EPOCHS].write(json.dumps(row) + "\n")
        self._files[EPOCHS].flush()
        self._scalars("epoch", step, row)
        left = timedelta(seconds=round(self.seconds * (total / step - 1)))
        said = [*(f"{name} {value}" for name, value in row.items()), f"left {left}"]
        print("  ".join(said), flush=True)

    def close(self) -> None:
        """Ends the files."""
        for file in self._files.values():
            file.close()
        self._files = {}
        if self._writer is not None:
            self._writer.close()

    def _row(self, values: Sequence[Any]) -> None:
        csv.writer(self._files[STEPS], lineterminator="\n").writerow(values)
        self._files[STEPS].flush()

    def _scalars(self, kind: str, step: int, figures: Mapping[str, Any]) -> None:
        if self._writer is None:
            return
        for name, value in figures.items():
            if isinstance(value, float):
                self._writer.add_scalar(f"{kind}/{name}", value, step)


def _board_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "log: tensorboard, but TensorBoard is not installed",
            remedy="pip install 'medvlm[tensorboard]', or set log: files",
        ) from error
    return SummaryWriter


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Writes by rename: a run that is stopped while saving keeps its last state."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(dict(state), partial)
    partial.replace(path)


def load_state(path: Path, key: str) -> dict[str, Any] | None:
    """The state of an interrupted run, or None.

    Raises CheckpointError if the state is damaged, or not of the run that `key` names: going on
    from another configuration or encoder would mix the two.
    """
    if not path.exists():
        return None
    remedy = "remove it, or give this run another `out`"
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        found = state["key"]
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
        raise CheckpointError(
            "is no state of a training run", file=str(path), remedy=remedy
        ) from error
    if found != key:
        raise CheckpointError(
            "is the state of a run with another configuration", file=str(path), remedy=remedy
        )
    return state


def run_key(config: Config, *more: str) -> str:
    """Names a run by what it depends on."""
    content = config.model_dump_json(exclude=FREE_KEYS)
    return hashlib.sha256("|".join([content, *more]).encode()).hexdigest()
