"""What the drafts' text says, what the language model sees by itself, and what it makes of another
patient's image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from medvlm.data.sets import Film
from medvlm.draft.answer import presence_margins
from medvlm.draft.compose import describe
from medvlm.draft.parse import parse_sentence
from medvlm.evaluate.bootstrap import percentiles, replicates
from medvlm.evaluate.controls import other_patient
from medvlm.evaluate.metrics import finding_f1
from medvlm.evaluate.scan import look_at_files
from medvlm.findings import NIH_FINDINGS
from medvlm.model.checkpoint import Checkpoint

MOST_FILMS = 200
"""Writing takes seconds a film; of a larger set, a seeded sample is drafted."""


class Said(NamedTuple):
    """Of N films: findings stated present and those called possible [N, 14], margins of the
    checklist [N, 14], how many are called uncertain [N], and counts."""

    stated: np.ndarray
    possible: np.ndarray
    margins: np.ndarray
    uncertain: np.ndarray
    contradictions: int
    sentences: int


def report(checkpoint: Checkpoint, films: Sequence[Film], batch_size: int) -> dict[str, Any]:
    """The `report` part of the evaluation JSON; intervals by patient.

    `prevalence_f1`: the best that can be said without an image, always the same commonest findings
    of these very films. `shuffled_f1`: every film is given the next patient's visual tokens.
    `with_possible`: the same if what is called possible counts as stated.
    `uncertain_on_normal`: how many findings a draft calls possible on a film without any.
    `text_contradicts_classifier` reads the drafts as released; the parser that counts is the one
    that held the sentences to their statements.
    """
    if len(films) > MOST_FILMS:
        chosen = np.random.default_rng(0).permutation(len(films))[:MOST_FILMS]
        films = [films[i] for i in sorted(chosen)]
    said = _draft_all(checkpoint, films, batch_size)
    truth = np.stack([film.findings[: len(NIH_FINDINGS)] == 1 for film in films])
    groups = [film.group for film in films]
    threshold = checkpoint.config.operating_points.checklist
    seen = said.margins > threshold
    controls = {"prevalence": np.tile(_best_constant(truth), (len(films), 1))}
    if (other := other_patient(groups)) is not None:
        controls["shuffled"] = seen[other]
    scores = finding_f1(truth, said.stated, groups)
    for name, claimed in ({"tokens_only": seen} | controls).items():
        own = finding_f1(truth, claimed, groups)
        scores |= {f"{name}_f1": own["f1"], f"{name}_f1_ci": own["f1_ci"]}
    for name, control in controls.items():
        scores |= _gain(f"gain_over_{name}_ci", truth, seen, control, groups)
    scores["with_possible"] = finding_f1(truth, said.stated | said.possible, groups)
    normal = [row for row, film in enumerate(films) if film.normal]
    if normal:
        scores["uncertain_on_normal"] = float(said.uncertain[normal].mean())
    return scores | {
        "text_contradicts_classifier": said.contradictions,
        "n_sentences": said.sentences,
        "n_films": len(films),
    }


def _draft_all(checkpoint: Checkpoint, films: Sequence[Film], batch_size: int) -> Said:
    stated, possible = np.zeros((2, len(films), len(NIH_FINDINGS)), dtype=bool)
    margins = np.zeros((len(films), len(NIH_FINDINGS)))
    uncertain = np.zeros(len(films))
    contradictions = sentences = 0
    paths = [film.image for film in films]
    for row, seen in enumerate(look_at_files(checkpoint, paths, batch_size, "drafting")):
        for finding in describe(checkpoint, [seen]):
            sentences += 1
            uncertain[row] += finding.polarity == "uncertain"
            read = parse_sentence(finding.text)
            if [(s.finding, s.polarity) for s in read] != [(finding.finding, finding.polarity)]:
                contradictions += 1
            for statement in read:
                if statement.polarity != "absent" and statement.finding in NIH_FINDINGS:
                    claimed = stated if statement.polarity == "present" else possible
                    claimed[row, NIH_FINDINGS.index(statement.finding)] = True
        margins[row] = presence_margins(checkpoint, seen, list(NIH_FINDINGS))
    return Said(stated, possible, margins, uncertain, contradictions, sentences)


def _best_constant(truth: np.ndarray) -> np.ndarray:
    """The k commonest findings, k chosen for the best F1 on these films."""
    order = np.argsort(-truth.sum(axis=0))
    best, best_f1 = np.zeros(truth.shape[1], dtype=bool), -1.0
    for k in range(1, len(order) + 1):
        said = np.zeros(truth.shape[1], dtype=bool)
        said[order[:k]] = True
        f1 = finding_f1(truth, np.tile(said, (len(truth), 1)))["f1"] or 0.0
        if f1 > best_f1:
            best, best_f1 = said, f1
    return best


def _gain(
    name: str, truth: np.ndarray, said: np.ndarray, control: np.ndarray, groups: Sequence[str]
) -> dict[str, Any]:
    def difference(rows: np.ndarray) -> float:
        return _f1(truth[rows], said[rows]) - _f1(truth[rows], control[rows])

    return {name: list(percentiles(replicates(difference, groups)))}


def _f1(truth: np.ndarray, said: np.ndarray) -> float:
    return float(2 * (truth & said).sum() / max(1, truth.sum() + said.sum()))
