"""What a site's film can be asked: as any labelled film, and its radiologists' own sentences.

A sentence is taught where medvlm's own parser reads it back as exactly one statement, for that is
what a draft asks for. And none of its words may be used in the reports of few patients only: what
redaction may have missed (a name, a number) is rare, and what is learned by heart may be said to
others.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from medvlm.data.sets import Film
from medvlm.draft.locate import LungSide
from medvlm.draft.parse import parse_sentence
from medvlm.draft.wording import sentence_request
from medvlm.draft.write import Statement, says
from medvlm.image.geometry import Box
from medvlm.model.language import Turn
from medvlm.train.targets import Asker

SENTENCES = 3
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class SiteAsker:
    """Draws turns; `own` are the site's sentences by image name, as requests with their answers.

    `silent`: by image name, what its report does not mention, bool [F]; `silence`: how often that
    is asked as absent.
    """

    base: Asker
    own: Mapping[str, Sequence[Turn]]
    silent: Mapping[str, np.ndarray] = field(default_factory=dict)
    silence: float = 0.0

    def turns(
        self, film: Film, lungs: Mapping[LungSide, Box], plain: bool, random: np.random.Generator
    ) -> list[Turn]:
        """One epoch's turns for one film, as `Asker.turns`."""
        if (silent := self.silent.get(film.image.name)) is not None:
            shown = absent_at_times(film.findings, silent, self.silence, random)
            film = replace(film, findings=shown)
        turns = self.base.turns(film, lungs, plain, random)
        own = self.own.get(film.image.name, ())
        chosen = random.permutation(len(own))[:SENTENCES]
        return turns + [own[i] for i in chosen]


def absent_at_times(
    labels: np.ndarray, silent: np.ndarray, share: float, random: np.random.Generator
) -> np.ndarray:
    """Labels of any shape with a random `share` of those that are `silent` set to 0.

    Silence mostly means absence, but not as surely as a denial: it counts for less.
    """
    shown = silent & np.isnan(labels) & (random.random(labels.shape) < share)
    return np.where(shown, np.float32(0), labels)


def taught_sentences(
    reports: Mapping[str, Sequence[str]], patient_of: Mapping[str, str], patients_per_word: int
) -> dict[str, list[Turn]]:
    """The sentences to teach, by image name.

    Args:
        reports: redacted sentences by image name.
        patient_of: each image's patient; images that are not in it are left out.
        patients_per_word: how many patients' reports must use a word.
    """
    users: dict[str, set[str]] = defaultdict(set)
    for image, sentences in reports.items():
        if image in patient_of:
            for sentence in sentences:
                for word in _words(sentence):
                    users[word].add(patient_of[image])
    common = {word for word, patients in users.items() if len(patients) >= patients_per_word}
    taught: dict[str, list[Turn]] = defaultdict(list)
    for image, sentences in reports.items():
        for sentence in sentences if image in patient_of else ():
            turn = _turn(sentence)
            if turn is not None and set(_words(sentence)) <= common:
                taught[image].append(turn)
    return dict(taught)


def _turn(sentence: str) -> Turn | None:
    """The request that the sentence answers, if it is one statement and nothing else."""
    read = parse_sentence(sentence)
    # A bracket stands where something was redacted.
    if len(read) != 1 or "[" in sentence:
        return None
    finding, polarity, location = read[0].finding, read[0].polarity, read[0].location
    if not says(sentence, Statement(finding, polarity, location)):
        return None
    return Turn(sentence_request(finding, polarity, location), sentence)


def _words(sentence: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(sentence)]
