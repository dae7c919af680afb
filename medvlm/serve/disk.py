"""What a disk refuses, in words of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from medvlm.errors import StoreError


@contextmanager
def disk_errors(
    what: str, done: str = "kept", remedy: str = "make room in the store"
) -> Iterator[None]:
    """Whatever the disk refuses, as a StoreError without a path."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{what} cannot be {done}: {error.strerror or 'no access'}", remedy=remedy
        ) from None
