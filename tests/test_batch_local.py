"""The local engine: killed, restarted, with broken studies; many processes or none."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from medvlm.batch import capacity
from medvlm.batch.engine import Settings
from medvlm.batch.key import run_key
from medvlm.batch.local import AHEAD, LocalEngine
from medvlm.batch.parcel import Parcel, StudyParcel
from medvlm.batch.prepare import Rules, Told, prepare
from medvlm.batch.results import KEY, ResultFolder
from medvlm.batch.sources import parcels
from medvlm.config import GateConfig
from medvlm.errors import CheckpointError, ConfigError
from medvlm.model.checkpoint import load_checkpoint
from tests.night import (
    Deadly,
    DeadlyOnce,
    TooLargeAModel,
    contents,
    night,
    run,
    settings,
    unbroken,
)

ROOT = Path(__file__).resolve().parent.parent
Tiny = tuple[Path, Path]


@pytest.fixture
def tiny_paths(tiny: Path, tiny_language: Path) -> Tiny:
    """What a process of its own loads the tiny checkpoint from."""
    return tiny, tiny_language


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five studies, all of them well."""
    folder = tmp_path_factory.mktemp("few") / "in"
    night(folder, 5, 0)
    return folder


def found(folder: Path) -> list[Parcel]:
    return list(parcels([str(folder)])[0])


def started(source: Path, out: Path, tiny: Tiny, workers: int, deadly: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.night", source, out, *tiny, workers, deadly]
    return subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finished(out: Path) -> int:
    """How many studies are done or recorded as failed."""
    return len([*out.glob(f"*/{KEY}"), *out.glob("quarantine/*.json")])


def kill_at_random(process: subprocess.Popen, out: Path, rng: random.Random, upto: int) -> bool:
    """Kills once some more studies are finished, and a moment later; whether it still lived."""
    goal = finished(out) + rng.randint(1, upto)
    while process.poll() is None and finished(out) < goal:
        time.sleep(0.005)
    time.sleep(rng.uniform(0, 0.2))
    alive = process.poll() is None
    if rng.random() < 0.5:
        process.kill()  # its model processes notice
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wait_for_the_end_of(process.pid)
    return alive


def wait_for_the_end_of(group: int) -> None:
    """Until no process of a group is left. Fails after some seconds."""
    for _ in range(100):
        if not members(group):
            return
        time.sleep(0.1)
    pytest.fail("processes outlived the one that leads the run")


def members(group: int) -> list[int]:
    """The living processes of a group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of, *_ = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(of) == group and state not in "ZX":
            found.append(int(path.parent.name))
    return found


def survive(source: Path, out: Path, tiny: Tiny, kills: int, workers: int, deadly: str) -> str:
    """Runs until a run is not killed; what that one prints."""
    rng = random.Random(7)
    count = len(list(source.iterdir()))
    killed = 0
    for _ in range(kills):
        process = started(source, out, tiny, workers, deadly)
        killed += kill_at_random(process, out, rng, max(1, count // (kills + 2)))
    assert killed == kills
    last = started(source, out, tiny, workers, deadly)
    told, _ = last.communicate(timeout=900)
    assert last.returncode == 0
    return told


def test_killed_and_started_again_nothing_differs(tmp_path: Path, tiny_paths: Tiny) -> None:
    source = tmp_path / "in"
    wrong = night(source, 20, 4)
    unbroken(source, tmp_path / "whole", load_checkpoint())
    told = survive(source, tmp_path / "killed", tiny_paths, 2, 1, "harmless")
    assert json.loads(told) == wrong
    whole, killed = contents(tmp_path / "whole"), contents(tmp_path / "killed")
    assert killed == whole
    assert sum(name.endswith("draft.json") for name in whole) == 16
    assert sum(name.startswith("quarantine/") for name in whole) == 4


@pytest.mark.slow
def test_killed_ten_times_in_three_hundred_studies(tmp_path: Path, tiny_paths: Tiny) -> None:
    source = tmp_path / "in"
    wrong = night(source, 300, 30)
    first = started(source, tmp_path / "whole", tiny_paths, 2, "deadly")
    told, _ = first.communicate(timeout=900)
    assert json.loads(told) == {**wrong, "deadly": "worker_died"}
    again = survive(source, tmp_path / "killed", tiny_paths, 10, 2, "deadly")
    assert json.loads(again) == json.loads(told)
    whole, killed = contents(tmp_path / "whole"), contents(tmp_path / "killed")
    assert killed == whole
    assert sum(name.endswith("draft.json") for name in whole) == 270
    assert sum(name.startswith("quarantine/") for name in whole) == 31


def test_a_study_that_kills_is_given_up_and_the_others_are_drafted(
    tmp_path: Path, tiny_paths: Tiny, few: Path
) -> None:
    first, second, third, *_ = found(few)
    once = DeadlyOnce(second, tmp_path / "died")
    chosen = settings(tmp_path, *tiny_paths)
    outcomes = run(iter([first, Deadly(mine=os.getpid()), once, third]), chosen)
    kinds = sorted((o.kind, o.failure.code if o.failure else "") for o in outcomes)
    assert kinds == [("drafted", "")] * 3 + [("failed", "worker_died")]
    (record,) = (tmp_path / "quarantine").iterdir()
    assert json.loads(record.read_text())["failures"][0]["code"] == "worker_died"
    rules = Rules(run_key(load_checkpoint()), GateConfig())
    known, _ = prepare(Deadly(mine=os.getpid()), rules, ResultFolder(tmp_path))
    assert isinstance(known, Told)
    assert known.outcome.resumed


@pytest.mark.slow
def test_an_interrupted_run_ends_at_once_and_goes_on(tmp_path: Path, tiny_paths: Tiny) -> None:
    night(tmp_path / "in", 30, 0)
    checkpoint, llm = tiny_paths
    out = tmp_path / "out"
    command = [
        *(sys.executable, "-m", "medvlm", "draft", tmp_path / "in", "--out", out),
        *("--checkpoint", checkpoint, "--llm-path", llm, "--workers", 2, "--device", "cpu"),
    ]
    process = subprocess.Popen(
        list(map(str, command)), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not finished(out):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the same command goes on" in told
    assert "Traceback" not in told
    wait_for_the_end_of(process.pid)
    assert 0 < finished(out) < 30
    done = subprocess.run(list(map(str, command)), check=False)
    assert done.returncode == 0
    assert finished(out) == 30


@pytest.mark.slow
def test_the_number_of_processes_and_the_order_do_not_matter(
    tmp_path: Path, tiny_paths: Tiny, few: Path
) -> None:
    unbroken(few, tmp_path / "alone", load_checkpoint())
    (tmp_path / "two").mkdir()
    chosen = settings(tmp_path / "two", *tiny_paths, workers=2)
    assert len(run(iter(found(few)[::-1]), chosen)) == 5
    alone = contents(tmp_path / "alone")
    alone.pop("findings.parquet")
    assert contents(tmp_path / "two") == alone


def test_parcels_are_taken_as_they_are_needed(tmp_path: Path, tiny_paths: Tiny, few: Path) -> None:
    taken = 0

    def endless() -> Iterator[Parcel]:
        nonlocal taken
        while True:
            yield from found(few)[:1]
            taken += 1

    chosen = settings(tmp_path, *tiny_paths, workers=1)
    engine = LocalEngine().run(endless(), chosen)
    for done in range(1, 8):
        next(engine)
        assert taken <= done + AHEAD + 1
    engine.close()


def test_few_studies_are_drafted_in_this_process(
    tmp_path: Path, few: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_process(*arguments: object, **options: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", no_process)
    outcomes = run(iter(found(few)), Settings(tmp_path, total=5))
    assert [outcome.kind for outcome in outcomes] == ["drafted"] * 5


def test_a_checkpoint_that_cannot_be_loaded_ends_the_run(tmp_path: Path, few: Path) -> None:
    chosen = Settings(tmp_path, checkpoint="no-such-checkpoint", workers=1, device="cpu")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        run(iter(found(few)), chosen)


def test_a_process_that_dies_at_once_ends_the_run(
    tmp_path: Path, few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medvlm.batch.local._MAIN", "import os; os._exit(9)")
    with pytest.raises(ConfigError, match="died"):
        run(iter(found(few)), Settings(tmp_path, workers=2, device="cpu"))


def test_a_model_that_does_not_fit_ends_the_run(tmp_path: Path, few: Path) -> None:
    chosen = TooLargeAModel(tmp_path, workers=2, device="cpu")
    with pytest.raises(ConfigError, match=r"MemoryError.*fewer --workers"):
        run(iter(found(few)), chosen)


def test_a_failing_source_ends_the_run_and_its_processes(
    tmp_path: Path, tiny_paths: Tiny, few: Path
) -> None:
    def failing() -> Iterator[Parcel]:
        yield from found(few)[:1]
        raise OSError("the list of studies is gone")

    with pytest.raises(OSError, match="gone"):
        run(failing(), settings(tmp_path, *tiny_paths))
    assert not (tmp_path / ".claims").exists()


@pytest.mark.parametrize(
    ("cores", "memory", "total", "workers", "count"),
    [
        (8, 64e9, 1, None, 0),
        (8, 64e9, 7, None, 0),
        (8, 64e9, 8, None, 2),
        (8, 64e9, 1000, None, 8),
        (8, 64e9, None, None, 8),
        (8, 5e9, 1000, None, 2),
        (8, 1e9, 1000, None, 1),
        (8, 64e9, 1000, 3, 3),
        (8, 64e9, 2, 3, 2),
        (1, 64e9, 2, 1, 1),
    ],
)
def test_as_many_processes_as_fit_and_as_there_is_work_for(
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    memory: float,
    total: int | None,
    workers: int | None,
    count: int,
) -> None:
    monkeypatch.setattr(capacity, "core_count", lambda: cores)
    monkeypatch.setattr(capacity, "free_bytes", lambda: int(memory))
    chosen = Settings(Path(), total=total, workers=workers, device="cpu")
    assert capacity.process_devices(chosen) == ["cpu"] * count


def test_each_gpu_has_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "gpu_count", lambda: 2)
    assert capacity.process_devices(Settings(Path())) == ["cuda:0", "cuda:1"]
    assert capacity.process_devices(Settings(Path(), device="cuda:1")) == ["cuda:1"]
    monkeypatch.setattr(capacity, "gpu_count", lambda: 0)
    assert set(capacity.devices("auto")) == {"cpu"}
    with pytest.raises(ConfigError, match="no GPU"):
        capacity.devices("cuda")


def test_a_study_of_an_unpacked_archive_travels(
    tmp_path: Path, tiny_paths: Tiny, few: Path
) -> None:
    archive = shutil.make_archive(str(tmp_path / "night"), "zip", few)
    (parcel, *_) = found(Path(archive))
    assert isinstance(parcel, StudyParcel)
    assert parcel.study.instances[0].keep
    (outcome,) = run(iter([parcel]), settings(tmp_path / "out", *tiny_paths))
    assert outcome.kind == "drafted"
