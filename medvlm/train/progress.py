"""What a training run leaves behind: a log line per epoch, and a state to go on from."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import track as rich_track

from medvlm.config import Config
from medvlm.errors import CheckpointError

T = TypeVar("T")


def track(items: Sequence[T], title: str) -> Iterable[T]:
    """The items, with a bar on stderr that goes when they do."""
    return rich_track(items, title, console=Console(stderr=True), transient=True)


class Log:
    """JSON lines in `log.jsonl`, echoed to the terminal."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.jsonl"
        self.start = time.monotonic()

    def write(self, **figures: Any) -> None:
        row = {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in figures.items()
            if value == value  # a figure that is undefined (NaN) is left out
        }
        row["seconds"] = round(time.monotonic() - self.start)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Writes by rename: a run that is stopped while saving keeps its last state."""
    partial = path.with_suffix(".partial")
    torch.save(dict(state), partial)
    partial.replace(path)


def load_state(path: Path, key: str) -> dict[str, Any] | None:
    """The state of an interrupted run, or None.

    Raises CheckpointError if the state is not of the run that `key` names: going on from another
    configuration or encoder would mix the two.
    """
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    if state["key"] != key:
        raise CheckpointError(
            "is the state of a run with another configuration",
            file=str(path),
            remedy="remove it, or give this run another `out`",
        )
    return state


def run_key(config: Config, *more: str) -> str:
    """Names a run by what it depends on."""
    return hashlib.sha256("|".join([config.model_dump_json(), *more]).encode()).hexdigest()
