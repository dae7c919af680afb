"""Reads what the caller gives into instances (usable images) and refusals (with the reason).

One broken file never harms the others: what cannot be read is listed as refused.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import MediaStorageDirectoryStorage

from medvlm.dicom.decode import (
    check_pixels,
    decode_every_frame,
    header_value,
    looks_like_dicom,
    parse,
    pixel_bytes,
    typed_errors,
)
from medvlm.dicom.facts import KEYWORDS, dicom_facts
from medvlm.dicom.files import Found, find_files
from medvlm.dicom.header import Header, read_header
from medvlm.dicom.instance import PICTURES, Instance, open_picture, read_bytes
from medvlm.dicom.workers import in_worker, in_workers
from medvlm.errors import InputError, InputNotFound, NoPixels, NotDicom

Progress = Callable[[int, int], None]  # (files done, files in all)

WANTED = frozenset(int(tag) for word in KEYWORDS if (tag := tag_for_keyword(word)) is not None)
# Below this many files, starting processes takes longer than it saves.
WORTH_WORKERS = 400
BYTES_A_TIME = 32 << 20  # of compressed data are decoded in much less than the limit of time
CHUNK = 50
_EXIF_ORIENTATION, _EXIF_SIDEWAYS = 0x0112, range(5, 9)


@dataclass(frozen=True)
class Refused:
    """A file that gave no image, and why.

    `index` marks a DICOMDIR found among the files it lists: it counts as a file that was given,
    not as a failure.
    """

    file: str
    code: str
    message: str
    remedy: str | None = None
    index: bool = False

    @classmethod
    def because(cls, error: InputError, file: str) -> Refused:
        """A refusal that carries the error's words."""
        return cls(
            error.file or file,
            error.code,
            error.message,
            error.remedy,
            isinstance(error, IndexOnly),
        )


@dataclass(frozen=True)
class Reading:
    """Everything found behind the inputs: each file is an instance or refused."""

    instances: list[Instance]
    refused: list[Refused]

    @property
    def failed(self) -> list[Refused]:
        """The refusals that count as failures: all but the indices."""
        return [refused for refused in self.refused if not refused.index]


class IndexOnly(NoPixels):
    """A DICOMDIR reached as one file among others."""


def read_inputs(
    paths: Sequence[Path | str] | Path | str,
    progress: Progress | None = None,
    *,
    decode: bool = False,
    but: Path | None = None,
) -> Reading:
    """Read files, folders (with their subfolders), zip archives and DICOMDIRs.

    A file reached twice is read once. Nothing raises because of a bad file.

    Args:
        paths: what the caller gave.
        progress: called with (files done, files in all) after each file.
        decode: also decode every frame once, and refuse what does not decode.
        but: a folder of earlier results, left out where it lies inside a folder that is given.
    """
    given = [paths] if isinstance(paths, Path | str) else paths
    found, refused = find_once((Path(path) for path in given), but)
    reading = read_found(found, progress, decode=decode)
    return Reading(reading.instances, refused + reading.refused)


def read_found(
    found: Sequence[Found], progress: Progress | None = None, *, decode: bool = False
) -> Reading:
    """The same of files that `find_once` found."""
    instances: list[Instance] = []
    refused: list[Refused] = []
    for number, (item, read) in enumerate(zip(found, _read_all(found, decode), strict=True), 1):
        if isinstance(read, InputError):
            refused.append(Refused.because(read, item.name))
        else:
            instances.append(read)
        if progress:
            progress(number, len(found))
    return Reading(instances, refused)


def read_instance(found: Found | Path) -> Instance:
    """Read one DICOM file or picture; decodes nothing.

    Raises:
        InputNotFound, NotDicom, NoPixels, TruncatedPixels, TooLarge, TooDeep, Undecodable.
    """
    if isinstance(found, Path):
        found = Found(found, str(found))
    head, header = _look(found)
    if header is None and not looks_like_dicom(head):
        return _picture(found)
    if header is None:
        ds = parse(read_bytes(found.path, found.name), file=found.name)
        header = Header(ds, pixel_bytes(ds))
    return _dicom(header, found)


def _look(found: Found) -> tuple[bytes, Header | None]:
    """The first bytes of what may be an image, and its header if nobody has to parse for it."""
    try:
        head, header = read_header(found.path, WANTED)
    except InputError as error:
        error.file = found.name
        raise
    except OSError as error:
        raise InputNotFound("The file cannot be read.", file=found.name) from error
    if not head:
        raise NotDicom("The file is empty.", file=found.name)
    if not looks_like_dicom(head) and not head.startswith(tuple(PICTURES)):
        raise NotDicom(
            "This is neither DICOM nor a PNG or JPEG picture.",
            file=found.name,
            remedy="Give DICOM files, PNG, JPEG, folders or zip archives of them.",
        )
    return head, header


def _read_all(found: Sequence[Found], decode: bool) -> Iterator[Instance | InputError]:
    """An instance or an error for every file, in their order."""
    # The folders of unpacked archives stay here, where they are removed in the end.
    bare = [replace(item, keep=()) for item in found]
    read: Iterator[Instance | InputError]
    if decode:
        read = in_workers(_read_and_decode, bare, patience=_patience)
    elif len(found) < WORTH_WORKERS:
        read = map(_read_one, bare)
    else:
        read = in_workers(read_instance, bare, CHUNK)
    for item, one in zip(found, read, strict=True):
        yield one.keeping(item.keep) if isinstance(one, Instance) and item.keep else one


def _read_one(item: Found) -> Instance | InputError:
    """Read here what the walk over its header can tell, and in a worker what has to be parsed."""
    try:
        _, header = _look(item)
        return _dicom(header, item) if header else in_worker(read_instance, item)
    except InputError as error:
        return error


def _read_and_decode(item: Found) -> Instance:
    instance = read_instance(item)
    opened = instance.open()
    if isinstance(opened, Dataset):
        decode_every_frame(opened, file=instance.file)
    return instance


def _patience(item: Found) -> float:
    """A large file has more to decode: it gets as much time again for each so many bytes."""
    try:
        return 1.0 + item.path.stat().st_size // BYTES_A_TIME
    except OSError:
        return 1.0


def find_once(paths: Iterable[Path], but: Path | None) -> tuple[list[Found], list[Refused]]:
    """Every file behind the paths, once, and what cannot be followed; `but` as in `read_inputs`."""
    results = Path(os.path.realpath(but)) if but is not None else None
    found: dict[str, Found] = {}
    refused: dict[Refused, None] = {}
    for path in paths:
        inside = results is not None and Path(os.path.realpath(path)) in results.parents
        for item in find_files(path):
            if isinstance(item, InputError):
                refused[Refused.because(item, str(path))] = None
                continue
            path_on_disk = real_path(item.path)
            if not (inside and results and Path(path_on_disk).is_relative_to(results)):
                found.setdefault(path_on_disk, item)
    return list(found.values()), list(refused)


def real_path(path: Path) -> str:
    """`os.path.realpath`, which asks for every folder on the way again, once for each folder."""
    if path.is_symlink():
        return os.path.realpath(path)
    return f"{_real_folder(path.parent)}/{path.name}"


@functools.lru_cache(maxsize=64)
def _real_folder(folder: Path) -> str:
    return os.path.realpath(folder)


def _picture(found: Found) -> Instance:
    data = read_bytes(found.path, found.name)
    picture = open_picture(data, found.name)
    sideways = picture.getexif().get(_EXIF_ORIENTATION) in _EXIF_SIDEWAYS
    columns, rows = picture.size[::-1] if sideways else picture.size
    samples = len(picture.getbands())
    return _named(
        Instance(found.path, found.name, False, rows, columns, samples=samples, keep=found.keep)
    )


def _dicom(header: Header, found: Found) -> Instance:
    ds = header.ds
    if header_value(ds.file_meta, "MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        raise IndexOnly("An index of other files (DICOMDIR); those beside it are read directly.")
    check_pixels(ds, header.pixel_bytes, file=found.name)
    with typed_errors(found.name):
        facts = {**dicom_facts(ds), "is_plain": header.plain, "keep": found.keep}
        return _named(Instance(found.path, found.name, True, **facts))


def _named(instance: Instance) -> Instance:
    """The instance; where only its digest can name it, that is taken while the file is there."""
    if instance.study_instance_uid is None:
        _ = instance.sha256
    return instance
