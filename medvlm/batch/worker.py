"""The life of a model process: settings and parcels come on stdin, outcomes go to stdout.

It ends when stdin does: at the end of the run, or when the process that leads the run has died.
Nothing is lost with it, since results are written in such an order (medvlm.batch.results).
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import IO, Any

from medvlm.batch.engine import Settings
from medvlm.batch.outcome import Outcome
from medvlm.batch.parcel import Parcel
from medvlm.batch.prepare import Rules


@dataclass(frozen=True)
class Hello:
    """The model is loaded."""

    rules: Rules
    status: str


@dataclass(frozen=True)
class Done:
    """A parcel is done; parcels are done in the order they are given."""

    outcomes: list[Outcome]


@dataclass(frozen=True)
class Stopped:
    """The process cannot go on, for a reason that is no study's fault."""

    error: Exception


def send(stream: IO[bytes], content: Any) -> None:
    """One message."""
    pickle.dump(content, stream, protocol=pickle.HIGHEST_PROTOCOL)
    stream.flush()


def serve() -> None:
    """Serves until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the leading process ends it
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries print
    settings: Settings = pickle.load(sys.stdin.buffer)
    given: SimpleQueue[Parcel] = SimpleQueue()
    Thread(target=_listen, args=(given,), daemon=True).start()
    try:
        _work(settings, given, replies)
    except BrokenPipeError:
        os._exit(1)
    except Exception as error:
        error.__cause__ = error.__context__ = None
        send(replies, Stopped(error))


def _work(settings: Settings, given: SimpleQueue[Parcel], replies: IO[bytes]) -> None:
    import torch

    from medvlm.batch.drafting import draft_parcels, rules_of

    # One thread, for sums are rounded otherwise with another number of them.
    torch.set_num_threads(1)
    checkpoint = settings.load()
    send(
        replies,
        Hello(rules_of(checkpoint, settings.retry_failed, settings.send), checkpoint.config.status),
    )
    parcels = _parcels(given)
    drafted = draft_parcels(
        checkpoint, parcels, settings.results, settings.retry_failed, settings.send
    )
    for outcomes in drafted:
        send(replies, Done(outcomes))


def _parcels(given: SimpleQueue[Parcel]) -> Iterator[Parcel]:
    while True:
        yield given.get()


def _listen(given: SimpleQueue[Parcel]) -> None:
    """Takes parcels as they come, however long the model works, to see the end of stdin at once."""
    try:
        while True:
            given.put(pickle.load(sys.stdin.buffer))
    except BaseException:
        os._exit(0)
