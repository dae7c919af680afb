"""`medvlm compare`: which encoder, which connector, how much data? Trained and measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from medvlm.cli.common import LlmPath, err, writable, write_atomically
from medvlm.config.compare import CompareConfig

if TYPE_CHECKING:
    from medvlm.train.compare import Run

Configs = Annotated[
    list[Path], typer.Argument(metavar="CONFIG...", help="YAML files such as configs/compare/*.")
]


def compare(
    configs: Configs,
    out: Annotated[Path, typer.Option("--out", help="Folder for table and plots.")],
    only_report: Annotated[
        bool, typer.Option("--only-report", help="Train nothing; report the runs that are there.")
    ] = False,
    llm_path: LlmPath = None,
) -> None:
    """Trains the variants of each comparison with several seeds, and reports what differs.

    Stopped, it goes on where it was; a run that is complete is not run again.
    """
    settings = [CompareConfig.from_yaml(path) for path in configs]
    writable(out)
    from medvlm.train.compare import finished, runs

    for config in settings:
        if only_report:
            _report(config, finished(config), out)
            continue
        total, done = len(config.variants) * len(config.seeds), []
        for run in runs(config, llm_path):
            done.append(run)
            err.print(f"{config.name}: {len(done)} of {total}: {run.variant}, seed {run.seed}")
        _report(config, done, out)


def _report(config: CompareConfig, done: Sequence[Run], out: Path) -> None:
    """The variants' table, and plots; only seeds that all variants have are counted."""
    from medvlm.evaluate.comparison import compare as held_together
    from medvlm.evaluate.comparison import markdown
    from medvlm.evaluate.comparison_plots import plot

    names = [variant.name for variant in config.variants]
    by_pair = {(run.variant, run.seed): run for run in done}
    seeds = [s for s in config.seeds if all((name, s) in by_pair for name in names)]
    if not seeds:
        typer.echo(f"{config.name}: no seed is complete yet ({len(done)} runs are)")
        return
    scores = {name: [by_pair[name, seed].scores for seed in seeds] for name in names}
    costs = {
        name: {
            key: float(np.mean([by_pair[name, seed].cost[key] for seed in seeds]))
            for key in ("seconds", "parameters", "tokens")
        }
        for name in names
    }
    compared = held_together(scores, config.reference)
    curves: dict[str, dict[float, str]] = {}
    for variant in config.variants:
        if variant.x is not None:
            curves.setdefault(variant.series, {})[variant.x] = variant.name
    text = markdown(config.title, config.reference, compared, costs, len(seeds))
    write_atomically(out / f"{config.name}.md", text)
    plot(config.title, compared, curves, config.x_label, out / f"{config.name}.png")
    typer.echo(text)
    typer.echo(f"written to {out / config.name}.md and .png")
