"""The folder of results: keys, resuming, quarantine, collisions, crashes between two files."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from medvlm.batch import drafting, files, results
from medvlm.batch.ahead import ahead
from medvlm.batch.drafting import draft_parcel, draft_parcels
from medvlm.batch.files import CannotWrite
from medvlm.batch.key import draft_key, run_key
from medvlm.batch.outcome import Outcome
from medvlm.batch.parcel import Contents, FetchedParcel, StudyParcel, read_parcel
from medvlm.batch.quarantine import Quarantine
from medvlm.batch.results import KEY, ResultFolder
from medvlm.config import GateConfig
from medvlm.config.policy import PolicyConfig
from medvlm.dicom.prior import Prior
from medvlm.dicom.read import Reading, Refused, read_inputs
from medvlm.dicom.study import Study, group_studies
from medvlm.draft.compose import DraftResult
from medvlm.draft.policy import under_policy
from medvlm.errors import InputError, UsageError
from medvlm.model.checkpoint import Checkpoint, load_checkpoint
from tests.night import contents, film, night


@pytest.fixture
def checkpoint(tiny: Path) -> Checkpoint:
    return load_checkpoint()


@pytest.fixture
def out(tmp_path: Path) -> ResultFolder:
    (tmp_path / "out").mkdir()
    return ResultFolder(tmp_path / "out")


def study(folder: Path, number: int = 1, **elements: object) -> Study:
    """A study of one film."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{number}.dcm"
    film(number, **elements).save_as(path, enforce_file_format=True)
    (found,) = group_studies(read_inputs(path))
    return found


def half_broken(folder: Path) -> Study:
    """A study of two films, one of which does not decode."""
    night(folder, 1, 0)
    good = film(0)
    broken = film(1, StudyInstanceUID=good.StudyInstanceUID, PatientID=good.PatientID)
    broken.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
    broken.BitsAllocated, broken.BitsStored, broken.HighBit = 8, 8, 7
    broken.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\x04\0\0\0\xff\xd8\xff\xd9"
    broken["PixelData"].is_undefined_length = True
    broken.save_as(folder / "broken.dcm", enforce_file_format=True)
    (found,) = group_studies(read_inputs(folder))
    return found


def codes(outcomes: Sequence[Outcome]) -> list[str]:
    return [o.failure.code if o.failure else o.kind for o in outcomes]


@dataclass(frozen=True)
class Fetched:
    """A parcel of a source far away, which counts how often it is fetched."""

    name: str
    place: Path
    log: Path
    version: str | None = "1"

    def mark(self) -> str | None:
        return self.version

    def open(self, scratch: Path) -> Contents:
        with self.log.open("a") as stream:
            stream.write(f"{scratch.name}\n")
        return read_parcel([self.place])

    @property
    def fetches(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


def test_a_key_changes_with_all_that_a_draft_is_made_from(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    one, two = study(tmp_path / "a", 1), study(tmp_path / "b", 2)
    run = run_key(checkpoint)
    other_model = checkpoint.config.model_copy(update={"weights_sha256": "0" * 64})
    other_prompt = checkpoint.config.model_copy(update={"prompt_version": "0"})
    policy = PolicyConfig(max_risk=0.25)
    runs = {
        run,
        run_key(replace(checkpoint, config=other_model)),
        run_key(replace(checkpoint, config=other_prompt)),
        run_key(under_policy(checkpoint, policy)),
    }
    assert len(runs) == 4
    keys = {
        draft_key(run, one, None),
        draft_key(run, two, None),
        draft_key(run, one, Prior(two, True, True)),
        draft_key(run_key(replace(checkpoint, config=other_model)), one, None),
    }
    assert len(keys) == 4
    again = replace(one, instances=one.instances[::-1])
    assert draft_key(run, again, None) == draft_key(run, one, None)


def test_the_way_a_model_is_run_is_part_of_the_key(checkpoint: Checkpoint) -> None:
    class Other:
        config, policy, runtime = checkpoint.config, checkpoint.policy, "int8"

    assert run_key(Other()) != run_key(checkpoint)  # type: ignore[arg-type]


def test_a_finished_study_is_not_drafted_again(
    checkpoint: Checkpoint, tmp_path: Path, out: ResultFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    parcel = StudyParcel(study(tmp_path))
    (first,) = draft_parcel(checkpoint, parcel, out)
    assert (first.kind, first.resumed) == ("drafted", False)
    assert first.seconds > 0

    def never(*arguments: object, **options: object) -> DraftResult:
        raise AssertionError("drafted again")

    monkeypatch.setattr("medvlm.draft.compose.draft_study", never)
    monkeypatch.setenv("MEDVLM_DEBUG", "1")
    (second,) = draft_parcel(checkpoint, parcel, out)
    assert second.resumed
    assert (second.study, second.summary) == (first.study, first.summary)
    assert pickle.loads(pickle.dumps(second)) == second


class Crash(BaseException):
    """The process is killed here."""


@pytest.mark.parametrize("operation", range(14))
def test_a_crash_between_two_files_leaves_what_is_done_again_or_whole(
    checkpoint: Checkpoint,
    tmp_path: Path,
    out: ResultFolder,
    monkeypatch: pytest.MonkeyPatch,
    operation: int,
) -> None:
    """Killed before each renaming or removal in turn, over the draft of another checkpoint."""
    whole = ResultFolder(tmp_path / "whole")
    whole.path.mkdir()
    parcel = StudyParcel(study(tmp_path / "in"))
    draft_parcel(checkpoint, parcel, whole)
    other = replace(checkpoint, config=checkpoint.config.model_copy(update={"version": "9"}))
    draft_parcel(other, parcel, out)

    left = operation
    real = {name: getattr(Path, name) for name in ("replace", "unlink", "mkdir", "rmdir")}

    def counted(name: str):
        def call(self: Path, *arguments: object, **options: object) -> object:
            nonlocal left
            if out.path in self.parents and ".claims" not in self.parts:
                left -= 1
                if left < 0:
                    raise Crash
            return real[name](self, *arguments, **options)

        return call

    with monkeypatch.context() as patched:
        for name in real:
            patched.setattr(Path, name, counted(name))
        try:
            draft_parcel(checkpoint, parcel, replace(out, run="killed"))
        except Crash:
            pass
        else:
            pytest.fail("it was not killed")
    draft_parcel(checkpoint, parcel, replace(out, run="again"))
    found = contents(out.path)
    expected = contents(whole.path)
    assert {n: b for n, b in found.items() if ".claims" not in n} == {
        n: b for n, b in expected.items() if ".claims" not in n
    }


def test_a_study_that_fails_is_tried_again_only_when_asked(
    checkpoint: Checkpoint, tmp_path: Path, out: ResultFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    parcel = StudyParcel(study(tmp_path))
    tries = 0

    def failing(*arguments: object, **options: object) -> DraftResult:
        nonlocal tries
        tries += 1
        raise RuntimeError("Doe^Jane")

    with monkeypatch.context() as patched:
        patched.setattr("medvlm.draft.compose.draft_study", failing)
        for again, resumed, count in ((False, False, 1), (False, True, 1), (True, False, 2)):
            (outcome,) = draft_parcel(checkpoint, parcel, out, again)
            assert outcome.failure is not None
            assert outcome.failure.code == "internal"
            assert outcome.failure.file == parcel.name
            assert (outcome.resumed, tries) == (resumed, count)
    (path,) = (out.path / "quarantine").iterdir()
    text = path.read_text()
    record = json.loads(text)
    assert record["tries"] == 2
    assert record["files"] == [parcel.study.instances[0].sha256]
    assert "Doe" not in text
    assert str(tmp_path) not in text
    (outcome,) = draft_parcel(checkpoint, parcel, out, True)
    assert outcome.kind == "drafted"
    assert not path.exists()


def test_another_checkpoint_tries_what_failed(
    checkpoint: Checkpoint, tmp_path: Path, out: ResultFolder
) -> None:
    parcel = StudyParcel(study(tmp_path))
    name, old = parcel.study.name, draft_key("another run", parcel.study, None)
    Quarantine(out.path).put(name, old, [Refused("", "internal", "It failed.")], {})
    assert codes(draft_parcel(checkpoint, parcel, out)) == ["drafted"]
    assert Quarantine(out.path).record(name) is None


def test_of_a_study_with_a_broken_image_the_draft_stays_and_the_failure_is_told(
    checkpoint: Checkpoint, tmp_path: Path, out: ResultFolder
) -> None:
    parcel = StudyParcel(half_broken(tmp_path / "in"))
    first = draft_parcel(checkpoint, parcel, out)
    assert codes(first) == ["drafted", "undecodable"]
    second = draft_parcel(checkpoint, parcel, out)
    assert codes(second) == codes(first)
    assert all(outcome.resumed for outcome in second)
    assert second[1].failure == first[1].failure
    assert first[1].failure is not None
    assert first[1].failure.file.endswith("broken.dcm")
    third = draft_parcel(checkpoint, parcel, out, True)
    assert not any(outcome.resumed for outcome in third)


def test_a_file_that_is_gone_is_looked_for_in_every_run(
    checkpoint: Checkpoint, tmp_path: Path, out: ResultFolder
) -> None:
    parcel = StudyParcel(study(tmp_path))
    there = parcel.study.instances[0].path
    away = there.rename(tmp_path / "elsewhere")
    assert codes(draft_parcel(checkpoint, parcel, out)) == ["not_found"]
    away.rename(there)
    assert codes(draft_parcel(checkpoint, parcel, out)) == ["drafted"]


def test_a_finished_parcel_is_not_fetched_again(
    checkpoint: Checkpoint, tmp_path: Path, out: ResultFolder
) -> None:
    night(tmp_path / "in", 4, 2)
    parcel = Fetched("far away", tmp_path / "in", tmp_path / "log")
    first = draft_parcel(checkpoint, parcel, out)
    assert sorted(codes(first)) == ["drafted", "drafted", "not_dicom", "truncated_pixels"]
    second = draft_parcel(checkpoint, parcel, out)
    assert parcel.fetches == 1
    assert sorted(codes(second)) == sorted(codes(first))
    assert all(outcome.resumed for outcome in second)
    draft_parcel(checkpoint, parcel, out, True)
    assert parcel.fetches == 2
    draft_parcel(checkpoint, replace(parcel, version="2"), out)
    assert parcel.fetches == 3
    draft_parcel(checkpoint, replace(parcel, version=None), out)
    assert parcel.fetches == 4
    (draft, *_) = out.path.glob("*/draft.json")
    draft.unlink()
    again = draft_parcel(checkpoint, parcel, out)
    assert parcel.fetches == 5
    assert sum(not outcome.resumed for outcome in again if outcome.kind == "drafted") == 1


def test_a_parcel_that_cannot_be_fetched_is_tried_again_when_asked(
    checkpoint: Checkpoint, tmp_path: Path, out: ResultFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    study(tmp_path / "in")
    parcel = Fetched("PatientDoe", tmp_path / "in", tmp_path / "log")

    def gone(self: Fetched, scratch: Path) -> Contents:
        raise InputError("The server does not answer.", code="server")

    with monkeypatch.context() as patched:
        patched.setattr(Fetched, "open", gone)
        assert codes(draft_parcel(checkpoint, parcel, out)) == ["server"]
    (outcome,) = draft_parcel(checkpoint, parcel, out)
    assert outcome.resumed
    assert parcel.fetches == 0
    assert "Doe" not in str(contents(out.path))
    assert codes(draft_parcel(checkpoint, parcel, out, True)) == ["drafted"]
    assert list((out.path / "quarantine").iterdir()) == []


def test_of_two_parcels_with_one_study_the_second_fails(
    checkpoint: Checkpoint, tmp_path: Path, out: ResultFolder
) -> None:
    uid = film(1).StudyInstanceUID
    same = {"StudyInstanceUID": uid, "PatientID": "ID-1"}
    parcels = [
        StudyParcel(study(tmp_path / "a", 1, **same)),
        StudyParcel(study(tmp_path / "b", 2, **same)),
        StudyParcel(study(tmp_path / "a", 1, **same)),
    ]
    told = [codes(outcomes) for outcomes in draft_parcels(checkpoint, parcels, out)]
    assert told == [["drafted"], ["study_collision"], ["drafted"]]
    assert len(list(out.path.glob("*/draft.json"))) == 1
    # In another run the study may have changed.
    assert codes(draft_parcel(checkpoint, parcels[1], replace(out, run="next"))) == ["drafted"]
    assert list((out.path / "quarantine").iterdir()) == []


def test_a_draft_of_an_earlier_run_is_not_overwritten(
    checkpoint: Checkpoint, tmp_path: Path, out: ResultFolder
) -> None:
    same = {"StudyInstanceUID": film(1).StudyInstanceUID, "PatientID": "ID-1"}
    study(tmp_path / "a", 1, **same)
    study(tmp_path / "b", 2, **same)
    old, new = (Fetched(name, tmp_path / name, tmp_path / f"log-{name}", name) for name in "ab")
    assert codes(draft_parcel(checkpoint, old, out)) == ["drafted"]
    before = contents(out.path)
    later = replace(out, run="later")
    assert codes(draft_parcel(checkpoint, old, later)) == ["drafted"]
    assert old.fetches == 1
    assert codes(draft_parcel(checkpoint, new, later)) == ["study_collision"]
    kept = contents(out.path)
    assert {name: kept[name] for name in before if name.endswith("draft.json")} == {
        name: text for name, text in before.items() if name.endswith("draft.json")
    }


def test_two_patients_share_a_uid_in_one_run(
    checkpoint: Checkpoint, tmp_path: Path, out: ResultFolder
) -> None:
    uid = film(1).StudyInstanceUID
    parcels = [
        StudyParcel(study(tmp_path / who, number, StudyInstanceUID=uid, PatientID=who))
        for number, who in enumerate("AB")
    ]
    told = [codes(outcomes) for outcomes in draft_parcels(checkpoint, parcels, out)]
    assert told == [["drafted"], ["drafted"]]
    plain, other = sorted(path.parent.name for path in out.path.glob("*/draft.json"))
    assert plain == uid
    assert other == f"{uid}-{parcels[1].study.patient}"
    again = [outcomes[0] for outcomes in draft_parcels(checkpoint, parcels[::-1], out)]
    assert all(outcome.resumed for outcome in again)


def test_a_full_disk_ends_the_run_and_blames_no_study(
    checkpoint: Checkpoint, tmp_path: Path, out: ResultFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    parcel = StudyParcel(study(tmp_path))

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(CannotWrite, match="goes on where it stopped"):
            draft_parcel(checkpoint, parcel, out)
    assert not (out.path / "quarantine").exists()
    assert not list(out.path.glob("*/.*.partial"))
    assert codes(draft_parcel(checkpoint, parcel, out)) == ["drafted"]


def test_a_folder_of_results_has_one_run_at_a_time(out: ResultFolder) -> None:
    with out.in_use():
        with out.scratch() as scratch:
            (scratch / "film.dcm").write_bytes(b"a patient's")
            assert scratch.stat().st_mode & 0o077 == 0 or scratch.parent.stat().st_mode & 0o077 == 0
        assert not scratch.exists()
        with pytest.raises(UsageError, match="another run"), ResultFolder(out.path).in_use():
            pass
    with out.in_use():
        pass


def test_what_a_killed_run_fetched_is_removed(out: ResultFolder) -> None:
    left = out.path / results.SCRATCH / "1-1" / "film.dcm"
    left.parent.mkdir(parents=True)
    left.touch()
    with out.in_use():
        assert not left.exists()


def test_files_that_gave_no_image_are_recorded_until_they_do(
    tmp_path: Path, out: ResultFolder
) -> None:
    night(tmp_path / "in", 4, 2)
    reading = read_inputs(tmp_path / "in")
    quarantine = Quarantine(out.path)
    quarantine.keep_unread(reading.failed)
    names = [path.name for path in (out.path / "quarantine").iterdir()]
    assert len(names) == 2
    assert not any("0001" in name or "0003" in name for name in names)
    film(1).save_as(tmp_path / "in" / "0001.dcm", enforce_file_format=True)
    parcels = [StudyParcel(one) for one in group_studies(read_inputs(tmp_path / "in"))]
    assert list(quarantine.forget_read(parcels)) == parcels
    assert len(list((out.path / "quarantine").iterdir())) == 1


def test_an_iterator_runs_ahead_by_no_more_than_it_may() -> None:
    made, closed = [], []

    def numbers():
        try:
            for number in range(100):
                made.append(number)
                yield number
        finally:
            closed.append(True)

    taken = ahead(numbers(), 2)
    for number in range(10):
        assert next(taken) == number
        assert len(made) <= number + 1 + 3
    taken.close()  # type: ignore[attr-defined]
    assert list(ahead(iter_of(3))) == [0, 1, 2]

    def failing():
        yield 1
        raise OSError("gone")

    taken = ahead(failing())
    assert next(taken) == 1
    with pytest.raises(OSError, match="gone"):
        next(taken)


def iter_of(count: int):
    yield from range(count)


def test_an_error_that_is_no_input_error_names_its_kind_only(
    checkpoint: Checkpoint, tmp_path: Path, out: ResultFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(study: Study, gate: GateConfig) -> None:
        raise ValueError("Doe^Jane")

    monkeypatch.setattr("medvlm.draft.admit.load_study", broken)
    (outcome,) = draft_parcel(checkpoint, StudyParcel(study(tmp_path)), out)
    assert outcome.failure is not None
    assert "ValueError" in outcome.failure.message
    assert "Doe" not in str(outcome)
    monkeypatch.setenv("MEDVLM_DEBUG", "1")
    with pytest.raises(ValueError, match="Doe"):
        draft_parcel(checkpoint, StudyParcel(study(tmp_path)), out, True)


def test_studies_of_one_parcel_are_drafted_one_by_one(
    checkpoint: Checkpoint, tmp_path: Path, out: ResultFolder
) -> None:
    night(tmp_path / "in", 3, 0)
    parcel = FetchedParcel("three", (tmp_path / "in",))
    assert codes(draft_parcel(checkpoint, parcel, out)) == ["drafted"] * 3


def test_nothing_in_a_parcel_is_no_failure(
    checkpoint: Checkpoint, out: ResultFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = Contents([], [], Reading([], []))
    monkeypatch.setattr(FetchedParcel, "open", lambda self, scratch: empty)
    assert draft_parcel(checkpoint, FetchedParcel("none", ()), out) == []


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"

    def write(partial: Path) -> None:
        files.write_text(path, "inner")
        partial.write_text("outer")

    files.write_whole(path, write)
    assert path.read_text() == "outer"
    assert list(tmp_path.iterdir()) == [path]


def test_no_draft_module_is_loaded_with_the_engine() -> None:
    assert "torch" not in vars(drafting)
    assert KEY == ".inputs.sha256"
