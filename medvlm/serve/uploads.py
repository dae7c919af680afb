"""Takes uploads in: files, archives of them, into the store. Names of files reach no log."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from medvlm.dicom.files import printable
from medvlm.dicom.read import Refused, read_inputs
from medvlm.dicom.study import group_studies
from medvlm.errors import InputError
from medvlm.serve.problems import RefusedFile
from medvlm.serve.store import Store

TYPES = frozenset(
    {
        "application/dicom",
        "application/octet-stream",
        "application/zip",
        "application/x-zip-compressed",
        "image/jpeg",
        "image/png",
    }
)


@dataclass(frozen=True)
class Part:
    """One file of an upload; `name` and `content_type` are the caller's words."""

    name: str
    content_type: str | None
    file: BinaryIO


def take(store: Store, parts: Sequence[Part]) -> tuple[list[str], list[RefusedFile]]:
    """Keeps what the files hold: names of studies, in order, and what could not be used.

    A file that is bad harms no other. Raises StoreError if the disk will not have them.
    """
    refused: list[RefusedFile] = []
    with store.incoming() as folder:
        paths: dict[str, str] = {}
        for number, part in enumerate(parts):
            kind = (part.content_type or "application/octet-stream").partition(";")[0].strip()
            if kind.lower() not in TYPES:
                refused.append(_wrong_type(part))
                continue
            path = folder / f"{number:05}"
            with path.open("wb") as sink:
                shutil.copyfileobj(part.file, sink, 1 << 20)
            paths[str(path)] = printable(part.name)
        reading = read_inputs([Path(path) for path in paths])
        failed = list(reading.failed)
        names: dict[str, None] = {}
        for study in group_studies(reading):
            try:
                name, errors = store.add(study)
            except InputError as error:
                failed.append(Refused.because(error, study.instances[0].file))
                continue
            names[name] = None
            failed += [Refused.because(error, error.file or "") for error in errors]
    return list(names), refused + [_told(one, paths) for one in failed]


def _wrong_type(part: Part) -> RefusedFile:
    return RefusedFile(
        file=printable(part.name),
        code="unsupported_media_type",
        message="This type of content is not taken.",
        remedy="Send application/dicom, image/png, image/jpeg or application/zip.",
    )


def _told(refused: Refused, names: dict[str, str]) -> RefusedFile:
    """The refusal by the name that the caller knows."""
    file = next(
        (
            name + refused.file[len(path) :]
            for path, name in names.items()
            if refused.file.startswith(path)
        ),
        "",
    )
    return RefusedFile(file=file, code=refused.code, message=refused.message, remedy=refused.remedy)
