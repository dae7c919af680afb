"""What all requests pass: bounds on bodies, log, figures, headers, and errors in words of ours.

The log has one line of JSON for each request. It names the route, not the path, and neither the
query nor anything that was sent: what a client sends may name a patient.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from medvlm.config.serve import is_loopback
from medvlm.desk.discreet import Discreet, told
from medvlm.serve.problems import CLIENT_GONE, Refusal, as_openai_error, as_problem

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from medvlm.serve.service import Service

UPLOADS, SCHEMA = "/v1/studies", "/openapi.json"
_OPENAI = ("/v1/chat/", "/v1/models")
_METHODS = frozenset({"GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"})
_OTHER = "other"
_PORT = re.compile(r":[0-9]+$")
_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]
_log = logging.getLogger("medvlm.serve")
_access = logging.getLogger("medvlm.serve.access")


def refuse(path: str, refusal: Refusal) -> Response:
    """A refusal in the form that is spoken at the path."""
    return (as_openai_error if path.startswith(_OPENAI) else as_problem)(refusal)


def be_discreet() -> None:
    """Keeps the words of exceptions, which may quote a patient's name, out of the logs."""
    for name in ("medvlm.serve", "uvicorn.error", "asyncio"):
        logger = logging.getLogger(name)
        if not any(isinstance(one, Discreet) for one in logger.filters):
            logger.addFilter(Discreet())
    logging.getLogger("uvicorn.access").disabled = True  # it names paths


class Guard:
    """Around the whole application."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = _Request(scope, receive, send, self.service)
        try:
            if (refusal := request.refused()) is not None:
                await refuse(scope["path"], refusal)(scope, receive, request.send)
            else:
                await self.app(scope, request.receive, request.send)
        except Refusal as refusal:
            await request.end(refusal)
        except Exception as error:
            _log.error("a request failed: %s", told(error))
            await request.end(
                Refusal(500, "internal", f"an error of medvlm's own ({type(error).__name__})")
            )
        finally:
            request.count()


class _Request:
    """One request on its way."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, service: Service) -> None:
        self.scope, self._receive, self._send, self.service = scope, receive, send, service
        self.id = uuid4().hex
        self.status = CLIENT_GONE
        self.start = time.perf_counter()
        self.began = self.whole = False
        self.taken = 0
        config = service.config
        upload = scope["path"] == UPLOADS
        self.most = (config.upload_mb if upload else config.chat_mb) << 20

    def refused(self) -> Refusal | None:
        """What can be told before the body comes."""
        headers = dict(self.scope["headers"])
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self.most:
            return self._too_long()
        if self.service.tokens:
            return None
        # A page in a browser of this machine could reach what has no token, by its own name for it.
        host = headers.get(b"host", b"").decode("latin-1")
        if b"origin" in headers or not is_loopback(_PORT.sub("", host)):
            return Refusal(403, "no_browsers", "Web pages may not call this service.")
        return None

    def _too_long(self) -> Refusal:
        return Refusal(413, "too_large", f"More than {self.most >> 20} MB were sent.")

    async def receive(self) -> Message:
        """The next piece of the body, which is bounded in length and may not keep us waiting."""
        if self.whole:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self.service.config.request_seconds)
        except TimeoutError:
            raise Refusal(408, "too_slow", "The request did not come in time.") from None
        if message["type"] == "http.request":
            self.taken += len(message.get("body", b""))
            self.whole = not message.get("more_body", False)
            if self.taken > self.most:
                raise self._too_long()
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.began, self.status = True, message["status"]
            headers = [*message.get("headers", []), (b"x-request-id", self.id.encode()), *_HEADERS]
            message = {**message, "headers": headers}
        await self._send(message)

    async def end(self, refusal: Refusal) -> None:
        """Refuses, if nothing was answered yet; else the client sees that the rest is missing."""
        if self.began:
            raise ConnectionAbortedError("the answer could not be finished")
        response = refuse(self.scope["path"], refusal)
        await response(self.scope, self._receive, self.send)

    def count(self) -> None:
        """A line in the log, and the figures."""
        method = self.scope["method"] if self.scope["method"] in _METHODS else _OTHER
        route: Any = self.scope.get("route")
        path = getattr(route, "path", None) or _OTHER
        if self.scope["path"] == SCHEMA:
            path = SCHEMA
        seconds = time.perf_counter() - self.start
        metrics = self.service.metrics
        metrics.requests.labels(method, path, str(self.status)).inc()
        metrics.request_seconds.labels(path).observe(seconds)
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request_id": self.id,
            "token": self.scope.get("medvlm.token"),
            "method": method,
            "route": path,
            "status": self.status,
            "seconds": round(seconds, 4),
            "bytes_in": self.taken,
        }
        _access.info("%s", json.dumps(line))
