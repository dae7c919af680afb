"""What became of a study, as it travels between processes and to people."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medvlm.dicom.read import Refused
from medvlm.findings import PHRASES
from medvlm.records import Draft

TOLD = ("new", "larger", "smaller", "resolved")


@dataclass(frozen=True)
class Outcome:
    """One study that was drafted or refused, or one failure. Can be pickled.

    Attributes:
        kind: a study of which one image failed has two outcomes, "drafted" and "failed".
        study: the name of its folder; None where there is none.
        failure: why it failed, and the file as the caller named it.
        reasons: codes of the gate's refusal.
        resumed: whether it was there, or recorded as failed, before this run.
        summary: one line for people.
        seconds: how long reading and drafting it took.
    """

    kind: Literal["drafted", "refused", "failed"]
    study: str | None = None
    failure: Refused | None = None
    reasons: tuple[str, ...] = ()
    resumed: bool = False
    summary: str = ""
    seconds: float = 0.0

    @classmethod
    def of_draft(
        cls, folder: Path, draft: Draft, *, resumed: bool = False, seconds: float = 0.0
    ) -> Outcome:
        """What a draft says of itself."""
        check = draft.input_check
        codes = tuple(sorted({reason.code for reason in check.reasons}))
        kind: Literal["drafted", "refused"] = "drafted" if check.accepted else "refused"
        return cls(kind, folder.name, None, codes, resumed, summary(draft), seconds)

    @classmethod
    def of_failure(
        cls, failure: Refused, study: str | None = None, *, resumed: bool = False
    ) -> Outcome:
        """A failure; `resumed`: recorded by an earlier run, and not tried again."""
        return cls("failed", study, failure, resumed=resumed)


def summary(draft: Draft) -> str:
    """What a draft found, in one line."""
    if not draft.input_check.accepted:
        counted = Counter(reason.message for reason in draft.input_check.reasons)
        return "refused: " + " ".join(counted)
    parts = []
    for polarity, word in (("present", ""), ("uncertain", "possible ")):
        named = [PHRASES[f.finding] for f in draft.findings if f.polarity == polarity]
        parts += [word + name for name in named]
    said = ", ".join(parts) or "none of the findings looked for"
    changed = [f"{PHRASES[f.finding]} {f.change}" for f in draft.findings if f.change in TOLD]
    return f"{said} (since the prior: {', '.join(changed)})" if changed else said
