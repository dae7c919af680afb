"""`medvlm audit`: whether the desk's record of every action is as it was written."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from medvlm.cli.common import AsJson, print_json
from medvlm.config.desk import desk_config
from medvlm.dicom.stack import count
from medvlm.errors import MissingExtra

if TYPE_CHECKING:
    from medvlm.review.audit import Verdict

audit = typer.Typer(help="The desk's record of every action.", no_args_is_help=True)

Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        help="sqlite:///FILE or postgresql://...; else as the page is set up.",
    ),
]


@audit.callback()
def _group() -> None:
    """The desk's record of every action."""


@audit.command()
def verify(database: Database = None, as_json: AsJson = False) -> None:
    """Finds entries and signed reports that were changed, removed or put in. Exit 1: there are."""
    if importlib.util.find_spec("sqlalchemy") is None:
        raise MissingExtra("the desk needs a database", remedy="pip install 'medvlm[app]'")
    from medvlm.review import audit as record
    from medvlm.review.store import open_store

    with open_store(database or desk_config().database_url, make=False) as store:
        verdict = record.verify(store)
    if as_json:
        print_json({**asdict(verdict), "holds": verdict.holds})
    else:
        _print(verdict)
    if not verdict.holds:
        raise typer.Exit(1)


def _print(verdict: Verdict) -> None:
    entries = count(verdict.entries, "entry", "entries")
    if verdict.holds:
        typer.echo(f"{entries}, the chain holds")
        typer.echo(f"the last one's hash is {verdict.head}")
        return
    typer.echo(f"{entries}, the chain is broken:")
    for one in verdict.broken:
        place = "no entry" if one.number is None else f"entry {one.number}"
        typer.echo(f"  {place}: {one.why}")
