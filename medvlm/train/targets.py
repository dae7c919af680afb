"""What a film can be asked, made from its labels, boxes and masks.

Many short, image-dependent questions on each film, drawn anew in every epoch: a language model that
is taught with a few free questions learns the questions and not the images.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medvlm.data.cache import film_transform
from medvlm.data.sets import Film, Question
from medvlm.draft.locate import LungSide, place_of
from medvlm.draft.parse import Location, Polarity
from medvlm.draft.sentences import sentence
from medvlm.draft.wording import (
    DESCRIBE_QUESTION,
    NORMAL_QUESTION,
    REGION_PLACE_QUESTION,
    REGION_QUESTION,
    SEX_QUESTION,
    VIEW_QUESTION,
    checklist_question,
    findings_in_words,
    place_words,
    sentence_request,
    where_question,
)
from medvlm.findings import FINDINGS, PHRASES
from medvlm.image.geometry import Box
from medvlm.model.heads import ATTRIBUTES
from medvlm.model.language import Turn
from medvlm.train import phrasings
from medvlm.train.facts import Facts, fact_turns, image_facts

CHECKS = 6
QUESTIONS = 12
FACTS = 4


@dataclass(frozen=True)
class Asker:
    """Draws turns for films; `questions` are the training questions by image name, `facts` what is
    known of how those images were made; `most` turns on a film, 0 for all."""

    questions: Mapping[str, Sequence[Question]]
    facts: Mapping[str, Facts]
    size: int
    most: int = 0

    @classmethod
    def build(cls, questions: Sequence[Question], size: int, most: int = 0) -> Asker:
        grouped = defaultdict(list)
        training = [question for question in questions if not question.validation]
        for question in training:
            grouped[question.image.name].append(question)
        return cls(dict(grouped), image_facts(training), size, most)

    def turns(
        self,
        film: Film,
        lungs: Mapping[LungSide, Box],
        plain: bool,
        random: np.random.Generator,
    ) -> list[Turn]:
        """One epoch's turns for one film. Boxes hold in the plain view only."""
        turns = self._all(film, lungs, plain, random)
        if not self.most or len(turns) <= self.most:
            return turns
        return [turns[i] for i in random.permutation(len(turns))[: self.most]]

    def _all(
        self,
        film: Film,
        lungs: Mapping[LungSide, Box],
        plain: bool,
        random: np.random.Generator,
    ) -> list[Turn]:
        known = np.flatnonzero(~np.isnan(film.findings))
        if film.image.name in self.questions:
            return self._free(film.image.name, random)
        turns = self._checks(film, known, random)
        turns.append(self._attribute(film, random))
        turns.append(self._presence(film, known, random))
        turns.append(self._sentence(film, known, random))
        if plain:
            turns += self._places(film, lungs, random)
        return turns

    def _free(self, image: str, random: np.random.Generator) -> list[Turn]:
        own = self.questions[image]
        chosen = random.permutation(len(own))[:QUESTIONS]
        turns = [Turn(own[i].question, answer_words(own[i].answer)) for i in chosen]
        return turns + fact_turns(self.facts[image], FACTS, random)

    def _checks(self, film: Film, known: np.ndarray, random: np.random.Generator) -> list[Turn]:
        positive = [i for i in known if film.findings[i] == 1]
        negative = random.permutation([i for i in known if film.findings[i] == 0])
        chosen = [*positive[:CHECKS], *negative[: max(2, CHECKS - len(positive))]]
        return [
            Turn(checklist_question(FINDINGS[int(i)]), _yes(film.findings[int(i)])) for i in chosen
        ]

    def _attribute(self, film: Film, random: np.random.Generator) -> Turn:
        options: list[tuple[float, str, phrasings.Wordings]] = [
            (float(film.normal), NORMAL_QUESTION, phrasings.NORMAL)
        ]
        for name, question in (("ap_view", VIEW_QUESTION), ("male", SEX_QUESTION)):
            value = film.attributes[ATTRIBUTES.index(name)]
            if not np.isnan(value):
                options.append((float(value), question, phrasings.ATTRIBUTES[name]))
        value, short, others = options[random.integers(len(options))]
        return _asked(value, ((short, True), *others), random)

    def _presence(self, film: Film, known: np.ndarray, random: np.random.Generator) -> Turn:
        positive = [i for i in known if film.findings[i] == 1]
        if len(known) > 1 and random.random() < 0.25:
            said = {FINDINGS[int(i)]: film.findings[i] == 1 for i in known}
            return Turn(DESCRIBE_QUESTION, findings_in_words(said))
        pool = positive if positive and random.random() < 0.5 else known
        i = int(random.choice(pool))
        name = FINDINGS[i]
        told = name not in phrasings.INDIRECT or film.findings[i] == 1 or film.normal
        if told and (signs := phrasings.SIGNS.get(name)) and random.random() < 0.5:
            return _asked(film.findings[i], signs, random)
        wording = phrasings.PRESENCE[random.integers(len(phrasings.PRESENCE))]
        return Turn(wording.format(PHRASES[name]), _yes(film.findings[i]))

    def _sentence(self, film: Film, known: np.ndarray, random: np.random.Generator) -> Turn:
        """What to say is given in the request, so it need not be true of the film."""
        finding = FINDINGS[int(random.integers(len(FINDINGS)))]
        polarity: Polarity = ("present", "absent", "uncertain")[random.integers(3)]
        location = None
        if polarity != "absent" and random.random() < 0.7:
            location = Location(
                side=(None, "right", "left", "both")[random.integers(4)],
                zone=(None, "upper", "mid", "lower")[random.integers(4)],
            )
            if location.side is None:
                location = None
        # The wording follows from finding and polarity, so that the answer can be learned.
        variant = FINDINGS.index(finding)
        return Turn(
            sentence_request(finding, polarity, location),
            sentence(finding, polarity, location, variant),
        )

    def _places(
        self, film: Film, lungs: Mapping[LungSide, Box], random: np.random.Generator
    ) -> list[Turn]:
        turns: list[Turn] = []
        transform = film_transform(film, self.size)
        boxes = [
            (name, transform.to_grid(Box.from_fractions(*own, *transform.source_size)))
            for name, own in film.boxes
            if name in PHRASES
        ]
        if len(lungs) == 2:
            sides: tuple[LungSide, LungSide] = ("right", "left")
            side = sides[random.integers(2)]
            lung = lungs[side]
            third = int(random.integers(3))
            box = Box(lung.x, lung.y + third * lung.height / 3, lung.width, lung.height / 3)
            words = place_words(Location(side, ("upper", "mid", "lower")[third]))
            turns.append(Turn(REGION_PLACE_QUESTION, words, corners(box)))
        if boxes:
            finding, box = boxes[random.integers(len(boxes))]
            turns += _in_region(finding, True, box, random)
            own = [other for name, other in boxes if name == finding]
            if words := place_words(place_of(own, lungs)):
                turns.append(Turn(where_question(finding), words))
        # On abnormal films too: or the film's state alone would answer for the region.
        clear = film.normal or film.reviewed
        if clear and len(lungs) == 2 and (boxes or random.random() < 0.5):
            empty = empty_box(lungs, [box for _, box in boxes], random)
            if empty is not None:
                turns += _in_region("Lung_Opacity", False, empty, random)
        return turns


def _in_region(
    finding: str, present: bool, box: Box, random: np.random.Generator
) -> tuple[Turn, Turn]:
    """What is in the box, asked openly and as a yes or no."""
    phrase, region = PHRASES[finding], corners(box)
    closed = phrasings.IN_REGION[random.integers(len(phrasings.IN_REGION))].format(phrase)
    return (
        Turn(REGION_QUESTION, phrase if present else f"no {phrase}", region),
        Turn(closed, _yes(float(present)), region),
    )


def empty_box(
    lungs: Mapping[LungSide, Box], taken: Sequence[Box], random: np.random.Generator
) -> Box | None:
    """A box in a lung that meets none of `taken`, of the sizes that opacities have.

    Its size must not give away the answer. None if no place was found.
    """
    for _ in range(8):
        lung = lungs[("right", "left")[random.integers(2)]]
        width, height = (float(v) for v in lung.width * random.uniform([0.4, 0.5], [1.0, 1.6]))
        x = lung.x + float(random.uniform(0, max(0.0, lung.width - width)))
        y = lung.y + float(random.uniform(0, max(0.0, lung.height - height)))
        box = Box(x, y, width, height)
        if all(box.intersection(other).area < 0.1 * min(box.area, other.area) for other in taken):
            return box
    return None


def answer_words(answer: str) -> str:
    """An answer as it is taught and compared: lower case, without its full stop."""
    return answer.strip().rstrip(".").lower()


def corners(box: Box) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of a box."""
    return box.x, box.y, box.right, box.bottom


def _asked(value: float, wordings: phrasings.Wordings, random: np.random.Generator) -> Turn:
    """One of the wordings, answered by whether `value` is 1, or by its opposite where so marked."""
    wording, straight = wordings[int(random.integers(len(wordings)))]
    return Turn(wording, _yes(value if straight else 1 - value))


def _yes(value: float) -> str:
    return "yes" if value == 1 else "no"
