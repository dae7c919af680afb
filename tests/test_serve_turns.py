"""Whose turn it is: questions together, drafts between, nobody forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Event

import numpy as np
import pytest

from medvlm.config.serve import ServeConfig
from medvlm.draft.answers import Answered, Asked
from medvlm.errors import CheckpointError, MedVLMError, UsageError
from medvlm.image.load import ImageInput
from medvlm.serve.metrics import Metrics
from medvlm.serve.reader import Reader
from medvlm.serve.turns import Turns
from tests.serving import Held

IMAGE = ImageInput(np.zeros((4, 4), dtype=np.float32), "image", "0", False)
Make = Callable[..., Turns]


def asked(text: str) -> Asked:
    return Asked(IMAGE, text)


def turns_of(model: Reader, **config: float) -> Turns:
    turns = Turns(lambda: model, ServeConfig(**config), Metrics())
    turns.start()
    return turns


def test_what_waits_is_answered_together() -> None:
    model = Held()
    turns = turns_of(model, batch=3)
    first = turns.ask(asked("a"))
    model.began.wait(10)
    rest = [turns.ask(asked(text)) for text in "bcde"]
    model.go.set()
    assert first.result(10).answer.answer == "a"
    assert [one.result(10).answer.answer for one in rest] == list("bcde")
    turns.stop()
    assert model.batches == [["a"], ["b", "c", "d"], ["e"]]


def test_questions_of_one_moment_share_a_batch() -> None:
    model = Held(open=True)
    turns = turns_of(model, gather_ms=500, batch=3)
    answers = [turns.ask(asked(text)) for text in "abc"]
    start = time.monotonic()
    assert [one.result(10).answer.answer for one in answers] == list("abc")
    assert time.monotonic() - start < 0.4  # a full batch waits for nobody
    turns.stop()
    assert model.batches == [["a", "b", "c"]]


def test_who_went_away_is_not_worked_for() -> None:
    model = Held()
    turns = turns_of(model)
    first = turns.ask(asked("a"))
    model.began.wait(10)
    gone, kept = turns.ask(asked("b")), turns.ask(asked("c"))
    assert gone.cancel()
    assert not first.cancel()  # it is being answered
    model.go.set()
    kept.result(10)
    turns.stop()
    assert model.batches == [["a"], ["c"]]


def test_questions_come_first_and_drafts_come_between() -> None:
    model = Held()
    turns = turns_of(model, draft_patience_seconds=0.2, batch=1)
    order: list[str] = []
    holding, release = Event(), Event()

    def hold(_: Reader) -> None:
        holding.set()
        release.wait(10)

    turns.draft("first", hold)
    holding.wait(10)
    turns.draft("second", lambda _: order.append("draft"))
    model.go.set()
    answers: list[Future[Answered]] = [turns.ask(asked(str(i))) for i in range(3)]
    for i, one in enumerate(answers):
        one.add_done_callback(lambda _, i=i: order.append(f"question {i}"))
    release.set()
    answers[-1].result(10)
    turns.stop()
    assert order[0] == "question 0"  # the first draft only just ended

    # While questions never end, a draft waits no longer than it may.
    model = Held(open=True)
    turns = turns_of(model, draft_patience_seconds=0.2, batch=1)
    made = Event()
    start = time.monotonic()
    waiting = [turns.ask(asked("x")) for _ in range(50)]
    turns.draft("a", lambda _: made.set())
    while not made.is_set() and time.monotonic() - start < 10:
        waiting += [turns.ask(asked("x")) for _ in range(20)]
        time.sleep(0.001)
    assert made.is_set()
    turns.stop()


def test_a_draft_that_is_dropped_is_not_made() -> None:
    model = Held()
    turns = turns_of(model)
    turns.ask(asked("a"))
    model.began.wait(10)
    made: list[str] = []
    turns.draft("gone", lambda _: made.append("gone"))
    turns.draft("kept", lambda _: made.append("kept"))
    assert turns.drafts_waiting == 2
    turns.drop("gone")
    assert turns.drafts_waiting == 1
    model.go.set()
    for _ in range(100):
        if made:
            break
        time.sleep(0.02)
    turns.stop()
    assert made == ["kept"]


class Poisoned(Held):
    """Fails as a whole wherever one question is wrong."""

    def answer(self, asked: Sequence[Asked]) -> list[Answered | MedVLMError]:
        if any(one.question == "poison" for one in asked):
            raise RuntimeError("Doe^Jane")
        empty = [one.question == "empty" for one in asked]
        answers = zip(empty, super().answer(asked), strict=True)
        return [UsageError("empty") if none else own for none, own in answers]


def test_what_breaks_a_batch_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    model = Poisoned(open=True)
    turns = turns_of(model, gather_ms=300, batch=3)
    good, poison, empty = (turns.ask(asked(text)) for text in ("good", "poison", "empty"))
    assert good.result(10).answer.answer == "doog"
    with pytest.raises(RuntimeError):
        poison.result(10)
    with pytest.raises(UsageError):
        empty.result(10)
    turns.draft("a", lambda _: 1 / 0)  # the thread goes on
    assert turns.ask(asked("more")).result(10).answer.answer == "erom"
    turns.stop()
    assert "RuntimeError at " in caplog.text
    assert "ZeroDivisionError at " in caplog.text
    assert "Doe" not in caplog.text


def test_stopping_answers_what_was_asked_and_begins_no_draft() -> None:
    model = Held()
    turns = turns_of(model)
    first = turns.ask(asked("a"))
    model.began.wait(10)
    second = turns.ask(asked("b"))
    made: list[str] = []
    turns.draft("x", lambda _: made.append("x"))
    model.go.set()
    turns.stop()
    assert (first.result(0).answer.answer, second.result(0).answer.answer) == ("a", "b")
    assert made == []


def test_a_model_that_cannot_be_loaded_is_told() -> None:
    ended = Event()

    def load() -> Reader:
        raise CheckpointError("damaged")

    turns = Turns(load, ServeConfig(), Metrics(), ended.set)
    turns.start()
    assert ended.wait(10)
    assert isinstance(turns.failed, CheckpointError)
    turns.stop()
