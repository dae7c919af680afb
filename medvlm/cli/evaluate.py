"""`medvlm evaluate`: scores a checkpoint on a folder laid out as a set of the data pack."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medvlm.cli.common import (
    AsJson,
    CheckpointName,
    LlmPath,
    load_with_notice,
    print_json,
    writable,
    write_atomically,
)
from medvlm.errors import UsageError
from medvlm.evaluate import DEFAULT_PARTS, PARTS, REPORTS

if TYPE_CHECKING:
    from medvlm.evaluate.report import ReportPair

PAIRS = (".json", ".csv")


def evaluate(
    data: Annotated[Path, typer.Option("--data", help="labels.csv, boxes.csv, images/, ...")],
    out: Annotated[Path, typer.Option("--out", help="JSON file for the figures.")],
    parts: Annotated[str, typer.Option(help=f"Comma-separated, of {', '.join(PARTS)}.")] = ",".join(
        DEFAULT_PARTS
    ),
    split: Annotated[
        str, typer.Option(help="all, or validation: only patients never trained on.")
    ] = "all",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1)] = 8,
    report: Annotated[
        Path | None, typer.Option("--report", help="Folder for tables (figures.md) and pictures.")
    ] = None,
    export_reports: Annotated[
        Path | None,
        typer.Option("--export-reports", help="FILE.json or .csv: people's reports and drafts."),
    ] = None,
    checkpoint: CheckpointName = None,
    llm_path: LlmPath = None,
    as_json: AsJson = False,
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
    if report is not None:
        from medvlm.evaluate.plots import pyplot

        pyplot()  # whether it is there shows now, not after hours
        writable(report)
    if export_reports is not None:
        _exportable(export_reports, data, chosen)
    loaded = load_with_notice(checkpoint, llm_path)
    from medvlm.evaluate.figures import rows, write_report
    from medvlm.evaluate.run import evaluate_set

    found = evaluate_set(loaded, data, chosen, split == "validation", batch_size)
    write_atomically(out, compact(found.scores))
    if export_reports is not None:
        write_atomically(export_reports, _pairs(found.reports, export_reports.suffix.lower()))
    if report is not None:
        write_report([found.scores], report)
    if as_json:
        print_json(found.scores)
        return
    for row in rows(found.scores):
        bounds = f"  [{row.interval[0]:.3f}, {row.interval[1]:.3f}]" if row.interval else ""
        value = f"{row.value:.3f}" if isinstance(row.value, float) else str(row.value)
        typer.echo(f"{row.name}  {value}{bounds}")
    for path in (out, report, export_reports):
        if path is not None:
            typer.echo(f"written to {path}")


def compact(content: Any) -> str:
    """Indented JSON, with lists of numbers on one line."""
    text = json.dumps(content, indent=2, allow_nan=False)
    return (
        re.sub(r"\[\n([-+.,eE\d\s]*)\]", lambda own: f"[{' '.join(own[1].split())}]", text) + "\n"
    )


def _exportable(file: Path, data: Path, parts: Sequence[str]) -> None:
    if file.suffix.lower() not in PAIRS:
        raise UsageError(
            f"--export-reports {file}", remedy="name a file that ends in .json or .csv"
        )
    if "report" not in parts:
        raise UsageError("--export-reports needs the part report", remedy="add it to --parts")
    if not (data / REPORTS).is_file():
        raise UsageError(
            f"--export-reports: {data} holds no {REPORTS}", remedy="see docs/evaluation.md"
        )
    writable(file.parent)


def _pairs(pairs: Sequence[ReportPair], suffix: str) -> str:
    """Pairs of texts for other programs."""
    if suffix == ".json":
        return json.dumps([pair._asdict() for pair in pairs], indent=2, ensure_ascii=False) + "\n"
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=("image", "reference", "draft"))
    writer.writeheader()
    writer.writerows(pair._asdict() for pair in pairs)
    return file.getvalue()
