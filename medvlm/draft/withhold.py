"""The last look at a draft's words before it is released: what is kept back, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from medvlm.draft.claims import NOTHING, Given, disagreements, unfounded
from medvlm.draft.ground import OPACITIES, OPACITY
from medvlm.draft.sentences import impression
from medvlm.records import Finding, Withheld


class Report(NamedTuple):
    """What a draft says, and what it keeps back."""

    findings: list[Finding]
    impression: str
    withheld: list[Withheld]


def withhold(findings: Sequence[Finding], given: Given = NOTHING) -> Report:
    """Keeps back sentences that claim what nothing tells (`given`) or contradict another sentence,
    and an impression that does not agree with the findings."""
    kept: list[Finding] = []
    withheld: list[Withheld] = []
    for finding in findings:
        reasons = [reason.message for reason in unfounded(finding.text, given)]
        if shown := _contradicted(finding, findings):
            reasons.append(f'It would contradict "{shown.text}"')
        if reasons:
            withheld.append(_kept_back(finding, finding.text, " ".join(reasons)))
        else:
            kept.append(finding)
    summary = impression(kept)
    stated = any(finding.polarity != "absent" for finding in kept)
    if not stated and any(finding.polarity != "absent" for finding in findings):
        summary = ""  # "None of the findings" would deny what was only withheld
    if summary and kept and (differences := disagreements(kept, summary)):
        withheld.append(_kept_back(kept[0], summary, f"{differences[0]}."))
        summary = ""
    return Report(kept, summary, withheld)


def _contradicted(finding: Finding, findings: Sequence[Finding]) -> Finding | None:
    """ "No lung opacity" is not said where something that shows as an opacity is not ruled out."""
    if finding.finding != OPACITY or finding.polarity != "absent":
        return None
    shown = (f for f in findings if f.finding in OPACITIES and f.polarity != "absent")
    return next(shown, None)


def _kept_back(finding: Finding, text: str, reason: str) -> Withheld:
    return Withheld(
        finding=finding.finding, text=text, probability=finding.probability, reason=reason
    )
