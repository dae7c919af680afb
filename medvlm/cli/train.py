"""`medvlm pretrain`, `medvlm train`, `medvlm release`: from data to a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medvlm.cli.common import LlmPath
from medvlm.config import PretrainConfig, TrainConfig

ConfigFile = Annotated[Path, typer.Argument(help="A YAML file such as configs/train_cpu.yaml.")]


def pretrain(config: ConfigFile, llm_path: LlmPath = None) -> None:
    """Trains the encoder and its heads; goes on where an earlier run stopped.

    With several GPUs: accelerate launch -m medvlm pretrain CONFIG.
    """
    settings = PretrainConfig.from_yaml(config)
    from medvlm.train.pretrain import pretrain as run

    _say(f"encoder written to {run(settings, llm_path)}")


def train(
    config: ConfigFile,
    name: Annotated[str, typer.Option(help="The checkpoint's name.")] = "medvlm-cxr-lite",
    version: Annotated[str, typer.Option(help="Its version.")] = "0.2.0",
    llm_path: LlmPath = None,
) -> None:
    """Aligns connector and language model in two stages; goes on where an earlier run stopped.

    With several GPUs: accelerate launch -m medvlm train CONFIG.
    """
    settings = TrainConfig.from_yaml(config)
    from medvlm.train.align import align

    folder = align(settings, name, version, llm_path)
    _say(f"checkpoint written to {folder}; calibrate it with `medvlm release`")


def _say(text: str) -> None:
    """Once, however many processes train."""
    from medvlm.train.parallel import is_main

    if is_main():
        typer.echo(text)


def release(
    checkpoint: Annotated[Path, typer.Argument(help="The folder that `medvlm train` wrote.")],
    data: Annotated[Path, typer.Option("--data", help="The data pack's folder.")],
    out: Annotated[Path, typer.Option("--out", help="The finished checkpoint's folder.")],
    llm_path: LlmPath = None,
) -> None:
    """Calibrates a checkpoint on validation patients and fixes its operating points."""
    from medvlm.train.release import release as run

    typer.echo(f"released to {run(checkpoint, data, out, llm_path)}")
