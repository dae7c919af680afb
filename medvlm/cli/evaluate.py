"""`medvlm evaluate`: scores a checkpoint on a folder laid out as a set of the data pack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from medvlm.cli.common import (
    CheckpointName,
    LlmPath,
    load_with_notice,
    writable,
    write_atomically,
)
from medvlm.errors import UsageError

PARTS = ("classification", "vqa", "grounding", "anatomy", "calibration", "report")


def evaluate(
    data: Annotated[Path, typer.Option("--data", help="labels.csv, boxes.csv, images/, ...")],
    out: Annotated[Path, typer.Option("--out", help="JSON file for the figures.")],
    parts: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(PARTS),
    split: Annotated[
        str, typer.Option(help="all, or validation: only patients never trained on.")
    ] = "all",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1)] = 8,
    checkpoint: CheckpointName = None,
    llm_path: LlmPath = None,
) -> None:
    """Scores a checkpoint; whatever the folder holds labels for is scored."""
    chosen = tuple(part.strip() for part in parts.split(",") if part.strip())
    if unknown := [part for part in chosen if part not in PARTS]:
        raise UsageError(f"unknown part {unknown[0]!r}", remedy=f"choose among {', '.join(PARTS)}")
    if split not in ("all", "validation"):
        raise UsageError(f"unknown split {split!r}", remedy="choose all or validation")
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder", remedy="give the name of a JSON file")
    writable(out.parent)
    loaded = load_with_notice(checkpoint, llm_path)
    from medvlm.evaluate.run import evaluate_folder

    scores = evaluate_folder(loaded, data, chosen, split == "validation", batch_size)
    write_atomically(out, json.dumps(scores, indent=2, allow_nan=False) + "\n")
    for part in chosen:
        for name, value in scores.get(part, {}).items():
            if isinstance(value, int | float):
                low_high = scores[part].get(f"{name}_ci")
                interval = f"  [{low_high[0]:.3f}, {low_high[1]:.3f}]" if low_high else ""
                typer.echo(f"{part}.{name}  {value:.3f}{interval}")
    typer.echo(f"written to {out}")
