"""The Ray engine on one machine: the same results as the local engine's, whatever dies.

Run as a program it drafts a folder, so that a test can kill it.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
from medvlm.config import GateConfig
from medvlm.errors import CheckpointError, ConfigError, MissingExtra
from medvlm.model.checkpoint import Checkpoint, load_checkpoint
from tests import night
from tests.night import Deadly, DeadlyOnce, contents, settings, unbroken

# Ray warns of defaults of its own.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")

ROOT = Path(__file__).resolve().parent.parent
Tiny = tuple[Path, Path]


@dataclass(frozen=True)
class DeadlyModel(Settings):
    """Of a run in which one process dies when it has written a draft and told nobody."""

    def load(self) -> Checkpoint:
        import medvlm.batch.drafting as drafting

        original, died = drafting.draft_ready, self.out.parent / "model died"

        def draft_ready(*arguments: Any) -> Any:
            told = original(*arguments)
            if not died.exists():
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
    """Eight files, one a study; four are broken, each in a way of its own."""
    folder = tmp_path_factory.mktemp("ray") / "in"
    night.night(folder, 8, 4)
    return folder


@pytest.fixture(scope="module")
def ray_here() -> Iterator[Any]:
    """Ray on two cores, started once: it takes its time."""
    pytest.importorskip("ray.data", reason="needs the extra `ray`")
    ray = ray_engine._ray()
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


def untimed(outcomes: list[Outcome]) -> list[Outcome]:
    return sorted((replace(o, seconds=0.0) for o in outcomes), key=repr)


# ---- on Ray ----


def test_results_are_those_of_one_machine_whatever_dies(
    ray_here: Any, source: Path, tmp_path: Path, tiny_paths: Tiny
) -> None:
    """A process dies while it opens a study, one when it has drafted one; one parcel always kills."""
    given, deadly = found(source), Deadly(mine=os.getpid())
    alone = tmp_path / "alone"
    checkpoint = load_checkpoint()
    unbroken(source, alone, checkpoint)
    lost = give_up(deadly, rules_of(checkpoint), ResultFolder(alone))
    expected = untimed([*night.run(iter(given), Settings(tmp_path / "local", total=3)), lost])

    out = tmp_path / "out"
    Quarantine(out).keep_unread(parcels([str(source)])[2])
    chosen = settings(out, *tiny_paths, workers=1)
    killed = DeadlyModel(**{name: getattr(chosen, name) for name in chosen.__dataclass_fields__})
    first, *others = given
    once = DeadlyOnce(first, tmp_path / "died")
    outcomes = run(iter([once, deadly, *others]), killed)
    assert (tmp_path / "died").exists()
    assert (tmp_path / "model died").exists()
    assert [replace(o, resumed=False) for o in untimed(outcomes)] == expected
    write_table(out)
    assert contents(out) == contents(alone)

    again = run(iter([first, *others, deadly]), chosen)
    assert all(outcome.resumed for outcome in again)
    assert [replace(o, resumed=False) for o in untimed(again)] == expected
    assert contents(out) == contents(alone)


def test_parcels_are_taken_as_they_are_needed(
    ray_here: Any, source: Path, tmp_path: Path, tiny_paths: Tiny
) -> None:
    taken = 0

    def endless() -> Iterator[Parcel]:
        nonlocal taken
        while True:
            yield FetchedParcel(f"{taken}", (source / "0000.dcm",))
            taken += 1

    chosen = settings(tmp_path, *tiny_paths, workers=1, retry_failed=True)
    with chosen.results.in_use():
        engine = RayEngine().run(endless(), chosen)
        done = 0
        for _ in range(4):
            next(engine)
            done += 1
        window = ray_engine.places(ray_here, chosen).window
        assert taken <= (done + window) * LARGEST_CHUNK
        engine.close()
    for _ in range(100):
        if ray_here.available_resources().get("CPU") == 2:
            return
        time.sleep(0.1)
    pytest.fail("the run's processes are still there")


def test_a_checkpoint_that_cannot_be_loaded_ends_the_run(
    ray_here: Any, source: Path, tmp_path: Path
) -> None:
    chosen = Settings(tmp_path, checkpoint="no-such-checkpoint", workers=1, device="cpu")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        run(iter(found(source)), chosen)
