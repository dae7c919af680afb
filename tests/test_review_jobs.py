"""Work for the drafting process: each job to one worker, whatever happens to it."""

from __future__ import annotations

import json
import threading
from datetime import timedelta

import pytest
import sqlalchemy as sa

from medvlm.errors import ReviewError
from medvlm.records import Answer, InputCheck, Region
from medvlm.review import audit
from medvlm.review.jobs import (
    answered,
    ask,
    ask_for_draft,
    claim,
    conversation,
    fail,
    finish,
    give_back,
    renew,
    waiting,
    worker_seen,
)
from medvlm.review.store import Store
from medvlm.review.tables import AuditTable, JobTable, StudyTable
from medvlm.review.worklist import images, record_draft, set_priority, study_row
from tests.desk import MODEL, Clock, a_draft, a_study, somebody

pytest_plugins = ["tests.desk"]

REGION = Region(sop_instance_uid="1.2.3", x=1, y=2, width=3, height=4)


def an_answer(**told: object) -> Answer:
    return Answer(
        **{
            "question": "Is there an effusion?",
            "answer": "Yes, on the left.",
            "probability": 0.7,
            "probability_of": "pleural effusion",
            "regions": [REGION],
            "input_check": InputCheck(accepted=True),
            "model": MODEL,
            **told,
        }
    )


def asked(store: Store, study: str, question: str = "Where is it?") -> str:
    """The id of a question by a reader."""
    reader = somebody(store, "aoki", "reader")
    image = images(store, study)[0].id
    return ask(store, study, image, 0, question, REGION, reader).id


def test_a_draft_from_asking_to_the_worklist(any_store: Store, clock: Clock) -> None:
    study, by = a_study(any_store), somebody(any_store)
    job_id = ask_for_draft(any_store, study, by)
    assert ask_for_draft(any_store, study, by) == job_id  # one is enough
    assert (waiting(any_store), study_row(any_store, study).status) == (1, "new")
    job = claim(any_store, "w1")
    assert job is not None
    assert (job.id, job.kind, job.study_id, job.payload) == (job_id, "draft", study, {})
    row = study_row(any_store, study)
    assert (waiting(any_store), row.status, row.progress) == (0, "drafting", 0.0)
    assert ask_for_draft(any_store, study, by) == job_id
    assert renew(any_store, job_id, "w1", 0.5)
    assert study_row(any_store, study).progress == 0.5
    assert renew(any_store, job_id, "w1", 7.0)
    assert study_row(any_store, study).progress == 1.0
    record_draft(any_store, study, a_draft())
    assert finish(any_store, job_id, "w1")
    row = study_row(any_store, study)
    assert (row.status, row.progress) == ("drafted", None)
    assert claim(any_store, "w1") is None
    assert ask_for_draft(any_store, study, by) != job_id
    assert audit.verify(any_store).holds


def test_questions_before_drafts_and_urgent_studies_before_others(
    any_store: Store, clock: Clock
) -> None:
    by = somebody(any_store)
    studies = []
    for _ in range(4):
        clock.pass_by(seconds=1)
        studies.append(a_study(any_store))
        ask_for_draft(any_store, studies[-1], by)
    set_priority(any_store, studies[3], "urgent", by)  # also while it waits
    set_priority(any_store, studies[2], "high", by)
    clock.pass_by(seconds=1)
    asked(any_store, studies[1])
    taken = [claim(any_store, "w1") for _ in range(6)]
    order = [(job.kind, studies.index(job.study_id)) for job in taken if job]
    assert order == [("question", 1), ("draft", 3), ("draft", 2), ("draft", 0), ("draft", 1)]
    assert taken[5] is None


def test_no_two_workers_take_the_same_job(any_store: Store) -> None:
    study = a_study(any_store)
    for number in range(12):
        asked(any_store, study, f"Question {number}?")
    taken: list[str] = []
    together = threading.Barrier(4)

    def work(worker: str) -> None:
        together.wait()
        while job := claim(any_store, worker):
            taken.append(job.id)

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 12


def test_a_dead_workers_job_is_taken_again_and_fails_after_three_tries(
    any_store: Store, clock: Clock
) -> None:
    study, by = a_study(any_store), somebody(any_store)
    job_id = ask_for_draft(any_store, study, by)
    for worker in ("w1", "w2", "w3"):
        job = claim(any_store, worker, lease_s=60)
        assert job is not None
        assert job.id == job_id
        clock.pass_by(seconds=59)
        assert claim(any_store, "other") is None
        assert renew(any_store, job_id, worker, 0.1, lease_s=60)
        clock.pass_by(seconds=60)
    assert claim(any_store, "w4") is None
    row = study_row(any_store, study)
    assert (row.status, row.problem) == ("new", "the drafting process died 3 times on it")
    assert claim(any_store, "w4") is None
    # Asked for again, it is tried again, and the problem is forgotten.
    assert ask_for_draft(any_store, study, by) != job_id
    assert study_row(any_store, study).problem is None
    assert claim(any_store, "w4") is not None


def test_a_job_that_another_worker_has_taken_over_is_lost(store: Store, clock: Clock) -> None:
    study = a_study(store)
    job_id = ask_for_draft(store, study, somebody(store))
    claim(store, "w1", lease_s=60)
    clock.pass_by(seconds=60)
    assert renew(store, job_id, "w1", 0.5)  # late, but nobody else came
    clock.pass_by(seconds=200)
    claim(store, "w2")
    assert not renew(store, job_id, "w1", 0.9)
    assert not finish(store, job_id, "w1")
    assert not fail(store, job_id, "w1", "no")
    assert not give_back(store, job_id, "w1")
    assert study_row(store, study).progress == 0.0
    assert finish(store, job_id, "w2")
    assert not finish(store, job_id, "w2")
    assert not finish(store, "0" * 32, "w2")


def test_a_worker_that_is_told_to_end_gives_its_job_back(store: Store, clock: Clock) -> None:
    study = a_study(store)
    job_id = ask_for_draft(store, study, somebody(store))
    for _ in range(5):  # more often than there are tries
        assert claim(store, "w1") is not None
        assert give_back(store, job_id, "w1")
        assert (study_row(store, study).status, waiting(store)) == ("new", 1)
    with store.reading() as session:
        assert session.get_one(JobTable, job_id).tries == 0


def test_a_draft_that_fails_says_why(any_store: Store) -> None:
    study = a_study(any_store)
    ask_for_draft(any_store, study, somebody(any_store))
    job = claim(any_store, "w1")
    assert job is not None
    assert fail(any_store, job.id, "w1", "the checkpoint\0 is damaged")
    row = study_row(any_store, study)
    assert (row.status, row.problem) == ("new", "the checkpoint is damaged")
    assert claim(any_store, "w1") is None


def test_a_draft_in_the_making_does_not_take_a_review_away(store: Store) -> None:
    study = a_study(store)
    with store.transaction() as session:
        session.get_one(StudyTable, study).status = "in_review"
    ask_for_draft(store, study, somebody(store))
    job = claim(store, "w1")
    assert job is not None
    assert study_row(store, study).status == "in_review"
    fail(store, job.id, "w1", "no")
    assert study_row(store, study).status == "in_review"


def test_nothing_is_drafted_for_a_signed_report(store: Store) -> None:
    study = a_study(store)
    with store.transaction() as session:
        session.get_one(StudyTable, study).status = "signed"
    with pytest.raises(ReviewError, match="signed"):
        ask_for_draft(store, study, somebody(store))


# ---- questions ----


def test_a_question_and_its_answer_stay_with_the_study(any_store: Store, clock: Clock) -> None:
    study = a_study(any_store)
    first = asked(any_store, study, "胸水はありますか。")
    clock.pass_by(seconds=1)
    second = asked(any_store, study)
    job = claim(any_store, "w1")
    assert job is not None
    assert job.payload == {
        "exchange_id": first,
        "image_id": images(any_store, study)[0].id,
        "frame": 0,
        "question": "胸水はありますか。",
        "region": REGION.model_dump(mode="json"),
    }
    answered(any_store, first, an_answer())
    assert finish(any_store, job.id, "w1")
    one, other = conversation(any_store, study)
    assert (one.id, other.id) == (first, second)
    assert (one.asked_by, one.asked_at) == ("aoki", clock.time - timedelta(seconds=1))
    assert one.answer == an_answer()
    assert one.answer.probability_of == "pleural effusion"
    assert one.region == REGION
    assert other.answer is None
    assert audit.verify(any_store).holds


def test_a_question_that_fails_says_why(any_store: Store) -> None:
    study = a_study(any_store)
    asked(any_store, study)
    job = claim(any_store, "w1")
    assert job is not None
    assert fail(any_store, job.id, "w1", "there is no model")
    assert conversation(any_store, study)[0].problem == "there is no model"
    assert study_row(any_store, study).problem is None


def test_a_question_is_about_an_image_of_the_study(store: Store) -> None:
    study, other, by = a_study(store), a_study(store), somebody(store)
    for image in (images(store, other)[0].id, "0" * 32):
        with pytest.raises(ReviewError) as caught:
            ask(store, study, image, 0, "Where?", None, by)
        assert caught.value.code == "unknown_image"
    assert (conversation(store, study), waiting(store)) == ([], 0)


def test_what_was_asked_is_in_the_audit(store: Store) -> None:
    study = a_study(store)
    exchange = asked(store, study)
    answered(store, exchange, an_answer())
    with store.reading() as session:
        entries = {
            entry.action: json.loads(entry.after)
            for entry in session.scalars(sa.select(AuditTable))
        }
    assert entries["asked"]["question"] == "Where is it?"
    assert entries["answered"]["answer"] == "Yes, on the left."
    assert entries["answered"]["exchange"] == exchange


# ---- signs of life ----


def test_a_worker_shows_that_it_lives(any_store: Store, clock: Clock) -> None:
    assert worker_seen(any_store) is None
    started = clock.time
    assert claim(any_store, "w1") is None
    assert worker_seen(any_store) == started
    clock.pass_by(seconds=9)
    claim(any_store, "w1")
    assert worker_seen(any_store) == started  # it is not written each time
    clock.pass_by(seconds=1)
    claim(any_store, "w1")
    assert worker_seen(any_store) == clock.time
    clock.pass_by(seconds=30)
    renew(any_store, "0" * 32, "w1", 0.5)
    assert worker_seen(any_store) == clock.time
