"""Finds the files behind what a caller gives: files, folders, zip archives, a DICOMDIR.

Archives are unpacked under names of our own, so that no name in them can lead anywhere else; one
that tries, or that would fill the machine, is refused as a whole.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import struct
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pydicom
from pydicom.uid import MediaStorageDirectoryStorage

from medvlm.dicom.decode import header_value, refuse_large_file, typed_errors
from medvlm.dicom.limits import limits
from medvlm.dicom.workers import in_worker
from medvlm.errors import (
    InputError,
    InputNotFound,
    NoPixels,
    NotDicom,
    TooDeep,
    TooLarge,
    Undecodable,
    UnsafeArchive,
)

# Damaged, or encrypted.
_CANNOT_UNPACK = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OSError,
)
# The others are unpacked without regard to the size that the table of contents gives.
_BOUNDED = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_TABLE_ENTRY = 256  # bytes of an archive's table of contents for each file, more than names need
_META = 64 << 10  # bytes in which a DICOMDIR says that it is one
_NOT_A_PATH = (OSError, ValueError, RuntimeError)  # too long, holds NUL, links in a circle


class Unpacked:
    """A folder with an archive's files; removed once nothing refers to this object any more."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="medvlm-"))
        self._remove = weakref.finalize(self, shutil.rmtree, self.folder, True)


@dataclass(frozen=True)
class Found:
    """A file to read: where it lies, and the name shown to people.

    `keep` holds the folder of an unpacked archive alive.
    """

    path: Path
    name: str
    keep: tuple[Unpacked, ...] = field(default=(), repr=False, compare=False)


def find_files(given: Path) -> Iterator[Found | InputError]:
    """Every file behind one path, in a stable order; errors name the file and are yielded.

    An archive and an explicitly given DICOMDIR stand for the files in them.
    """
    name = printable(str(given))
    try:
        mode = given.stat().st_mode
    except (OSError, ValueError):
        yield InputNotFound("There is no such file or folder.", file=name)
        return
    if stat.S_ISDIR(mode):
        empty = True
        for item in _folder(given, name, 0):
            empty = False
            yield item
        if empty:
            yield NoPixels("The folder holds no files.", file=name)
    elif stat.S_ISREG(mode) and is_dicomdir(given):
        yield from _dicomdir(given, name)
    else:
        yield from _file(Found(given, name))


def printable(name: str) -> str:
    """The name with control characters and broken encoding made visible, fit for a terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in name)


def is_dicomdir(path: Path) -> bool:
    """Whether the file is the index of a DICOM disc."""
    try:
        with typed_errors(None), path.open("rb") as stream:
            if stream.read(132)[128:] != b"DICM":
                return False
            meta = pydicom.filereader._read_file_meta_info(io.BytesIO(stream.read(_META)))
            return header_value(meta, "MediaStorageSOPClassUID") == MediaStorageDirectoryStorage
    except InputError:
        return False


def _folder(folder: Path, name: str, depth: int) -> Iterator[Found | InputError]:
    if depth > limits().folder_depth:
        yield TooDeep(f"Folders are nested more than {limits().folder_depth} deep.", file=name)
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        yield InputNotFound("The folder cannot be read.", file=name)
        return
    for entry in entries:
        entry_name = f"{name.rstrip('/')}/{printable(entry.name)}"
        try:
            own, linked = entry.is_dir(follow_symlinks=False), entry.is_dir()
        except OSError:
            yield InputNotFound("The link cannot be followed.", file=entry_name)
            continue
        if own:
            yield from _folder(Path(entry.path), entry_name, depth + 1)
        elif linked:
            continue  # a link to a folder may lead in circles; the folder itself is not an input
        else:
            yield from _file(Found(Path(entry.path), entry_name))


@dataclass
class _Opened:
    """What was unpacked so far of one archive and the archives in it: they share its limits.

    `packed`: the bytes of the outermost archive.
    """

    packed: int
    unpacked: int = 0
    members: int = 0


def _file(
    found: Found, opened: _Opened | None = None, depth: int = 0
) -> Iterator[Found | InputError]:
    """The file, or what is in it if it is an archive; `depth` counts the archives around it."""
    try:
        if not stat.S_ISREG(found.path.stat().st_mode):
            raise NotDicom("This is not a regular file.", file=found.name)
        with found.path.open("rb") as stream:
            head = stream.read(132)
    except InputError as error:
        yield error
        return
    except OSError:
        yield InputNotFound("The file cannot be read.", file=found.name)
        return
    # The preamble of a DICOM file may hold anything, a zip signature too.
    if not head.startswith((b"PK\x03\x04", b"PK\x05\x06")) or head.endswith(b"DICM"):
        yield found
    elif depth >= limits().archive_depth:
        deepest = limits().archive_depth
        yield TooDeep(f"Archives are nested more than {deepest} deep.", file=found.name)
    else:
        opened = opened or _Opened(max(found.path.stat().st_size, 1))
        yield from _archive(found, opened, depth + 1)


def _archive(found: Found, opened: _Opened, depth: int) -> Iterator[Found | InputError]:
    unpacked = Unpacked()
    keep = (*found.keep, unpacked)
    try:
        with _Nibbled(found.path) as stream, zipfile.ZipFile(stream) as archive:
            # An empty name is no folder's, and makes `is_dir` stumble.
            named = [member for member in archive.infolist() if member.filename]
            members = [member for member in named if not member.is_dir()]
            _refuse_unsafe(members, opened, unpacked.folder, found)
            for number, member in enumerate(members):
                # Flat, with names of our own.
                target = unpacked.folder / f"{number:06d}"
                name = f"{found.name}/{printable(member.filename)}"
                if member.compress_type not in _BOUNDED:
                    yield Undecodable(
                        "It is packed in an unusual way.",
                        file=name,
                        remedy="Unpack the archive yourself and give the folder.",
                    )
                    continue
                try:
                    with archive.open(member) as source, target.open("wb") as sink:
                        shutil.copyfileobj(source, sink, 1 << 20)
                except _CANNOT_UNPACK as error:
                    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                        raise TooLarge(
                            "The disk is full: the archive cannot be unpacked.",
                            file=found.name,
                            remedy="Make room, or set TMPDIR to a larger disk.",
                        ) from error
                    target.unlink(missing_ok=True)
                    yield Undecodable("It cannot be unpacked from its archive.", file=name)
                    continue
                yield from _file(Found(target, name, keep), opened, depth)
            if not members:
                yield NoPixels("The archive is empty.", file=found.name)
    except (UnsafeArchive, TooLarge) as error:
        error.file = found.name
        yield error
    except _CANNOT_UNPACK:
        yield Undecodable("The zip archive is damaged.", file=found.name)


class _Nibbled(io.FileIO):
    """An archive that nobody reads in one large piece, as a table of contents is.

    Judging the table comes too late when it has filled the memory.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        most = limits().archive_members
        if size is not None and size > max(most * _TABLE_ENTRY, 1 << 20):
            raise UnsafeArchive(f"The archive holds more than {most} files.")
        return super().read(size) or b""


def _refuse_unsafe(
    members: list[zipfile.ZipInfo], opened: _Opened, folder: Path, found: Found
) -> None:
    """Judge an archive by its table of contents, before anything is unpacked.

    An archive that passes is added to what was `opened`.

    Raises:
        UnsafeArchive, TooLarge.
    """
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        parts = path.parts or ("",)
        if path.is_absolute() or ".." in parts or ":" in parts[0]:
            raise UnsafeArchive("The archive names files outside itself.", file=found.name)
        if stat.S_ISLNK(member.external_attr >> 16):
            raise UnsafeArchive("The archive holds links.", file=found.name)
    most = limits()
    count = opened.members + len(members)
    if count > most.archive_members:
        message = f"The archive holds more than {most.archive_members} files."
        raise UnsafeArchive(message, file=found.name)
    new = sum(member.file_size for member in members)
    total = opened.unpacked + new
    if total > most.archive_ratio_from_bytes and total > most.archive_ratio * opened.packed:
        raise UnsafeArchive(
            "The archive unpacks to far more than images do (a zip bomb).", file=found.name
        )
    if total > most.archive_bytes or new > shutil.disk_usage(folder).free * 0.9:
        raise TooLarge(
            f"The archive unpacks to {total / 2**30:.1f} GiB.",
            file=found.name,
            remedy="Unpack it yourself and give the folder.",
        )
    opened.unpacked, opened.members = total, count


def _dicomdir(path: Path, name: str) -> Iterator[Found | InputError]:
    """The files that a DICOMDIR lists, none of them outside its folder."""
    root = path.parent.resolve()
    try:
        listed = in_worker(_listed, path)
    except InputError as error:
        error.file = name
        yield error
        return
    for parts in listed:
        shown = f"{printable(str(path.parent))}/{printable('/'.join(parts))}"
        try:
            target = _on_disc(root, parts)
            inside = target.resolve().is_relative_to(root)
            there = target.is_file()
        except _NOT_A_PATH:
            yield InputNotFound("The DICOMDIR lists this file under no valid name.", file=shown)
            continue
        if not inside:
            yield UnsafeArchive("The DICOMDIR lists a file outside its folder.", file=shown)
        elif not there:
            yield InputNotFound("The DICOMDIR lists this file, but it is not there.", file=shown)
        else:
            yield from _file(Found(target, shown))
    if not listed:
        yield NoPixels("The DICOMDIR lists no files.", file=name)


def _listed(path: Path) -> list[list[str]]:
    """The names that a DICOMDIR lists, in parts."""
    with typed_errors(None):
        refuse_large_file(path.stat().st_size, None)
        records = pydicom.dcmread(path).get("DirectoryRecordSequence") or []
        names = [header_value(record, "ReferencedFileID") for record in records]
    return [[name] if isinstance(name, str) else list(map(str, name)) for name in names if name]


def _on_disc(root: Path, parts: list[str]) -> Path:
    """The file a DICOMDIR names. Its names are upper case; a disc may be mounted in lower case."""
    target = root.joinpath(*parts)
    lower = root.joinpath(*(part.lower() for part in parts))
    return lower if not target.exists() and lower.exists() else target
