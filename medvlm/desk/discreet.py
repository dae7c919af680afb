"""Logs without identifiers: an error is told by its kind and its place, never in its own words.

What a library says of a value it stumbled over may be a patient's name.
"""

from __future__ import annotations

import logging
import traceback
from types import TracebackType

_LOGGERS = ("streamlit.error_util", "uvicorn.error", "asyncio", "medvlm.desk")
_FRAMES = 8


class Discreet(logging.Filter):
    """Replaces the exception of a log record by its kind and where it came from."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            _, error, trace = record.exc_info
            record.msg = f"{record.getMessage().splitlines()[0]}: {told(error, trace)}"
            record.args, record.exc_info, record.exc_text = (), None, None
        return True


def told(error: BaseException, trace: TracebackType | None = None) -> str:
    """`ValueError at store.py:12 in open_store < worker.py:40 in run`."""
    frames = traceback.extract_tb(trace or error.__traceback__)[-_FRAMES:]
    places = [f"{one.filename.rsplit('/', 1)[-1]}:{one.lineno} in {one.name}" for one in frames]
    # What is missing from the program is no secret, and nothing else says it.
    missing = f" ({error})" if isinstance(error, ImportError) else ""
    where = " < ".join(reversed(places)) or "an unknown place"
    return f"{type(error).__name__}{missing} at {where}"


def be_discreet() -> None:
    """For all loggers of the page's process that log exceptions."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(one, Discreet) for one in logger.filters):
            logger.addFilter(Discreet())
