"""A parcel made ready for the model: opened, its finished studies known, the others decoded.

Nothing here needs the model's weights, so that it is done while the model works on another study.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from medvlm.batch.files import CannotWrite
from medvlm.batch.key import draft_key, name_mark, parcel_key
from medvlm.batch.ledger import Ledger
from medvlm.batch.outcome import Outcome
from medvlm.batch.parcel import Parcel, StudyParcel
from medvlm.batch.quarantine import Quarantine, Record, as_refused
from medvlm.batch.report_back import Back, send_back
from medvlm.batch.results import ResultFolder
from medvlm.config import GateConfig
from medvlm.dicom.prior import Prior
from medvlm.dicom.read import Refused
from medvlm.dicom.study import Study
from medvlm.errors import InputError, MedVLMError, ServerError
from medvlm.export.sr_content import Kind

if TYPE_CHECKING:
    from medvlm.draft.admit import Loaded

DIED = Refused(
    "",
    "worker_died",
    "Two processes died while they drafted it: they crashed, or ran out of memory.",
    "Run it alone, on a machine with more memory perhaps, or with --retry-failed.",
)


@dataclass(frozen=True)
class Sending:
    """Where drafts go as preliminary reports: a DICOMweb `server`, or the one they came from."""

    server: str | None = None
    kind: Kind = "basic"

    def address(self, parcel: Parcel) -> str | None:
        """The server for a parcel's drafts; None where nobody named one."""
        return self.server or getattr(parcel, "server_url", None)


@dataclass(frozen=True)
class Rules:
    """What decides whether a study is drafted: the run's key, the gate, the caller's wish."""

    run: str
    gate: GateConfig
    retry_failed: bool = False
    send: Sending | None = None

    @property
    def parcels(self) -> str:
        """What a parcel is remembered with: one whose drafts were not sent is opened again."""
        return self.run if self.send is None else f"{self.run} {self.send}"


@dataclass(frozen=True)
class Ready:
    """A study to draft into `folder`, its images decoded. Can be pickled.

    `files`: the sha256 of each file by the name shown to people. `seconds`: how long it took.
    `back`: what is needed to send the draft back, where that is wished.
    """

    study: Study
    prior: Prior | None
    folder: Path
    key: str
    files: dict[str, str] = field(repr=False)
    loaded: Loaded = field(repr=False)
    loaded_prior: Loaded | None = field(repr=False)
    seconds: float
    back: Back | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Told:
    """What became of a study: the `folder` of its draft, or the name of its failure's `record`.

    A failure without a record is tried again by every run.
    """

    outcome: Outcome
    folder: Path | None = None
    record: str | None = None


@dataclass(frozen=True)
class Closed:
    """All of a parcel has been handed out; `ledger`: under which key that may be remembered."""

    ledger: str | None = None


Step = Ready | Told | Closed


def prepare(parcel: Parcel, rules: Rules, out: ResultFolder) -> Generator[Step]:
    """The studies of a parcel, one after another, and `Closed` in the end. Raises CannotWrite."""
    quarantine, name = Quarantine(out.path), _record_name(parcel)
    try:
        mark = parcel.mark()
    except Exception as error:
        yield Told(Outcome.of_failure(why(error, parcel.name)))
        yield Closed()
        return
    key = parcel_key(rules.run, mark or parcel.name)
    send = rules.send.address(parcel) if rules.send else None
    if (known := _known(parcel, mark, key, rules, out)) is not None:
        yield from known
        yield Closed()
        return
    try:
        with out.scratch() as scratch:
            contents = parcel.open(scratch)
            for study, prior in zip(contents.studies, contents.priors, strict=True):
                yield from _study(study, prior, rules, out, send)
        failed, whole = contents.reading.failed, not contents.studies
    except CannotWrite:
        raise
    except ServerError as error:  # it may be up again when the run is repeated
        yield Told(Outcome.of_failure(why(error, parcel.name)))
        yield Closed()
        return
    except Exception as error:
        failed, whole = [why(error, parcel.name)], True
    if failed:
        quarantine.put(name, key, failed, {}, drafted=not whole, again=rules.retry_failed)
        yield from (Told(Outcome.of_failure(item), record=name) for item in failed)
    else:
        quarantine.release(name)
    yield Closed(parcel_key(rules.parcels, mark) if mark is not None else None)


def _known(
    parcel: Parcel, mark: str | None, key: str, rules: Rules, out: ResultFolder
) -> list[Told] | None:
    """What an earlier run made of the parcel, if nothing of it is to be done again."""
    quarantine, name = Quarantine(out.path), _record_name(parcel)
    entry = Ledger(out.path).entry(parcel_key(rules.parcels, mark)) if mark is not None else None
    if entry is None:
        record = quarantine.record(name, key)
        if record is None or record.drafted or rules.retry_failed:
            return None
        return _failed_before(record, name, {}, parcel.name, None)
    told: list[Told] = []
    for study, own in entry.studies:
        folder = out.path / study
        draft = out.finished(folder, own)
        if draft is None or not out.keep(folder, own):
            return None
        told.append(Told(Outcome.of_draft(folder, draft, resumed=True), folder))
    for failed in entry.failed:
        record = quarantine.record(failed)
        if record is None or rules.retry_failed:
            return None
        told += _failed_before(record, failed, {}, parcel.name, None)
    return told


def _study(
    study: Study, prior: Prior | None, rules: Rules, out: ResultFolder, send: str | None
) -> Iterator[Ready | Told]:
    from medvlm.draft.admit import load_study

    def back() -> Back | None:
        if send is None or rules.send is None:
            return None
        try:
            return Back.of(study, send, rules.send.kind)
        except Exception as error:  # whatever a header is like, the draft is worth having
            unsent.append(_unsent(study, why(error, shown)))
            return None

    unsent: list[Told] = []

    start = time.perf_counter()
    quarantine, shown = Quarantine(out.path), study.instances[0].file
    key, name, files = None, study.name, {}
    try:
        key = draft_key(rules.run, study, prior)
        files = sha256_by_file(study, prior)
        name = f"{study.name}-{key[:8]}"  # the folder may be another's
        folder = out.claim(study, key)
        quarantine.release(name)
        name = folder.name
        record = quarantine.record(name, key)
        draft = out.finished(folder, key)
        if draft and (record is None or (record.drafted and not rules.retry_failed)):
            yield Told(Outcome.of_draft(folder, draft, resumed=True), folder)
            yield from send_draft(folder, study, back())
            yield from unsent
        if record and not rules.retry_failed and (draft or not record.drafted):
            yield from _failed_before(record, name, files, shown, name)
            return
        if draft and record is None:
            return
        loaded = load_study(study, rules.gate)
        before = _load_prior(prior, rules.gate)
        took = time.perf_counter() - start
        yield Ready(study, prior, folder, key, files, loaded, before, took, back())
        yield from unsent
    except CannotWrite:
        raise
    except Exception as error:
        failure = why(error, shown)
        if key is not None:
            quarantine.put(name, key, [failure], files, again=rules.retry_failed)
        record_name = name if key is not None else None
        yield Told(Outcome.of_failure(failure, study.name), record=record_name)


def _load_prior(prior: Prior | None, gate: GateConfig) -> Loaded | None:
    """A prior that cannot be decoded is left to the draft, which says so."""
    from medvlm.draft.admit import load_study

    try:
        return load_study(prior.study, gate) if prior else None
    except InputError:
        return None


def give_up(parcel: Parcel, rules: Rules, out: ResultFolder) -> Outcome:
    """Records a parcel over which two processes died. Raises CannotWrite."""
    study, name, key, files = None, _record_name(parcel), None, {}
    try:
        if isinstance(parcel, StudyParcel):
            study = name = out.folder(parcel.study).name
            key = draft_key(rules.run, parcel.study, parcel.prior)
            files = sha256_by_file(parcel.study, parcel.prior)
        else:
            key = parcel_key(rules.run, parcel.mark() or parcel.name)
    except InputError:
        pass  # it is gone: there is nothing to remember it by
    failure = why(InputError(DIED.message, remedy=DIED.remedy, code=DIED.code), parcel.name)
    if key is not None:
        Quarantine(out.path).put(name, key, [failure], files, again=rules.retry_failed)
    return Outcome.of_failure(failure, study)


def send_draft(folder: Path, study: Study, back: Back | None) -> list[Told]:
    """Sends a finished draft back, once. A failure loses nothing: every run tries again."""
    if back is None:
        return []
    try:
        send_back(folder, study, back.server, back.kind, back.headers)
    except CannotWrite:
        raise
    except MedVLMError as error:
        refused = Refused(study.instances[0].file, error.code, error.message, error.remedy)
        return [_unsent(study, refused)]
    except Exception as error:
        return [_unsent(study, why(error, study.instances[0].file))]
    return []


def _unsent(study: Study, failure: Refused) -> Told:
    """Without a record: the draft is there, and sending it is tried again by every run."""
    return Told(Outcome.of_failure(failure, study.name))


def why(error: Exception, file: str) -> Refused:
    """A failure in words; raised again where MEDVLM_DEBUG asks for that."""
    if isinstance(error, InputError):
        return Refused.because(error, file)
    if os.environ.get("MEDVLM_DEBUG"):
        raise error
    # One study must not end a night's batch.
    message = f"an error of medvlm's own ({type(error).__name__})"
    remedy = "Run it alone with MEDVLM_DEBUG=1 and report what it prints."
    return Refused(file, "internal", message, remedy)


def sha256_by_file(study: Study, prior: Prior | None) -> dict[str, str]:
    """Of a study's files and its prior's, by the name shown to people."""
    instances = (*study.instances, *(prior.study.instances if prior else ()))
    return {instance.file: instance.sha256 for instance in instances}


def _failed_before(
    record: Record, name: str, files: dict[str, str], shown: str, study: str | None
) -> list[Told]:
    refused = as_refused(record, files, shown)
    return [Told(Outcome.of_failure(item, study, resumed=True), record=name) for item in refused]


def _record_name(parcel: Parcel) -> str:
    return f"parcel-{name_mark(parcel.name)}"
