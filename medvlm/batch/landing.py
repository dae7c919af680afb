"""Files from elsewhere: written into a scratch folder, read there, shown by their own names.

In the folder they are numbered, so that no name from elsewhere becomes a path of this machine.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from medvlm.batch.parcel import Contents
from medvlm.dicom.files import printable
from medvlm.dicom.instance import Instance
from medvlm.dicom.limits import limits
from medvlm.dicom.read import Reading, Refused, read_inputs
from medvlm.dicom.study import group_studies
from medvlm.errors import TooLarge


class Landing:
    """What one parcel brings, within the limits of an archive.

    Args:
        folder: of this parcel alone; made if it is not there.
        name: the parcel's, for errors.
    """

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name = folder, name
        self.names: list[str] = []
        self._bytes = 0
        self._refused: list[Refused] = []

    def add(self, name: str, chunks: Iterable[bytes]) -> None:
        """Writes one file as its bytes come. One beyond the limit of a file is refused alone.

        Raises TooLarge if the parcel is beyond the limits of an archive, or the disk is full.
        """
        if len(self.names) >= limits().archive_members:
            raise self._too_large(f"It holds more than {limits().archive_members} files.")
        path = self.folder / f"{len(self.names):06d}"
        self.names.append(printable(name))
        try:
            self._write(path, chunks)
        except _FileTooLarge:
            path.unlink()
            most = limits().file_bytes / 2**30
            error = TooLarge(f"The file is larger than {most:.1f} GiB.")
            self._refused.append(Refused.because(error, self.names[-1]))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise self._too_large(
                "The disk is full.", "Make room, or set TMPDIR to a larger disk."
            ) from error

    def contents(self, also: Sequence[Path] = ()) -> Contents:
        """The studies in what was added, and in files or folders that need no fetching."""
        landed = [self.folder] if any(self.folder.iterdir()) else []
        reading = read_inputs([*also, *landed])
        instances = [_named(one, self._shown(one.file)) for one in reading.instances]
        refused = [replace(one, file=self._shown(one.file)) for one in reading.refused]
        reading = Reading(instances, [*self._refused, *refused])
        studies = group_studies(reading)
        return Contents(studies, [None] * len(studies), reading)

    def _write(self, path: Path, chunks: Iterable[bytes]) -> None:
        size = 0
        with path.open("wb") as sink:
            for chunk in chunks:
                size += len(chunk)
                self._bytes += len(chunk)
                if self._bytes > limits().archive_bytes:
                    most = limits().archive_bytes / 2**30
                    raise self._too_large(f"It is larger than {most:.1f} GiB.")
                if size > limits().file_bytes:
                    raise _FileTooLarge
                sink.write(chunk)

    def _too_large(self, message: str, remedy: str | None = None) -> TooLarge:
        remedy = remedy or "Give it in smaller parts, or raise the limit (MEDVLM_LIMIT_...)."
        return TooLarge(message, file=self.name, remedy=remedy)

    def _shown(self, file: str) -> str:
        """The name at home of a file in the folder, or of a file in an archive there."""
        inside = file.removeprefix(f"{printable(str(self.folder))}/")
        if inside == file:
            return file
        number, slash, rest = inside.partition("/")
        return f"{self.names[int(number)]}{slash}{rest}"


class _FileTooLarge(Exception):
    pass


def _named(instance: Instance, file: str) -> Instance:
    other = replace(instance, file=file)
    if "sha256" in instance.__dict__:  # once taken, it is not taken again
        other.__dict__["sha256"] = instance.sha256
    return other
