"""What the commands share: options, progress, words to people, atomic files."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from medvlm.config.policy import NO_POLICY, PolicyConfig
from medvlm.dicom.read import Reading, Refused, read_inputs
from medvlm.errors import MedVLMError, UsageError

if TYPE_CHECKING:
    from medvlm.model.checkpoint import Checkpoint

Inputs = Annotated[
    list[Path],
    typer.Argument(metavar="INPUT...", help="Files, folders, zip archives, DICOMDIR."),
]
CheckpointName = Annotated[
    str | None,
    typer.Option(
        "--checkpoint", help="Name or folder; else MEDVLM_CHECKPOINT, the promoted, the default."
    ),
]
LlmPath = Annotated[
    Path | None,
    typer.Option("--llm-path", help="The language model's folder or file; else MEDVLM_LLM_PATH."),
]
PolicyFile = Annotated[
    Path | None,
    typer.Option("--policy", help="A site's policy, a YAML file; else MEDVLM_POLICY."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Only JSON on stdout.")]

err = Console(stderr=True, highlight=False, soft_wrap=True)


def report_error(error: MedVLMError) -> None:
    """One error in its own words on stderr."""
    err.print(f"error: {error}", markup=False)


def report_refused(refused: Sequence[Refused]) -> None:
    """Files that failed, with what to do about them, on stderr."""
    for item in refused:
        remedy = f" {item.remedy}" if item.remedy else ""
        err.print(f"failed: {item.file}: {item.message}{remedy} [{item.code}]", markup=False)


def read_with_progress(
    paths: Sequence[Path], *, decode: bool = False, but: Path | None = None
) -> Reading:
    """`read_inputs` with a bar on stderr; `but`: a folder of results, left out where it is met."""
    with Progress(console=err, transient=True) as progress:
        task = progress.add_task("reading", total=None)
        return read_inputs(
            list(paths),
            lambda done, total: progress.update(task, completed=done, total=total),
            decode=decode,
            but=but,
        )


def load_with_notice(
    name: str | None, llm_path: Path | None, policy: PolicyConfig = NO_POLICY
) -> Checkpoint:
    """Loads a checkpoint under a policy and says so; importing torch takes its time."""
    with err.status("loading the model ..."):
        from medvlm.draft.policy import under_policy
        from medvlm.model.runtime.load import load_ready

        loaded = under_policy(load_ready(name, llm_path), policy)
    if loaded.config.status == "candidate":
        err.print("notice: this checkpoint is a candidate that nobody promoted yet", markup=False)
    return loaded


def print_json(content: Any) -> None:
    """JSON on stdout, for programs."""
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def writable(folder: Path) -> None:
    """Makes the folder and tries it, before hours of work. Raises UsageError if it will not do."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"nothing can be written into {folder}", remedy="choose another folder"
        ) from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """A file is either whole or not there; text is written as UTF-8."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
