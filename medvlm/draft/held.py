"""Answers under a site's policy: what its drafts would keep back, no answer gives away."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from medvlm.draft.comparison import Read, read_findings
from medvlm.draft.evidence import look_at_nothing, measure
from medvlm.draft.known import Reply
from medvlm.draft.look import Seen
from medvlm.draft.parse import Polarity
from medvlm.draft.sentences import sentence
from medvlm.draft.withhold import doubts
from medvlm.findings import FINDINGS, PHRASES
from medvlm.model.checkpoint import Checkpoint
from medvlm.records import Evidence, Finding, Reason

Doubts = Mapping[str, Sequence[Reason]]
"""By finding, why the site would not rely on its sentence; sentences without doubt are left out."""


def doubtful_findings(
    checkpoint: Checkpoint, seen: Seen, findings: Collection[str] = FINDINGS
) -> Doubts:
    """Of the sentences that a draft of this image would have."""
    policy = checkpoint.policy
    if policy.max_risk is None and policy.least_evidence is None:
        return {}
    reads = [read for read in read_findings(checkpoint, [seen]) if read.finding in findings]
    proof: dict[str, Evidence] = {}
    if policy.least_evidence is not None:
        proof = measure(checkpoint, [seen], look_at_nothing(checkpoint, [seen]), reads)
    sentences = [_sentence(read, read.polarity, proof.get(read.finding)) for read in reads]
    return {own.finding: found for own in sentences if (found := doubts(own, policy))}


def risk_of_answer(
    checkpoint: Checkpoint, seen: Seen, finding: str, polarity: Polarity
) -> list[Reason]:
    """The same of a certain answer where a draft would only say "possible"."""
    policy = checkpoint.policy.model_copy(update={"least_evidence": None})
    (read,) = (own for own in read_findings(checkpoint, [seen]) if own.finding == finding)
    return doubts(_sentence(read, polarity, None), policy)


def held_back(doubtful: Doubts) -> Reply:
    """Instead of an answer on `doubtful` findings: that there is none, and why."""
    said = [
        f"The site's policy holds back an answer on {PHRASES[name]}: {_told(reasons)}"
        for name, reasons in doubtful.items()
    ]
    return Reply(" ".join(said))


def flagged(said: Reply, doubtful: Doubts, asked: Sequence[str]) -> Reply:
    """An answer with what of it is doubtful: of the findings `asked` for why, of a list which."""
    of_asked = [_told(reasons) for name, reasons in doubtful.items() if name in asked]
    listed = [PHRASES[name] for name in doubtful if PHRASES[name] in said.text]
    marked = " ".join(of_asked) if asked else ", ".join(listed)
    if not marked:
        return said
    return replace(said, text=f"{said.text}. Doubtful by the site's policy: {marked}")


def _told(reasons: Sequence[Reason]) -> str:
    return " ".join(reason.message for reason in reasons)


def _sentence(read: Read, polarity: Polarity, evidence: Evidence | None) -> Finding:
    return Finding(
        text=sentence(read.finding, polarity),
        finding=read.finding,
        polarity=polarity,
        probability=read.probability,
        evidence=evidence,
        flags=[],
    )
