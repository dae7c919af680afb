"""Whether a report agrees with itself: words with their finding, sentences, findings, impression.

Words are read by the rules that read a hospital's reports (`medvlm.reports`), places by those that
read a draft's. What they cannot read counts as what it is marked as.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

from medvlm.draft.parse import Zone, parse_sentence
from medvlm.draft.sentences import impression
from medvlm.findings import FINDINGS, PHRASES, Polarity
from medvlm.records import Finding
from medvlm.reports.labels import Labels, combine
from medvlm.reports.sections import split_sentences
from medvlm.reports.statements import Statement, statements
from medvlm.review.laterality import NONE, Sides, sides_named, united
from medvlm.review.records import Review, Sentence
from medvlm.review.wording import readable

# What `medvlm.draft.withhold` adds to an impression speaks of the draft, not of the patient.
_REMARKS = re.compile(r"Doubtful by the site's policy: [^.]*\.|More was written and withheld\.")


OPACITY = "Lung_Opacity"


class Said(NamedTuple):
    """A finding as a sentence puts it, and where; `implied`: by an organ or a sign."""

    finding: str
    polarity: Polarity
    sides: Sides = NONE
    zone: Zone | None = None
    implied: bool = False


@lru_cache(maxsize=1024)  # a page asks for the same sentences again and again
def said_in(text: str) -> tuple[Said, ...]:
    """What a text says; nothing where it cannot be read."""
    if not readable(text):
        return ()
    found = []
    for sentence in split_sentences(text):
        parsed = {one.finding for one in parse_sentence(sentence)}
        for one in statements(sentence):
            # In "opacity, suspicious for pneumonia" it is how the pneumonia looks.
            if one.finding != OPACITY or OPACITY in parsed or not parsed:
                where = _where(sentence, one.finding)
                found.append(Said(one.finding, one.polarity, *where, one.implied))
    return tuple(found)


def _where(sentence: str, finding: str) -> tuple[Sides, Zone | None]:
    """Where a finding is seen, or denied."""
    about = (one.location for one in parse_sentence(sentence) if one.finding == finding)
    places = [place for place in about if place]
    zones = {place.zone for place in places}
    return united(place.side for place in places), zones.pop() if len(zones) == 1 else None


def without_remarks(text: str) -> str:
    """A machine's impression without what it says of its own draft."""
    return " ".join(_REMARKS.sub(" ", text).split())


def mislabelled(sentence: Sentence) -> str | None:
    """How the words differ from the finding and polarity that they are marked with, or None."""
    if sentence.finding not in FINDINGS:
        return None
    said = said_in(sentence.text)
    plain = [one for one in said if not one.implied]
    about = {one.polarity for one in plain if one.finding == sentence.finding}
    phrase = PHRASES[sentence.finding]
    if about and sentence.polarity not in about:
        return f"{phrase} is {sorted(about)[0]} in the words and marked {sentence.polarity}"
    if not about and (others := [PHRASES[one.finding] for one in plain]):
        return f"the words speak of {others[0]} and are marked as {phrase}"
    denied = any(one.finding == sentence.finding and one.polarity == "absent" for one in said)
    if not about and denied and sentence.polarity != "absent":
        return f"{phrase} is absent in the words and marked {sentence.polarity}"
    return None


def contradictory(sentences: Sequence[Sentence]) -> Iterator[tuple[str, Sentence, Sentence]]:
    """(finding, one sentence, a later one) of which one says what the other denies."""
    told = set()
    for (one, said), (other, also) in combinations([(s, stated(s)) for s in sentences], 2):
        for first in said:
            for second in also:
                place = first.finding, one.id, other.id
                if place not in told and _contradict(first, second):
                    told.add(place)
                    yield first.finding, one, other


def stated(sentence: Sentence) -> Sequence[Said]:
    """What a sentence is marked with, and what else its words say."""
    said = said_in(sentence.text)
    if sentence.finding not in FINDINGS or any(
        one.finding == sentence.finding and not one.implied for one in said
    ):
        return said
    sides = sides_named(sentence.text, sentence.finding)
    return [*said, Said(sentence.finding, sentence.polarity, sides)]


def _contradict(one: Said, other: Said) -> bool:
    if one.finding != other.finding or (one.polarity == "absent") == (other.polarity == "absent"):
        return False
    # A sign ("blunted angle") gives way to plain words; "lungs are clear" does not.
    if any(said.implied and said.polarity != "absent" for said in (one, other)):
        return False
    apart = one.sides and other.sides and not one.sides & other.sides
    return not apart and (one.zone is None or other.zone is None or one.zone == other.zone)


def disagreements(sentences: Sequence[Sentence], text: str) -> list[tuple[str, str]]:
    """(finding, how an impression contradicts the sentences or leaves it out), both ways.

    In "possible atelectasis and left-sided mass" the mass is possible for those who wrote it into a
    draft, and there for most others: whichever agrees with the sentences is taken.
    """
    if not readable(text):
        return []
    text = without_remarks(text)
    meant = [one for sentence in sentences for one in _marked(sentence)]
    said = said_in(text)
    drafted = [Said(one.finding, one.polarity) for one in parse_sentence(text)]
    own, others, also = _labels(meant), _labels(said), _labels(drafted)
    found = []
    for name in FINDINGS:
        here, there = own[name], others[name]
        if here is not None and here in (there, also[name]):
            continue
        if here in ("present", "uncertain") and _plainly(name, meant):
            how = f"{here} in the findings and {there or 'missing'} in the impression"
        elif there in ("present", "uncertain") and _plainly(name, said):
            how = f"{there} in the impression and {here or 'missing'} in the findings"
        else:
            continue
        found.append((name, f"{PHRASES[name]} is {how}"))
    return found


def _marked(sentence: Sentence) -> Sequence[Said]:
    """What a sentence is marked with, whatever its words say of that, and what else they say."""
    if sentence.finding not in FINDINGS:
        return said_in(sentence.text)
    marked = Said(sentence.finding, sentence.polarity)
    return [marked, *(one for one in said_in(sentence.text) if one.finding != sentence.finding)]


def _labels(said: Iterable[Said]) -> Labels:
    return combine(Statement(one.finding, one.polarity, one.implied) for one in said)


def _plainly(finding: str, said: Iterable[Said]) -> bool:
    return any(one.finding == finding and not one.implied for one in said)


def suggested_impression(review: Review) -> str:
    """An impression of what stands, in the words of a draft's; "" where nothing stands."""
    standing = [one for one in review.sentences if one.stands]
    findings = list(
        {
            (one.finding, one.polarity, _where(one.text, one.finding)): one
            for sentence in standing
            for one in _as_findings(sentence)
        }.values()
    )
    others = [
        one.text for one in standing if one.finding not in FINDINGS and one.polarity != "absent"
    ]
    stated = any(one.polarity != "absent" for one in findings)
    summary = impression(findings) if findings and (stated or not others) else ""
    return " ".join(filter(None, [summary, *others]))


def _as_findings(sentence: Sentence) -> Iterator[Finding]:
    for one in _marked(sentence):
        if one.implied:
            continue
        own = one.finding == sentence.finding
        yield Finding(
            text=sentence.text,
            finding=one.finding,
            polarity=one.polarity,
            # What a person says is not less sure than what a machine says.
            probability=1.0 if sentence.probability is None or not own else sentence.probability,
            change=sentence.change if own else None,
            flags=[],
        )
