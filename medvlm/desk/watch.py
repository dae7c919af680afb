"""A folder that studies arrive in: what lies there is taken in once it is complete.

Nothing is moved or removed. A file is complete when its size and time have stayed for a while, a
study when that holds for all of its files. What was taken is remembered over restarts, by a digest
of its name, with size and time: a file that changes later is looked at again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom.datadict import tag_for_keyword

from medvlm.desk.discreet import told
from medvlm.desk.files import PARTIAL, write_whole
from medvlm.desk.intake import Intake, take_in
from medvlm.dicom.facts import uid
from medvlm.dicom.header import read_header
from medvlm.dicom.limits import limits
from medvlm.errors import InputError, StoreError
from medvlm.review.records import Person
from medvlm.review.store import Store
from medvlm.review.studies import MACHINE

WATCHER = Person(id=MACHINE, name="Watched folder", role="admin")
_UNFINISHED = (PARTIAL, ".part", ".tmp", ".crdownload", "~")
_STUDY_UID = int(tag_for_keyword("StudyInstanceUID") or 0)
_log = logging.getLogger(__name__)

Signature = tuple[int, int]  # size, time of the last change in ns


@dataclass
class _Waiting:
    """A file not taken yet: since when it is as it is, and the study that it belongs to."""

    signature: Signature
    since: float
    study: str | None


class Watcher:
    """One watched folder. `clock`: seconds that only grow."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        stable_s: float,
        by: Person = WATCHER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store, self.folder, self.stable_s, self.by = store, folder, stable_s, by
        self._clock = clock
        name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
        self._memory = store.files / f".watched-{name}.json"
        self._taken = self._remembered()
        self._waiting: dict[str, _Waiting] = {}
        self._away = False

    def poll(self) -> list[Intake]:
        """Looks once, and takes in what is complete. Raises StoreError if the desk cannot."""
        self._look()
        made = []
        for files in self._complete():
            made.append(self._take(files))
        return made

    def _look(self) -> None:
        now, there = self._clock(), {}
        try:
            for path, signature in _files(self.folder, self.store.files.resolve()):
                there[path] = signature
        except OSError:
            if not self._away:
                _log.warning("a watched folder cannot be read")
            self._away = True
            return
        self._away = False
        self._waiting = {path: one for path, one in self._waiting.items() if path in there}
        for path, signature in there.items():
            if self._taken.get(_name(path, self.folder)) == signature:
                self._waiting.pop(path, None)
                continue
            known = self._waiting.get(path)
            if known is None or known.signature != signature:
                self._waiting[path] = _Waiting(signature, now, _study(path))

    def _complete(self) -> Iterator[list[str]]:
        """The files of each study that is complete; a file of no study counts as one."""
        groups: dict[str, list[str]] = {}
        for path, one in self._waiting.items():
            groups.setdefault(one.study or path, []).append(path)
        now = self._clock()
        for files in groups.values():
            if now - max(self._waiting[path].since for path in files) >= self.stable_s:
                yield sorted(files)

    def _take(self, files: list[str]) -> Intake:
        try:
            intake = take_in(self.store, map(Path, files), self.by)
        except StoreError:
            raise  # they stay, and are tried again
        except Exception as error:  # whatever one study does, the others shall come in
            _log.error("a study of a watched folder: %s", told(error))
            intake = Intake()
        for path in files:
            self._taken[_name(path, self.folder)] = self._waiting.pop(path).signature
        self._remember()
        _log.info(
            "a watched folder: %d added, %d known, %d refused",
            len(intake.added),
            len(intake.known),
            len(intake.refused),
        )
        return intake

    def _remembered(self) -> dict[str, Signature]:
        try:
            content = json.loads(self._memory.read_bytes())
            return {name: (int(size), int(at)) for name, (size, at) in content.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _remember(self) -> None:
        write_whole(self._memory, json.dumps(self._taken).encode(), durable=True)


def _name(path: str, folder: Path) -> str:
    relative = os.path.relpath(path, folder)
    return hashlib.sha256(relative.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _files(folder: Path, desk: Path, depth: int = 0) -> Iterator[tuple[str, Signature]]:
    """Regular files below the folder; no links, nothing hidden or unfinished, none of the desk's.

    Raises OSError if the folder itself cannot be read.
    """
    if folder.resolve() == desk:
        return
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    for entry in listed:
        if entry.name.startswith(".") or entry.name.endswith(_UNFINISHED):
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                if depth < limits().folder_depth:
                    yield from _files(Path(entry.path), desk, depth + 1)
            elif entry.is_file(follow_symlinks=False):
                at = entry.stat(follow_symlinks=False)
                yield entry.path, (at.st_size, at.st_mtime_ns)
        except OSError:
            continue  # gone, or not for us


def _study(path: str) -> str | None:
    """The study that a DICOM file says it belongs to, as far as it has been written."""
    try:
        _, header = read_header(path, {_STUDY_UID})
    except (OSError, InputError):
        return None
    return uid(header.ds, "StudyInstanceUID") if header else None
