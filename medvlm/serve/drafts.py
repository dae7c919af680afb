"""Drafts that were asked for: made once from the same images by the same model, then kept."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from functools import partial
from threading import Lock
from typing import Literal

from pydantic import BaseModel

from medvlm.desk.discreet import told
from medvlm.errors import InputNotFound, MedVLMError
from medvlm.serve.metrics import Metrics
from medvlm.serve.problems import Refusal
from medvlm.serve.reader import Reader
from medvlm.serve.store import Store
from medvlm.serve.turns import Turns

_log = logging.getLogger("medvlm.serve")

State = Literal["none", "waiting", "running", "ready", "failed"]
RETRY_SECONDS = 10


class Failure(BaseModel):
    """Why a draft could not be made; it is tried again when it is asked for again."""

    code: str
    message: str
    remedy: str | None = None


class Drafts:
    """The drafts of a store's studies. `most`: so many may wait."""

    def __init__(self, store: Store, turns: Turns, metrics: Metrics, most: int) -> None:
        self._store, self._turns, self._metrics, self._most = store, turns, metrics, most
        self._pending: dict[str, Future[None]] = {}
        self._lock = Lock()

    def resume(self) -> None:
        """Goes on with what was asked for before the service was restarted."""
        with self._lock:
            for name in self._store.wanted():
                self._start(name)

    def ask(self, name: str, reader: Reader) -> Future[None] | None:
        """Has a study drafted unless that is done; the future ends when there is a draft or none.

        Raises InputNotFound without such a study, Refusal (429) where too many drafts wait.
        """
        key = self._store.draft_key(name, reader.fingerprint)
        with self._lock:
            if name in self._pending:
                return self._pending[name]
            if self._store.draft(name, key) is not None:
                return None
            if self._turns.drafts_waiting >= self._most:
                raise Refusal(
                    429,
                    "too_many_drafts",
                    "Too many drafts wait already.",
                    remedy="Ask again later.",
                    headers={"Retry-After": str(RETRY_SECONDS)},
                )
            self._store.want_draft(name)
            return self._start(name)

    def pending(self, name: str) -> Future[None] | None:
        """Ends when the draft that is waited for is there, or none."""
        with self._lock:
            return self._pending.get(name)

    def content(self, name: str, reader: Reader) -> bytes | None:
        """The study's draft.json if it is made. Raises InputNotFound without such a study."""
        return self._store.draft(name, self._store.draft_key(name, reader.fingerprint))

    def failure(self, name: str, reader: Reader) -> Failure | None:
        """Why the draft last asked for could not be made."""
        key = self._store.draft_key(name, reader.fingerprint)
        content = self._store.failure(name, key)
        return None if content is None else Failure.model_validate_json(content)

    def state(self, name: str, reader: Reader | None) -> State:
        """How far the draft is. Until the model is loaded nobody knows of one that was made."""
        pending = self.pending(name)
        if pending is not None:
            return "running" if pending.running() else "waiting"
        if reader is not None:
            if self.content(name, reader) is not None:
                return "ready"
            if self.failure(name, reader) is not None:
                return "failed"
        return "waiting" if self._store.is_wanted(name) else "none"

    def forget(self, name: str) -> None:
        """Of a study that was removed: a draft that has not begun is not made."""
        self._turns.drop(name)
        with self._lock:
            pending = self._pending.get(name)
            if pending is not None and not pending.running():
                del self._pending[name]
                pending.cancel()

    def _start(self, name: str) -> Future[None]:
        done = self._pending[name] = Future()
        self._turns.draft(name, partial(self._make, name, done))
        return done

    def _make(self, name: str, done: Future[None], reader: Reader) -> None:
        if not done.set_running_or_notify_cancel():
            return
        key = ""
        try:
            key = self._store.draft_key(name, reader.fingerprint)
            with self._metrics.timed("draft"):
                draft = reader.draft(self._store.study(name))
            content = draft.model_dump_json(indent=2) + "\n"
            self._store.put_draft(name, key, content.encode())
            outcome = "drafted" if draft.input_check.accepted else "refused"
        except Exception as error:
            outcome = "failed"
            self._note(name, key, error)
        self._metrics.drafts.labels(outcome).inc()
        with self._lock:
            self._pending.pop(name, None)
            done.set_result(None)
            # Images that came meanwhile are not in it.
            if key and self._changed(name, reader, key):
                self._store.want_draft(name)
                self._start(name)

    def _changed(self, name: str, reader: Reader, key: str) -> bool:
        try:
            return self._store.draft_key(name, reader.fingerprint) != key
        except InputNotFound:
            return False

    def _note(self, name: str, key: str, error: Exception) -> None:
        if isinstance(error, MedVLMError):
            failure = Failure(code=error.code, message=error.message, remedy=error.remedy)
        else:
            _log.error("a draft failed: %s", told(error))
            failure = Failure(
                code="internal", message=f"an error of medvlm's own ({type(error).__name__})"
            )
        if key:
            self._store.put_draft(name, key, failure.model_dump_json().encode(), failed=True)
