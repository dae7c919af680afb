"""A checkpoint's operating points as a table for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from medvlm.findings import FINDINGS, PHRASES

if TYPE_CHECKING:
    from medvlm.model.checkpoint import Checkpoint

NOT_TOLD = "too few"


def point_rows(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """For each finding its cut-offs (calibrated probabilities), and the shares of validation films
    that are called rightly when it is called present; null where too few films can tell."""
    references = checkpoint.extras.references
    rows = []
    for i, finding in enumerate(FINDINGS):
        absent_below, present_from = checkpoint.config.operating_points.cuts(finding)
        shares = references.shares(finding, present_from) if references else (None, None)
        counts = references.counts[i].tolist() if references else [0, 0]
        rows.append(
            {
                "finding": finding,
                "absent_below": round(absent_below, 4),
                "present_from": round(present_from, 4),
                "sensitivity": None if shares[0] is None else round(shares[0], 2),
                "specificity": None if shares[1] is None else round(shares[1], 2),
                "films_with": counts[0],
                "films_without": counts[1],
            }
        )
    return rows


def show_points(rows: list[dict[str, Any]]) -> None:
    """Prints what `point_rows` found."""
    table = Table()
    table.add_column("finding")
    for title in ("absent below", "present from", "sensitivity", "specificity", "films"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        shares = [
            NOT_TOLD if row[name] is None else f"{row[name]:.0%}"
            for name in ("sensitivity", "specificity")
        ]
        cuts = [f"{row[name]:.3f}" for name in ("absent_below", "present_from")]
        films = f"{row['films_with']} with, {row['films_without']} without"
        table.add_row(PHRASES[row["finding"]], *cuts, *shares, films)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 110
    console.print(table)
    console.print("Shares: of the checkpoint's validation films, when called present.")
