"""Studies that failed, each with its reason, in `OUT/quarantine/`: not tried again unless asked.

A record names files by their sha256 and nothing else, for a path may carry a patient's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from medvlm.batch.files import CannotWrite, write_text
from medvlm.batch.key import name_mark
from medvlm.batch.parcel import Parcel, StudyParcel
from medvlm.batch.results import QUARANTINE
from medvlm.dicom.read import Refused

_UNREAD = "file-"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Failure(_Record):
    """Why; `file`: the sha256 of the file it is about, where it is about one that was read."""

    file: str | None = None
    code: str
    message: str
    remedy: str | None = None


class Record(_Record):
    """A study, or a parcel that could not be opened.

    `key`: of the draft that failed; with another key it is tried again. `tries`: how often it was
    asked for. `drafted`: whether only some of its images failed, so that there is a draft.
    `files`: their sha256.
    """

    key: str
    tries: int
    drafted: bool
    files: list[str]
    failures: list[Failure]


@dataclass(frozen=True)
class Quarantine:
    """The records in a folder of results."""

    out: Path

    def record(self, name: str, key: str | None = None) -> Record | None:
        """The record of that name, if it has the key where one is given."""
        try:
            found = Record.model_validate_json(self._place(name).read_text(encoding="utf-8"))
        except (OSError, ValidationError, UnicodeDecodeError):
            return None
        return found if key in (None, found.key) else None

    def put(
        self,
        name: str,
        key: str,
        failures: Sequence[Refused],
        files: Mapping[str, str],
        *,
        drafted: bool = False,
        again: bool = False,
    ) -> None:
        """Records failures. Raises CannotWrite.

        Args:
            files: the sha256 of each file that could be read, by the name shown to people.
            again: whether a record that is there was tried once more, as somebody asked.
        """
        before = self.record(name, key)
        record = Record(
            key=key,
            tries=before.tries + again if before else 1,
            drafted=drafted,
            files=sorted(set(files.values())),
            failures=[
                Failure(
                    file=files.get(item.file),
                    code=item.code,
                    message=item.message,
                    remedy=item.remedy,
                )
                for item in failures
            ],
        )
        write_text(self._place(name), record.model_dump_json(indent=2) + "\n")

    def release(self, name: str) -> None:
        """What failed is well again."""
        try:
            self._place(name).unlink(missing_ok=True)
        except OSError as error:
            raise CannotWrite from error

    def keep_unread(self, refused: Iterable[Refused]) -> None:
        """Records files that gave no image; they are read anew in each run. Raises CannotWrite."""
        for item in refused:
            failure = Refused("", item.code, item.message, item.remedy)
            self.put(_UNREAD + name_mark(item.file), "", [failure], {})

    def forget_read(self, parcels: Iterable[Parcel]) -> Iterator[Parcel]:
        """The parcels; files in them that gave no image to an earlier run are well again."""
        known = {path.stem for path in (self.out / QUARANTINE).glob(f"{_UNREAD}*.json")}
        for parcel in parcels:
            if known and isinstance(parcel, StudyParcel):
                names = {_UNREAD + name_mark(item.file) for item in parcel.study.instances}
                for name in known & names:
                    self.release(name)
            yield parcel

    def _place(self, name: str) -> Path:
        return self.out / QUARANTINE / f"{name}.json"


def as_refused(record: Record, files: Mapping[str, str], otherwise: str) -> list[Refused]:
    """A record's failures for people: `files` as in `put`; `otherwise`: the name of the whole."""
    names = {sha256: name for name, sha256 in files.items()}
    return [
        Refused(names.get(item.file or "", otherwise), item.code, item.message, item.remedy)
        for item in record.failures
    ]
