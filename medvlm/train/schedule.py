"""Learning rates by step, as factors of the configured one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from medvlm.config import Phase


def cosine(step: int, total: int, warm_up: int, floor: float) -> float:
    """Linear over `warm_up` steps, then half a cosine down to `floor`."""
    if step < warm_up:
        return (step + 1) / warm_up
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, total))))


def cycles(
    phases: Sequence[Phase], steps: int, warm_up: int, floor: float
) -> Callable[[int], float]:
    """A cosine over all phases; a restart begins a new one at half the height of the last.

    `steps`: of an epoch.
    """
    lengths: list[int] = []
    for phase in phases:
        if phase.restart or not lengths:
            lengths.append(0)
        lengths[-1] += phase.epochs * steps
    starts = np.cumsum([0, *lengths])

    def rate(step: int) -> float:
        cycle = min(int(np.searchsorted(starts, step, side="right")) - 1, len(lengths) - 1)
        return 0.5**cycle * cosine(step - int(starts[cycle]), lengths[cycle], warm_up, floor)

    return rate


def cycle_ends(phases: Sequence[Phase]) -> Iterator[int]:
    """Epochs done at the end of each cycle of the learning rate."""
    done = 0
    for i, phase in enumerate(phases):
        done += phase.epochs
        if i + 1 == len(phases) or phases[i + 1].restart:
            yield done
