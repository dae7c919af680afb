"""A site's policy on a checkpoint: which cut-offs it means there."""

from __future__ import annotations

from dataclasses import replace

from medvlm.config.policy import DEFAULT_POINT, OperatingPoint, PolicyConfig
from medvlm.errors import ConfigError
from medvlm.findings import FINDINGS
from medvlm.model.checkpoint import Checkpoint
from medvlm.model.references import FEWEST


def under_policy(checkpoint: Checkpoint, policy: PolicyConfig) -> Checkpoint:
    """The checkpoint as a site reads it.

    A point by `default` is for the findings whose validation films are enough for it; the others
    keep the checkpoint's. Raises ConfigError where a finding was named that has too few.
    """
    points = checkpoint.config.operating_points
    present = dict(points.present)
    for finding in FINDINGS:
        named = policy.present.get(finding)
        wanted = named or policy.present.get(DEFAULT_POINT)
        if wanted is None:
            continue
        cut = _cut(checkpoint, finding, wanted)
        if cut is not None:
            present[finding] = cut
        elif named:
            raise ConfigError(
                f"present.{finding}: fewer than {FEWEST} validation films of this checkpoint can "
                "tell the share that is asked for",
                remedy="choose a probability or costs for it",
            )
    config = checkpoint.config.model_copy(
        update={"operating_points": points.model_copy(update={"present": present})}
    )
    return replace(checkpoint, config=config, policy=policy)


def _cut(checkpoint: Checkpoint, finding: str, wanted: OperatingPoint) -> float | None:
    """A calibrated probability; None if it cannot be told."""
    if wanted.probability is not None:
        return wanted.probability
    if wanted.cost is not None:
        return wanted.cost.false_alarm / (wanted.cost.false_alarm + wanted.cost.miss)
    references = checkpoint.extras.references
    if references is None:
        return None
    with_it, without = references.enough(finding)
    if wanted.sensitivity is not None:
        return references.at_sensitivity(finding, wanted.sensitivity) if with_it else None
    assert wanted.specificity is not None
    return references.at_specificity(finding, wanted.specificity) if without else None
