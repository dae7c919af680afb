"""A site's own calibration, on patients that trained nothing and are not scored.

What is fitted is a correction of the base's calibrated probabilities, one slope and an intercept
per finding (Platt, 1999), held to "no correction" as strongly as a few patients would hold it:
where a site has little to say, the base's figures stay. Where there are retention sets, patients
of theirs take part, or a site's mix of patients would spoil the probabilities of others.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from medvlm.findings import FINDINGS
from medvlm.model.checkpoint import Calibration, CheckpointConfig, OperatingPoints

# Precisions of Gaussian priors: intercepts (sd 0.7), the logarithm of the slope (sd 0.35).
INTERCEPT, SLOPE = 2.0, 8.0
# A slope beyond a factor of two would hide that the weights are wrong for these patients.
SLOPES = (-np.log(2), np.log(2))
LEAST = 1e-6


def recalibrate(
    config: CheckpointConfig, truth: np.ndarray, probabilities: np.ndarray
) -> CheckpointConfig:
    """`config` with the site's calibration.

    Args:
        truth: labels [N, F] of patients who trained nothing and are not scored; NaN is left out.
        probabilities: what the tuned weights say with the calibration that `config` has.
    """
    slope, intercepts = correction(truth, logits_of(probabilities))
    old, points = config.calibration, config.operating_points
    calibration = Calibration(
        slope=old.slope * slope,
        intercepts={
            name: float(slope * old.intercepts.get(name, 0.0) + own)
            for name, own in zip(FINDINGS, intercepts, strict=True)
        },
    )
    # "Absent" goes on to mean what it meant: its cut-offs move with the probabilities.
    absent = {
        name: min(
            points.present_from, float(expit(slope * logit(np.clip(cut, LEAST, 1 - LEAST)) + own))
        )
        for name, own in zip(FINDINGS, intercepts, strict=True)
        if (cut := points.absent_below.get(name)) is not None
    }
    moved: OperatingPoints = points.model_copy(update={"absent_below": absent})
    return config.model_copy(update={"calibration": calibration, "operating_points": moved})


def recalibrated(
    old: CheckpointConfig, new: CheckpointConfig, probabilities: np.ndarray
) -> np.ndarray:
    """What `new` says where `old`, with another calibration of the same logits, said this."""
    slope = new.calibration.slope / old.calibration.slope
    before, after = (
        np.array([config.calibration.intercepts.get(name, 0.0) for name in FINDINGS])
        for config in (old, new)
    )
    said: np.ndarray = expit(slope * (logits_of(probabilities) - before) + after)
    return said


def correction(truth: np.ndarray, logits: np.ndarray) -> tuple[float, np.ndarray]:
    """Slope and intercepts [F] of least penalised log loss over the known labels [N, F]."""
    fitted = _fit(truth, logits)
    return float(np.exp(fitted.x[0])), fitted.x[1:]


def loss_after_correction(truth: np.ndarray, logits: np.ndarray) -> float:
    """Log loss a label once the level of each finding is corrected: how well they are told apart.

    A checkpoint that only knows better how frequent things are gains nothing by it here. NaN if
    nothing is known.
    """
    known = (~np.isnan(truth)).sum()
    return float(_fit(truth, logits).fun / known) if known else float("nan")


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    """Logits, finite for probabilities of 0 and 1."""
    out: np.ndarray = logit(np.clip(probabilities, LEAST, 1 - LEAST))
    return out


def _fit(truth: np.ndarray, logits: np.ndarray):  # type: ignore[no-untyped-def]
    known = ~np.isnan(truth)
    target = np.nan_to_num(truth)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        slope, shift = np.exp(parameters[0]), parameters[1:]
        z = logits * slope + shift
        each = (np.logaddexp(0, z) - target * z) * known
        error = (expit(z) - target) * known
        gradient = np.append((error * logits).sum() * slope, error.sum(axis=0))
        prior = np.append(SLOPE, np.full(len(shift), INTERCEPT))
        penalty = (prior * parameters**2).sum() / 2
        return each.sum() + penalty, gradient + prior * parameters

    free = [(None, None)] * truth.shape[1]
    start = np.zeros(1 + truth.shape[1])
    return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[SLOPES, *free])
