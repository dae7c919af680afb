"""Answers to what became of a finding since a prior study: the draft's own rule, in words."""

from __future__ import annotations

from medvlm.draft.change import WORDS
from medvlm.draft.comparison import Read, change, read_findings
from medvlm.draft.ground import regions
from medvlm.draft.known import HELD_BACK, MORE_HELD_BACK, Reply
from medvlm.draft.look import Seen
from medvlm.draft.question import Parsed
from medvlm.findings import PHRASES
from medvlm.model.checkpoint import Checkpoint
from medvlm.records import Change, Region

NO_PRIOR = "There is no prior study to compare with."
REFUSED = "The two studies cannot be compared."
UNTOLD = "This is not among what is compared."
_HEADINGS: dict[Change, str] = {
    "new": "new",
    "larger": "larger",
    "smaller": "smaller",
    "resolved": "no longer seen",
    "unchanged": "unchanged",
}


def comparison_reply(
    checkpoint: Checkpoint,
    seen: Seen,
    parsed: Parsed,
    earlier: list[Seen] | None,
    silent: frozenset[str] = frozenset(),
) -> Reply:
    """What changed, of the findings that the question names, or of all but the `silent` ones, which
    the site's policy keeps back.

    `earlier`: the accepted images of the prior study; None without one. A region lies on the
    current image, or for what is no longer seen on the prior one.
    """
    if earlier is None:
        return Reply(NO_PRIOR)
    if not earlier or not seen.check.accepted:
        return Reply(REFUSED)
    now = {read.finding: read for read in read_findings(checkpoint, [seen])}
    before = {read.finding: read for read in read_findings(checkpoint, earlier)}
    if len(parsed.findings) == 1:
        return _of_one(now[parsed.findings[0]], before[parsed.findings[0]])
    told: dict[Change, list[str]] = {}
    shown: list[Region] = []
    kept_back = False
    for name in parsed.findings or now:
        changed = change(now[name], before[name])
        if name in silent:
            kept_back |= not _never_there(now[name], before[name])
        elif changed in _HEADINGS and not _never_there(now[name], before[name]):
            told.setdefault(changed, []).append(PHRASES[name])
            shown += [r for r in _regions(now[name], before[name], changed) if r not in shown]
    said = [
        f"{words}: {', '.join(told[kind])}" for kind, words in _HEADINGS.items() if kind in told
    ]
    if kept_back:
        said.append(MORE_HELD_BACK if said else HELD_BACK)
    return Reply("; ".join(said) or "no change that can be told", None, shown)


def _of_one(now: Read, before: Read) -> Reply:
    changed, phrase = change(now, before), PHRASES[now.finding]
    if changed == "not_comparable":
        text = f"whether {phrase} has changed cannot be told"
    elif _never_there(now, before):
        text = "not seen on either"
    else:
        text = WORDS.get(changed, "no longer seen")
    return Reply(text, now.probability, _regions(now, before, changed), phrase)


def _never_there(now: Read, before: Read) -> bool:
    return now.polarity == before.polarity == "absent"


def _regions(now: Read, before: Read, changed: Change) -> list[Region]:
    shown = before if changed == "resolved" else now
    return regions(shown.best, [item.box for item in shown.boxes])
