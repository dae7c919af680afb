"""`medvlm draft` and `medvlm demo`: draft reports into a folder."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError
from rich.progress import Progress

from medvlm import __version__
from medvlm.cli.ask import in_words
from medvlm.cli.common import (
    AsJson,
    CheckpointName,
    Inputs,
    LlmPath,
    PolicyFile,
    err,
    load_with_notice,
    print_json,
    read_with_progress,
    report_refused,
    writable,
    write_atomically,
)
from medvlm.cli.prior import FindPrior, PriorInput, no_prior, prior_finder
from medvlm.config.policy import site_policy
from medvlm.dicom.prior import Prior
from medvlm.dicom.read import Refused
from medvlm.dicom.study import Study, group_studies
from medvlm.errors import InputError, UsageError
from medvlm.findings import PHRASES
from medvlm.image.geometry import Box
from medvlm.records import Draft
from medvlm.resources import sample_film

if TYPE_CHECKING:
    from PIL import Image

    from medvlm.model.checkpoint import Checkpoint

KEY, OWNER, CROPS = ".inputs.sha256", ".patient", "crops"
UNKNOWN = "unknown"
TOLD = ("new", "larger", "smaller", "resolved")
DEMO_REGION = Box(1050, 1000, 500, 500)
DEMO_QUESTIONS = (("Where is the left lung?", None), ("What is in this region?", DEMO_REGION))


@dataclass
class Outcome:
    """What became of the inputs."""

    studies: list[dict[str, Any]] = field(default_factory=list)
    failed: list[Refused] = field(default_factory=list)


def draft(
    inputs: Inputs,
    out: Annotated[Path, typer.Option("--out", help="Folder for DIR/<study>/draft.json.")],
    checkpoint: CheckpointName = None,
    prior: PriorInput = None,
    llm_path: LlmPath = None,
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Drafts every study into OUT/<study>/ (draft.json, draft.md, overlay.png, crops/).

    A study already drafted from the same files by the same checkpoint is left alone, so an
    interrupted run goes on where it stopped. A refused study gets a draft.json that says why.

    With --prior, each study is compared with an earlier one of the same patient, and its findings
    say what is new, unchanged, larger, smaller or no longer seen, where that is beyond doubt.
    Without it, a draft never compares.
    """
    # os.path, for it does not raise on a name that cannot be followed.
    if any(os.path.realpath(path) == os.path.realpath(out) for path in inputs):
        raise UsageError("--out is the input itself", remedy="give a folder of its own")
    writable(out)
    reading = read_with_progress(inputs, but=out)
    outcome = Outcome(failed=reading.failed)
    if studies := group_studies(reading):
        find_prior = prior_finder(prior, studies, outcome.failed, out)
        loaded = load_with_notice(checkpoint, llm_path, site_policy(policy))
        _draft_all(loaded, studies, out, outcome, find_prior)
    if as_json:
        print_json(
            {
                "studies": outcome.studies,
                "failed": [
                    {"file": item.file, "code": item.code, "message": item.message}
                    for item in outcome.failed
                ],
            }
        )
    else:
        for study in outcome.studies:
            typer.echo(f"{study['study']}: {study['summary']}")
        refused = sum(not study["accepted"] for study in outcome.studies)
        typer.echo(
            f"{len(outcome.studies) - refused} drafted, {refused} refused by the gate, "
            f"{len(outcome.failed)} failed; results in {out}"
        )
    report_refused(outcome.failed)
    if outcome.failed:
        raise typer.Exit(1)


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
    folder = out / study.name
    shutil.rmtree(folder, ignore_errors=True)
    outcome = Outcome()
    _draft_all(loaded, [study], out, outcome)
    typer.echo((folder / "draft.md").read_text(encoding="utf-8"))
    image = load_image(study.instances[0])
    for question, region in DEMO_QUESTIONS:
        answer = answer_question(loaded, image, question, region)
        over = ""
        if region is not None:
            over = f" [region {region.x:g},{region.y:g},{region.width:g},{region.height:g}]"
        typer.echo(f"> {question}{over}\n{in_words(answer)}\n")
    typer.echo(f"Written: {', '.join(str(path) for path in sorted(folder.glob('[!.]*')))}")


def _draft_all(
    checkpoint: Checkpoint,
    studies: list[Study],
    out: Path,
    outcome: Outcome,
    find_prior: FindPrior = no_prior,
) -> None:
    with Progress(console=err, transient=True) as progress:
        for study in progress.track(studies, description="drafting"):
            folder = _folder(out, study)
            try:
                prior = find_prior(study)
                key = _key(checkpoint, study, prior)
                done = _finished(folder, key)
                written = done or _draft_one(checkpoint, study, prior, folder, key, outcome)
            except InputError as error:
                outcome.failed.append(Refused.because(error, study.instances[0].file))
                continue
            except Exception as error:  # one study must not end a night's batch
                if os.environ.get("MEDVLM_DEBUG"):
                    raise
                message = f"an error of medvlm's own ({type(error).__name__})"
                remedy = "Run it alone with MEDVLM_DEBUG=1 and report what it prints."
                failed = Refused(study.instances[0].file, "internal", message, remedy)
                outcome.failed.append(failed)
                continue
            outcome.studies.append(
                {
                    "study": folder.name,
                    "accepted": written.input_check.accepted,
                    "draft": str(folder / "draft.json"),
                    "resumed": done is not None,
                    "summary": _summary(written),
                }
            )


def _folder(out: Path, study: Study) -> Path:
    """The study's folder; with the patient's pseudonym where another patient's draft has the name.

    Two patients may share a StudyInstanceUID in different calls.
    """
    folder = out / study.name
    owner = _lines(folder / OWNER)
    if not owner or owner == [study.patient or UNKNOWN]:
        return folder
    return out / f"{study.name}-{study.patient or UNKNOWN}"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def _key(checkpoint: Checkpoint, study: Study, prior: Prior | None) -> str:
    """What a draft was made from: checkpoint, operating points, and the studies' files."""
    parts = [__version__, checkpoint.config.model_dump_json(), checkpoint.policy.model_dump_json()]
    parts += sorted(instance.sha256 for instance in study.instances)
    if prior is not None:
        parts += ["prior", *sorted(instance.sha256 for instance in prior.study.instances)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _finished(folder: Path, key: str) -> Draft | None:
    """The draft of an earlier run from the same files by the same checkpoint, if it is whole."""
    try:
        if _lines(folder / KEY) != [key]:
            return None
        return Draft.model_validate_json((folder / "draft.json").read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError):
        return None


def _draft_one(
    checkpoint: Checkpoint,
    study: Study,
    prior: Prior | None,
    folder: Path,
    key: str,
    outcome: Outcome,
) -> Draft:
    from medvlm.draft.compose import draft_study
    from medvlm.draft.markdown import to_markdown

    result = draft_study(checkpoint, study, prior)
    outcome.failed += result.failed
    folder.mkdir(parents=True, exist_ok=True)
    (folder / KEY).unlink(missing_ok=True)
    write_atomically(folder / OWNER, study.patient or UNKNOWN)
    overlay = folder / "overlay.png"
    if result.overlay is not None:
        partial = folder / ".overlay.png.partial"
        result.overlay.save(partial, format="PNG")
        partial.replace(overlay)
    else:
        overlay.unlink(missing_ok=True)
    _write_crops(folder, result.crops)
    write_atomically(folder / "draft.md", to_markdown(result.draft, f"Draft {folder.name}"))
    write_atomically(folder / "draft.json", result.draft.model_dump_json(indent=2) + "\n")
    if not result.failed:
        # The last to appear; without it the study is done again, and so is its failure.
        write_atomically(folder / KEY, key)
    return result.draft


def _write_crops(folder: Path, crops: Mapping[str, Image.Image]) -> None:
    """In the order of the draft; those of an earlier draft go."""
    place = folder / CROPS
    shutil.rmtree(place, ignore_errors=True)
    if not crops:
        return
    place.mkdir()
    for number, (finding, picture) in enumerate(crops.items(), 1):
        picture.save(place / f"{number:02}-{finding}.png", format="PNG")


def _summary(draft: Draft) -> str:
    if not draft.input_check.accepted:
        counted = Counter(reason.message for reason in draft.input_check.reasons)
        return "refused: " + " ".join(counted)
    parts = []
    for polarity, word in (("present", ""), ("uncertain", "possible ")):
        named = [PHRASES[f.finding] for f in draft.findings if f.polarity == polarity]
        parts += [word + name for name in named]
    said = ", ".join(parts) or "none of the findings looked for"
    changed = [f"{PHRASES[f.finding]} {f.change}" for f in draft.findings if f.change in TOLD]
    return f"{said} (since the prior: {', '.join(changed)})" if changed else said
