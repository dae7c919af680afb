"""A run over many studies on the terminal: its progress, and what came of it."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from medvlm.batch.outcome import Outcome
from medvlm.batch.tally import Tally, in_hours
from medvlm.cli.common import err, report_refused
from medvlm.dicom.read import Refused

LISTED = 50  # studies; of more, the terminal tells only how many
EVERY_S = 30.0  # a line of progress where there is no terminal
_IN_MEMORY = 1 << 20


class Rows:
    """Rows in the order they came, most of them on disk."""

    def __init__(self) -> None:
        spool = tempfile.SpooledTemporaryFile(_IN_MEMORY, "w+", encoding="utf-8")  # noqa: SIM115
        self.file: IO[str] = spool
        self.count = 0

    def add(self, row: dict[str, Any]) -> None:
        self.file.write(json.dumps(row, ensure_ascii=True) + "\n")
        self.count += 1

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.file.seek(0)
        yield from map(json.loads, self.file)
        self.file.seek(0, 2)


@dataclass
class Report:
    """What a run tells when it has ended; `out`: its folder of results."""

    out: Path
    tally: Tally = field(default_factory=Tally)
    studies: Rows = field(default_factory=Rows)
    failed: Rows = field(default_factory=Rows)

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Takes in a parcel."""
        outcomes = list(outcomes)
        self.tally.add(outcomes)
        for outcome in outcomes:
            if outcome.failure is not None:
                self.failed.add(_failure(outcome.failure))
                continue
            name = outcome.study or ""
            self.studies.add(
                {
                    "study": name,
                    "accepted": outcome.kind == "drafted",
                    "draft": str(self.out / name / "draft.json"),
                    "resumed": outcome.resumed,
                    "summary": outcome.summary,
                }
            )

    def refuse(self, refused: Iterable[Refused]) -> None:
        """Takes in files that gave no image."""
        for item in refused:
            self.failed.add(_failure(item))
            self.tally.failed[item.code] += 1

    def close(self) -> None:
        """Forgets the rows."""
        self.studies.file.close()
        self.failed.file.close()

    def tell(self) -> None:
        """For people: the studies if they are few, a table if they are several."""
        if self.studies.count <= LISTED:
            for row in self.studies:
                typer.echo(f"{row['study']}: {row['summary']}")
        if self.studies.count + self.failed.count > 1:
            err.print(_table(self.tally))
        typer.echo(
            f"{self.tally.drafted} drafted, {self.tally.studies_refused} refused by the gate, "
            f"{self.tally.failed.total()} failed; results in {self.out}"
        )

    def tell_failures(self) -> None:
        """Each failure on stderr, with what to do about it."""
        for row in self.failed:
            report_refused([Refused(**row)])

    def print_json(self) -> None:
        """The same as JSON on stdout, row by row: a run may be longer than memory is large."""
        write = sys.stdout.write
        write("{")
        for name, rows in (("studies", self.studies), ("failed", self.failed)):
            write(f'\n  "{name}": [')
            for number, row in enumerate(rows):
                if name == "failed":
                    row = {key: row[key] for key in ("file", "code", "message")}
                shown = json.dumps(row, ensure_ascii=False, allow_nan=False)
                write(f"{',' if number else ''}\n    {shown}")
            write("\n  ],")
        write(f'\n  "summary": {json.dumps(self.tally.record())}\n}}\n')


def followed(steps: Iterator[list[Outcome]], report: Report, total: int | None) -> None:
    """Takes a run's outcomes into its report, and shows how far it is."""
    if not err.is_terminal:
        _in_lines(steps, report, total)
        return
    columns = (
        *(TextColumn("drafting"), BarColumn(), MofNCompleteColumn()),
        TextColumn("{task.fields[pace]}"),
    )
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task("", total=total, pace="loading the model ...")
        for outcomes in steps:
            report.add(outcomes)
            progress.update(task, advance=1, pace=report.tally.pace(total))


def _in_lines(steps: Iterator[list[Outcome]], report: Report, total: int | None) -> None:
    told = time.monotonic()
    for outcomes in steps:
        report.add(outcomes)
        if time.monotonic() - told >= EVERY_S:
            told = time.monotonic()
            of = f" of {total}" if total is not None else ""
            err.print(f"{report.tally.parcels}{of} done, {report.tally.pace(total)}")


def _failure(refused: Refused) -> dict[str, Any]:
    return {
        "file": refused.file,
        "code": refused.code,
        "message": refused.message,
        "remedy": refused.remedy,
    }


def _table(tally: Tally) -> Table:
    table = Table(box=None, show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_row("drafted", f"{tally.drafted:,}")
    table.add_row("refused by the gate", f"{tally.studies_refused:,}")
    for code, count in sorted(tally.refused.items()):
        table.add_row(f"  {code}", f"{count:,}")
    table.add_row("failed", f"{tally.failed.total():,}")
    for code, count in sorted(tally.failed.items()):
        table.add_row(f"  {code}", f"{count:,}")
    table.add_row("of these drafts, already there", f"{tally.resumed:,}")
    table.add_row("studies per hour", f"{tally.per_hour:,.0f}")
    table.add_row("time", in_hours(tally.seconds))
    return table
