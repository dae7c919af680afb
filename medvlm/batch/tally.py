"""Counts of a run: how many studies were drafted, refused and failed, why, and how fast."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from medvlm.batch.outcome import Outcome

WINDOW_S = 300.0  # what the pace is told of: a run that is resumed passes finished studies quickly


@dataclass
class Tally:
    """`parcels`: how many are done; `resumed`: drafts and failures known from an earlier run."""

    clock: Callable[[], float] = time.monotonic
    parcels: int = 0
    drafted: int = 0
    resumed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    studies_refused: int = 0
    new: int = 0
    start: float = field(init=False)
    recent: deque[tuple[float, int, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.start = self.clock()
        self.recent = deque([(self.start, 0, 0)])

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Counts a parcel."""
        self.parcels += 1
        for outcome in outcomes:
            self._count(outcome)
        now = self.clock()
        if now - self.recent[-1][0] >= 1:
            self.recent.append((now, self.parcels, self.new))
        while len(self.recent) > 2 and now - self.recent[1][0] > WINDOW_S:
            self.recent.popleft()

    def _count(self, outcome: Outcome) -> None:
        if outcome.kind == "failed":
            assert outcome.failure is not None
            self.failed[outcome.failure.code] += 1
            return
        self.resumed += outcome.resumed
        self.new += not outcome.resumed
        if outcome.kind == "drafted":
            self.drafted += 1
        else:
            self.studies_refused += 1
            self.refused.update(outcome.reasons)

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return self.clock() - self.start

    @property
    def per_hour(self) -> float:
        """Studies drafted or refused by this run."""
        return 3600 * self.new / max(self.seconds, 1e-9)

    def pace(self, total: int | None) -> str:
        """Rate, time left and failures in the last minutes' terms, for people."""
        then, parcels, new = self.recent[0]
        passed = max(self.clock() - then, 1e-9)
        words = [f"{3600 * (self.new - new) / passed:,.0f} studies/h"]
        if total and self.parcels > parcels:
            left = (total - self.parcels) * passed / (self.parcels - parcels)
            words.append(f"{in_hours(left)} left")
        words.append(f"{self.failed.total()} failed")
        return ", ".join(words)

    def record(self) -> dict[str, Any]:
        """The counts as JSON: by the code of the reason where there is one."""
        return {
            "drafted": self.drafted,
            "resumed": self.resumed,
            "refused": self.studies_refused,
            "refused_for": dict(sorted(self.refused.items())),
            "failed": self.failed.total(),
            "failed_for": dict(sorted(self.failed.items())),
            "seconds": round(self.seconds, 1),
            "studies_per_hour": round(self.per_hour, 1),
        }


def in_hours(seconds: float) -> str:
    """Such as 2:05:00."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
