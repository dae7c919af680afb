"""Who teaches, who chooses and who judges: films of a site and of retention sets, by patient.

Validation patients are fixed by the prepared set and only judge. Of the others a part is set aside
for tuning: a hash decides, so a patient's part is the same in every run with the same site key. Of
a retention set, patients of its training side are rehearsed, others of them tell how much is being
forgotten, and its validation side is scored.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medvlm.config import FinetuneConfig
from medvlm.data.sets import SITE, DataSet, Film, load_set
from medvlm.errors import DataSetError
from medvlm.findings import FINDINGS
from medvlm.train.films import FilmStore
from medvlm.train.finetune.compare import filled, truth_of

FEWEST_ANSWERS = 3
MOST_RECALL = 64


@dataclass(frozen=True)
class Sides:
    """A site's films, no patient on two sides.

    `learnable` [F]: findings with both answers in training; of others the training labels are
    masked, for they would only teach to say one. `silent`: by image name, what its report does not
    mention, bool [F].
    """

    training: tuple[Film, ...]
    tuning: tuple[Film, ...]
    validation: tuple[Film, ...]
    learnable: np.ndarray
    silent: dict[str, np.ndarray]


@dataclass(frozen=True)
class Material:
    """Films to learn from as rows of `store`; `silent` [N, F]: what their reports leave out."""

    store: FilmStore
    silent: np.ndarray
    training: np.ndarray
    tuning: np.ndarray
    rehearsal: np.ndarray
    recall: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """All of them."""
        return np.concatenate([self.training, self.tuning, self.rehearsal, self.recall])

    def truth(self, rows: np.ndarray) -> np.ndarray:
        """Labels [N, F] to judge by, silence being absence."""
        return filled(truth_of([self.store.films[row] for row in rows]), self.silent[rows])


def sides(site: DataSet, share: float) -> Sides:
    """Splits the site's films; `share` of the training patients tune.

    Raises DataSetError if nothing is left to learn from or to judge by.
    """
    silent = _silences(site.root)
    rest = [film for film in site.films if not film.validation]
    usable = [_told_normal(film, silent) for film in rest if not np.isnan(film.findings).all()]
    tuning = [film for film in usable if _tunes(film.group, share)]
    training = [film for film in usable if not _tunes(film.group, share)]
    validation = [film for film in site.films if film.validation]
    truth = truth_of(training)
    answers = np.minimum((truth == 1).sum(axis=0), (truth == 0).sum(axis=0))
    learnable = answers >= FEWEST_ANSWERS
    masked = [_masked(film, learnable) for film in training]
    training = [film for film in masked if not np.isnan(film.findings).all()]
    for films, name in ((training, "train"), (tuning, "tune"), (validation, "validate")):
        if not films:
            raise DataSetError(
                f"holds no patient to {name} with",
                file=str(site.root),
                remedy="Add studies with reports that say of a finding that it is there, and of "
                "others that it is not.",
            )
    return Sides(tuple(training), tuple(tuning), tuple(validation), learnable, silent)


def silence_of(films: Sequence[Film], silent: Mapping[str, np.ndarray]) -> np.ndarray:
    """[N, F]: what the films' reports do not mention; nothing for films without reports."""
    none = np.zeros(len(FINDINGS), dtype=bool)
    return np.array([silent.get(film.image.name, none) for film in films]).reshape(
        -1, len(FINDINGS)
    )


def _silences(root: Path) -> dict[str, np.ndarray]:
    with (root / "labels.csv").open(newline="", encoding="utf-8") as file:
        return {
            row["image"]: np.array([not row[name] for name in FINDINGS])
            for row in csv.DictReader(file)
        }


def gather(
    own: Sides, retention: Sequence[DataSet], config: FinetuneConfig, cache: Path
) -> Material:
    """The site's films and, from the retention sets, as many as `config.rehearsal` asks for."""
    wanted = round(len(own.training) * config.rehearsal / (1 - config.rehearsal))
    each = -(-wanted // max(1, len(retention)))
    rehearsal = [film for data in retention for film in _some(_training(data, False), each)]
    recall = [film for data in retention for film in recalled(data)]
    lists = (own.training, own.tuning, rehearsal, recall)
    films = tuple(film for films in lists for film in films)
    ends = np.cumsum([len(part) for part in lists])
    rows = np.split(np.arange(len(films)), ends[:-1])
    store = FilmStore.build([DataSet(SITE, Path(), films)], cache)
    return Material(store, silence_of(films, own.silent), *rows)


def retention_sets(folder: Path) -> list[DataSet]:
    """One set, or every set in a folder of sets; what has no films with findings is left out.

    Raises DataSetError if nothing can be scored.
    """
    places = [folder] if (folder / "labels.csv").is_file() else sorted(folder.glob("*/labels.csv"))
    roots = [place if place.is_dir() else place.parent for place in places]
    sets = [data for data in map(load_set, roots) if any(film.validation for film in data.films)]
    if not sets:
        raise DataSetError(
            "holds no set with validation patients",
            file=str(folder),
            remedy="Give a folder laid out as described in docs/data.md.",
        )
    return sets


def recalled(data: DataSet) -> list[Film]:
    """Films of a retention set that tell how much is being forgotten: trained on, scored, never."""
    return _some(_training(data, True), MOST_RECALL)


def scored(data: DataSet, most: int) -> list[Film]:
    """Validation films of a retention set, of at most `most` films; whole patients, for good."""
    return _some([film for film in data.films if film.validation], most)


def patients(films: Iterable[Film]) -> int:
    """How many patients the films are of."""
    return len({film.group for film in films})


def _training(data: DataSet, recall: bool) -> list[Film]:
    """The training side; a tenth of its patients tells how much is forgotten."""
    return [
        film
        for film in data.films
        if not film.validation
        and not np.isnan(film.findings).all()
        and _tunes(film.group, 0.1) == recall
    ]


def _some(films: Sequence[Film], most: int) -> list[Film]:
    """Films of whole patients in an order that does not change when others are added."""
    ordered = sorted(films, key=lambda film: (_place(film.group), film.group, film.image.name))
    chosen = ordered[:most]
    if len(ordered) > most and chosen and ordered[most].group == chosen[-1].group:
        # The last patient would be cut in two.
        last = chosen[-1].group
        chosen = [film for film in chosen if film.group != last] or chosen
    return chosen


def _tunes(group: str, share: float) -> bool:
    return _place(group) < share


def _place(group: str) -> float:
    """A patient's place in 0..1, by hash; unrelated to the one that chooses validation."""
    digest = hashlib.sha256(f"medvlm:finetune:{group}".encode()).hexdigest()
    return int(digest[:8], 16) / 2**32


def _told_normal(film: Film, silent: Mapping[str, np.ndarray]) -> Film:
    """A film is taught as normal if its report calls nothing present or uncertain."""
    quiet = (film.findings == 0) | silent[film.image.name]
    return replace(film, normal=bool(film.normal or quiet.all()))


def _masked(film: Film, learnable: np.ndarray) -> Film:
    assert len(learnable) == len(FINDINGS)
    return replace(film, findings=np.where(learnable, film.findings, np.nan).astype(np.float32))
