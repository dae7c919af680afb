"""`medvlm draft` and `medvlm demo`: draft reports into a folder."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import Progress

from medvlm.batch.dicomweb import SCHEME, Server
from medvlm.batch.drafting import draft_parcel
from medvlm.batch.engine import Engine, Settings
from medvlm.batch.local import LocalEngine
from medvlm.batch.parcel import StudyParcel
from medvlm.batch.prepare import Sending
from medvlm.batch.quarantine import Quarantine
from medvlm.batch.ray_engine import RayEngine
from medvlm.batch.results import ResultFolder
from medvlm.batch.sources import parcels
from medvlm.batch.table import write_table
from medvlm.cli.ask import in_words
from medvlm.cli.common import (
    AsJson,
    CheckpointName,
    LlmPath,
    PolicyFile,
    err,
    load_with_notice,
    read_with_progress,
    writable,
)
from medvlm.cli.prior import PriorInput, priors_of
from medvlm.cli.run import Report, followed
from medvlm.config.policy import site_policy
from medvlm.dicom.study import group_studies
from medvlm.errors import MissingExtra, UsageError
from medvlm.export.sr_content import Kind
from medvlm.image.geometry import Box
from medvlm.resources import sample_film

SOURCE = "source"
DEMO_REGION = Box(1050, 1000, 500, 500)
DEMO_QUESTIONS = (("Where is the left lung?", None), ("What is in this region?", DEMO_REGION))

Places = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT...",
        help="Files, folders, zip archives, DICOMDIR; storage such as s3://...; "
        "dicomweb+https://... of a PACS.",
    ),
]
Manifest = Annotated[
    str | None,
    typer.Option("--manifest", help="A CSV or Parquet file whose column `path` names inputs."),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Model processes; else as many as fit the machine."),
]
Device = Annotated[
    str, typer.Option("--device", envvar="MEDVLM_DEVICE", help="auto, cpu, cuda or cuda:N.")
]
SendSr = Annotated[
    str | None,
    typer.Option(
        "--send-sr",
        metavar="SERVER|source",
        help="Store each draft as a preliminary structured report on this DICOMweb server "
        "(dicomweb+https://...), or on the one that the studies come from.",
    ),
]
SrKind = Annotated[Kind, typer.Option("--sr-kind", help="Basic text, or with codes and regions.")]
EngineName = Annotated[
    Literal["local", "ray"],
    typer.Option("--engine", help="This machine's processes, or Ray's (docs/cluster.md)."),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        help="host:port of a cluster's head, or auto; else Ray runs on this machine only.",
    ),
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try studies again that failed in an earlier run.")
]


def draft(
    out: Annotated[Path, typer.Option("--out", help="Folder for DIR/<study>/draft.json.")],
    inputs: Places = None,
    manifest: Manifest = None,
    checkpoint: CheckpointName = None,
    prior: PriorInput = None,
    llm_path: LlmPath = None,
    policy: PolicyFile = None,
    retry_failed: RetryFailed = False,
    workers: Workers = None,
    device: Device = "auto",
    engine: EngineName = "local",
    ray_address: RayAddress = None,
    send_sr: SendSr = None,
    sr_kind: SrKind = "basic",
    as_json: AsJson = False,
) -> None:
    """Drafts every study into OUT/<study>/ (draft.json, draft.md, overlay.png, crops/).

    A study already drafted from the same files by the same checkpoint is left alone, so an
    interrupted run goes on where it stopped. A refused study gets a draft.json that says why. A
    study that fails is recorded in OUT/quarantine/ and tried again only with --retry-failed.
    OUT/findings.parquet holds the findings of all drafts.

    With --prior, each study is compared with an earlier one of the same patient, and its findings
    say what is new, unchanged, larger, smaller or no longer seen, where that is beyond doubt.
    Without it, a draft never compares.
    """
    given = inputs or []
    if not given and manifest is None:
        raise UsageError("nothing to draft", remedy="give an INPUT, or a --manifest")
    # os.path, for it does not raise on a name that cannot be followed.
    if any(os.path.realpath(path) == os.path.realpath(out) for path in given):
        raise UsageError("--out is the input itself", remedy="give a folder of its own")
    writable(out)
    settings = Settings(
        out,
        checkpoint,
        llm_path,
        site_policy(policy),
        retry_failed=retry_failed,
        workers=workers,
        device=device,
        send=_sending(send_sr, sr_kind, given, manifest),
    )
    runs_on = _engine(engine, ray_address)
    with contextlib.closing(Report(out)) as report:
        with settings.results.in_use():
            try:
                _run(given, manifest, prior, settings, runs_on, report)
            except KeyboardInterrupt:
                done = f"stopped after {report.studies.count} studies"
                err.print(f"{done}; the same command goes on there", markup=False)
                raise typer.Exit(130) from None
        if as_json:
            report.print_json()
        else:
            report.tell()
        report.tell_failures()
        if report.failed.count:
            raise typer.Exit(1)


def _engine(name: Literal["local", "ray"], address: str | None) -> Engine:
    def notice(text: str) -> None:
        err.print(f"notice: {text}", markup=False)

    if name == "ray":
        return RayEngine(address, notice)
    if address is not None:
        raise UsageError("--ray-address is of no use without Ray", remedy="add --engine ray")
    return LocalEngine(notice)


def _sending(
    server: str | None, kind: Kind, inputs: list[str], manifest: str | None
) -> Sending | None:
    """Raises UsageError for an address that is none, or where no server is a study's source."""
    if server is None:
        return None
    if server != SOURCE:
        return Sending(Server.of(server).address, kind)
    if manifest is not None or not all(text.startswith(SCHEME) for text in inputs):
        raise UsageError(
            "--send-sr source: some studies come from no server",
            remedy="give the server's address, dicomweb+https://...",
        )
    return Sending(None, kind)


def _run(
    inputs: list[str],
    manifest: str | None,
    prior: str | None,
    settings: Settings,
    engine: Engine,
    report: Report,
) -> None:
    quarantine = Quarantine(settings.out)
    with Progress(console=err, transient=True) as progress:
        task = progress.add_task("reading", total=None)
        found, total, refused = parcels(
            inputs,
            manifest=manifest,
            but=settings.out,
            priors=priors_of(prior, settings.out),
            progress=lambda done, of: progress.update(task, completed=done, total=of),
        )
    report.refuse(refused)
    quarantine.keep_unread(refused)
    if total != 0:
        run = engine.run(quarantine.forget_read(found), replace(settings, total=total))
        with contextlib.closing(run):
            followed(run, report, total)
    try:
        write_table(settings.out)
    except MissingExtra as missing:
        err.print(f"notice: {missing}", markup=False)


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("demo-out"),
    checkpoint: CheckpointName = None,
    llm_path: LlmPath = None,
) -> None:
    """Drafts a real chest radiograph and asks it two questions, one over a drawn region."""
    from medvlm.draft.answer import answer_question
    from medvlm.image.load import load_image

    film = sample_film()
    typer.echo(f"A real radiograph from the package pydicom-data: {film.name}")
    (study,) = group_studies(read_with_progress([film]))
    loaded = load_with_notice(checkpoint, llm_path)
    writable(out)
    folder = out / study.name
    results = ResultFolder(out)
    with results.in_use(), err.status("drafting ..."):
        shutil.rmtree(folder, ignore_errors=True)
        draft_parcel(loaded, StudyParcel(study), results)
    typer.echo((folder / "draft.md").read_text(encoding="utf-8"))
    image = load_image(study.instances[0])
    for question, region in DEMO_QUESTIONS:
        answer = answer_question(loaded, image, question, region)
        over = ""
        if region is not None:
            over = f" [region {region.x:g},{region.y:g},{region.width:g},{region.height:g}]"
        typer.echo(f"> {question}{over}\n{in_words(answer)}\n")
    typer.echo(f"Written: {', '.join(str(path) for path in sorted(folder.glob('[!.]*')))}")
