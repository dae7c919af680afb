"""Pictures of an evaluation, drawn from its JSON alone: ROC curves, reliability, risk, groups."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from medvlm.errors import MissingExtra

Scores = dict[str, Any]

_DPI = 110
_COLUMNS = 4
_ALL = (-0.02, 1.02)
_FEW = 10  # pairs in a bin whose frequency says little
_BLUE, _ORANGE, _GREY = "tab:blue", "tab:orange", "0.6"


def pyplot() -> Any:
    """matplotlib's pyplot, drawing into files. Raises MissingExtra where it is not installed."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtra(
            "pictures need matplotlib", remedy="install it with `pip install 'medvlm[plots]'`"
        ) from error
    plt.switch_backend("agg")
    return plt


def draw(scores: Scores, folder: Path, stem: str) -> list[str]:
    """Writes the pictures that an evaluation has figures for; their names in `folder`."""
    plt = pyplot()
    written = []
    drawings: tuple[tuple[str, Callable[[Any, Scores], Any]], ...] = (
        ("roc", _roc),
        ("reliability", _reliability),
        ("risk_coverage", _risk),
        ("subgroups", _subgroups),
    )
    for name, drawing in drawings:
        if (figure := drawing(plt, scores)) is not None:
            file = f"{stem}-{name}.png"
            figure.savefig(folder / file, dpi=_DPI)
            plt.close(figure)
            written.append(file)
    return written


def _roc(plt: Any, scores: Scores) -> Any:
    """A panel for each finding that has negatives and enough positives."""
    table = scores.get("classification", {}).get("per_finding", {})
    drawn = {
        name: own
        for name, own in table.items()
        if own["auroc"] is not None and not own.get("too_few")
    }
    if not drawn:
        return None
    columns = min(_COLUMNS, len(drawn))
    lines = -(-len(drawn) // columns)
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(2.5 * max(columns, 2), 2.6 * lines + 0.5),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for axis, (name, own) in zip(axes.flat, drawn.items(), strict=False):
        axis.plot([0, 1], [0, 1], ":", color=_GREY, lw=1)
        axis.plot(own["roc"]["fpr"], own["roc"]["tpr"], color=_BLUE, lw=1.5)
        low, high = own["auroc_ci"] or (own["auroc"],) * 2
        axis.set_title(
            f"{name.replace('_', ' ')}\n{own['auroc']:.2f} ({low:.2f} to {high:.2f})", fontsize=9
        )
        axis.text(0.97, 0.05, f"{own['n_positive']} of {own['n']}", ha="right", fontsize=8)
        axis.set(aspect="equal", xlim=_ALL, ylim=_ALL, xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        axis.tick_params(labelsize=8, labelbottom=True)
    for axis in axes.flat[len(drawn) :]:
        axis.set_axis_off()
    figure.supxlabel("false positives, share of the negatives", fontsize=9)
    figure.supylabel("found, share of the positives", fontsize=9)
    figure.suptitle(f"{_title(scores)}: ROC curves, AUROC with 95 % interval", fontsize=11)
    return figure


def _reliability(plt: Any, scores: Scores) -> Any:
    """How often a finding was there where it was given a probability, over how often it was."""
    bins = scores.get("calibration", {}).get("bins")
    if not bins:
        return None
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(5, 6), height_ratios=(3, 1), sharex=True, layout="constrained"
    )
    upper.plot([0, 1], [0, 1], ":", color=_GREY, lw=1, label="as it should be")
    enough = [own for own in bins if own["n"] >= _FEW]
    few = [own for own in bins if own["n"] < _FEW]
    for chosen, look, label in (
        (enough, {"fmt": "o-"}, "measured"),
        (few, {"fmt": "o", "mfc": "white", "alpha": 0.5}, f"fewer than {_FEW} pairs"),
    ):
        if chosen:
            there = [own["frequency"] for own in chosen]
            below = [own["frequency"] - own["frequency_ci"][0] for own in chosen]
            above = [own["frequency_ci"][1] - own["frequency"] for own in chosen]
            said = [own["mean_p"] for own in chosen]
            upper.errorbar(
                said,
                there,
                (below, above),
                ms=4,
                lw=1.2,
                capsize=2,
                color=_BLUE,
                label=label,
                **look,
            )
    ece = scores["calibration"]["ece"]
    upper.set(ylabel="how often it was there", xlim=(0, 1), ylim=_ALL)
    upper.set_title(f"{_title(scores)}: reliability, ECE {ece:.3f}", fontsize=11)
    upper.legend(loc="upper left", fontsize=8)
    widths = [own["high"] - own["low"] for own in bins]
    lower.bar([own["low"] for own in bins], [own["n"] for own in bins], widths, align="edge",
              color=_BLUE, edgecolor="white", lw=0.5)  # fmt: skip
    lower.set(xlabel="probability given", ylabel="film-finding pairs", yscale="log")
    lower.set_ylim(bottom=0.7)
    return figure


def _risk(plt: Any, scores: Scores) -> Any:
    """Wrong decisions among the most confident."""
    curve = scores.get("calibration", {}).get("risk_coverage")
    if not curve:
        return None
    figure, axis = plt.subplots(figsize=(5, 3.6), layout="constrained")
    axis.plot(
        [100 * point["coverage"] for point in curve],
        [100 * point["risk"] for point in curve],
        "o-",
        ms=4,
        color=_BLUE,
    )
    axis.set(xlabel="decided, the surest first (%)", ylabel="of them wrong (%)", xlim=(0, 102))
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.set_title(f"{_title(scores)}: risk and coverage", fontsize=11)
    return figure


def _subgroups(plt: Any, scores: Scores) -> Any:
    """A forest: each group's macro AUROC beside all others', and how far it is overrated."""
    found = scores.get("classification", {}).get("subgroups", {})
    calibrated = scores.get("calibration", {}).get("subgroups", {})
    lines = [
        (f"{attribute}: {name} ({own['n']})", own, calibrated.get(attribute, {}).get(name, {}))
        for attribute, groups in found.items()
        for name, own in groups.items()
    ][::-1]
    if not lines:
        return None
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9, 1.3 + 0.32 * len(lines)), sharey=True, layout="constrained"
    )
    labels = set()
    for y, (_, own, other) in enumerate(lines):
        for axis, row, name, colour, shift, label in (
            (left, own, "macro_auroc", _BLUE, 0.1, "the group"),
            (left, own, "others_macro_auroc", _ORANGE, -0.1, "all others, same findings"),
            (right, other, "bias", _BLUE, 0.0, None),
        ):
            if row.get(name) is None:
                continue
            if row.get(f"{name}_ci"):
                axis.plot(row[f"{name}_ci"], [y + shift] * 2, color=colour, lw=1.3)
            fresh = label is not None and label not in labels
            axis.plot(row[name], y + shift, "o", ms=4, color=colour, label=label if fresh else None)
            labels.add(label)
        for axis, row, name in ((left, own, "macro_auroc"), (right, other, "bias")):
            if row.get(name) is None:
                axis.text(0.5, y, "too few", transform=axis.get_yaxis_transform(), color=_GREY,
                          ha="center", va="center", fontsize=8)  # fmt: skip
    left.set_yticks(range(len(lines)), [text for text, _, _ in lines], fontsize=8)
    left.set_ylim(-0.6, len(lines) - 0.4)
    left.set_xlabel("macro AUROC", fontsize=9)
    right.set_xlabel("mean probability less frequency", fontsize=9)
    right.axvline(0, color=_GREY, ls=":", lw=1)
    for axis in (left, right):
        axis.grid(axis="x", alpha=0.3)
        axis.tick_params(axis="x", labelsize=8)
    if labels - {None}:
        left.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    figure.suptitle(f"{_title(scores)}: groups (films), 95 % intervals", fontsize=11)
    return figure


def _title(scores: Scores) -> str:
    data = scores["data"]
    return f"{data['name']} ({data['split']}, {data['images']} films)"
