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
    """For each finding its cut-offs (calibrated probabilities), and what they mean for validation
    films: `called` is possible or present, `stated` present alone; null where too few can tell."""
    references = checkpoint.extras.references
    rows = []
    for i, finding in enumerate(FINDINGS):
        absent_below, present_from = checkpoint.config.operating_points.cuts(finding)
        counts = references.counts[i].tolist() if references else [0, 0]
        row = {
            "finding": finding,
            "denied_below": round(absent_below, 4),
            "stated_from": round(present_from, 4),
            "films_with": counts[0],
            "films_without": counts[1],
        }
        for name, cut in (("called", absent_below), ("stated", present_from)):
            shares = references.shares(finding, cut) if references else (None, None)
            for kind, share in zip(("sensitivity", "specificity"), shares, strict=True):
                row[f"{name}_{kind}"] = None if share is None else round(share, 2)
        rows.append(row)
    return rows


def show_points(rows: list[dict[str, Any]]) -> None:
    """Prints what `point_rows` found."""
    table = Table()
    table.add_column("finding")
    for title in (
        "denied below",
        "stated from",
        "called: sens./spec.",
        "stated: sens./spec.",
        "films",
    ):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            PHRASES[row["finding"]],
            f"{row['denied_below']:.3f}",
            f"{row['stated_from']:.3f}",
            _pair(row, "called"),
            _pair(row, "stated"),
            f"{row['films_with']} with, {row['films_without']} without",
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    console.print(table)
    console.print("Shares of the checkpoint's validation films. Called: possible or present.")


def _pair(row: dict[str, Any], name: str) -> str:
    shares = [row[f"{name}_{kind}"] for kind in ("sensitivity", "specificity")]
    return " / ".join(NOT_TOLD if share is None else f"{share:.0%}" for share in shares)
