"""One process of a kind for each desk and machine, however many servers are started."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from medvlm.review.store import Store

BUSY = 75  # the exit code of one that found another at work


@contextmanager
def alone(store: Store, kind: str) -> Iterator[bool]:
    """Gives whether this process is the only one of its kind; it stays so inside the block.

    The system takes the lock back when the process ends, however it ends.
    """
    lock = FileLock(store.files / f".{kind}.lock", timeout=0, mode=0o600)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def desk_name(store: Store, kind: str) -> str:
    """What the process is called in the database: the same after a restart, and says nothing."""
    place = f"{platform.node()}\0{store.files.resolve()}"
    return f"{kind}-{hashlib.sha256(place.encode()).hexdigest()[:12]}"
