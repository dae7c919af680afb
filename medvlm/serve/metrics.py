"""What the service counts, for Prometheus. Labels come from short lists and name nobody."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The figures of one service.

    `stages`: `receive` (an upload is read and kept), `decode` (a question's image), `wait` (a
    question's for its turn), `answer` (a batch of questions), `draft` (one study).
    """

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        self.requests = Counter(
            "medvlm_requests",
            "Requests that were answered.",
            ["method", "route", "status"],
            registry=own,
        )
        self.request_seconds = Histogram(
            "medvlm_request_seconds",
            "From the first byte in to the last out.",
            ["route"],
            buckets=_SECONDS,
            registry=own,
        )
        self.queue = Gauge(
            "medvlm_queue_length",
            "Questions and uploads in hand, drafts waiting.",
            ["kind"],
            registry=own,
        )
        self.batch = Histogram(
            "medvlm_batch_size",
            "Questions that were answered together.",
            buckets=_SIZES,
            registry=own,
        )
        self.stage_seconds = Histogram(
            "medvlm_stage_seconds",
            "What a part of the work took.",
            ["stage"],
            buckets=_SECONDS,
            registry=own,
        )
        self.drafts = Counter(
            "medvlm_drafts", "Drafts by what became of them.", ["outcome"], registry=own
        )
        self.tokens = Counter(
            "medvlm_tokens", "Tokens of the language model.", ["kind"], registry=own
        )
        self.images = Counter(
            "medvlm_images", "Images asked about: seen before, or new.", ["seen"], registry=own
        )
        self.seen_bytes = Gauge(
            "medvlm_seen_bytes", "Memory for what was seen of images.", registry=own
        )
        self.ready = Gauge(
            "medvlm_ready", "1 when the model is loaded and work is taken.", registry=own
        )

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Counts how long a stage takes, whatever comes of it."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.stage_seconds.labels(stage).observe(time.perf_counter() - start)

    def text(self) -> bytes:
        """All figures as Prometheus reads them."""
        return generate_latest(self.registry)
