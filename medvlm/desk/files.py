"""Files of the desk are whole or not there, whatever happens to the machine meanwhile."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from uuid import uuid4

PARTIAL = ".partial"


def write_whole(path: Path, data: bytes | memoryview, *, durable: bool = False) -> None:
    """Writes a file in one step, for this user's eyes only; its folder is made.

    `durable`: on the disk when this returns, together with its name.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A name of its own: two processes may make the same file.
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}{PARTIAL}")
    try:
        with os.fdopen(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    if durable:
        sync_folder(path.parent)


def copy_whole(source: Path, target: Path) -> None:
    """Copies a file's bytes, durably."""
    with source.open("rb") as read, target.open("xb") as write:
        shutil.copyfileobj(read, write, 1 << 20)
        write.flush()
        os.fsync(write.fileno())
    target.chmod(0o600)


def sync_folder(folder: Path) -> None:
    """Puts the names in a folder on the disk, where the system can do so."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
