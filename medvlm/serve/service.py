"""The parts of one service, and what every request asks of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from anyio import to_thread

from medvlm.config.serve import ServeConfig
from medvlm.serve.drafts import Drafts
from medvlm.serve.metrics import Metrics
from medvlm.serve.problems import CLIENT_GONE, Refusal
from medvlm.serve.reader import Reader
from medvlm.serve.store import Store
from medvlm.serve.tokens import Tokens
from medvlm.serve.turns import Turns

if TYPE_CHECKING:
    from fastapi import Request

T = TypeVar("T")
_LOADING_SECONDS = 5
_FULL_SECONDS = 1
_UPLOADS_RECEIVED_AT_ONCE = 8
_UPLOADS_READ_AT_ONCE = 2


class Service:
    """A store, a model, and how much they take at once.

    `load` gives the model; it is called in the thread that runs it. `on_end`: called if that fails.
    """

    def __init__(
        self,
        config: ServeConfig,
        store: Store,
        tokens: Tokens,
        load: Callable[[Metrics], Reader],
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.config, self.store, self.tokens = config, store, tokens
        self.metrics = Metrics()
        self.draining = False
        self._load = load
        self.turns = Turns(self._loaded, config, self.metrics, on_end)
        self.drafts = Drafts(store, self.turns, self.metrics, config.queue)
        self.metrics.ready.set_function(lambda: self.state == "ready")
        self._inside: Counter[str] = Counter()
        # Decoded images are large: of as many as two batches, and no more at once.
        self.decoding = asyncio.Semaphore(2 * config.batch)
        self.receiving = asyncio.Semaphore(_UPLOADS_RECEIVED_AT_ONCE)
        self.reading = asyncio.Semaphore(_UPLOADS_READ_AT_ONCE)

    @property
    def state(self) -> str:
        """`loading`, `ready`, `stopping` or `failed`."""
        if self.turns.failed is not None:
            return "failed"
        if self.draining:
            return "stopping"
        return "ready" if self.turns.reader is not None else "loading"

    @property
    def reader(self) -> Reader:
        """The model. Raises Refusal (503) until it is loaded."""
        if self.turns.reader is None:
            raise _not_now("loading", "The model is being loaded.")
        return self.turns.reader

    def require_open(self) -> None:
        """Raises Refusal (503) when the service is about to end."""
        if self.draining:
            raise _not_now("stopping", "The service is about to end.")

    def drain(self) -> None:
        """Takes nothing new from now on; what is in hand is finished."""
        # No lock is taken: a signal may come while this very thread holds one.
        self.draining = self.turns.draining = True

    @contextmanager
    def inside(self, kind: Literal["question", "upload"]) -> Iterator[None]:
        """A place for one of a kind. Raises Refusal (429) when all are taken."""
        if self._inside[kind] >= self.config.queue:
            raise Refusal(
                429,
                "queue_full",
                f"Too many {kind}s are in hand already.",
                remedy="Ask again later.",
                headers={"Retry-After": str(_FULL_SECONDS)},
            )
        in_hand = self.metrics.queue.labels(kind)
        self._inside[kind] += 1
        in_hand.set(self._inside[kind])
        try:
            yield
        finally:
            self._inside[kind] -= 1
            in_hand.set(self._inside[kind])

    @asynccontextmanager
    async def decoded(self, load: Callable[[], T]) -> AsyncIterator[T]:
        """What `load` gives, called in a thread; no more than so many at once.

        Whoever stops waiting leaves a load that counts until it ends.
        """
        await self.decoding.acquire()
        loading = asyncio.ensure_future(to_thread.run_sync(load))

        def over(done: asyncio.Future[T]) -> None:
            _looked_at(done)
            self.decoding.release()

        try:
            yield await asyncio.shield(loading)
        finally:
            loading.add_done_callback(over)

    def _loaded(self) -> Reader:
        reader = self._load(self.metrics)
        self.drafts.resume(reader)
        return reader


async def in_thread(function: Callable[[], T]) -> T:
    """What `function` gives, called in a thread; who stops waiting does not wait for its end."""
    return await to_thread.run_sync(function, abandon_on_cancel=True)


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """What `work` gives, which is given up when the client goes away (Refusal 499).

    The request's body must have been read.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Refusal(CLIENT_GONE, "client_gone", "Nobody waits for the answer.")
    finally:
        for task in (working, watching):
            task.cancel()
            # What it raised, or will, is nobody's: looked at, so that asyncio does not log it.
            task.add_done_callback(_looked_at)


def _looked_at(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    return cast(Service, request.app.state.service)


def _not_now(code: str, message: str) -> Refusal:
    return Refusal(
        503,
        code,
        message,
        remedy="Ask again later.",
        headers={"Retry-After": str(_LOADING_SECONDS)},
    )
