"""The last look at a draft's words before it is released: what is kept back, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from medvlm.config.policy import NO_POLICY, PolicyConfig
from medvlm.draft.claims import NOTHING, Given, disagreements, unfounded
from medvlm.draft.ground import OPACITIES, OPACITY
from medvlm.draft.sentences import impression
from medvlm.findings import PHRASES
from medvlm.records import Finding, Reason, Withheld

EVIDENCE = ("unsupported", "weak", "supported")
"""From the least to the most."""


class Report(NamedTuple):
    """What a draft says, and what it keeps back."""

    findings: list[Finding]
    impression: str
    withheld: list[Withheld]


def withhold(
    findings: Sequence[Finding], given: Given = NOTHING, policy: PolicyConfig = NO_POLICY
) -> Report:
    """Keeps back sentences that claim what nothing tells (`given`), contradict another sentence or
    are doubtful by the site's policy, and an impression that does not agree with the findings."""
    kept: list[Finding] = []
    withheld: list[Withheld] = []
    for finding in findings:
        reasons = [reason.message for reason in unfounded(finding.text, given)]
        if shown := _contradicted(finding, findings):
            reasons.append(f'It would contradict "{shown.text}"')
        flags = doubts(finding, policy)
        if policy.doubtful == "withhold":
            reasons += [flag.message for flag in flags]
        if reasons:
            withheld.append(_kept_back(finding, finding.text, " ".join(reasons)))
        else:
            kept.append(finding.model_copy(update={"flags": flags}))
    summary = impression(kept)
    stated = any(finding.polarity != "absent" for finding in kept)
    if not stated and withheld:
        summary = ""  # "None of the findings" would deny what was only withheld
    if summary and kept and (differences := disagreements(kept, summary)):
        withheld.append(_kept_back(kept[0], summary, f"{differences[0]}."))
        summary = ""
    return Report(kept, _qualified(summary, findings, kept), withheld)


def _qualified(summary: str, findings: Sequence[Finding], kept: Sequence[Finding]) -> str:
    """The impression, what of it is doubtful, and that more was withheld."""
    doubtful = [PHRASES[one.finding] for one in kept if one.flags and one.polarity != "absent"]
    if summary and doubtful:
        summary += f" Doubtful by the site's policy: {', '.join(doubtful)}."
    names = {one.finding for one in kept}
    if summary and any(one.polarity != "absent" and one.finding not in names for one in findings):
        summary += " More was written and withheld."
    return summary


def doubts(finding: Finding, policy: PolicyConfig) -> list[Reason]:
    """Why a site would not rely on a sentence: its risk of being wrong, its evidence."""
    found = []
    wrong = {"present": 1 - finding.probability, "absent": finding.probability}
    risk = wrong.get(finding.polarity, 0.0)
    if policy.max_risk is not None and risk > policy.max_risk:
        message = (
            f"It is wrong with a probability of {risk:.2f}; the site accepts {policy.max_risk:.2f}."
        )
        found.append(Reason(code="risk", message=message))
    wanted = policy.least_evidence
    if wanted is not None and finding.polarity != "absent":
        status = finding.evidence.status if finding.evidence else None
        if status is None or EVIDENCE.index(status) < EVIDENCE.index(wanted):
            said = f"is {status}" if status else "was not measured"
            message = f"Its evidence {said}; the site asks for {wanted}."
            found.append(Reason(code="evidence", message=message))
    return found


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
