"""Runs the service until it is told to end: what is in hand is finished first."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from types import FrameType

import uvicorn

from medvlm.config.serve import ServeConfig
from medvlm.serve.application import make_application
from medvlm.serve.metrics import Metrics
from medvlm.serve.reader import Reader
from medvlm.serve.service import Service
from medvlm.serve.store import Store
from medvlm.serve.tokens import Tokens

_GRACE_SECONDS = 5


class Server(uvicorn.Server):
    """A service that listens. `store` is closed when it ends."""

    def __init__(
        self,
        config: ServeConfig,
        store: Store,
        tokens: Tokens,
        load: Callable[[Metrics], Reader],
    ) -> None:
        self.service = Service(config, store, tokens, load, self.end)
        super().__init__(
            uvicorn.Config(
                make_application(self.service),
                host=config.host,
                port=config.port,
                access_log=False,  # it would name paths
                log_config=None,
                server_header=False,
                lifespan="on",
                timeout_graceful_shutdown=int(config.request_seconds) + _GRACE_SECONDS,
            )
        )

    def end(self) -> None:
        """Takes nothing new, finishes what is in hand, and ends. Any thread may call it."""
        self.service.drain()
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal: the same; the second time, at once."""
        self.service.drain()
        super().handle_exit(sig, frame)


def serve(server: Server) -> None:
    """Serves until the process is told to end. Raises what kept the model from being loaded."""
    _log_to_stdout()
    server.run()
    if server.service.turns.failed is not None:
        raise server.service.turns.failed


def _log_to_stdout() -> None:
    """One line of JSON for each request on stdout, warnings in words on stderr."""
    access = logging.getLogger("medvlm.serve.access")
    access.setLevel(logging.INFO)
    access.propagate = False
    access.addHandler(logging.StreamHandler(sys.stdout))
    own = logging.getLogger("medvlm.serve")
    own.addHandler(logging.StreamHandler())
    own.propagate = False
