"""Runs that end in the middle, and runs in several processes, against unbroken ones in one."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from medvlm.config import Config, LanguageConfig, Phase, StageConfig, StopConfig, WeightsConfig
from medvlm.errors import CheckpointError, ConfigError
from medvlm.model.encoder import Encoder
from medvlm.train.align import align
from medvlm.train.pretrain import pretrain, require_images
from medvlm.train.progress import Log
from tests.sets import pack
from tests.tiny import TINY
from tests.training import data_config, pretrain_config, train_config


class Stopped(Exception):
    """Stands for whatever ends a run in the middle."""


def run_until(step: int, run: Callable[[], Path]) -> None:
    """A run that ends when it has logged `step`."""
    log = Log.step

    def step_or_stop(self: Log, **figures: Any) -> None:
        log(self, **figures)
        if figures["step"] == step:
            raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Log, "step", step_or_stop)
        with pytest.raises(Stopped):
            run()


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "steps.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def curve(out: Path) -> list[float]:
    found = rows(out)
    assert [int(row["step"]) for row in found] == [*range(1, len(found) + 1)]
    return [float(row["loss"]) for row in found]


def same_tensors(one: Path, other: Path) -> bool:
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(t, b[name]) for name, t in a.items())


def interrupt(run: Callable[[], Path], steps: int, seed: int) -> Path:
    """Runs to the end with two stops at random steps."""
    for step in sorted(random.Random(seed).sample(range(1, steps), 2)):
        run_until(step, run)
    return run()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="module")
def encoder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an encoder that was pretrained for a moment."""
    folder = tmp_path_factory.mktemp("encoder")
    return pretrain(pretrain_config(data, folder, phases=(Phase(epochs=1, size=32),)))


slow = pytest.mark.slow


@pytest.mark.parametrize(
    "objective",
    [
        "supervised",
        pytest.param("self_supervised", marks=slow),
        pytest.param("contrastive", marks=slow),
    ],
)
def test_pretraining_goes_on_where_it_was_stopped(
    data: Path, tmp_path: Path, tiny_language: Path, objective: str
) -> None:
    def config(name: str) -> Any:
        language = LanguageConfig(base=str(tiny_language))
        return pretrain_config(
            data,
            tmp_path,
            out=tmp_path / name,
            objective=objective,
            language=language,
            phases=(Phase(epochs=1, size=32), Phase(epochs=1, size=32, mixup=0.5, restart=True)),
            save_every=3,
            watch_every=9,
        )

    whole = pretrain(config("whole"))
    resumed = interrupt(lambda: pretrain(config("resumed")), 8, seed=1)
    assert len(curve(whole)) == 8
    assert curve(resumed) == pytest.approx(curve(whole), abs=1e-5)
    assert same_tensors(whole / "vision.safetensors", resumed / "vision.safetensors")


@pytest.mark.parametrize("encoder_stages", [0, pytest.param(1, marks=slow)])
def test_alignment_goes_on_where_it_was_stopped(
    data: Path, tmp_path: Path, tiny_language: Path, encoder: Path, encoder_stages: int
) -> None:
    def run(name: str) -> Path:
        seeing = {"encoder_stages": encoder_stages, "encoder_rate": 10.0}
        stage2 = StageConfig(epochs=2, learning_rate=1e-3, **seeing)
        config = train_config(
            data,
            tmp_path,
            tiny_language,
            out=tmp_path / name,
            vision=encoder,
            stage2=stage2,
            save_every=2,
            watch_films=2,
        )
        return align(config, "tiny", "0.1")

    whole = run("whole")
    resumed = interrupt(lambda: run("resumed"), 13, seed=encoder_stages)
    losses = curve(whole.parent)
    # One step of 32 films in the warm-up, then four of 8 in each epoch.
    assert len(losses) == 1 + 4 + 8
    assert curve(resumed.parent) == pytest.approx(losses, abs=1e-5)
    assert same_tensors(whole / "model.safetensors", resumed / "model.safetensors")
    tuned = load_file(whole / "model.safetensors")
    start = {f"vision.{name}": t for name, t in load_file(encoder / "vision.safetensors").items()}
    moved = {
        name
        for name, t in start.items()
        if not torch.allclose(tuned[name].float(), t.float(), rtol=1e-2, atol=1e-3)
    }
    learned = {name.split(".")[1] for name in moved}
    seeing = {"encoder", "classifier", "attributes", "dense"}
    assert learned == (seeing if encoder_stages else set())
    assert not any("running" in name or "conv_stem" in name for name in moved)


@pytest.mark.parametrize("objective", ["self_supervised", "contrastive"])
def test_what_one_objective_learned_starts_another(
    data: Path, tmp_path: Path, tiny_language: Path, objective: str
) -> None:
    short = {"phases": (Phase(epochs=1, size=32),), "batch_size": 16, "watch_every": 9}
    first = pretrain(
        pretrain_config(
            data,
            tmp_path,
            out=tmp_path / "first",
            objective=objective,
            language=LanguageConfig(base=str(tiny_language)),
            **short,
        )
    )
    (row, _) = rows(first)
    part = {"self_supervised": "spread", "contrastive": "matched"}[objective]
    assert 0 <= float(row[part]) < 2
    weights = WeightsConfig(source="file", path=first / "vision.safetensors")
    second = pretrain(pretrain_config(data, tmp_path, weights=weights, **short))
    assert len(curve(second)) == 2


def test_pretraining_stops_by_the_tuning_patients(data: Path, tmp_path: Path) -> None:
    config = pretrain_config(
        data,
        tmp_path,
        data=data_config(data, tmp_path, tuning=True),
        phases=(Phase(epochs=6, size=32),),
        batch_size=16,
        learning_rate=1e-9,
        ema=0.0,
        stop=StopConfig(figure="tuning_loss", patience=1, higher=False),
    )
    assert len(curve(pretrain(config))) < 6 * 2


def test_alignment_stops_by_the_tuning_patients(
    data: Path, tmp_path: Path, tiny_language: Path, encoder: Path
) -> None:
    never, slowly = (
        StageConfig(epochs=0, learning_rate=1),
        StageConfig(epochs=4, learning_rate=1e-9),
    )
    config = train_config(
        data,
        tmp_path,
        tiny_language,
        data=data_config(data, tmp_path, tuning=True),
        vision=encoder,
        warm_up=never,
        stage1=slowly,
        stage2=never,
        stop=StopConfig(figure="tuning_closed", patience=1),
        watch_films=2,
    )
    align(config, "tiny", "0.1")
    assert len(curve(config.out)) == 2 * 4


def test_a_network_of_volumes_is_refused() -> None:
    encoder = Encoder(TINY.encoder)
    require_images(encoder)
    encoder.dims = 3
    with pytest.raises(ConfigError, match="volumes"):
        require_images(encoder)


def test_other_starting_weights_are_another_run(data: Path, tmp_path: Path, encoder: Path) -> None:
    pretrain(pretrain_config(data, tmp_path))
    copy = tmp_path / "vision.safetensors"
    copy.write_bytes((encoder / "vision.safetensors").read_bytes())
    own = WeightsConfig(source="file", path=copy)
    with pytest.raises(CheckpointError, match="another configuration"):
        pretrain(pretrain_config(data, tmp_path, weights=own))


def write(config: Config, path: Path) -> Path:
    config.to_yaml(path)
    return path


def launch(*command: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *map(str, command)], env=environment)


@slow
def test_a_killed_run_goes_on(
    data: Path, tmp_path: Path, tiny_language: Path, encoder: Path
) -> None:
    def config(name: str) -> Path:
        settings = train_config(
            data,
            tmp_path,
            tiny_language,
            out=tmp_path / name,
            vision=encoder,
            stage2=StageConfig(epochs=3, learning_rate=1e-3),
            save_every=2,
        )
        return write(settings, tmp_path / f"{name}.yaml")

    for name, kills in (("whole", ()), ("killed", (3, 8, 12))):
        path = config(name)
        for step in kills:
            process = launch("-m", "medvlm", "train", path)
            while not (tmp_path / name / "steps.csv").exists() or len(rows(tmp_path / name)) < step:
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert launch("-m", "medvlm", "train", path).wait() == 0
    assert len(curve(tmp_path / "whole")) == 1 + 4 + 12
    assert curve(tmp_path / "killed") == pytest.approx(curve(tmp_path / "whole"), abs=1e-5)


@slow
@pytest.mark.parametrize("command", ["pretrain", "train"])
def test_two_processes_train_as_one_does(
    data: Path, tmp_path: Path, tiny_language: Path, encoder: Path, command: str
) -> None:
    def config(name: str, accumulate: int) -> Path:
        own = {"out": tmp_path / name, "accumulate": accumulate, "precision": "float32"}
        settings: Config = (
            pretrain_config(data, tmp_path, **own)
            if command == "pretrain"
            else train_config(data, tmp_path, tiny_language, vision=encoder, **own)
        )
        return write(settings, tmp_path / f"{name}.yaml")

    two = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2)
    assert launch(*two, "-m", "medvlm", command, config("two", 1)).wait() == 0
    one = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", 1)
    assert launch(*one, "-m", "medvlm", command, config("one", 2)).wait() == 0
    assert curve(tmp_path / "two") == pytest.approx(curve(tmp_path / "one"), rel=1e-3)
