"""From the scores of several systems to a table: each figure with its interval, each difference
paired.

Systems are held against a reference over the same samples; intervals are by patient (or image) and
over seeds, and whether a difference stands is judged after Holm's adjustment for the number of
variants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medvlm.evaluate.bootstrap import Counts, Floats
from medvlm.evaluate.metrics import auroc_of, macro_auroc_of
from medvlm.evaluate.statistics import (
    Estimate,
    Statistic,
    Verdict,
    estimate_of,
    paired_gain_of,
    verdicts,
)

Scores = Mapping[str, np.ndarray]
RESAMPLES = 1000


@dataclass(frozen=True)
class Figure:
    """One column of the table: a name, what it says, and how it comes from one run's scores.

    `needs`: the arrays without which there is no such figure; `groups`: the array that says whose
    each sample is.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    groups: str
    output: Callable[[Scores], np.ndarray]
    statistic: Callable[[Scores], Statistic[np.ndarray]]


def _macro(scores: Scores) -> Statistic[np.ndarray]:
    truth = scores["truth"]

    def of(output: np.ndarray, counts: Counts) -> Floats:
        return macro_auroc_of(truth, output, counts)

    return of


def _region(scores: Scores) -> Statistic[np.ndarray]:
    truth = scores["region_truth"]

    def of(output: np.ndarray, counts: Counts) -> Floats:
        return auroc_of(truth, output, counts)

    return of


def _mean(scores: Scores) -> Statistic[np.ndarray]:
    def of(output: np.ndarray, counts: Counts) -> Floats:
        return np.asarray(counts @ output / counts.sum(axis=1))

    return of


def _auroc_figure(name: str, title: str) -> Figure:
    return Figure(name, title, (name, "truth"), "film_groups", lambda s: s[name], _macro)


def _mean_figure(name: str, title: str, groups: str) -> Figure:
    return Figure(name, title, (name,), groups, lambda s: s[name], _mean)


FIGURES = (
    _auroc_figure("findings", "classifier, macro AUROC"),
    _auroc_figure("probe", "probe on the tokens, macro AUROC"),
    _auroc_figure("checklist", "language model's yes/no, macro AUROC"),
    _auroc_figure("checklist_swapped", "the same over another patient's film"),
    _mean_figure("closed", "VQA-RAD yes/no, accuracy", "closed_groups"),
    Figure(
        "closed_gain",
        "gain over another image",
        ("closed", "closed_swapped"),
        "closed_groups",
        lambda s: s["closed"] - s["closed_swapped"],
        _mean,
    ),
    Figure(
        "region",
        "opacity in a region, AUROC",
        ("region", "region_truth"),
        "region_groups",
        lambda s: s["region"],
        _region,
    ),
    _mean_figure("pointed", "opacity, pointing game", "box_groups"),
    _mean_figure("opacity_iou", "opacity, box IoU", "box_groups"),
    _mean_figure("lung_iou", "lungs, mask IoU", "lung_groups"),
)


@dataclass(frozen=True)
class Compared:
    """One figure over all variants: its value for each, and what differs from the reference."""

    figure: Figure
    values: dict[str, Estimate]
    seeds: dict[str, list[float]]
    against: dict[str, Verdict]


def compare(runs: Mapping[str, Sequence[Scores]], reference: str) -> list[Compared]:
    """`runs`: the scores of each variant, one for each seed.

    Figures that a variant's scores lack are left out. Raises ValueError if two runs were not scored
    on the same samples.
    """
    out = []
    for figure in FIGURES:
        if not all(
            need in scores for own in runs.values() for scores in own for need in figure.needs
        ):
            continue
        first = next(iter(runs.values()))[0]
        groups = first[figure.groups]
        for scores in (scores for own in runs.values() for scores in own):
            if not np.array_equal(scores[figure.groups], groups):
                raise ValueError(f"{figure.name}: not all runs were scored on the same samples")
        statistic = figure.statistic(first)
        outputs = {name: [figure.output(scores) for scores in own] for name, own in runs.items()}
        whole = np.ones((1, len(groups)))
        gains = {
            name: paired_gain_of(statistic, own, outputs[reference], groups, RESAMPLES)
            for name, own in outputs.items()
            if name != reference
        }
        out.append(
            Compared(
                figure=figure,
                values={
                    name: estimate_of(statistic, own, groups, RESAMPLES)
                    for name, own in outputs.items()
                },
                seeds={
                    name: [float(statistic(one, whole)[0]) for one in own]
                    for name, own in outputs.items()
                },
                against=verdicts(gains),
            )
        )
    return out


def markdown(
    title: str,
    reference: str,
    compared: Sequence[Compared],
    costs: Mapping[str, Mapping[str, float]],
    seeds: int,
) -> str:
    """A section of a document: a table of figures, one of differences, and what it cost."""
    names = list(costs)
    lines = [f"## {title}", "", _row(["", *(item.figure.title for item in compared)])]
    lines.append("|---" * (len(compared) + 1) + "|")
    for name in names:
        lines.append(_row([_named(name, reference), *(_value(c.values[name]) for c in compared)]))
    lines += ["", f"Less than, or more than, {reference} (bold: stands after Holm's adjustment):"]
    lines += ["", _row(["", *(item.figure.title for item in compared)])]
    lines.append("|---" * (len(compared) + 1) + "|")
    for name in names:
        if name != reference:
            lines.append(_row([name, *(_difference(c.against[name]) for c in compared)]))
    lines += [
        "",
        _row(["", "trained parameters", "visual tokens", "minutes a run"]),
        "|---" * 4 + "|",
    ]
    for name, cost in costs.items():
        tokens = f"{cost['tokens']:.0f}" if cost["tokens"] else "-"
        lines.append(
            _row([name, f"{cost['parameters'] / 1e6:.2f} M", tokens, f"{cost['seconds'] / 60:.1f}"])
        )
    total = sum(cost["seconds"] for cost in costs.values()) * seeds / 3600
    counted = "1 seed" if seeds == 1 else f"{seeds} seeds"
    lines += ["", f"{counted}; {total:.1f} hours of training in all."]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _named(name: str, reference: str) -> str:
    return f"{name} (reference)" if name == reference else name


def _value(value: Estimate) -> str:
    return f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"


def _difference(verdict: Verdict) -> str:
    gain = verdict.gain
    text = f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
    return text if verdict.says == "not told apart" else f"**{text}**"
