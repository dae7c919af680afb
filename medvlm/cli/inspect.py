"""`medvlm inspect`: what an input is, and what is wrong with it."""

from __future__ import annotations

from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from medvlm.cli.common import AsJson, Inputs, print_json, read_with_progress
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
    # Names of files and words of headers are not markup, and a pipe is no narrow terminal.
    out = Console(markup=False, highlight=False, soft_wrap=True)
    studies, refused = inspection["studies"], inspection["refused"]
    images = sum(series["instances"] for study in studies for series in study["series"])
    out.print(
        f"{count(images, 'image')} in {count(len(studies), 'study', 'studies')} of "
        f"{count(len(inspection['patients']), 'patient')}; {count(len(refused), 'file')} refused"
    )
    for study in studies:
        out.print(f"\nstudy {study['study_instance_uid'] or '(no UID)'}")
        out.print(_series_table(study["series"]))
        for number, series in enumerate(study["series"], 1):
            for one in series["problems"]:
                out.print(f"  series {number}: {one['message']} [{one['code']}, {one['action']}]")
    if refused:
        out.print("\nrefused")
        for item in refused:
            out.print(f"  {item['file']}: {item['message']} [{item['code']}]")


def _series_table(several: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("  series", "modality", "images", "volume", "spacing (mm)", "axes", "problems"):
        table.add_column(name, no_wrap=True)
    for number, series in enumerate(several, 1):
        cells = [f"  {number}", series["modality"] or "-", str(series["instances"])]
        volumes = series["volumes"] or [None]
        problems = len(series["problems"])
        for row, volume in enumerate(volumes):
            own = cells if row == 0 else ["", "", ""]
            end = str(problems or "-") if row == 0 else ""
            table.add_row(*map(Text, [*own, *_volume(volume), end]))
    return table


def _volume(volume: dict[str, Any] | None) -> tuple[str, str, str]:
    if volume is None:
        return "-", "-", "-"
    shape = " x ".join(str(length) for length in volume["shape"])
    if volume["repeats"] > 1:
        shape += f", {volume['repeats']} times"
    spacing = " x ".join(f"{length:.4g}" for length in volume["spacing_mm"])
    return shape, spacing, volume["orientation"]
