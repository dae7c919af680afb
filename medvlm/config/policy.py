"""A site's policy: where findings are called present, and which sentences are kept back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from medvlm.config.base import Config
from medvlm.findings import FINDINGS

POLICY = "MEDVLM_POLICY"
DEFAULT_POINT = "default"

_Share = Annotated[float, Field(gt=0, lt=1)]


class Costs(Config):
    """What a missed finding and a false alarm cost, in any unit: only their ratio counts."""

    miss: Annotated[float, Field(gt=0)]
    false_alarm: Annotated[float, Field(gt=0)]


class OperatingPoint(Config):
    """From where a finding is called present, in exactly one of four ways.

    `sensitivity`, `specificity`: at least this, on the checkpoint's validation patients. `cost`:
    the probability from which calling it costs less on average (Elkan, IJCAI 2001). `probability`:
    calibrated.
    """

    sensitivity: _Share | None = None
    specificity: _Share | None = None
    cost: Costs | None = None
    probability: _Share | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = type(self).model_fields
        if sum(getattr(self, name) is not None for name in ways) != 1:
            raise ValueError(f"give exactly one of {', '.join(ways)}")
        return self


class PolicyConfig(Config):
    """Contents of a policy file.

    `present`: operating points by finding, and `default` for those that are not named; without
    either a finding keeps the checkpoint's. `max_risk`: sentences that are more likely to be wrong
    than this are doubtful (a "possible" says its doubt itself). `least_evidence`: so are positive
    sentences with less. Doubtful sentences are kept back (`withhold`) or shown and marked (`flag`).
    """

    present: dict[str, OperatingPoint] = Field(default_factory=dict)
    max_risk: Annotated[float, Field(ge=0, le=0.5)] | None = None
    least_evidence: Literal["weak", "supported"] | None = None
    doubtful: Literal["withhold", "flag"] = "withhold"

    @field_validator("present")
    @classmethod
    def _known_findings(cls, present: dict[str, OperatingPoint]) -> dict[str, OperatingPoint]:
        if unknown := sorted(present.keys() - {*FINDINGS, DEFAULT_POINT}):
            raise ValueError(
                f"no finding is called {', '.join(unknown)}; there are {', '.join(FINDINGS)}"
            )
        return present


NO_POLICY = PolicyConfig()


def site_policy(path: Path | None = None) -> PolicyConfig:
    """The policy in `path`, else in the file that MEDVLM_POLICY names, else none.

    Raises ConfigError naming the file and each wrong key.
    """
    wanted = path or os.environ.get(POLICY)
    return PolicyConfig.from_yaml(wanted) if wanted else NO_POLICY
