"""Pictures of a comparison: a forest of intervals, or curves over how much there was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medvlm.evaluate.comparison import Compared
from medvlm.evaluate.plots import pyplot

WIDE, COLUMNS = 4.0, 3
Curves = Mapping[str, Mapping[float, str]]
"""By series, the variants by their x."""


def plot(title: str, compared: Sequence[Compared], curves: Curves, label: str, path: Path) -> None:
    """Writes a PNG with one panel for each figure; without curves, a row for each variant.

    Dots are the seeds. Raises MissingExtra without matplotlib.
    """
    plt = pyplot()
    columns = min(COLUMNS, len(compared))
    rows = -(-len(compared) // columns)
    height = 2.6 if curves else 0.9 + 0.32 * len(compared[0].values)
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDE * columns, height * rows), squeeze=False, layout="constrained"
    )
    for axis, item in zip(axes.flat, compared, strict=False):
        axis.set_title(item.figure.title, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
        if curves:
            _curves(axis, item, curves, label)
        else:
            _forest(axis, item)
    for axis in axes.flat[len(compared) :]:
        axis.set_axis_off()
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _forest(axis: Any, item: Compared) -> None:
    names = list(item.values)
    for y, name in enumerate(reversed(names)):
        value = item.values[name]
        axis.plot([value.low, value.high], [y, y], color="tab:blue", lw=1.5)
        axis.plot(item.seeds[name], [y] * len(item.seeds[name]), "o", ms=3, color="tab:orange")
        axis.plot([value.mean], [y], "|", ms=10, color="tab:blue")
    axis.set_yticks(range(len(names)), list(reversed(names)))
    axis.set_ylim(-0.5, len(names) - 0.5)


def _curves(axis: Any, item: Compared, curves: Curves, label: str) -> None:
    for series, own in curves.items():
        xs = sorted(own)
        values = [item.values[own[x]] for x in xs]
        (line,) = axis.plot(xs, [value.mean for value in values], "o-", ms=4, label=series)
        low, high = [value.low for value in values], [value.high for value in values]
        axis.fill_between(xs, low, high, alpha=0.15, color=line.get_color())
    axis.set_xscale("log")
    axis.set_xticks(xs, [f"{x:g}" for x in xs])
    axis.set_xlabel(label, fontsize=8)
    axis.legend(fontsize=8)
