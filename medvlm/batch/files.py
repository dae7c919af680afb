"""Files that are whole or not there, whoever is killed while they are written."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

from medvlm.errors import ConfigError

_numbers = itertools.count()


class CannotWrite(ConfigError):
    """The folder of results takes no more: the run ends, for every other study would fail too."""

    code = "cannot_write"

    def __init__(self, message: str = "nothing more can be written into the folder of results"):
        super().__init__(
            message,
            remedy="make room or mend its permissions, and run the same command again: "
            "it goes on where it stopped",
        )


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a file beside `path`, which then takes its place at once.

    Raises CannotWrite if the disk is full or the folder does not take it.
    """
    # Two processes may write the same file, after a death or on two machines.
    partial = path.with_name(f".{path.name}.{os.getpid()}-{next(_numbers)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        partial.replace(path)
    except OSError as error:
        raise CannotWrite from error
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """The same of UTF-8 text. Raises CannotWrite."""
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def lines(path: Path) -> list[str]:
    """A small file's lines; none if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
