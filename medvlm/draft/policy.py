"""A site's policy on a checkpoint: which cut-offs it means there."""

from __future__ import annotations

from dataclasses import replace

from medvlm.config.policy import DEFAULT_POINT, OperatingPoint, PolicyConfig
from medvlm.errors import ConfigError
from medvlm.findings import FINDINGS
from medvlm.model.checkpoint import Checkpoint
from medvlm.model.references import FEWEST, References


def under_policy(checkpoint: Checkpoint, policy: PolicyConfig) -> Checkpoint:
    """The checkpoint as a site reads it.

    A finding is never stated as present under the checkpoint's own `present_from`: below that a
    site is told of it as possible. A point by `default` is for the findings whose validation films
    are enough for it; the others keep the checkpoint's. Raises ConfigError where a finding was
    named that has too few, and for shares asked of a checkpoint that keeps no references.
    """
    points = checkpoint.config.operating_points
    absent_below, present = dict(points.absent_below), dict(points.present)
    references = checkpoint.extras.references
    for finding in FINDINGS:
        named = policy.operating_points.get(finding)
        wanted = named or policy.operating_points.get(DEFAULT_POINT)
        if wanted is None:
            continue
        if wanted.cut is None and references is None:
            raise ConfigError(
                "operating_points: this checkpoint keeps no references to tell shares from",
                remedy="release it anew with `medvlm release`, or choose probabilities or costs",
            )
        cuts = _cuts(points.cuts(finding), wanted, references, finding)
        if cuts is not None:
            absent_below[finding], present[finding] = cuts
        elif named:
            raise ConfigError(
                f"operating_points.{finding}: fewer than {FEWEST} validation films of this "
                "checkpoint can tell the share that is asked for",
                remedy="choose a probability or costs for it",
            )
    own = points.model_copy(update={"absent_below": absent_below, "present": present})
    config = checkpoint.config.model_copy(update={"operating_points": own})
    return replace(checkpoint, config=config, policy=policy)


def _cuts(
    own: tuple[float, float], wanted: OperatingPoint, references: References | None, finding: str
) -> tuple[float, float] | None:
    """Where the finding is denied, and stated; `own`: in the checkpoint. None if nothing tells."""
    absent_below, present_from = own
    if wanted.cut is not None:
        return wanted.cut, max(present_from, wanted.cut)
    assert references is not None
    with_it, without = references.enough(finding)
    if (wanted.sensitivity is not None and not with_it) or (
        wanted.specificity is not None and not without
    ):
        return None
    if wanted.specificity is not None:
        present_from = max(present_from, references.at_specificity(finding, wanted.specificity))
    if wanted.sensitivity is not None:
        absent_below = references.at_sensitivity(finding, wanted.sensitivity)
    return min(absent_below, present_from), present_from
