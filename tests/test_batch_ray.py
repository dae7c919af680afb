"""The Ray engine on one machine: the same results as the local engine's, whatever dies."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medvlm.batch import ray_engine, ray_work
from medvlm.batch.drafting import rules_of
from medvlm.batch.engine import Settings
from medvlm.batch.files import CannotWrite
from medvlm.batch.outcome import Outcome
from medvlm.batch.parcel import FetchedParcel, Parcel
from medvlm.batch.prepare import Rules, give_up
from medvlm.batch.quarantine import Quarantine
from medvlm.batch.ray_engine import LARGEST_CHUNK, RayEngine
from medvlm.batch.ray_work import Drafter, Job, Journal, open_chunk
from medvlm.batch.results import KEY, ResultFolder
from medvlm.batch.sources import parcels
from medvlm.batch.table import write_table
from medvlm.batch.worker import Hello, Stopped
from medvlm.cli.draft import draft as draft_command
from medvlm.config import GateConfig
from medvlm.errors import CheckpointError, ConfigError, MissingExtra, UsageError
from medvlm.model.checkpoint import Checkpoint, load_checkpoint
from tests import night
from tests.night import Deadly, DeadlyOnce, contents, settings, unbroken

# Ray warns of defaults of its own.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")

Tiny = tuple[Path, Path]


@dataclass(frozen=True)
class DeadlyModel(Settings):
    """Of a run in which one process dies when it has drafted study `at` and told nobody."""

    at: str = ""

    def load(self) -> Checkpoint:
        import medvlm.batch.drafting as drafting

        original, died = drafting.draft_ready, self.out.parent / "model died"

        def draft_ready(*arguments: Any) -> Any:
            told = original(*arguments)
            if arguments[1].study.name == self.at and not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return told

        drafting.draft_ready = draft_ready
        return super().load()


@pytest.fixture
def tiny_paths(tiny: Path, tiny_language: Path) -> Tiny:
    return tiny, tiny_language


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve files, one a study; four are broken, each in a way of its own."""
    folder = tmp_path_factory.mktemp("ray") / "in"
    night.night(folder, 12, 4)
    return folder


@pytest.fixture(scope="module")
def ray_here() -> Iterator[Any]:
    """Ray on two cores, started once: it takes its time."""
    if find_spec("ray") is None:
        pytest.skip("needs the extra `ray`")
    ray = ray_engine._ray(alone=True)
    connected = ray_engine._connected(ray, None, 2)
    try:
        connected.__enter__()
    except ConfigError as error:
        pytest.skip(f"Ray does not start here: {error.__cause__}")
    yield ray
    connected.__exit__(None, None, None)


def found(folder: Path) -> list[Parcel]:
    return list(parcels([str(folder)])[0])


def run(given: Iterator[Parcel], chosen: Settings) -> list[Outcome]:
    chosen.out.mkdir(exist_ok=True)
    with chosen.results.in_use():
        return [o for outcomes in RayEngine().run(given, chosen) for o in outcomes]


def settings_of(out: Path, tiny: Tiny) -> dict[str, Any]:
    chosen = settings(out, *tiny)
    return {name: getattr(chosen, name) for name in chosen.__dataclass_fields__}


def plain(outcomes: list[Outcome]) -> list[Outcome]:
    """In one order. What was drafted before a process died is known when it is asked for again."""
    return sorted((replace(o, seconds=0.0, resumed=False) for o in outcomes), key=repr)


def started(source: Path, out: Path, tiny: Tiny) -> subprocess.Popen[str]:
    """`medvlm draft --engine ray`, in a session of its own, with paths that start where it runs."""
    checkpoint, llm = tiny
    command = [
        *(sys.executable, "-m", "medvlm", "draft", source.name, "--out", out.name, "--json"),
        *("--engine", "ray", "--workers", "1", "--device", "cpu"),
        *("--checkpoint", str(checkpoint), "--llm-path", str(llm)),
    ]
    return subprocess.Popen(
        command,
        cwd=source.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finished(out: Path) -> int:
    return len(list(out.glob(f"*/{KEY}")))


def of_this_run(out: Path) -> list[int]:
    """Living processes of Ray's that a run into `out` started: they carry its environment.

    Not its two agents, which do nothing without it: of a killed Ray they sometimes stay behind.
    """
    mark = f"MEDVLM_TEST_RUN={out}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            state = (path.parent / "stat").read_text().rpartition(")")[2].split()[0]
            agent = b"Agent" in (path.parent / "cmdline").read_bytes()
            if mark in path.read_bytes().split(b"\0") and state not in "ZX" and not agent:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def wait_until(done: Callable[[], bool], seconds: float, otherwise: str) -> None:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            pytest.fail(otherwise)
        time.sleep(0.05)


# ---- on Ray ----


def test_results_are_those_of_one_machine(
    ray_here: Any,
    source: Path,
    tmp_path: Path,
    tiny_paths: Tiny,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Broken studies among them; parcels are taken as they are needed, and nothing is left."""
    alone, out = tmp_path / "alone", tmp_path / "out"
    unbroken(source, alone, load_checkpoint())
    given = found(source)
    local = night.run(iter(given), Settings(tmp_path / "local", total=3))
    taken = 0

    def counted() -> Iterator[Parcel]:
        nonlocal taken
        for parcel in given:
            taken += 1
            yield parcel

    Quarantine(out).keep_unread(parcels([str(source)])[2])
    chosen = settings(out, *tiny_paths, workers=1)
    window = ray_engine.places(ray_here, chosen).window
    assert window + 1 < len(given)
    outcomes: list[Outcome] = []
    with chosen.results.in_use():
        for done, of_parcel in enumerate(RayEngine().run(counted(), chosen), 1):
            outcomes += of_parcel
            assert taken <= done + window
    assert plain(outcomes) == plain(local)
    assert not any(outcome.resumed for outcome in outcomes)
    write_table(out)
    assert contents(out) == contents(alone)
    told = capsys.readouterr()
    assert told.out + told.err == ""
    wait_until(
        lambda: ray_here.available_resources().get("CPU") == 2, 30, "processes are still there"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_whatever_dies_nothing_differs(source: Path, tmp_path: Path, tiny_paths: Tiny) -> None:
    """A process dies while it opens a study, one when it wrote a draft; one parcel always kills."""
    given, deadly = found(source), Deadly(mine=os.getpid())
    alone, out = tmp_path / "alone", tmp_path / "out"
    checkpoint = load_checkpoint()
    unbroken(source, alone, checkpoint)
    local = night.run(iter(given), Settings(tmp_path / "local", total=3))
    lost = give_up(deadly, rules_of(checkpoint), ResultFolder(alone))

    Quarantine(out).keep_unread(parcels([str(source)])[2])
    first, *others = given
    once = DeadlyOnce(first, tmp_path / "died")
    killed = DeadlyModel(**settings_of(out, tiny_paths), at=others[0].study.name)
    outcomes = run(iter([once, deadly, *others]), killed)
    assert (tmp_path / "died").exists()
    assert (tmp_path / "model died").exists()
    assert plain(outcomes) == plain([*local, lost])
    write_table(out)
    assert contents(out) == contents(alone)
    again = run(iter([first, deadly, *others]), settings(out, *tiny_paths))
    assert all(outcome.resumed for outcome in again)
    assert plain(again) == plain([*local, lost])
    assert contents(out) == contents(alone)


@pytest.mark.slow
def test_a_run_that_is_closed_early_ends_its_processes(
    ray_here: Any, source: Path, tmp_path: Path, tiny_paths: Tiny
) -> None:
    endless = itertools.cycle(found(source))
    with contextlib.closing(RayEngine().run(endless, settings(tmp_path, *tiny_paths))) as run:
        next(run)
    wait_until(
        lambda: ray_here.available_resources().get("CPU") == 2, 30, "processes are still there"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_checkpoint_that_cannot_be_loaded_ends_the_run(source: Path, tmp_path: Path) -> None:
    chosen = Settings(tmp_path, checkpoint="no-such-checkpoint", workers=1, device="cpu")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        run(iter(found(source)), chosen)


@pytest.mark.slow
def test_killed_and_started_again_nothing_differs(
    tmp_path: Path, tiny_paths: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    wrong = night.night(source, 24, 4)
    monkeypatch.chdir(tmp_path)  # files that cannot be read are recorded by the path as given
    unbroken(Path(source.name), tmp_path / "alone", load_checkpoint())
    monkeypatch.setenv("MEDVLM_TEST_RUN", str(out))
    for upto in (4, 10):
        killed = started(source, out, tiny_paths)
        goal = finished(out) + upto
        wait_until(lambda goal=goal: finished(out) >= goal, 300, "nothing is drafted")
        killed.kill()
        killed.communicate()
        wait_until(lambda: not of_this_run(out), 30, "Ray outlived the process that led the run")
    assert 14 <= finished(out) < 20
    last = started(source, out, tiny_paths)
    told, said = last.communicate(timeout=400)
    assert last.returncode == 1
    report = json.loads(told)
    assert {Path(item["file"]).name: item["code"] for item in report["failed"]} == wrong
    assert report["summary"]["drafted"] == 20
    assert "ray" not in said.lower()
    assert contents(out) == contents(tmp_path / "alone")
    wait_until(lambda: not of_this_run(out), 30, "Ray outlived the run")


@pytest.mark.slow
def test_an_interrupted_run_ends_and_says_how_to_go_on(
    tmp_path: Path, tiny_paths: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    night.night(source, 60, 0)
    monkeypatch.setenv("MEDVLM_TEST_RUN", str(out))
    process = started(source, out, tiny_paths)
    wait_until(lambda: finished(out) >= 2, 300, "nothing is drafted")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert finished(out) < 60
    wait_until(lambda: not of_this_run(out), 30, "Ray outlived the run")


# ---- its parts, without Ray ----


@pytest.fixture
def job(tmp_path: Path, tiny_paths: Tiny, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDVLM_DEVICE", "cpu")
    (tmp_path / "out").mkdir()
    return Job(settings(tmp_path / "out", *tiny_paths), {}, tmp_path, "cpu")


def greeted(greeting: Hello | Stopped) -> Hello | Stopped:
    return greeting


def test_a_journal_tells_deaths_and_results(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "chunks" / "7.opened")
    journal.begin(0)
    journal.end(0, ["a result"])
    journal.begin(1)
    journal.begin(1)
    with journal.place.open("a") as stream:
        stream.write("\n2 80049")  # its process was killed
    journal.begin(3)
    again = Journal(journal.place)
    assert again.done == {0: ["a result"]}
    assert dict(again.deaths) == {1: 2, 3: 1}


def test_a_chunk_is_drafted_once_however_often_it_is_handed_out(job: Job, source: Path) -> None:
    drafter = Drafter(job, greeted)
    hello = Hello(drafter.rules, "stable")
    pieces = open_chunk(job, hello, 0, found(source))
    first = drafter.draft(0, pieces)
    before = {path: path.stat().st_mtime_ns for path in job.settings.out.rglob("draft.json")}
    assert len(before) == 8
    assert drafter.draft(0, pieces) == first
    assert drafter.draft(0, open_chunk(job, hello, 0, found(source))) == first
    assert {path: path.stat().st_mtime_ns for path in before} == before
    job.forget(0)
    assert not list(job.settings.out.rglob("*.chunks/*"))
    again = drafter.draft(1, open_chunk(job, hello, 1, found(source)))
    assert isinstance(again, list)
    assert all(outcome.resumed for outcomes in again for outcome in outcomes)


def test_images_that_are_too_much_to_carry_are_opened_beside_the_model(
    job: Job, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafter = Drafter(job, greeted)
    hello = Hello(drafter.rules, "stable")
    whole = open_chunk(job, hello, 0, found(source))
    monkeypatch.setattr(ray_work, "CARRIED_BYTES", 1000)
    bare = open_chunk(job, hello, 1, found(source))
    assert sum(map(len, bare)) < 20_000 < sum(map(len, whole))
    kinds = [outcome.kind for outcomes in drafter.draft(1, bare) for outcome in outcomes]
    assert sorted(kinds) == ["drafted"] * 8 + ["failed"]


def test_a_full_disk_ends_the_run(job: Job, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise CannotWrite

    drafter = Drafter(job, greeted)
    pieces = open_chunk(job, Hello(drafter.rules, "stable"), 0, found(source))
    monkeypatch.setattr(ResultFolder, "write", full)
    answer = drafter.draft(0, pieces)
    assert isinstance(answer, Stopped)
    assert isinstance(pickle.loads(pickle.dumps(answer)).error, CannotWrite)


def test_machines_with_different_checkpoints_end_the_run(job: Job) -> None:
    other = Hello(Rules("another model's", GateConfig()), "stable")
    answer = Drafter(job, lambda greeting: other).draft(0, [])
    assert isinstance(answer, Stopped)
    assert "not the same on every machine" in str(answer.error)


def test_a_model_that_does_not_fit_is_told(job: Job) -> None:
    too_large = night.TooLargeAModel(job.settings.out)
    told = []
    Drafter(replace(job, settings=too_large), lambda greeting: told.append(greeting) or greeting)
    (stopped,) = told
    assert isinstance(stopped, Stopped)
    assert "MemoryError" in str(stopped.error)
    (piece,) = open_chunk(job, stopped, 0, [])
    assert isinstance(pickle.loads(piece), Stopped)


class Shelf(list[int]):
    """What would flow: the sizes of chunks."""

    ended = False

    def __init__(self, models: int) -> None:
        super().__init__()
        self.places = SimpleNamespace(models=models)

    def put(self, chunk: list[Parcel]) -> None:
        self.append(len(chunk))

    def end(self) -> None:
        self.ended = True


def test_chunks_grow_while_studies_are_known(tmp_path: Path) -> None:
    endless = (FetchedParcel(str(number), ()) for number in itertools.count())
    chunks = ray_engine._Chunks(endless, flow := Shelf(models=2))
    known = [[Outcome("drafted", "x", resumed=True)]]
    for _ in range(9):
        chunks.let_in()
        chunks.learn(known)
    chunks.learn([[Outcome("drafted", "x")]])
    chunks.let_in()
    assert flow == [1, 2, 4, 8, 16, 32, LARGEST_CHUNK, LARGEST_CHUNK, LARGEST_CHUNK, 1]


def test_the_last_chunk_ends_the_stream() -> None:
    chunks = ray_engine._Chunks(iter(FetchedParcel(n, ()) for n in "abc"), flow := Shelf(models=16))
    for _ in range(5):
        chunks.let_in()
    assert flow == [2, 1]
    assert flow.ended


@pytest.mark.parametrize(
    ("there", "device", "workers", "total", "expected"),
    [
        ({"CPU": 2.0}, "auto", None, None, ("cpu", 2, 1, 0, 0)),
        ({"CPU": 64.0}, "auto", None, 10, ("cpu", 10, 5, 0, 0)),
        ({"CPU": 64.0}, "cpu", 8, None, ("cpu", 8, 4, 0, 0)),
        ({"CPU": 64.0, "GPU": 8.0}, "auto", None, None, ("cuda", 8, 32, 1, 1)),
        ({"CPU": 8.0, "GPU": 1.0}, "cuda", None, None, ("cuda", 1, 4, 1, 1)),
        ({"CPU": 1.0, "GPU": 1.0}, "cuda", None, None, ("cuda", 1, 1, 0, 1)),
        ({"CPU": 8.0, "GPU": 1.0}, "cpu", None, None, ("cpu", 8, 4, 0, 0)),
    ],
)
def test_processes_are_given_what_the_cluster_has(
    there: dict[str, float],
    device: str,
    workers: int | None,
    total: int | None,
    expected: tuple[str, int, int, int, int],
) -> None:
    cluster = SimpleNamespace(cluster_resources=lambda: there)
    chosen = Settings(Path(), device=device, workers=workers, total=total)
    found = ray_engine.places(cluster, chosen)
    assert (found.device, found.models, found.openers, found.cores, found.gpus) == expected


def test_gpus_are_for_ray_to_give_out() -> None:
    cluster = SimpleNamespace(cluster_resources=lambda: {"CPU": 2.0})
    for device, told in (("cuda", "no GPU"), ("cuda:1", "say cuda")):
        with pytest.raises(ConfigError, match=told):
            ray_engine.places(cluster, Settings(Path(), device=device))


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"medvlm\[ray\]"):
        next(RayEngine().run(iter([]), Settings(tmp_path)))


def test_a_client_outside_the_cluster_is_refused() -> None:
    with pytest.raises(ConfigError, match="on a machine of the cluster"):
        ray_engine._of_a_cluster("ray://head:10001")


def test_an_address_needs_the_engine(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--engine ray"):
        draft_command(tmp_path / "out", [str(tmp_path)], ray_address="auto")
