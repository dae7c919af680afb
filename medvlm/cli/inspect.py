"""`medvlm inspect`: what an input is, and what is wrong with it."""

from __future__ import annotations

import typer

from medvlm.cli.common import AsJson, Inputs, print_json, read_with_progress
from medvlm.dicom.inspect import inspect_reading, summarise


def inspect(inputs: Inputs, as_json: AsJson = False) -> None:
    """Says what the input is: studies, series, volumes, problems. Decodes everything."""
    reading = read_with_progress(inputs, decode=True)
    inspection = inspect_reading(reading)
    if as_json:
        print_json(inspection)
    else:
        typer.echo(summarise(inspection))
    if not reading.instances:
        raise typer.Exit(1)
