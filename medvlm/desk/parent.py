"""How a process of the desk learns that it shall end: by a signal, or because its server is gone.

The server holds the other end of the process's standard input. Whatever ends the server, kill -9
included, closes it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from threading import Event, Thread

PATIENCE_S = 30.0  # to come to an end by itself


class Ending:
    """Told once; whoever works looks at it between two steps, or waits for it."""

    def __init__(self) -> None:
        self._event = Event()

    @property
    def told(self) -> bool:
        """Whether to end."""
        return self._event.is_set()

    def tell(self, *_: object) -> None:
        """From now on it is time to end."""
        self._event.set()

    def wait(self, seconds: float) -> None:
        """Until told, or so long."""
        self._event.wait(seconds)

    def now(self) -> None:
        """Ends the process here: what it was doing cannot be interrupted otherwise."""
        os._exit(0)


def child_ending() -> Ending:
    """For the main thread of a process that the server started."""
    ending = Ending()
    signal.signal(signal.SIGTERM, ending.tell)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the server tells it in time
    if hasattr(os, "nice"):
        os.nice(5)  # the page comes first

    def listen() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        ending.tell()

    def insist() -> None:
        ending._event.wait()
        time.sleep(PATIENCE_S)
        os._exit(1)

    Thread(target=listen, daemon=True).start()
    Thread(target=insist, daemon=True).start()
    return ending
