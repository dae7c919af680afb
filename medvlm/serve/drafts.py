"""Drafts that were asked for: made once from the same images by the same model, then kept."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Literal

from pydantic import BaseModel

from medvlm.desk.discreet import told
from medvlm.errors import InputNotFound, MedVLMError, StoreError
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
    """The drafts of a store's studies. `most`: so many may wait.

    The lock is held for moments only: nobody who takes it waits for the disk.
    """

    def __init__(self, store: Store, turns: Turns, metrics: Metrics, most: int) -> None:
        self._store, self._turns, self._metrics, self._most = store, turns, metrics, most
        self._pending: dict[str, Future[None]] = {}
        self._unkept: dict[str, tuple[str, Failure]] = {}  # failures that the disk would not take
        self._lock = Lock()

    def resume(self, reader: Reader) -> None:
        """Goes on with what was asked for before the service was restarted.

        What was begun and not ended may have ended the process: it is made on demand only.
        """
        for name in self._store.wanted():
            if self._store.was_begun(name):
                self._died(name, self._store.draft_key(name, reader.fingerprint))
            elif (done := self._reserve(name)) is not None:
                self._turns.draft(name, partial(self._make, name, done))

    def ask(self, name: str, reader: Reader) -> Future[None] | None:
        """Has a study drafted unless that is done; the future ends when there is a draft or none.

        Raises InputNotFound without such a study, Refusal (429) where too many drafts wait,
        StoreError where the wish cannot be kept.
        """
        key = self._store.draft_key(name, reader.fingerprint)
        made = self._store.draft(name, key) is not None
        with self._lock:
            if name in self._pending:
                return self._pending[name]
            if made:
                return None
            if sum(not one.running() for one in self._pending.values()) >= self._most:
                raise Refusal(
                    429,
                    "too_many_drafts",
                    "Too many drafts wait already.",
                    remedy="Ask again later.",
                    headers={"Retry-After": str(RETRY_SECONDS)},
                )
            done = self._pending[name] = Future()
        self._start(name, done)
        return done

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
        with self._lock:
            of, failure = self._unkept.get(name, ("", None))
        if failure is not None and of == key:
            return failure
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
        if self._store.has(name):
            return
        self._turns.drop(name)
        with self._lock:
            self._unkept.pop(name, None)
            pending = self._pending.get(name)
            if pending is not None and not pending.running():
                del self._pending[name]
                pending.cancel()

    def _died(self, name: str, key: str) -> None:
        made = self._store.draft(name, key)
        if made is None:
            self._note(name, key, _DIED)
            return
        with suppress(StoreError):  # it ended when all but the note of that was done
            self._store.put_draft(name, key, made)

    def _reserve(self, name: str) -> Future[None] | None:
        with self._lock:
            if name in self._pending:
                return None
            done = self._pending[name] = Future()
            return done

    def _start(self, name: str, done: Future[None]) -> None:
        """Has a draft made that is among the pending. Raises StoreError: it is not, any more."""
        try:
            self._store.want_draft(name)
        except BaseException:
            with self._lock:
                if self._pending.get(name) is done:
                    del self._pending[name]
            done.cancel()
            raise
        with self._lock:
            self._unkept.pop(name, None)
        self._turns.draft(name, partial(self._make, name, done))

    def _make(self, name: str, done: Future[None], reader: Reader) -> None:
        if not done.set_running_or_notify_cancel():
            return
        again: Future[None] | None = None
        changed = False
        try:
            key = self._attempt(name, reader)
            # Images that came meanwhile are not in it.
            changed = bool(key) and self._changed(name, reader, key)
        finally:
            with self._lock:
                self._pending.pop(name, None)
                if changed:
                    again = self._pending[name] = Future()
            done.set_result(None)
        if again is not None:
            self._start(name, again)

    def _attempt(self, name: str, reader: Reader) -> str:
        """Makes a draft, or notes why there is none; by which key. Empty: the study is gone."""
        key, outcome = "", "failed"
        try:
            key = self._store.draft_key(name, reader.fingerprint)
            self._store.want_draft(name, begun=True)
            study = self._store.study(name)
            key = self._store.key_of(study, reader.fingerprint)
            with self._metrics.timed("draft"):
                draft = reader.draft(study)
            content = draft.model_dump_json(indent=2) + "\n"
            self._store.put_draft(name, key, content.encode())
            outcome = "drafted" if draft.input_check.accepted else "refused"
        except Exception as error:
            self._note(name, key, _failure(error))
        self._metrics.drafts.labels(outcome).inc()
        return key

    def _changed(self, name: str, reader: Reader, key: str) -> bool:
        try:
            return self._store.draft_key(name, reader.fingerprint) != key
        except InputNotFound:
            return False

    def _note(self, name: str, key: str, failure: Failure) -> None:
        """Keeps why there is no draft: in memory, if the disk will not have it."""
        if not key:
            return
        try:
            self._store.put_draft(name, key, failure.model_dump_json().encode(), failed=True)
        except StoreError:
            _log.error("the failure of a draft cannot be kept")
            with self._lock:
                self._unkept[name] = key, failure


_DIED = Failure(
    code="died",
    message="The service ended while the draft was made.",
    remedy="Ask for it again; if that ends the service again, remove the study.",
)


def _failure(error: Exception) -> Failure:
    if isinstance(error, MedVLMError):
        return Failure(code=error.code, message=error.message, remedy=error.remedy)
    _log.error("a draft failed: %s", told(error))
    return Failure(code="internal", message=f"an error of medvlm's own ({type(error).__name__})")
