"""An iterator that runs a little ahead of whoever takes from it, in a thread."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from queue import Full, Queue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")


class _End:
    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def ahead(items: Generator[T], count: int = 1) -> Iterator[T]:
    """The items in order; at most `count` + 1 are made before they are asked for.

    What `items` raises is raised here. It is closed, in its own thread, when this one is.
    """
    made: Queue[T | _End] = Queue(count)
    unwanted = Event()

    def put(item: T | _End) -> bool:
        while not unwanted.is_set():
            with contextlib.suppress(Full):
                made.put(item, timeout=0.2)
                return True
        return False

    def work() -> None:
        try:
            with contextlib.closing(items):
                for item in items:
                    if not put(item):
                        return
        except BaseException as error:
            put(_End(error))
        else:
            put(_End())

    Thread(target=work, daemon=True).start()
    try:
        while not isinstance(item := made.get(), _End):
            yield item
            del item  # an image is large
        if item.error is not None:
            raise item.error
    finally:
        unwanted.set()
