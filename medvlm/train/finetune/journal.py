"""`run.json`: which run a folder belongs to, and how long its steps took."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from medvlm.errors import DataSetError

RUN, LOCK = "run.json", ".lock"

Say = Callable[[str], None]


class Journal:
    """Of the run that `key` names; `seconds` by step, those of interrupted runs included."""

    def __init__(self, out: Path, key: str, say: Say) -> None:
        self.out, self.key, self.say = out, key, say
        self.seconds: dict[str, float] = {}

    def begin(self) -> None:
        """Claims OUT, or finds that it is this run's. Raises DataSetError if it is another's."""
        path = self.out / RUN
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            self.seconds = dict(found["seconds"])
        except FileNotFoundError:
            if any(place.name != LOCK for place in self.out.iterdir()):
                raise DataSetError(
                    "is not empty", file=str(self.out), remedy="Give --out a new folder."
                ) from None
            self._note()
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataSetError(
                "is not the record of a run", file=str(path), remedy="Give --out a new folder."
            ) from error
        if found.get("key") != self.key:
            raise DataSetError(
                "holds a run with other data, settings or another base",
                file=str(self.out),
                remedy="Give --out a new folder; one key keeps every patient on the same side.",
            )

    def _note(self) -> None:
        content = {"key": self.key, "seconds": self.seconds}
        write_whole(self.out / RUN, json.dumps(content, indent=2) + "\n")

    @contextmanager
    def step(self, name: str, title: str) -> Iterator[None]:
        self.say(title)
        start = time.monotonic()
        yield
        spent = self.seconds.get(name, 0.0) + time.monotonic() - start
        self.seconds[name] = round(spent, 1)
        self._note()


def write_whole(path: Path, content: str) -> None:
    """Writes a text file that appears when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(content, encoding="utf-8")
    partial.replace(path)
