"""What validation patients got: the probabilities of each finding, of those who have it and not.

Kept as quantiles, so that a site can ask for a sensitivity or specificity without the patients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvlm.findings import FINDINGS

STEPS = 100
"""Quantiles are kept at every hundredth."""
FEWEST = 10
"""With fewer patients' films a share would be a guess."""

Floats = NDArray[np.float64]
_GRID = np.arange(STEPS + 1) / STEPS


@dataclass(frozen=True)
class References:
    """Calibrated probabilities of F findings.

    `positives`, `negatives` [F, STEPS + 1]: quantiles of films with and without each finding, from
    the least to the greatest; `counts` [F, 2]: of how many. A finding with no such film has zeros.
    """

    positives: Floats
    negatives: Floats
    counts: NDArray[np.int64]

    @staticmethod
    def of(truth: Floats, probabilities: Floats) -> References:
        """From labels [N, F] (NaN: unknown) and probabilities [N, F]."""
        positives, negatives, counts = [], [], []
        for labels, said in zip(truth.T, probabilities.T, strict=True):
            with_it, without = np.sort(said[labels == 1]), np.sort(said[labels == 0])
            counts.append((len(with_it), len(without)))
            # One film is nobody's share, and would travel as what it is.
            with_it, without = (
                own if len(own) >= FEWEST else own[:0] for own in (with_it, without)
            )
            # Rounded so that what is asked for is reached on these very films.
            positives.append(_at(with_it, np.floor(_GRID * len(with_it) + 1e-9)))
            negatives.append(_at(without, np.ceil(_GRID * len(without) - 1e-9) - 1))
        return References(np.array(positives), np.array(negatives), np.array(counts))

    def enough(self, finding: str) -> tuple[bool, bool]:
        """Whether there are films enough with the finding, and without."""
        with_it, without = self.counts[FINDINGS.index(finding)]
        return bool(with_it >= FEWEST), bool(without >= FEWEST)

    def at_sensitivity(self, finding: str, wanted: float) -> float:
        """The highest probability from which at least `wanted` of the positives are called."""
        return float(self.positives[FINDINGS.index(finding)][int((1 - wanted) * STEPS + 1e-9)])

    def at_specificity(self, finding: str, wanted: float) -> float:
        """The lowest probability under which at least `wanted` of the negatives lie."""
        row = self.negatives[FINDINGS.index(finding)]
        return float(np.nextafter(row[int(np.ceil(wanted * STEPS - 1e-9))], 2.0))

    def shares(self, finding: str, cut: float) -> tuple[float | None, float | None]:
        """Sensitivity and specificity of a cut-off, rounded down to a hundredth; None with too few
        films."""
        i, known = FINDINGS.index(finding), self.enough(finding)
        missed = min(int(np.searchsorted(self.positives[i], cut)), STEPS)
        passed = max(int(np.searchsorted(self.negatives[i], cut)) - 1, 0)
        return (1 - missed / STEPS if known[0] else None, passed / STEPS if known[1] else None)


def _at(ordered: Floats, index: Floats) -> Floats:
    """Values by their places, which end where the values do; zeros without any."""
    if not len(ordered):
        return np.zeros(len(index))
    return np.asarray(ordered[index.clip(0, len(ordered) - 1).astype(int)])
