"""`medvlm inspect`: what an input is, and what is wrong with it."""

from __future__ import annotations

from typing import Any

import typer

from medvlm.cli.common import AsJson, Inputs, print_json, read_with_progress
from medvlm.dicom.files import printable
from medvlm.dicom.inspect import inspect_reading
from medvlm.dicom.stack import count


def inspect(inputs: Inputs, as_json: AsJson = False) -> None:
    """Says what the input is: studies, series, volumes, problems. Decodes everything."""
    reading = read_with_progress(inputs, decode=True)
    inspection = inspect_reading(reading)
    if as_json:
        print_json(inspection)
    else:
        _print(inspection)
    if not reading.instances:
        raise typer.Exit(1)


def _print(inspection: dict[str, Any]) -> None:
    studies, refused = inspection["studies"], inspection["refused"]
    images = sum(series["instances"] for study in studies for series in study["series"])
    typer.echo(
        f"{count(images, 'image')} in {count(len(studies), 'study', 'studies')} of "
        f"{count(len(inspection['patients']), 'patient')}; {count(len(refused), 'file')} refused"
    )
    for study in studies:
        typer.echo(f"\nstudy {study['study_instance_uid'] or '(no UID)'}")
        for line in _series_table(study["series"]):
            typer.echo(line)
        for number, series in enumerate(study["series"], 1):
            for one in series["problems"]:
                message = printable(one["message"])
                typer.echo(f"  series {number}: {message} [{one['code']}, {one['action']}]")
    if refused:
        typer.echo("\nrefused")
        for item in refused:
            typer.echo(f"  {printable(item['file'])}: {item['message']} [{item['code']}]")


def _series_table(several: list[dict[str, Any]]) -> list[str]:
    """Lines of columns as wide as they have to be: nothing is cut off in a pipe."""
    rows = [("series", "modality", "images", "volume", "spacing (mm)", "axes", "problems")]
    for number, series in enumerate(several, 1):
        modality = printable(series["modality"] or "-")
        own = (str(number), modality, str(series["instances"]))
        problems = str(len(series["problems"]) or "-")
        for volume in series["volumes"] or [None]:
            rows.append((*own, *_volume(volume), problems))
            own, problems = ("", "", ""), ""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _volume(volume: dict[str, Any] | None) -> tuple[str, str, str]:
    if volume is None:
        return "-", "-", "-"
    shape = " x ".join(str(length) for length in volume["shape"])
    if volume["repeats"] > 1:
        shape += f", {volume['repeats']} times"
    spacing = " x ".join(f"{length:.4g}" for length in volume["spacing_mm"])
    return shape, spacing, volume["orientation"]
