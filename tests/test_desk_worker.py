"""The drafting process, with a stand-in for the model: what it writes, and what it survives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from medvlm.desk.alone import BUSY, desk_name
from medvlm.desk.drafter import Tell, _drawn
from medvlm.desk.intake import take_in
from medvlm.desk.parent import Ending
from medvlm.desk.worker import _expire, run, work_off
from medvlm.dicom.instance import Instance
from medvlm.dicom.prior import Prior
from medvlm.dicom.study import Study
from medvlm.errors import CheckpointError, StoreError
from medvlm.image.geometry import Box
from medvlm.image.polygon import Polygon
from medvlm.records import Answer, Draft, InputCheck, Region
from medvlm.review import jobs
from medvlm.review.store import Store
from medvlm.review.tables import JobTable
from medvlm.review.worklist import images, latest_draft, study_row
from tests.desk import MODEL, a_draft, somebody
from tests.dicoms import save, synthetic

pytest_plugins = ["tests.desk"]

GREY = np.arange(20, dtype=np.uint16).reshape(4, 5)


class StandIn:
    """Drafts by hand; keeps what it was asked."""

    def __init__(self, wrong: Exception | None = None) -> None:
        self.wrong = wrong
        self.studies: list[tuple[Study, Prior | None]] = []
        self.questions: list[tuple[Instance, int, str, Region | None, Prior | None]] = []
        self.during: Callable[[], None] = lambda: None

    def draft(self, study: Study, prior: Prior | None, tell: Tell) -> Draft:
        self.studies.append((study, prior))
        tell(0.5)
        self.during()
        if self.wrong:
            raise self.wrong
        return a_draft()

    def answer(
        self,
        image: Instance,
        frame: int,
        question: str,
        region: Region | None,
        study: Study,
        prior: Prior | None,
    ) -> Answer:
        self.questions.append((image, frame, question, region, prior))
        if self.wrong:
            raise self.wrong
        check = InputCheck(accepted=True)
        return Answer(question=question, answer="Yes.", input_check=check, model=MODEL)


@pytest.fixture
def taken(store: Store, tmp_path: Path) -> Callable[..., str]:
    """Takes a film in; gives the study's id."""

    def made(**elements: object) -> str:
        path = save(synthetic(GREY, **elements), tmp_path / "film.dcm")
        return take_in(store, [path], somebody(store)).added[0]

    return made


def test_a_draft(store: Store, taken: Callable[..., str]) -> None:
    study, drafter = taken(), StandIn()
    seen: list[object] = []
    drafter.during = lambda: (
        time.sleep(0.3),
        seen.append((study_row(store, study).status, study_row(store, study).progress)),
    )[0]
    assert work_off(store, drafter) == 1
    assert seen == [("drafting", 0.5)]
    row = study_row(store, study)
    assert (row.status, row.progress, row.problem) == ("drafted", None, None)
    found = latest_draft(store, study)
    assert found is not None
    assert found[1] == a_draft()
    assert jobs.waiting(store) == 0
    assert work_off(store, drafter) == 0


def test_the_model_sees_pixels_and_no_identity(store: Store, taken: Callable[..., str]) -> None:
    drafter = StandIn()
    study_id = taken()
    work_off(store, drafter)
    ((study, prior),) = drafter.studies
    assert prior is None
    (instance,) = study.instances
    assert instance.file == images(store, study_id)[0].id
    assert "Doe" not in repr((study, instance))


@pytest.mark.parametrize(
    ("prior", "found"),
    [
        ({"Modality": "CR"}, True),
        ({"Modality": "DX"}, True),
        ({"Modality": "CT"}, False),
        ({"PatientID": "ID-2"}, False),
        ({"StudyDate": "20270101"}, False),
    ],
)
def test_the_last_prior_of_the_kind(
    store: Store, taken: Callable[..., str], prior: dict[str, object], found: bool
) -> None:
    taken(**{"StudyDate": "20250101", **prior})
    taken(StudyDate="20240101", Modality="MR")
    study, drafter = taken(StudyDate="20260101"), StandIn()
    work_off(store, drafter)
    uid = study_row(store, study).study_instance_uid
    (given,) = [p for s, p in drafter.studies if s.study_instance_uid == uid]
    assert (given is not None) == found
    if given:
        assert given.study.taken[0] == "20250101"


def test_questions_come_before_drafts(store: Store, taken: Callable[..., str]) -> None:
    study, drafter = taken(), StandIn()
    image = images(store, study)[0].id
    region = Region(x=1, y=1, width=2, height=2, polygon=[(1, 1), (3, 1), (3, 3)])
    jobs.ask(store, study, image, 0, "What is this?", region, somebody(store))
    assert work_off(store, drafter) == 2
    ((instance, frame, question, asked, prior),) = drafter.questions
    assert (instance.path.stem, frame, question, prior) == (image, 0, "What is this?", None)
    assert asked == region
    (exchange,) = jobs.conversation(store, study)
    assert exchange.answer is not None
    assert exchange.answer.answer == "Yes."


def test_a_drawn_region_becomes_a_box_or_an_outline() -> None:
    region = Region(x=1, y=2, width=3, height=4, polygon=None)
    assert _drawn(None) is None
    assert _drawn(region) == Box(1, 2, 3, 4)
    outline = region.model_copy(update={"polygon": [(1.0, 2.0), (4.0, 2.0), (4.0, 6.0)]})
    assert _drawn(outline) == Polygon(((1.0, 2.0), (4.0, 2.0), (4.0, 6.0)))


def test_what_goes_wrong_is_told_and_the_next_is_done(
    store: Store, taken: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    study, drafter = taken(), StandIn(CheckpointError("no weights", remedy="Fetch them."))
    image = images(store, study)[0].id
    jobs.ask(store, study, image, 0, "And?", None, somebody(store))
    work_off(store, drafter)
    row = study_row(store, study)
    assert (row.status, row.problem) == ("new", "no weights Fetch them.")
    assert jobs.conversation(store, study)[0].problem == "no weights Fetch them."
    drafter.wrong = ValueError("Doe^Jane stands here")
    jobs.ask_for_draft(store, study, somebody(store))
    work_off(store, drafter)
    assert study_row(store, study).problem == "The program has failed on it (ValueError)."
    assert "Doe" not in caplog.text
    drafter.wrong = None
    jobs.ask_for_draft(store, study, somebody(store))
    work_off(store, drafter)
    assert study_row(store, study).status == "drafted"


def test_a_study_whose_files_are_gone(store: Store, taken: Callable[..., str]) -> None:
    study = taken()
    for path in (store.files / study).glob("*.dcm"):
        path.unlink()
    work_off(store, StandIn())
    assert study_row(store, study).problem


def test_a_job_that_was_lost_writes_nothing(store: Store, taken: Callable[..., str]) -> None:
    study, drafter = taken(), StandIn()

    def lose() -> None:
        """The lease ran out, and another worker has it now."""
        with store.transaction() as session:
            session.query(JobTable).update({JobTable.worker: "another"})

    drafter.during = lose
    work_off(store, drafter)
    assert latest_draft(store, study) is None
    assert study_row(store, study).status == "drafting"


def test_a_lease_is_renewed_while_it_drafts(store: Store, taken: Callable[..., str]) -> None:
    study, drafter = taken(), StandIn()
    leases = []

    def look() -> None:
        for _ in range(3):
            with store.reading() as session:
                leases.append(session.query(JobTable.lease_until).scalar())
            time.sleep(0.3)

    drafter.during = look
    ending = Ending()
    thread = Thread(
        target=run,
        args=(store, drafter),
        kwargs={"lease_s": 0.8, "ending": ending, "poll_s": 0.02},
    )
    thread.start()
    _until(lambda: study_row(store, study).status == "drafted")
    ending.tell()
    thread.join(5)
    assert leases[0] < leases[1] < leases[2]
    assert len(drafter.studies) == 1


def test_it_works_until_told_to_end(store: Store, taken: Callable[..., str]) -> None:
    study, ending = taken(), Ending()
    thread = Thread(target=run, args=(store, StandIn()), kwargs={"ending": ending, "poll_s": 0.02})
    thread.start()
    _until(lambda: study_row(store, study).status == "drafted")
    assert jobs.worker_seen(store) is not None
    ending.tell()
    thread.join(5)
    assert not thread.is_alive()


def test_a_database_that_is_away_is_waited_for(
    store: Store, taken: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, ending, claim, calls = taken(), Ending(), jobs.claim, []

    def away(*given: object) -> object:
        calls.append(1)
        if len(calls) == 1:
            raise StoreError("the database cannot be reached")
        return claim(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(jobs, "claim", away)
    monkeypatch.setattr(ending, "wait", lambda _: time.sleep(0.01))
    thread = Thread(target=run, args=(store, StandIn()), kwargs={"ending": ending})
    thread.start()
    _until(lambda: study_row(store, study).status == "drafted")
    ending.tell()
    thread.join(5)


def test_after_a_crash_its_own_jobs_need_not_wait(store: Store, taken: Callable[..., str]) -> None:
    taken()
    name = desk_name(store, "worker")
    assert jobs.claim(store, name) is not None  # and then it dies
    assert jobs.claim(store, name) is None
    _expire(store, name)
    assert jobs.claim(store, name) is not None
    with store.reading() as session:
        assert session.query(JobTable.tries).scalar() == 2


# ---- the process ----

_PROCESS = """
import sys, time
from tests.test_desk_worker import StandIn
from medvlm.desk import worker
seconds = float(sys.argv[1])
worker.GRACE_S = 0.5
drafter = StandIn()
drafter.during = lambda: time.sleep(seconds)
worker.main(drafter)
"""


@pytest.fixture
def process(store: Store, root: Path) -> Callable[..., subprocess.Popen[bytes]]:
    def started(seconds: float = 0) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", _PROCESS, str(seconds)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=root,
            env={
                **os.environ,
                "MEDVLM_DATABASE": f"sqlite:///{store.engine.url.database}",
                "MEDVLM_DESK_FILES": str(store.files),
            },
        )

    return started


def _until(true: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


@pytest.mark.slow
def test_the_process_drafts_and_ends_with_its_parent(
    store: Store, taken: Callable[..., str], process: Callable[..., subprocess.Popen[bytes]]
) -> None:
    study = taken()
    with process() as worker:
        _until(lambda: study_row(store, study).status == "drafted")
        with process() as second:
            assert second.wait(30) == BUSY
        assert worker.stdin is not None
        worker.stdin.close()  # what the end of the server does
        assert worker.wait(10) == 0


@pytest.mark.slow
def test_a_job_under_way_goes_back_into_the_queue(
    store: Store, taken: Callable[..., str], process: Callable[..., subprocess.Popen[bytes]]
) -> None:
    study = taken()
    with process(600) as worker:
        _until(lambda: study_row(store, study).status == "drafting")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 0
    assert study_row(store, study).status == "new"
    assert jobs.waiting(store) == 1


@pytest.mark.slow
def test_killed_in_the_middle_of_a_draft(
    store: Store, taken: Callable[..., str], process: Callable[..., subprocess.Popen[bytes]]
) -> None:
    study = taken()
    with process(600) as worker:
        _until(lambda: study_row(store, study).status == "drafting")
        worker.kill()
    with process() as worker:
        _until(lambda: study_row(store, study).status == "drafted")
        worker.terminate()
        assert worker.wait(10) == 0
