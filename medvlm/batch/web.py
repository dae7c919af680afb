"""Requests to a DICOMweb server: log-in, patience, and errors without anybody's secrets.

An address or a query may name a patient, and a library's own error quotes both: errors here are in
our words and name the server only.
"""

from __future__ import annotations

import base64
import functools
import itertools
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from medvlm.errors import ConfigError, MissingExtra, ServerError

if TYPE_CHECKING:
    from requests import PreparedRequest, Response, Session

TOKEN, USER, PASSWORD = (f"MEDVLM_DICOMWEB_{name}" for name in ("TOKEN", "USER", "PASSWORD"))
LOG_IN = f"Set {TOKEN}, or {USER} and {PASSWORD}, to what the server knows."
RETRIES = 5
BACK_OFF = 0.5  # seconds, doubled with every try
LONGEST_WAIT = 30  # seconds that a server may ask to be left alone
TIMEOUT = (10, 120)  # seconds to connect, and without a byte
CHUNK = 1 << 20
LARGEST_ANSWER = 64 << 20  # bytes of an answer that is kept in memory
_BUSY = (429, 503)


class Interrupted(ServerError):
    """The server went away in the middle; another try may succeed."""


def ask(
    server: str,
    path: str,
    *,
    method: str = "GET",
    query: Sequence[tuple[str, str]] = (),
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    fine: Sequence[int] = (),
) -> Response:
    """The server's answer, its body still to come; 2xx, or a status that is `fine`.

    A server that is busy or cannot be reached is asked again, a bounded number of times. Nothing is
    followed to another address: the log-in is meant for this one.

    Raises:
        ServerError: it cannot be reached, or refuses.
        MissingExtra: requests is not installed.
    """
    session = _session(os.getpid(), threading.get_ident())
    for attempt in itertools.count():
        last = attempt == RETRIES
        try:
            with typed_errors(server):
                answer = session.request(
                    method,
                    f"{server}/{path}",
                    params=list(query),
                    headers=dict(headers or {}),
                    data=body,
                    stream=True,
                    timeout=TIMEOUT,
                    allow_redirects=False,
                )
        except Interrupted:
            if last:
                raise
            time.sleep(_wait(attempt))
            continue
        if answer.status_code not in _BUSY or last:
            break
        answer.close()
        time.sleep(_wait(attempt, answer.headers.get("Retry-After")))
    if 200 <= answer.status_code < 300 or answer.status_code in fine:
        return answer
    answer.close()
    raise _refusal(server, answer.status_code)


def _wait(attempt: int, asked_for: str | None = None) -> float:
    """Seconds until the next try: what the server asks for in seconds, else longer each time."""
    asked = float(asked_for) if asked_for and asked_for.isdecimal() else 0.0
    return min(max(asked, BACK_OFF * 2**attempt), LONGEST_WAIT)


def whole(server: str, answer: Response) -> bytes:
    """The body of an answer that fits into memory. Raises ServerError."""
    body = bytearray()
    for chunk in chunks(server, answer):
        body += chunk
        if len(body) > LARGEST_ANSWER:
            raise ServerError("The server's answer is too long.", file=server)
    return bytes(body)


def chunks(server: str, answer: Response) -> Iterator[bytes]:
    """The body, a piece at a time. Raises Interrupted if it ends too early."""
    with typed_errors(server), answer:
        yield from answer.iter_content(CHUNK)


@contextmanager
def typed_errors(server: str) -> Iterator[None]:
    """What requests raises, in words that hold no address, query or password."""
    import requests

    try:
        yield
    except requests.exceptions.SSLError:
        raise ServerError(
            "The server's certificate cannot be trusted.",
            file=server,
            remedy="Set REQUESTS_CA_BUNDLE to a file with the certificates of the site.",
        ) from None
    except requests.RequestException:
        raise Interrupted(
            "The server cannot be reached, or went away.",
            file=server,
            remedy="See whether it runs and start again; what is done stays done.",
        ) from None
    except ValueError:
        raise ServerError(
            "The server cannot be asked, or answers what is no HTTP.", file=server
        ) from None


def _refusal(server: str, status: int) -> ServerError:
    if status in (401, 403):
        return ServerError(f"The server refuses the log-in ({status}).", file=server, remedy=LOG_IN)
    if 300 <= status < 400:
        return ServerError(
            f"The server sends elsewhere ({status}), where the log-in would not be safe.",
            file=server,
            remedy="Give the address that it leads to.",
        )
    if status == 404:
        return ServerError(
            "The server has nothing there (404).", file=server, remedy="Check its address."
        )
    if status in _BUSY:
        return Interrupted(f"The server is too busy ({status}).", file=server, remedy="Try later.")
    return ServerError(f"The server does not do it ({status}).", file=server, remedy="Ask its log.")


@functools.lru_cache(maxsize=64)
def _session(process: int, thread: int) -> Session:
    """Connections belong to the process and the thread that opened them."""
    try:
        import requests
    except ImportError as error:
        raise MissingExtra(
            "a DICOMweb server needs requests",
            remedy="install it with `pip install 'medvlm[batch]'`",
        ) from error
    # It writes whole addresses into the log, and a filter may name a patient.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.CRITICAL)
    session = requests.Session()
    session.auth = _log_in
    return session


def _log_in(request: PreparedRequest) -> PreparedRequest:
    """From the environment, and from nowhere else (requests would look into ~/.netrc).

    Raises ConfigError for what cannot be sent.
    """
    token, user = (os.environ.get(name, "").strip() for name in (TOKEN, USER))
    # Of what cannot be sent, a library's error would quote the value.
    if not (token.isascii() and token.isprintable()):
        raise _no_log_in(TOKEN)
    if not user.isprintable():
        raise _no_log_in(USER)
    if token:
        request.headers["Authorization"] = f"Bearer {token}"
    elif user:
        pair = f"{user}:{os.environ.get(PASSWORD, '')}".encode()
        request.headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    return request


def _no_log_in(variable: str) -> ConfigError:
    return ConfigError(
        f"{variable} holds characters that cannot be sent", remedy="set it to one line of letters"
    )
