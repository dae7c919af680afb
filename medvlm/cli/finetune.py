"""`medvlm finetune`: adapts a checkpoint to a site's own studies and reports.

No path below DATA_DIR and no value of a header is printed: names of files may be names of patients.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from medvlm import errors
from medvlm.cli.common import AsJson, CheckpointName, LlmPath, err, print_json, writable
from medvlm.config import FinetuneConfig
from medvlm.errors import InputError

if TYPE_CHECKING:
    from medvlm.data.site import Site
    from medvlm.data.site_summary import SiteSummary
    from medvlm.train.finetune.record import Evaluation

# Policies, and files that are no films; what else an input fails by is broken.
_NO_FAILURES = {"refused_by_policy", "picture", "no_pixels"}


def finetune(
    data: Annotated[
        Path, typer.Argument(metavar="DATA_DIR", help="DICOM studies, reports, boxes: docs.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the run and the candidate.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and count; write nothing to --out.")
    ] = False,
    retention: Annotated[
        Path | None,
        typer.Option("--retention", help="Set(s) of the data pack, to measure what is forgotten."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML such as configs/finetune.yaml.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The candidate's; else the base's and -site.")
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", help="Secret of pseudonyms and split; else MEDVLM_HOME's."),
    ] = None,
    checkpoint: CheckpointName = None,
    llm_path: LlmPath = None,
    as_json: AsJson = False,
) -> None:
    """Fine-tunes on a site's studies and reports; goes on where an earlier run stopped.

    OUT/checkpoint is a candidate with its evaluation before and after. It is not in use until
    `medvlm model promote OUT/checkpoint`.
    """
    settings = FinetuneConfig.from_yaml(config) if config else FinetuneConfig()
    if not dry_run:
        writable(out)
    with err.status("starting ..."):
        from medvlm.train.finetune.key import site_key
        from medvlm.train.finetune.run import Request
        from medvlm.train.finetune.run import finetune as run

    secret = site_key(key_file, out)
    site = _read(data, out)
    with redirect_stdout(sys.stderr):
        summary = _summary(site, secret, checkpoint)
    if not as_json:
        _show(summary, settings)
    if dry_run:
        if as_json:
            print_json(summary.model_dump(mode="json"))
    else:
        request = Request(
            site=site,
            out=out,
            secret=secret,
            config=settings,
            base=checkpoint,
            name=name,
            retention=retention,
            llm_path=llm_path,
        )
        with _results_kept_apart():
            evaluation = run(request, lambda text: err.print(text, markup=False))
        if as_json:
            print_json(evaluation.model_dump(mode="json"))
        else:
            _report(evaluation, out)
    if any(code in _failures() for code in summary.problems):
        raise typer.Exit(1)


def _read(data: Path, out: Path) -> Site:
    from medvlm.data.site import read_site

    with Progress(console=err, transient=True) as progress:
        task = progress.add_task("reading", total=None)
        return read_site(
            data,
            but=out,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )


def _summary(site: Site, secret: bytes, checkpoint: str | None) -> SiteSummary:
    from medvlm.data.prepare import summarise
    from medvlm.model.checkpoint import CONFIG, CheckpointConfig, resolve_checkpoint

    gate = CheckpointConfig.from_yaml(resolve_checkpoint(checkpoint) / CONFIG).gate
    return summarise(site, gate, secret)


@contextmanager
def _results_kept_apart() -> Iterator[None]:
    """Training reports its epochs on stdout, which is for results here."""
    with redirect_stdout(sys.stderr):
        yield


def _show(summary: SiteSummary, settings: FinetuneConfig) -> None:
    from medvlm.data.site_summary import summary_tables

    Console().print(summary_tables(summary))
    for problem in summary.details:
        err.print(f"{problem.source}: {problem.message} [{problem.code}]", markup=False)
    judges = summary.prepared["validation"].patients
    if judges < settings.min_patients:
        typer.echo(
            f"{judges} validation patients are too few to tell whether the model gets better "
            f"(of fewer than {settings.min_patients} nothing is promoted)"
        )
    few = [
        finding
        for finding, counts in summary.labels.items()
        if counts.present and counts.positives["validation"] < settings.min_positives
    ]
    if few:
        typer.echo(
            f"too few positives on validation patients to tell: {', '.join(few)} "
            f"(fewer than {settings.min_positives})"
        )


def _report(evaluation: Evaluation, out: Path) -> None:
    from medvlm.train.finetune.card import figures_table

    for part in (evaluation.validation, *evaluation.retention):
        Console().print(figures_table(part))
    if not evaluation.retention:
        typer.echo("retention: not measured")
    own = evaluation.candidate
    typer.echo(f"candidate {own.name} {own.version} in {out / 'checkpoint'}")
    typer.echo(f"to put it to use: medvlm model promote {out / 'checkpoint'}")


def _failures() -> set[str]:
    """Codes of inputs that are broken, rather than refused or left over."""
    kinds: list[type[Any]] = [InputError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    own = {kind.code for kind in kinds if kind.__module__ == errors.__name__}
    return (
        own | {"unreadable", "unusable_report", "bad_row", "bad_json", "bad_box"}
    ) - _NO_FAILURES
