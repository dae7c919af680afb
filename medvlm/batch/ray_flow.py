"""A run as a stream of Ray Data: chunks are read, opened and decoded, drafted; answers come back.

```
leading process --chunks--> feed (actor) --> read (a task) --> open (tasks) --> draft (actors)
       ^                                                                             |
       +------------------------------- answers -------------------------------------+
```
A chunk is one row of one block, so that a process has one in hand. As many are on their way as the
leading process lets in: a new one for each answer. Imports ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, Datasource, ReadTask
from ray.data.block import BlockMetadata

from medvlm.batch.parcel import Parcel, StudyParcel
from medvlm.batch.ray_work import (
    Answer,
    Buffer,
    Drafter,
    Greeting,
    Job,
    Places,
    open_chunk,
)

INIT_DEATHS = 8  # of processes that load a model, one after another, before the run is given up
_NOTHING = pickle.dumps([])
_BYTES = pa.large_binary()


class _Feed:
    """The chunks that are not answered yet, and what the first model said.

    A read that Ray does again finds the same chunks in the same order; those that are answered are
    empty.
    """

    def __init__(self) -> None:
        self.chunks: dict[int, bytes] = {}
        self.count = 0
        self.closed = False
        self.first: Greeting | None = None
        self.changed = asyncio.Condition()

    async def put(self, parcels: bytes) -> None:
        async with self.changed:
            self.chunks[self.count] = parcels
            self.count += 1
            self.changed.notify_all()

    async def close(self) -> None:
        async with self.changed:
            self.closed = True
            self.changed.notify_all()

    async def drop(self, chunk: int) -> None:
        del self.chunks[chunk]

    async def get(self, chunk: int) -> bytes | None:
        """As soon as it is there; None after the last."""
        async with self.changed:
            await self.changed.wait_for(lambda: chunk < self.count or self.closed)
        return self.chunks.get(chunk, _NOTHING) if chunk < self.count else None

    async def greet(self, greeting: Greeting) -> Greeting:
        """What the first model said, which may be this."""
        async with self.changed:
            self.first = self.first or greeting
            self.changed.notify_all()
            return self.first

    async def greeting(self) -> Greeting:
        """The same, as soon as it is known."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.first is not None)
            assert self.first is not None
            return self.first


class Flow:
    """A run's stream, of a run that holds its parcels until they are answered."""

    def __init__(self, job: Job, places: Places) -> None:
        self.job, self.places = job, places
        self.feed: Any = ray.remote(_Feed).options(num_cpus=0).remote()
        self.held: dict[int, Sequence[Parcel]] = {}
        self.count = 0
        self.dataset = _dataset(job, self.feed, places)

    def put(self, parcels: Sequence[Parcel]) -> None:
        """Lets a chunk in."""
        light = [item.light() if isinstance(item, StudyParcel) else item for item in parcels]
        ray.get(self.feed.put.remote(pickle.dumps(light)))
        self.held[self.count] = parcels
        self.count += 1

    def end(self) -> None:
        """There are no more chunks."""
        ray.get(self.feed.close.remote())

    def greeting(self) -> Greeting:
        """What the first model said."""
        greeting: Greeting = ray.get(self.feed.greeting.remote())
        return greeting

    def answers(self) -> Generator[Answer]:
        """Of each chunk, as they come."""
        batches: Any = iter(
            self.dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        )
        with contextlib.closing(batches):
            for table in batches:
                for row in table.to_pylist():
                    if self._forget(row["chunk"]):
                        yield pickle.loads(row["answer"])

    def close(self) -> None:
        """Whoever waits for a chunk stops waiting."""
        ray.kill(self.feed)

    def _forget(self, chunk: int) -> bool:
        """Whether it is answered for the first time."""
        if self.held.pop(chunk, None) is None:
            return False
        self.job.forget(chunk)
        self.feed.drop.remote(chunk)
        return True


class _Source(Datasource):
    """Chunks, read by one task as long as they come."""

    def __init__(self, feed: Any) -> None:
        super().__init__()
        self.feed = feed

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, *arguments: Any, **options: Any) -> list[ReadTask]:
        feed = self.feed
        unknown = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None)
        return [ReadTask(lambda: _read(feed), unknown)]


def _read(feed: Any) -> Iterator[pa.Table]:
    chunk = 0
    while (parcels := ray.get(feed.get.remote(chunk))) is not None:
        yield pa.table({"chunk": [chunk], "parcels": pa.array([parcels], _BYTES)})
        chunk += 1


def _open(table: pa.Table, job: Job, feed: Any) -> pa.Table:
    (row,) = table.to_pylist()
    greeting = ray.get(feed.greeting.remote())
    pieces = open_chunk(job, greeting, row["chunk"], pickle.loads(row["parcels"]))
    return pa.table({"chunk": table["chunk"], "pieces": pa.array([pieces], pa.list_(_BYTES))})


class _Model:
    def __init__(self, job: Job, feed: Any) -> None:
        self.drafter = Drafter(job, lambda greeting: ray.get(feed.greet.remote(greeting)))

    def __call__(self, table: pa.Table) -> pa.Table:
        chunk, pieces = table["chunk"][0].as_py(), _buffers(table["pieces"][0].values)
        answer = pickle.dumps(self.drafter.draft(chunk, pieces))
        return pa.table({"chunk": table["chunk"], "answer": pa.array([answer], _BYTES)})


def _buffers(column: pa.Array) -> list[Buffer]:
    """Where they lie in the object store."""
    return [memoryview(item.as_buffer()) for item in column]


def _dataset(job: Job, feed: Any, places: Places) -> Dataset:
    with DataContext.current(_context()):
        chunks = ray.data.read_datasource(_Source(feed), num_cpus=0, override_num_blocks=1)
        opened = chunks.map_batches(
            _open,
            batch_size=None,
            batch_format="pyarrow",
            fn_kwargs={"job": job, "feed": feed},
            concurrency=places.openers,
            num_cpus=places.cores,
        )
        return opened.map_batches(
            _Model,
            batch_size=None,
            batch_format="pyarrow",
            fn_constructor_args=(job, feed),
            compute=ActorPoolStrategy(size=places.models, max_tasks_in_flight_per_actor=2),
            num_cpus=1,
            num_gpus=places.gpus,
        )


def _context() -> DataContext:
    context = DataContext.get_current().copy()
    context.target_max_block_size = 1  # a block is handed on as soon as it has a row
    context.max_consecutive_actor_init_deaths = INIT_DEATHS
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return context
