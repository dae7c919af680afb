"""Findings put into words, such that :mod:`medvlm.draft.parse` reads back what was meant."""

from __future__ import annotations

from collections.abc import Sequence

from medvlm.draft.change import RESOLVED, WORDS, told, with_change
from medvlm.draft.parse import Location, Polarity, parse_sentence
from medvlm.findings import PHRASES
from medvlm.records import Change, Finding

__all__ = ["Location", "Polarity", "impression", "sentence", "variants"]

# {noun}: the finding with its place before it ("left lower zone nodule"); {a_noun}: the same with
# an article; {phrase} and {where}: the finding, and its place after it ("nodule", " in the left
# lower zone"); {place}: the place alone before a noun ("left lower zone "); {is}: is, or are for a
# plural.
_WORDINGS: dict[Polarity, tuple[str, ...]] = {
    "present": (
        "{noun}.",
        "{phrase} {is} seen{where}.",
        "There {is} {a_noun}.",
        "The film shows {phrase}{where}.",
    ),
    "absent": (
        "No {noun}.",
        "No evidence of {phrase}{where}.",
        "There {is} no {noun}.",
        "{phrase} {is} not seen{where}.",
    ),
    "uncertain": (
        "Possible {noun}.",
        "{phrase}{where} cannot be excluded.",
        "Questionable {noun}.",
        "Appearances may represent {phrase}{where}.",
    ),
}
# For findings that show as an opacity: how it looks, then what it is.
_AS_OPACITY: dict[Polarity, str] = {
    "present": "{place}opacity, consistent with {phrase}.",
    "uncertain": "{place}opacity, suspicious for {phrase}.",
}
_OPACITIES = frozenset({"Atelectasis", "Infiltration", "Pneumonia", "Consolidation"})
_COUNTABLE = frozenset({"Effusion", "Mass", "Nodule", "Pneumothorax", "Hernia", "Lung_Opacity"})
_PLURALS = {
    "Effusion": "pleural effusions",
    "Mass": "masses",
    "Nodule": "nodules",
    "Lung_Opacity": "lung opacities",
}


def variants(finding: str, polarity: Polarity) -> int:
    """How many wordings :func:`sentence` has for this finding and polarity."""
    return len(_wordings(finding, polarity))


def wordings(finding: str, polarity: Polarity, location: Location | None = None) -> list[str]:
    """Every wording of one sentence. Raises KeyError for a finding that is not in the lexicon."""
    count = variants(finding, polarity)
    return [sentence(finding, polarity, location, variant) for variant in range(count)]


def sentence(
    finding: str,
    polarity: Polarity,
    location: Location | None = None,
    variant: int = 0,
    change: Change | None = None,
) -> str:
    """One sentence for a finding of the lexicon, e.g. "Left lower zone nodule."

    ``variant`` chooses the wording, modulo :func:`variants`; ``change`` is what became of it since
    a prior study. Reading it with :func:`~medvlm.draft.parse.parse_sentence` gives this finding,
    polarity, location and change back.

    Raises KeyError for a finding that is not in the lexicon.
    """
    if change == "resolved":
        return f"{_capital(PHRASES[finding])} {RESOLVED}."
    wordings = _wordings(finding, polarity)
    place = _place_before(location)
    plural = location is not None and location.side == "both" and finding in _PLURALS
    phrase = _PLURALS[finding] if plural else PHRASES[finding]
    noun = place + phrase
    article = (
        ("an " if noun[0] in "aeiou" else "a ") if finding in _COUNTABLE and not plural else ""
    )
    text = wordings[variant % len(wordings)].format_map(
        {
            "noun": noun,
            "a_noun": article + noun,
            "phrase": phrase,
            "where": _place_after(location),
            "place": place,
            "is": "are" if plural else "is",
        }
    )
    return with_change(_capital(text), change)


def impression(findings: Sequence[Finding]) -> str:
    """What is present, what is possible, the most probable first; then what changed, if told."""
    present = _named(findings, "present")
    uncertain = _named(findings, "uncertain")
    sentences = []
    if not present and not uncertain:
        sentences.append("None of the findings looked for is reported.")
    if present:
        sentences.append(f"{_capital(present)}.")
    if uncertain:
        sentences.append(f"Possible {uncertain}.")
    for finding in sorted(findings, key=lambda f: -f.probability):
        change = told(finding.polarity, finding.change)
        if change == "resolved":
            sentences.append(sentence(finding.finding, "absent", change="resolved"))
        elif change in ("new", "larger", "smaller"):
            name = _capital(PHRASES[finding.finding])
            sentences.append(f"{name} is {WORDS[change]}.")
    return " ".join(sentences)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _named(findings: Sequence[Finding], polarity: Polarity) -> str:
    chosen = sorted((f for f in findings if f.polarity == polarity), key=lambda f: -f.probability)
    names = []
    for finding in chosen:
        # The place stands only in the sentence.
        places = [s.location for s in parse_sentence(finding.text) if s.finding == finding.finding]
        names.append(_place_before(places[0] if places else None) + PHRASES[finding.finding])
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _wordings(finding: str, polarity: Polarity) -> tuple[str, ...]:
    as_opacity = (
        (_AS_OPACITY[polarity],) if finding in _OPACITIES and polarity in _AS_OPACITY else ()
    )
    return _WORDINGS[polarity] + as_opacity


def _place_before(location: Location | None) -> str:
    side, zone = (location.side, location.zone) if location else (None, None)
    if zone:
        return {"both": "bilateral ", None: ""}.get(side, f"{side} ") + f"{zone} zone "
    return {"both": "bilateral ", None: ""}.get(side, f"{side}-sided ")


def _place_after(location: Location | None) -> str:
    side, zone = (location.side, location.zone) if location else (None, None)
    if side == "both":
        return f" in both {zone} zones" if zone else " on both sides"
    if zone:
        return f" in the {side} {zone} zone" if side else f" in the {zone} zone"
    return f" on the {side}" if side else ""
