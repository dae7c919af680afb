"""The one thread that runs the model: questions together, a draft between them.

Questions that wait are answered in one batch; the first of it waits a moment for others. A draft is
made when there is no question, or when drafts had no turn for a while.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from threading import Condition, Thread
from typing import NamedTuple

from medvlm.config.serve import ServeConfig
from medvlm.desk.discreet import told
from medvlm.draft.answers import Answered, Asked
from medvlm.errors import MedVLMError
from medvlm.serve.metrics import Metrics
from medvlm.serve.reader import Reader

_log = logging.getLogger("medvlm.serve")

DraftWork = Callable[[Reader], None]


class _Question(NamedTuple):
    asked: Asked
    answer: Future[Answered]
    since: float


class _Draft(NamedTuple):
    key: str
    work: DraftWork
    since: float


class Turns:
    """Takes questions and drafts from any thread; `load` gives the model, in the thread itself.

    `failed` is what `load` raised; `on_end` is called when it did. When
    `draining`, no draft is begun.
    """

    def __init__(
        self,
        load: Callable[[], Reader],
        config: ServeConfig,
        metrics: Metrics,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.reader: Reader | None = None
        self.failed: BaseException | None = None
        self._load, self._config, self._metrics, self._on_end = load, config, metrics, on_end
        self._changed = Condition()
        self._questions: deque[_Question] = deque()
        self._drafts: deque[_Draft] = deque()
        self.draining = self._stopping = False
        self._last_draft = 0.0
        # Whoever cannot wait for it (a second Ctrl-C) need not.
        self._thread = Thread(target=self._run, name="medvlm-model", daemon=True)

    def start(self) -> None:
        """Begins to load the model."""
        self._thread.start()

    def stop(self) -> None:
        """Answers what was asked, ends the draft that is being made, begins no other, and waits."""
        with self._changed:
            self.draining = self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def ask(self, asked: Asked) -> Future[Answered]:
        """The answer to come; who cancels it before its turn is not worked for."""
        answer: Future[Answered] = Future()
        with self._changed:
            self._questions.append(_Question(asked, answer, time.monotonic()))
            self._changed.notify_all()
        return answer

    @property
    def drafts_waiting(self) -> int:
        """How many drafts have not begun."""
        return len(self._drafts)

    def draft(self, key: str, work: DraftWork) -> None:
        """Has `work` done when it is a draft's turn; `key` names it for `drop`."""
        with self._changed:
            self._drafts.append(_Draft(key, work, time.monotonic()))
            self._count_drafts()
            self._changed.notify_all()

    def drop(self, key: str) -> None:
        """Forgets a draft that has not begun."""
        with self._changed:
            self._drafts = deque(one for one in self._drafts if one.key != key)
            self._count_drafts()

    def _count_drafts(self) -> None:
        self._metrics.queue.labels("draft").set(len(self._drafts))

    def _run(self) -> None:
        try:
            self.reader = self._load()
        except BaseException as error:  # told by whoever waits for the thread
            self.failed = error
            self._refuse_all(error)
            self._on_end()
            return
        while (turn := self._next()) is not None:
            if isinstance(turn, _Draft):
                self._make(self.reader, turn)
            else:
                self._answer(self.reader, turn)

    def _refuse_all(self, error: BaseException) -> None:
        with self._changed:
            for one in self._questions:
                one.answer.set_exception(error)
            self._questions.clear()

    def _next(self) -> _Draft | list[_Question] | None:
        """What is done next; None when all is done and no more comes."""
        with self._changed:
            while True:
                if self._draft_is_next():
                    draft = self._drafts.popleft()
                    self._count_drafts()
                    return draft
                if self._questions:
                    self._gather()
                    count = min(len(self._questions), self._config.batch)
                    return [self._questions.popleft() for _ in range(count)]
                if self._stopping:
                    return None
                self._changed.wait()

    def _draft_is_next(self) -> bool:
        if not self._drafts or self.draining:
            return False
        since = max(self._last_draft, self._drafts[0].since)
        due = time.monotonic() - since >= self._config.draft_patience_seconds
        return due or not self._questions

    def _gather(self) -> None:
        """Lets questions come that arrive within moments of the first."""
        until = self._questions[0].since + self._config.gather_ms / 1000
        while len(self._questions) < self._config.batch and not self._stopping:
            left = until - time.monotonic()
            if left <= 0 or not self._changed.wait(left):
                return

    def _answer(self, reader: Reader, turn: list[_Question]) -> None:
        turn = [one for one in turn if one.answer.set_running_or_notify_cancel()]
        if not turn:
            return
        waited = self._metrics.stage_seconds.labels("wait")
        for one in turn:
            waited.observe(time.monotonic() - one.since)
        self._metrics.batch.observe(len(turn))
        with self._metrics.timed("answer"):
            results = self._results(reader, [one.asked for one in turn])
        for one, result in zip(turn, results, strict=True):
            if isinstance(result, BaseException):
                one.answer.set_exception(result)
            else:
                one.answer.set_result(result)

    def _results(self, reader: Reader, asked: list[Asked]) -> list[Answered | Exception]:
        """The answers; what breaks a batch is asked again alone, so that it harms no other."""
        try:
            answers: list[Answered | MedVLMError] = reader.answer(asked)
            return [*answers]
        except Exception as error:
            _log.error("questions failed: %s", told(error))
            if len(asked) == 1:
                return [error]
        return [self._results(reader, [one])[0] for one in asked]

    def _make(self, reader: Reader, draft: _Draft) -> None:
        try:
            draft.work(reader)
        except Exception as error:  # the work tells of its own errors
            _log.error("a draft failed: %s", told(error))
        self._last_draft = time.monotonic()
