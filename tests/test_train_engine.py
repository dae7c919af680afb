"""The training loop: a stopped run goes on as if it had not been, a step is shared out exactly."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from medvlm.config import StopConfig
from medvlm.errors import CheckpointError, ConfigError, TrainingError
from medvlm.train.engine import ahead
from medvlm.train.parallel import Processes
from tests.lessons import Line, learn, run_config


def steps(out: Path) -> list[dict[str, str]]:
    """The rows of `steps.csv` without what differs from run to run."""
    with (out / "steps.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert float(row.pop("seconds")) > 0
        assert float(row.pop("samples_per_s")) > 0
    return rows


def curve(out: Path) -> list[float]:
    return [float(row["loss"]) for row in steps(out)]


def epochs(out: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def lessons() -> tuple[Line, Line]:
    return Line("one", dropout=0.5), Line("two", epochs=3, dropout=0.5)


class Stopped(Exception):
    """Stands for whatever ends a run in the middle."""


def stop_at(step: int) -> object:
    def after(steps: int) -> None:
        if steps == step:
            raise Stopped

    return after


@pytest.mark.parametrize("save_every", [0, 1, 3])
def test_a_run_that_was_stopped_twice_leaves_the_curve_of_an_unbroken_one(
    tmp_path: Path, save_every: int
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    end = lessons()
    learn(run_config(whole, save_every=save_every), *end)
    for number, step in ((0, 3), (0, 5), (1, 6), (1, 2)):
        own = lessons()
        own[number].after = stop_at(step)  # type: ignore[assignment]
        with pytest.raises(Stopped):
            learn(run_config(broken, save_every=save_every), *own)
    own = lessons()
    learn(run_config(broken, save_every=save_every), *own)
    assert len(steps(whole)) == 20
    assert steps(broken) == steps(whole)
    assert epochs(broken) == epochs(whole)
    for one, other in zip(end, own, strict=True):
        if other.steps:
            assert all(torch.equal(t, other.tensors()[name]) for name, t in one.tensors().items())


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    learn(run_config(tmp_path), Line())
    before, again = steps(tmp_path), Line()
    weights = again.net[2].weight.detach().clone()
    learn(run_config(tmp_path), again)
    assert again.steps == 0
    assert steps(tmp_path) == before
    assert not torch.equal(again.net[2].weight, weights)


def test_passes_of_a_step_add_up_to_it(tmp_path: Path) -> None:
    class Plain(Line):
        """Without statistics of the batch, so that it does not matter how it is cut."""

        def train(self, on: bool) -> None:
            self.net.eval()

    for accumulate in (1, 2, 4):
        learn(run_config(tmp_path / str(accumulate), accumulate=accumulate), Plain())
    for accumulate in (2, 4):
        assert curve(tmp_path / str(accumulate)) == pytest.approx(curve(tmp_path / "1"), rel=1e-5)


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", "-m", "tests.lessons", str(tmp_path / "two"), "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    learn(run_config(tmp_path / "one", accumulate=2), Line())
    assert curve(tmp_path / "two") == pytest.approx(curve(tmp_path / "one"), rel=1e-5)
    one, other = (torch.load(tmp_path / "two" / f"{i}.pt") for i in (0, 1))
    assert one.keys() == other.keys()
    assert all(torch.equal(t, other[name]) for name, t in one.items())


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="multiples of 3"):
        learn(run_config(tmp_path, accumulate=3), Line())
    lesson = Line()
    lesson.batch_size = 64
    with pytest.raises(ConfigError, match="less than a batch"):
        learn(run_config(tmp_path), lesson)


def test_stopping_early_restores_the_best_epoch(tmp_path: Path) -> None:
    figures = [0.5, 0.8, 0.7, 0.8, 0.9, 1.0]
    weights: list[torch.Tensor] = []

    def run(stop: StopConfig | None) -> Line:
        lesson = Line(epochs=len(figures))
        lesson.watched = figures.__getitem__
        lesson.after = lambda step: weights.append(lesson.net[2].weight.detach().clone())
        learn(run_config(tmp_path, stop=stop), lesson)
        return lesson

    stop = StopConfig(figure="watched", patience=2)
    lesson = run(stop)
    assert lesson.steps == 4 * 4
    assert torch.equal(lesson.net[2].weight, weights[2 * 4 - 1])
    again = run(stop)
    assert again.steps == 0
    assert torch.equal(again.net[2].weight, lesson.net[2].weight)


def test_lower_can_be_better(tmp_path: Path) -> None:
    lesson = Line(epochs=5)
    lesson.watched = [3.0, 2.0, 4.0, 1.0, 0.0].__getitem__
    stop = StopConfig(figure="watched", patience=1, higher=False)
    learn(run_config(tmp_path, stop=stop), lesson)
    assert lesson.steps == 3 * 4


def test_stopping_by_what_is_not_watched_is_refused(tmp_path: Path) -> None:
    stop = StopConfig(figure="beauty", patience=1)
    with pytest.raises(ConfigError, match="choose one of watched"):
        learn(run_config(tmp_path / "unknown", stop=stop), Line())
    lesson, stop = Line(), StopConfig(figure="watched", patience=1)
    lesson.watched = lambda epoch: math.nan
    with pytest.raises(ConfigError, match="on these patients"):
        learn(run_config(tmp_path / "undefined", stop=stop), lesson)
    with pytest.raises(ValueError, match=r"data\.tuning"):
        run_config(tmp_path, stop=StopConfig(figure="tuning_loss", patience=1))


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    lesson = Line()
    lesson.x[:] = math.inf
    with pytest.raises(TrainingError, match="step 1"):
        learn(run_config(tmp_path), lesson)


def test_the_state_of_another_run_is_refused(tmp_path: Path) -> None:
    learn(run_config(tmp_path), Line())
    learn(run_config(tmp_path, save_every=7), Line())
    with pytest.raises(CheckpointError, match="another configuration"):
        learn(run_config(tmp_path, seed=1), Line())
    (tmp_path / "state.pt").write_bytes(b"PK no")
    with pytest.raises(CheckpointError, match="no state"):
        learn(run_config(tmp_path), Line())


def test_tensorboard_gets_every_step_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = run_config(tmp_path, log="tensorboard", save_every=3)
    lesson = Line()
    lesson.after = stop_at(5)  # type: ignore[assignment]
    with pytest.raises(Stopped):
        learn(config, lesson)
    learn(config, Line())
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("step/loss")] == [*range(1, 9)]
    assert [event.step for event in events.Scalars("epoch/watched")] == [4, 8]


def test_tensorboard_must_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"medvlm\[tensorboard\]"):
        learn(run_config(tmp_path, log="tensorboard"), Line())


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device: cpu"):
        Processes("cuda")


def test_work_ahead_keeps_the_order_and_its_errors() -> None:
    made: list[int] = []

    def prepare(item: int) -> int:
        made.append(item)
        return 10 // (3 - item)

    pairs = ahead(range(5), prepare)
    assert [next(pairs) for _ in range(3)] == [(0, 3), (1, 5), (2, 10)]
    with pytest.raises(ZeroDivisionError):
        next(pairs)
    assert made[:4] == [0, 1, 2, 3]
