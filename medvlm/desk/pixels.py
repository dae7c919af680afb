"""The viewer's pixels, kept as files beside the study so that a prepared one opens at once.

`<files>/<study>/cache/<image>.json` is an `ImageHeader`, `<image>-<frame>.raw` one frame's values.
All of it can be made again from the study's own files, and may be deleted at any time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from pydantic import ValidationError

from medvlm.desk.files import write_whole
from medvlm.desk.frames import DTYPES, Dtype, batches, frames_of
from medvlm.desk.header import ImageHeader, open_image
from medvlm.dicom.files import Found
from medvlm.dicom.instance import Instance
from medvlm.dicom.read import read_found
from medvlm.errors import InputNotFound, Undecodable
from medvlm.review import worklist
from medvlm.review.records import ImageRow
from medvlm.review.store import Store

CACHE = "cache"
_ID = re.compile(r"[0-9a-f]{32}")


class FrameBytes(NamedTuple):
    """A frame's values (little-endian) and their kind."""

    data: bytes
    dtype: Dtype


def is_id(text: str) -> bool:
    """Whether it can be an id of the desk; anything else gets no further."""
    return _ID.fullmatch(text) is not None


def image_header(store: Store, image_id: str) -> ImageHeader:
    """What the viewer has to know of an image first. Raises InputError, StoreError."""
    return header_in(*_image(store, image_id))


def frame_bytes(store: Store, image_id: str, frame: int) -> FrameBytes:
    """A frame's values, counted from 0. Raises InputError, StoreError."""
    return frame_in(*_image(store, image_id), frame)


def header_in(row: ImageRow, path: Path) -> ImageHeader:
    """The same of an image that is known: its row and its file."""
    kept = _kept_header(row, path)
    if kept is None:
        with _making(row.id):
            kept = _kept_header(row, path) or _open(row, path)
    return kept


def frame_in(row: ImageRow, path: Path, frame: int) -> FrameBytes:
    """The same of an image that is known."""
    header = header_in(row, path)
    if not 0 <= frame < header.frames:
        raise InputNotFound("The image has no such frame.")
    file = _frame_file(row, path, frame)
    data = _kept(file, header)
    if data is None:
        with _making(row.id):
            data = _kept(file, header)
            if data is None:
                # Its neighbours come along: a stack is scrolled through.
                batch = next(one for one in batches(*_shape(header)) if frame in one)
                data = _make(row, path, header, batch)[frame - batch.start]
    return FrameBytes(data, header.dtype)


def prepare_image(row: ImageRow, path: Path) -> None:
    """Makes whatever is not kept of an image. Raises InputError."""
    header = header_in(row, path)
    size = _size(header)
    for batch in batches(*_shape(header)):
        if not all(_has(_frame_file(row, path, frame), size) for frame in batch):
            _make(row, path, header, batch)


def instance_in(row: ImageRow, path: Path) -> Instance:
    """The image file of a study as the layers below read it, named by its id. Raises InputError."""
    reading = read_found([Found(path, row.id)])
    if not reading.instances:
        refused = reading.refused[0]
        raise Undecodable(refused.message, remedy=refused.remedy, code=refused.code)
    return reading.instances[0]


_making_now: dict[str, tuple[Lock, int]] = {}
_guard = Lock()


@contextmanager
def _making(image_id: str) -> Iterator[None]:
    """One thread at a time makes what is missing of an image; the others wait for it."""
    with _guard:
        lock, waiting = _making_now.get(image_id, (Lock(), 0))
        _making_now[image_id] = lock, waiting + 1
    try:
        with lock:
            yield
    finally:
        with _guard:
            lock, waiting = _making_now.pop(image_id)
            if waiting > 1:
                _making_now[image_id] = lock, waiting - 1


def _open(row: ImageRow, path: Path) -> ImageHeader:
    header, first = open_image(instance_in(row, path))
    write_whole(_frame_file(row, path, 0), first)
    write_whole(_header_file(row, path), header.model_dump_json().encode())
    return header


def _kept_header(row: ImageRow, path: Path) -> ImageHeader | None:
    """None where it was not made yet, or by an earlier version of the program."""
    try:
        return ImageHeader.model_validate_json(_header_file(row, path).read_bytes())
    except (OSError, ValidationError):
        return None


def _image(store: Store, image_id: str) -> tuple[ImageRow, Path]:
    if not is_id(image_id):
        raise InputNotFound("There is no such image.")
    return worklist.image_path(store, image_id)


def _make(row: ImageRow, path: Path, header: ImageHeader, batch: range) -> list[bytes]:
    made = frames_of(instance_in(row, path), batch)
    for number, frame in zip(batch, made, strict=True):
        if frame.dtype != header.dtype or len(frame.data) != _size(header):
            raise Undecodable("The image is not what its header was made from.")
        write_whole(_frame_file(row, path, number), frame.data)
    return [frame.data for frame in made]


def _kept(file: Path, header: ImageHeader) -> bytes | None:
    """A frame that is there and whole."""
    try:
        data = file.read_bytes()
    except OSError:
        return None
    return data if len(data) == _size(header) else None


def _has(file: Path, size: int) -> bool:
    try:
        return file.stat().st_size == size
    except OSError:
        return False


def _header_file(row: ImageRow, path: Path) -> Path:
    return path.parent / CACHE / f"{row.id}.json"


def _frame_file(row: ImageRow, path: Path, frame: int) -> Path:
    return path.parent / CACHE / f"{row.id}-{frame}.raw"


def _shape(header: ImageHeader) -> tuple[int, int, int]:
    return header.rows, header.columns * header.samples, header.frames


def _size(header: ImageHeader) -> int:
    return header.rows * header.columns * header.samples * DTYPES[header.dtype].itemsize
