"""The drafting process: takes jobs from the desk's database, drafts, answers, writes results.

Run as `python -m medvlm.desk.worker` by the page's server, whose end it notices by the end of its
standard input. What goes wrong with a job is written to the job; the process goes on.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from medvlm.config.desk import desk_config
from medvlm.desk.alone import BUSY, alone, desk_name
from medvlm.desk.discreet import be_discreet, told
from medvlm.desk.drafter import Drafter, ModelDrafter
from medvlm.desk.parent import Ending, child_ending
from medvlm.desk.stored import stored_instance, stored_prior, stored_study
from medvlm.errors import MedVLMError, StoreError
from medvlm.records import Region
from medvlm.review import jobs
from medvlm.review import store as stores
from medvlm.review.jobs import Job
from medvlm.review.store import Store, open_store
from medvlm.review.tables import JobTable
from medvlm.review.worklist import record_draft

POLL_S = 0.5
GRACE_S = 8.0  # to finish a job when told to end
_log = logging.getLogger(__name__)


def run(
    store: Store,
    drafter: Drafter,
    *,
    worker: str = "worker",
    lease_s: float = 120,
    ending: Ending | None = None,
    poll_s: float = POLL_S,
) -> None:
    """Works until told to end. An error of the database is waited out."""
    ending = ending or Ending()
    while not ending.told:
        try:
            job = jobs.claim(store, worker, lease_s)
            if job is not None:
                _do(store, drafter, job, worker, lease_s, ending)
                continue
        except StoreError as error:
            _log.warning("the database cannot be used: %s", error.message)
            ending.wait(5)
        ending.wait(poll_s)


def work_off(store: Store, drafter: Drafter, *, worker: str = "worker") -> int:
    """Does all jobs that wait, and returns how many: for tests and for a single run."""
    done = 0
    while (job := jobs.claim(store, worker)) is not None:
        _do(store, drafter, job, worker, 120, Ending())
        done += 1
    return done


def _do(
    store: Store, drafter: Drafter, job: Job, worker: str, lease_s: float, ending: Ending
) -> None:
    started = time.perf_counter()
    try:
        with _kept(store, job, worker, lease_s, ending) as lease:
            lease.tell(0.05)
            do = _drafted if job.kind == "draft" else _answered
            write = do(store, drafter, job, lease)
        # A lease that ran out has been given to somebody else.
        if jobs.renew(store, job.id, worker, 0.95, lease_s):
            write()
            jobs.finish(store, job.id, worker)
        took = time.perf_counter() - started
        _log.info("%s of study %s: done in %.1f s", job.kind, job.study_id, took)
    except StoreError:
        raise
    except MedVLMError as error:
        _log.warning("%s of study %s: %s", job.kind, job.study_id, error.code)
        jobs.fail(store, job.id, worker, _words(error))
    except Exception as error:  # of the model: the next study may be better
        _log.error("%s of study %s: %s", job.kind, job.study_id, told(error))
        problem = f"The program has failed on it ({type(error).__name__})."
        jobs.fail(store, job.id, worker, problem)


def _drafted(store: Store, drafter: Drafter, job: Job, lease: _Lease) -> Callable[[], object]:
    """Drafts; gives what writes the draft down."""
    study = stored_study(store, job.study_id)
    prior = stored_prior(store, job.study_id, study)
    lease.tell(0.1)
    draft = drafter.draft(study, prior, lease.tell)
    return lambda: record_draft(store, job.study_id, draft, desk_config().urgent)


def _answered(store: Store, drafter: Drafter, job: Job, lease: _Lease) -> Callable[[], object]:
    """Answers; gives what writes the answer down."""
    study = stored_study(store, job.study_id)
    prior = stored_prior(store, job.study_id, study)
    asked = job.payload
    region = Region.model_validate(asked["region"]) if asked["region"] else None
    image = stored_instance(study, asked["image_id"])
    lease.tell(0.1)
    answer = drafter.answer(image, asked["frame"], asked["question"], region, study, prior)
    return lambda: jobs.answered(store, asked["exchange_id"], answer)


def _words(error: MedVLMError) -> str:
    """The error for people, without the name of a file, which says nothing to them."""
    return f"{error.message} {error.remedy}" if error.remedy else error.message


class _Lease:
    """A job's progress, which a thread writes down with each sign of life."""

    def __init__(self) -> None:
        self.progress = 0.0
        self.changed = Event()

    def tell(self, progress: float) -> None:
        self.progress = max(self.progress, progress)
        self.changed.set()


@contextmanager
def _kept(store: Store, job: Job, worker: str, lease_s: float, ending: Ending) -> Iterator[_Lease]:
    """Renews the lease in a thread while the block runs."""
    lease, over = _Lease(), Event()

    def renew() -> None:
        told_at = None
        while not over.is_set():
            lease.changed.wait(min(lease_s / 4, 0.5 if ending.told else 5))
            lease.changed.clear()
            if over.is_set():
                return
            try:
                jobs.renew(store, job.id, worker, lease.progress, lease_s)
                if ending.told:
                    told_at = told_at or time.monotonic()
                    if time.monotonic() - told_at > GRACE_S:
                        jobs.give_back(store, job.id, worker)
                        ending.now()
            except StoreError:
                continue  # the lease is long enough for several tries

    thread = Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        over.set()
        lease.changed.set()
        thread.join(30)


def _expire(store: Store, worker: str) -> None:
    """Jobs that this worker held when it died need not wait for the end of their lease."""
    with store.transaction() as session:
        held = session.query(JobTable).filter_by(state="running", worker=worker)
        held.update({JobTable.lease_until: stores.now()})


def main(drafter: Drafter | None = None) -> None:
    """The process. Its exit code is BUSY where another worker serves the desk already."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.INFO)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    be_discreet()
    ending = child_ending()
    config = desk_config()
    with open_store(config.database_url, config.files) as store, alone(store, "worker") as only:
        if not only:
            sys.exit(BUSY)
        name = desk_name(store, "worker")
        _expire(store, name)
        run(
            store,
            drafter or ModelDrafter(),
            worker=name,
            lease_s=config.lease_seconds,
            ending=ending,
        )


if __name__ == "__main__":
    main()
