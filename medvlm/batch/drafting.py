"""Parcels to drafts with one loaded model: the one code path inside every engine.

A study's draft is made from that study alone, whatever stands before or after it, so that its
bytes do not depend on how many processes share the work. torch is imported inside functions.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING

from medvlm.batch.ahead import ahead
from medvlm.batch.files import CannotWrite
from medvlm.batch.key import run_key
from medvlm.batch.ledger import Ledger
from medvlm.batch.outcome import Outcome
from medvlm.batch.parcel import Parcel
from medvlm.batch.prepare import (
    Closed,
    Ready,
    Rules,
    Sending,
    Step,
    Told,
    prepare,
    send_draft,
    why,
)
from medvlm.batch.quarantine import Quarantine
from medvlm.batch.results import ResultFolder

if TYPE_CHECKING:
    from medvlm.model.checkpoint import Checkpoint


def rules_of(
    checkpoint: Checkpoint, retry_failed: bool = False, send: Sending | None = None
) -> Rules:
    """What a checkpoint's drafts are known by, and where they go."""
    return Rules(run_key(checkpoint), checkpoint.config.gate, retry_failed, send)


def draft_parcel(
    checkpoint: Checkpoint, parcel: Parcel, out: ResultFolder, retry_failed: bool = False
) -> list[Outcome]:
    """Drafts one parcel's studies. Raises CannotWrite; any other failure is an outcome."""
    (outcomes,) = draft_parcels(checkpoint, [parcel], out, retry_failed)
    return outcomes


def draft_parcels(
    checkpoint: Checkpoint,
    parcels: Iterable[Parcel],
    out: ResultFolder,
    retry_failed: bool = False,
    send: Sending | None = None,
) -> Iterator[list[Outcome]]:
    """The outcomes of each parcel, in order; the next is read while the model works on one.

    Raises CannotWrite; any other failure is an outcome.
    """
    rules = rules_of(checkpoint, retry_failed, send)
    yield from draft_steps(checkpoint, ahead(_steps(parcels, rules, out)), rules, out)


def draft_steps(
    checkpoint: Checkpoint, steps: Iterable[Step], rules: Rules, out: ResultFolder
) -> Iterator[list[Outcome]]:
    """The outcomes of each parcel whose steps these are, in order. Raises CannotWrite."""
    told: list[Told] = []
    for step in steps:
        if isinstance(step, Ready):
            told += draft_ready(checkpoint, step, rules, out)
        elif isinstance(step, Told):
            told.append(step)
        else:
            close(step, told, out)
            yield [item.outcome for item in told]
            told = []


def draft_ready(
    checkpoint: Checkpoint, ready: Ready, rules: Rules, out: ResultFolder
) -> list[Told]:
    """Drafts a study that is ready, and writes it or the reason why not. Raises CannotWrite."""
    from medvlm.draft.compose import draft_study

    quarantine, name, start = Quarantine(out.path), ready.folder.name, time.perf_counter()
    study, again = ready.study, rules.retry_failed
    try:
        result = draft_study(
            checkpoint,
            study,
            ready.prior,
            loaded=ready.loaded,
            loaded_prior=ready.loaded_prior,
        )
    except Exception as error:
        failed = [why(error, study.instances[0].file)]
        quarantine.put(name, ready.key, failed, ready.files, again=again)
        return [Told(Outcome.of_failure(failed[0], name), record=name)]
    # First the record, then the draft: killed between the two, the study is done again.
    if result.failed:
        quarantine.put(name, ready.key, result.failed, ready.files, drafted=True, again=again)
    else:
        quarantine.release(name)
    out.write(ready.folder, ready.key, study.patient, result)
    seconds = ready.seconds + time.perf_counter() - start
    drafted = Outcome.of_draft(ready.folder, result.draft, seconds=seconds)
    failures = [Outcome.of_failure(item, name) for item in result.failed]
    told = [Told(drafted, ready.folder), *(Told(item, record=name) for item in failures)]
    return [*told, *send_draft(ready.folder, study, ready.back)]


def close(closed: Closed, told: list[Told], out: ResultFolder) -> None:
    """Remembers a parcel that is done, unless some of it is to be tried again by every run."""
    lost = any(item.folder is None and item.record is None for item in told)
    if closed.ledger is not None and not lost:
        folders = [item.folder for item in told if item.folder is not None]
        failed = {item.record for item in told if item.record is not None}
        try:
            Ledger(out.path).close(closed.ledger, folders, sorted(failed))
        except OSError as error:
            raise CannotWrite from error


def _steps(parcels: Iterable[Parcel], rules: Rules, out: ResultFolder) -> Generator[Step]:
    for parcel in parcels:
        yield from prepare(parcel, rules, out)
