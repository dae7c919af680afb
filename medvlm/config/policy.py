"""A site's policy: where findings are denied and stated, and which sentences are kept back."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from medvlm.config.base import Config
from medvlm.findings import FINDINGS

POLICY = "MEDVLM_POLICY"
DEFAULT_POINT = "default"

_Share = Annotated[float, Field(gt=0, lt=1)]
_Cost = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Costs(Config):
    """What a missed finding and a false alarm cost, in any unit: only their ratio counts."""

    miss: _Cost
    false_alarm: _Cost


class OperatingPoint(Config):
    """Where a finding is denied, called possible, and stated as present.

    `sensitivity`: of the checkpoint's validation films with the finding, at least this share is not
    denied. `specificity`: of those without it, at least this share is not stated as present. One of
    them, or both; or instead a cut-off under which it is denied: `cost`, the probability from which
    calling it costs less on average (Elkan, IJCAI 2001), or a calibrated `probability`.
    """

    sensitivity: _Share | None = None
    specificity: _Share | None = None
    cost: Costs | None = None
    probability: _Share | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        by_share = self.sensitivity is not None or self.specificity is not None
        ways = [by_share, self.cost is not None, self.probability is not None]
        if sum(ways) != 1:
            raise ValueError("give sensitivity, specificity or both; or cost; or probability")
        return self

    @property
    def cut(self) -> float | None:
        """The probability that cost or probability mean."""
        if self.cost is not None:
            return self.cost.false_alarm / (self.cost.false_alarm + self.cost.miss)
        return self.probability


class PolicyConfig(Config):
    """Contents of a policy file.

    `operating_points`: by finding, and `default` for those that are not named; without either a
    finding keeps the checkpoint's. `max_risk`: sentences of a draft that are more likely to be
    wrong than this are doubtful (a "possible" says its doubt itself). `least_evidence`: so are
    positive sentences with less. Doubtful sentences are kept back (`withhold`) or shown and marked
    (`flag`).
    """

    operating_points: dict[str, OperatingPoint] = Field(default_factory=dict)
    max_risk: Annotated[float, Field(ge=0, le=0.5)] | None = None
    least_evidence: Literal["weak", "supported"] | None = None
    doubtful: Literal["withhold", "flag"] = "withhold"

    @field_validator("operating_points")
    @classmethod
    def _known_findings(cls, points: dict[str, OperatingPoint]) -> dict[str, OperatingPoint]:
        if unknown := sorted(points.keys() - {*FINDINGS, DEFAULT_POINT}):
            raise ValueError(
                f"no finding is called {', '.join(unknown)}; there are {', '.join(FINDINGS)}"
            )
        return points

    @property
    def sha256(self) -> str | None:
        """Of what it says; None for no policy."""
        if self == NO_POLICY:
            return None
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


NO_POLICY = PolicyConfig()


def site_policy(path: Path | None = None) -> PolicyConfig:
    """The policy in `path`, else in the file that MEDVLM_POLICY names, else none.

    Raises ConfigError naming the file and each wrong key.
    """
    wanted = path or os.environ.get(POLICY)
    return PolicyConfig.from_yaml(wanted) if wanted else NO_POLICY
