"""A model's description as tables for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from medvlm.model.connectors.interface import times
from medvlm.model.describe import Description

NARROWEST = 100
UNKNOWN = "not known"


def show(description: Description) -> None:
    """Prints input, maps and tokens, a table of the parts, and what all of it costs."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = NARROWEST
    most = description.at_most
    above = Table.grid(padding=(0, 2))
    above.add_row("input", f"{times(description.input)} pixels, one channel")
    for stride, (channels, *cells) in description.maps.items():
        above.add_row(f"map, stride {stride}", f"{times(tuple(cells))} of {channels} channels")
    above.add_row("visual tokens", f"{description.tokens} for a picture, 4 more for a region")
    above.add_row("at most", f"{most.tokens} visual tokens, of {most.pictures} pictures")
    below = Table.grid(padding=(0, 2))
    for stage, count in description.learns.items():
        below.add_row(stage, f"trains {_count(count)} parameters")
    below.add_row("one look", f"{_giga(description.look)} GMAC: all encoders and heads, all sizes")
    below.add_row("its tokens", f"about {_giga(description.prefill)} GFLOP in the language model")
    console.print(above, _parts(description), below, "1 GMAC is 2 GFLOP", sep="\n")


def _parts(description: Description) -> Table:
    table = Table(show_footer=True)
    table.add_column("part", "all")
    table.add_column("what")
    right = {"justify": "right", "no_wrap": True}
    table.add_column("parameters", _count(description.parameters), **right)  # type: ignore[arg-type]
    table.add_column("trained in")
    table.add_column("GMAC", **right)  # type: ignore[arg-type]
    table.add_column("stored MB", _mega(description.stored), **right)  # type: ignore[arg-type]
    for part in description.parts:
        table.add_row(
            part.name,
            part.what,
            _count(part.parameters),
            ", ".join(part.learns) or "never: frozen",
            _giga(part.macs),
            _mega(part.stored),
        )
    return table


def _count(n: int | None) -> str:
    return UNKNOWN if n is None else f"{n:,}"


def _giga(n: int | None) -> str:
    return UNKNOWN if n is None else f"{n / 1e9:.3f}"


def _mega(n: int | None) -> str:
    return UNKNOWN if n is None else f"{n / 1e6:.2f}"
