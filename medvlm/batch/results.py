"""The folder of results: one folder for each study, whole once its key is there.

```
OUT/<study>/draft.json, draft.md, overlay.png, crops/
            .inputs.sha256   the draft's key: the last to appear
            .patient         the patient's pseudonym, whose the folder is
OUT/quarantine/              studies that failed (medvlm.batch.quarantine)
OUT/.parcels/                parcels that need no fetching again (medvlm.batch.ledger)
OUT/.claims/, .scratch/      of the run under way
OUT/findings.parquet         every finding of every draft (medvlm.batch.table)
```

Only `timings_s` in draft.json, and the same seconds at the end of draft.md, differ between two
drafts with one key.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from pydantic import ValidationError

from medvlm.batch.files import CannotWrite, lines, write_text, write_whole
from medvlm.dicom.study import Study
from medvlm.errors import InputError, UsageError
from medvlm.records import Draft

if TYPE_CHECKING:
    from PIL import Image

    from medvlm.draft.compose import DraftResult

KEY, OWNER, CROPS = ".inputs.sha256", ".patient", "crops"
QUARANTINE, PARCELS, CLAIMS, SCRATCH, LOCK = (
    "quarantine",
    ".parcels",
    ".claims",
    ".scratch",
    ".lock",
)
UNKNOWN = "unknown"


@dataclass(frozen=True)
class ResultFolder:
    """Where a run writes. `run` names the run; no draft of one run overwrites another of it."""

    path: Path
    run: str = "run"

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """For the process that leads a run. Raises UsageError if another run has the folder."""
        lock = FileLock(self.path / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise UsageError(
                f"another run writes into {self.path}", remedy="let it end, or choose another --out"
            ) from None
        try:
            self._forget_run()  # of one that was killed
            yield
        finally:
            self._forget_run()
            lock.release()

    def _forget_run(self) -> None:
        for name in (CLAIMS, SCRATCH):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for folder in (self.path, self.path / QUARANTINE):
            for left in folder.glob(".*.partial"):
                _remove(left)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for what is fetched, gone afterwards. Raises CannotWrite."""
        place = self.path / SCRATCH / f"{os.getpid()}-{time.monotonic_ns()}"
        try:
            place.parent.mkdir(mode=0o700, exist_ok=True)
            place.mkdir()
        except OSError as error:
            raise CannotWrite from error
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def folder(self, study: Study) -> Path:
        """The study's folder; with the patient's pseudonym where another patient's has the name.

        Two patients may share a StudyInstanceUID in different calls.
        """
        plain, own = self._candidates(study)
        return plain if self._may_have(plain, study) else own

    def claim(self, study: Study, key: str) -> Path:
        """The same, for this run's draft with this key.

        Raises InputError (study_collision) if other images of the study were claimed in this run.
        """
        patient = study.patient or UNKNOWN
        for folder in self._candidates(study):
            if not self._may_have(folder, study):
                continue
            held = self._hold(folder.name, [key, patient])
            if held == [key, patient]:
                return folder
            if held[1:] == [patient]:
                break
        raise InputError(
            "Another input of this run holds other images of the same study.",
            remedy="Give all files of the study as one input, such as one folder.",
            code="study_collision",
        )

    def keep(self, folder: Path, key: str) -> bool:
        """Claims the draft of an earlier run as this one's; False: another has the study by now."""
        claim = [key, *lines(folder / OWNER)]
        return self._hold(folder.name, claim) == claim

    def finished(self, folder: Path, key: str) -> Draft | None:
        """The draft of an earlier run with this key, if it is whole."""
        try:
            if lines(folder / KEY) != [key]:
                return None
            return Draft.model_validate_json((folder / "draft.json").read_text(encoding="utf-8"))
        except (OSError, ValidationError, UnicodeDecodeError):
            return None

    def write(self, folder: Path, key: str, patient: str | None, result: DraftResult) -> None:
        """Writes a draft in such an order that a crash leaves it to be done again, or whole.

        Raises CannotWrite.
        """
        # Two parcels may hold the same study: what they write is the same, but not at once.
        with self._alone(folder.name):
            self._write(folder, key, patient, result)

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        place = self.path / CLAIMS
        try:
            place.mkdir(exist_ok=True)
            lock = FileLock(place / f"{name}.lock")
            lock.acquire()
        except OSError as error:
            raise CannotWrite from error
        try:
            yield
        finally:
            lock.release()

    def _write(self, folder: Path, key: str, patient: str | None, result: DraftResult) -> None:
        from medvlm.draft.markdown import to_markdown

        begin(folder, patient)
        overlay = result.overlay
        if overlay is not None:
            write_whole(folder / "overlay.png", lambda partial: overlay.save(partial, format="PNG"))
        _write_crops(folder, result.crops)
        write_text(folder / "draft.md", to_markdown(result.draft, f"Draft {folder.name}"))
        write_text(folder / "draft.json", result.draft.model_dump_json(indent=2) + "\n")
        write_text(folder / KEY, key)

    def _candidates(self, study: Study) -> tuple[Path, Path]:
        return self.path / study.name, self.path / f"{study.name}-{study.patient or UNKNOWN}"

    def _may_have(self, folder: Path, study: Study) -> bool:
        owner = lines(folder / OWNER)
        return not owner or owner == [study.patient or UNKNOWN]

    def _hold(self, name: str, claim: list[str]) -> list[str]:
        """Who has the name in this run: whoever came first."""
        place = self.path / CLAIMS / self.run / name
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("x", encoding="utf-8") as stream:
                stream.write("\n".join(claim))
            return claim
        except FileExistsError:
            return _patiently(place) or claim
        except OSError as error:
            raise CannotWrite from error


def begin(folder: Path, patient: str | None) -> None:
    """Takes a study's folder: from here on it is unfinished. Raises CannotWrite."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / KEY).unlink(missing_ok=True)
        write_text(folder / OWNER, patient or UNKNOWN)
        (folder / "overlay.png").unlink(missing_ok=True)
        for left in folder.glob(".*.partial"):
            _remove(left)
        _remove(folder / CROPS)
    except OSError as error:
        raise CannotWrite from error


def _patiently(place: Path) -> list[str]:
    """A claim that may be in the making; none if whoever made it died over it."""
    for _ in range(20):
        if held := lines(place):
            return held
        time.sleep(0.05)
    return []


def _write_crops(folder: Path, crops: Mapping[str, Image.Image]) -> None:
    """In the order of the draft; they appear together."""
    if not crops:
        return

    def write(partial: Path) -> None:
        partial.mkdir()
        for number, (finding, picture) in enumerate(crops.items(), 1):
            picture.save(partial / f"{number:02}-{finding}.png", format="PNG")

    place = folder / f".{CROPS}.{os.getpid()}.partial"
    try:
        _remove(place)
        write(place)
        place.replace(folder / CROPS)
    except OSError as error:
        raise CannotWrite from error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
