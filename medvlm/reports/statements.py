"""What one sentence of a report says of which finding: rules, no model.

The idea of triggers with a reach is that of NegEx (Chapman et al., Journal of Biomedical
Informatics 34, 2001); words, reaches and exceptions are our own and stand in `docs/reports.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from medvlm.findings import Polarity
from medvlm.reports.lexicon import IS, QUALIFIERS
from medvlm.reports.tokens import Break, Item, Named, Trigger, find_items, words_of
from medvlm.reports.triggers import Effect

_PUNCTUATION = frozenset({",", ":", "(", ")"})
_JOINING = frozenset({"or", "nor"})
_LINKING = frozenset({"and", "/", *_JOINING})
_LISTING = _LINKING | {","}
_CHOOSING = frozenset({"or", "versus", "/"})
# What may end a list that was denied: "no effusion, pneumothorax are seen".
_ENDING = frozenset({"seen", "identified", "noted"})
_COURSES = frozenset({"increased", "decreased", "larger", "smaller", "worse", "better", "new"})
_AT_PLACES = frozenset({"in", "on", "at", "within", "present", "seen", "along", "near"})


@dataclass(frozen=True)
class Statement:
    """One finding as a sentence puts it.

    `implied`: the sentence speaks of an organ ("lungs are clear") or of a sign ("blunting of the
    costophrenic angle"), not of the finding itself.
    """

    finding: str
    polarity: Polarity
    implied: bool = False


def statements(sentence: str) -> list[Statement]:
    """The statements of a sentence, in reading order; what is only history makes none."""
    words = words_of(sentence)
    items = find_items(words)
    if not any(isinstance(item, Named) for item in items):
        return []
    found: list[Statement] = []
    for clause in _clauses(words, items):
        for named, effect in clause.judged():
            found += _stated(named, effect)
    return found


def _stated(named: Named, effect: Effect | None) -> list[Statement]:
    effect = named.effect or effect
    if effect == "unsaid":
        return []
    if named.asserted == "group":
        polarity: Polarity = "absent"
        if effect != "absent":
            return []
    elif effect == "absent":
        polarity = "absent"
    elif effect == "uncertain" or named.asserted == "uncertain":
        polarity = "uncertain"
    else:
        polarity = "present"
    implied = named.asserted in ("group", "uncertain") or (
        named.effect == "absent" and len(named.findings) > 1
    )
    return [Statement(finding, polarity, implied) for finding in named.findings]


class _Clause:
    """The words `start` to `end` of a sentence and the items in them."""

    def __init__(self, words: Sequence[str], items: Sequence[Item], start: int, end: int) -> None:
        self.words, self.start, self.end = words, start, end
        self.items = [item for item in items if start <= item.start < end]
        self.named = [item for item in self.items if isinstance(item, Named)]
        self.triggers = [item for item in self.items if isinstance(item, Trigger)]
        self.at = {item.start: item for item in self.items}

    def judged(self) -> list[tuple[Named, Effect | None]]:
        if not self.named:
            return []
        back = [trigger for trigger in self.triggers if self._reaches_back(trigger)]
        before = self._forward({trigger.start for trigger in back})
        behind = self._backward(back)
        joined = self._joined_by_or(before)
        judged: list[tuple[Named, Effect | None]] = []
        for item in self.named:
            effect, later = before.get(item.start), behind.get(item.start)
            # "If pneumonia is suspected" is no suspicion.
            if effect in (None, "present") or (effect == "unsaid" and later != "uncertain"):
                effect = later or effect
            elif effect == "uncertain" and later == "absent":
                effect = "absent"
            if effect is None and item.start in joined:
                effect = "uncertain"
            judged.append((item, effect))
        return judged

    # ---- forwards ----

    def _forward(self, backward: set[int]) -> dict[int, Effect]:
        """What the triggers before each finding make of it."""
        effects: dict[int, Effect] = {}
        effect: Effect | None = None
        fresh = True  # whether a new doubt may take over from a denial
        position = self.start
        while position < self.end:
            item, word = self.at.get(position), self.words[position]
            if isinstance(item, Trigger) and position not in backward:
                if effect != "absent" or item.effect == "absent" or fresh:
                    effect, fresh = item.effect, False
                elif item.effect in ("unsaid", "present"):
                    effect = item.effect
            elif isinstance(item, Named):
                if effect:
                    effects[position] = effect
            elif isinstance(item, Break) and item.denial:
                if effect in ("absent", "unsaid"):
                    effect = None
            elif word in _PUNCTUATION:
                fresh = True
                if effect and not self._list_goes_on(position + 1, effect):
                    effect = None
            elif word == "and":
                fresh = True
                if effect in ("absent", "uncertain") and self._starts_anew(position + 1):
                    effect = None
            position = item.end if item else position + 1
        return effects

    def _list_goes_on(self, start: int, effect: Effect) -> bool:
        """Whether what follows a comma is another item of the list that a trigger began."""
        if self.words[start - 1] == ":" or effect == "present":
            return False
        if start < self.end and self.words[start] == "and":
            return not self._starts_anew(start + 1)
        if start < self.end and self.words[start] in _JOINING:
            return True
        stop = self._segment_end(start)
        segment = self.words[start:stop]
        if IS & set(segment) and not self._denied_at_end(start):
            return False
        if self._or_follows(start):
            return True
        return not QUALIFIERS & set(segment)

    def _or_follows(self, start: int) -> bool:
        """Whether the list ends in "or", before a trigger or a break begins something else."""
        for position in range(start, self.end):
            item = self.at.get(position)
            if isinstance(item, Break) or (isinstance(item, Trigger) and item.reach != "back"):
                return False
            if self.words[position] in _JOINING:
                return True
        return False

    def _denied_at_end(self, start: int) -> bool:
        """ "no effusion, pneumothorax are seen": the verb is the list's."""
        began = max((item.end for item in self.triggers if item.end <= start), default=self.start)
        had_verb = IS & set(self.words[began:start])  # "no effusion is seen, a nodule is seen"
        return not had_verb and self.words[self.end - 1] in _ENDING

    def _starts_anew(self, start: int) -> bool:
        """Whether the words after "and" say something of their own: "and a small effusion"."""
        for position in range(start, self.end):
            if isinstance(self.at.get(position), Named):
                item = self.at[position]
                assert isinstance(item, Named)
                if item.effect is not None or IS & set(self.words[position : item.end]):
                    return True
                return self._has_predicate(item.end)
            if self.words[position] in QUALIFIERS:
                return True
            if self.words[position] in _PUNCTUATION | _LINKING:
                return False
        return False

    def _has_predicate(self, start: int) -> bool:
        """Whether a verb and how it is follow: "is small", "has increased"; not "is seen"."""
        verbs = start
        while verbs < self.end and self.words[verbs] in IS:
            verbs += 1
        return (
            verbs > start
            and self.words[verbs : verbs + 1] != []
            and (self.words[verbs] in QUALIFIERS | _COURSES)
        )

    def _segment_end(self, start: int) -> int:
        for position in range(start, self.end):
            if self.words[position] in _PUNCTUATION:
                return position
        return self.end

    # ---- backwards ----

    def _reaches_back(self, trigger: Trigger) -> bool:
        if trigger.reach == "back":
            return True
        stop = self._segment_end(trigger.end)
        follows = any(trigger.end <= item.start < stop for item in self.named)
        if trigger.reach == "forward":
            # "Effusion: no."
            last = self.words[trigger.start - 1] if trigger.start > self.start else ""
            return trigger.effect == "absent" and last == ":" and not follows
        if follows and self._next_to_finding(trigger.end):
            return False
        after_verb = trigger.start > self.start and self.words[trigger.start - 1] in IS
        if trigger.effect != "uncertain":
            return after_verb or not follows
        at_end = trigger.end >= stop or self.words[trigger.end] in _AT_PLACES
        return at_end and (after_verb or not follows)

    def _next_to_finding(self, start: int) -> bool:
        for position in range(start, self.end):
            if isinstance(self.at.get(position), Named):
                return True
            if self.words[position] not in QUALIFIERS | {"a", "an", "the", "of"}:
                return False
        return False

    def _backward(self, triggers: Sequence[Trigger]) -> dict[int, Effect]:
        """What triggers behind findings make of them: the nearest, and those listed with it."""
        effects: dict[int, Effect] = {}
        for trigger in triggers:
            earlier = [item for item in self.named if item.end <= trigger.start]
            nearest = trigger.start
            for place, item in enumerate(reversed(earlier)):
                between = set(self.words[item.end : nearest]) - QUALIFIERS
                # A list is one if its last two items are joined by a word.
                if place and not (between and between <= _LISTING):
                    break
                if (place == 1 and not between & _LINKING) or (place == 0 and "," in between):
                    break
                effects.setdefault(item.start, trigger.effect)
                nearest = item.start
        return effects

    # ---- one or the other ----

    def _joined_by_or(self, before: dict[int, Effect]) -> set[int]:
        """Findings of which one or the other is there: "atelectasis or pneumonia", "a/b", "a vs b".

        "No change in effusion or atelectasis" is none: there the list depends on a trigger.
        """
        joined: set[int] = set()
        listed = False  # whether the pair before ended in ", or"
        for first, second in reversed(list(pairwise(self.named))):
            between = [
                word for word in self.words[first.end : second.start] if word not in QUALIFIERS
            ]
            listed_before, listed = listed, False
            if first.start in before or second.start in before or first.effect or second.effect:
                continue
            if between == [","] and listed_before:  # "a, b, or c"
                joined.add(first.start)
                listed = True
            elif _CHOOSING & set(between) and not IS & set(between):
                listed = between[:1] == [","] and between[1:2] in (["or"], ["versus"])
                joined.add(second.start)
                if listed or "," not in between:
                    joined.add(first.start)
        return joined


def _clauses(words: Sequence[str], items: Sequence[Item]) -> list[_Clause]:
    bounds = [0]
    for item in items:
        if isinstance(item, Break) and not item.denial:
            bounds += [item.start, item.end]
    bounds.append(len(words))
    return [_Clause(words, items, start, end) for start, end in pairwise(bounds) if end > start]
