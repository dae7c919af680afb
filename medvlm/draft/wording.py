"""How the language model is asked: one wording for training, drafting and evaluation alike."""

from __future__ import annotations

from collections.abc import Mapping

from medvlm.draft.parse import Location, Polarity
from medvlm.findings import PHRASES

VIEW_QUESTION = "AP view?"
SEX_QUESTION = "male patient?"
NORMAL_QUESTION = "normal?"
REGION_QUESTION = "What is in this region?"
REGION_PLACE_QUESTION = "Where is this region?"
DESCRIBE_QUESTION = "Which findings are present?"


def checklist_question(finding: str) -> str:
    """The question whose answer is yes or no, asked for every finding of the lexicon."""
    return f"{PHRASES[finding]}?"


def comparison_question(finding: str) -> str:
    """Asks what became of a finding; the prior image stands beside the current one."""
    return f"Compared with the prior: {PHRASES[finding]}?"


def comparison_answer(before: bool, now: bool) -> str:
    """The answer to it, of a finding that was or was not there before, and is or is not now."""
    if now:
        return "unchanged" if before else "new"
    return "resolved" if before else "not seen"


def sentence_request(finding: str, polarity: Polarity, location: Location | None) -> str:
    """Asks for one sentence of a report; what it must say is given, how is the model's."""
    place = place_words(location)
    return f"Report: {PHRASES[finding]}, {polarity}{', ' + place if place else ''}."


def where_question(finding: str) -> str:
    """Asks for the place of a finding, answered in the words of `place_words`."""
    return f"Where is the {PHRASES[finding]}?"


def place_words(location: Location | None) -> str:
    """'right lower zone', 'left lung', 'both lungs', 'upper zone', or '' for no place."""
    if location is None or (location.side is None and location.zone is None):
        return ""
    if location.side == "both":
        return f"both {location.zone} zones" if location.zone else "both lungs"
    if location.zone is None:
        return f"{location.side} lung"
    return f"{location.side} {location.zone} zone" if location.side else f"{location.zone} zone"


def findings_in_words(said: Mapping[str, bool]) -> str:
    """'pleural effusion, mass' of the findings that are true; 'none' if no one is."""
    return ", ".join(PHRASES[name] for name, present in said.items() if present) or "none"
