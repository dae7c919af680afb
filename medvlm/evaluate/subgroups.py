"""The same scores by sex, age and view: a mean can hide those whom a model serves worse.

A group's macro AUROC is over other findings than another's, so each stands beside that of all other
films over the same findings, and their `gap` has an interval of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from medvlm.data.sets import Film
from medvlm.evaluate.bootstrap import (
    Counts,
    Floats,
    resamples,
    scored,
    weighted_mean,
    with_interval,
)
from medvlm.evaluate.calibration import calibration_of
from medvlm.evaluate.metrics import MIN_POSITIVES, auroc_of, macro_auroc_of
from medvlm.model.heads import ATTRIBUTES

AGES = (("<18", 0, 18), ("18-40", 18, 41), ("41-65", 41, 66), (">65", 66, np.inf))
FEWEST_FILMS = 20
"""A group of fewer films is counted and not scored."""

Members = dict[str, dict[str, np.ndarray]]


def members_of(films: Sequence[Film]) -> Members:
    """For sex, age and view, bool [N] of each group that has films; unknown belongs to none."""
    attributes = np.stack([film.attributes for film in films])
    male, ap = (attributes[:, ATTRIBUTES.index(name)] for name in ("male", "ap_view"))
    ages = np.array(
        [np.nan if film.age_years is None else film.age_years for film in films], np.float64
    )
    table = {
        "sex": {"female": male == 0, "male": male == 1},
        "age": {name: (ages >= low) & (ages < high) for name, low, high in AGES},
        "view": {"AP": ap == 1, "PA": ap == 0},
    }
    found = {
        attribute: {name: own for name, own in groups.items() if own.any()}
        for attribute, groups in table.items()
    }
    return {attribute: groups for attribute, groups in found.items() if groups}


def classification_by_group(
    members: Members, truth: Floats, said: Floats, names: Sequence[str], patients: Sequence[str]
) -> dict[str, Any]:
    """`n`, positives and AUROCs of each group, from truth and probabilities [N, F]."""
    counts = resamples(patients)

    def scores(own: np.ndarray, others: np.ndarray) -> dict[str, Any]:
        positives, negatives = (truth[own] == 1).sum(axis=0), (truth[own] == 0).sum(axis=0)
        enough = (positives >= MIN_POSITIVES) & (negatives >= MIN_POSITIVES)
        if own.sum() < FEWEST_FILMS:
            enough[:] = False
        shared = enough & ((truth[others] == 1).sum(axis=0) >= MIN_POSITIVES)
        result: dict[str, Any] = {
            "n": int(own.sum()),
            "n_positive": int(positives.sum()),
            "macro_over": [name for f, name in enumerate(names) if shared[f]],
        }

        def macro(rows: np.ndarray, of: Floats) -> Floats:
            return macro_auroc_of(truth[rows][:, shared], said[rows][:, shared], of[:, rows])

        if not shared.any():
            result["too_few"] = True
        result |= scored("macro_auroc", lambda of: macro(own, of), counts)
        result |= scored("others_macro_auroc", lambda of: macro(others, of), counts)
        result |= scored("gap", lambda of: macro(own, of) - macro(others, of), counts)
        result["per_finding"] = {
            name: {
                **_scored_if(
                    bool(enough[f]),
                    "auroc",
                    partial(_auroc, truth[own, f], said[own, f], own),
                    counts,
                ),
                "n_positive": int(positives[f]),
                **({} if enough[f] else {"too_few": True}),
            }
            for f, name in enumerate(names)
        }
        return result

    return _each(members, scores)


def calibration_by_group(
    members: Members, truth: Floats, said: Floats, patients: Sequence[str]
) -> dict[str, Any]:
    """Calibration error and Brier score of each group, all findings pooled, and `bias`: how much
    higher the mean probability is than the frequency."""
    counts = resamples(patients)
    over = said - truth

    def scores(own: np.ndarray, others: np.ndarray) -> dict[str, Any]:
        del others
        enough = own.sum() >= FEWEST_FILMS
        result: dict[str, Any] = {"n": int(own.sum()), "n_positive": int((truth[own] == 1).sum())}
        if not enough:
            result["too_few"] = True
        for i, name in enumerate(("ece", "brier")):
            result |= _scored_if(
                enough,
                name,
                partial(_calibration, truth[own], said[own], own, i),
                counts,
            )
        return result | _scored_if(
            enough, "bias", lambda of: weighted_mean(over[own], of[:, own]), counts
        )

    return _each(members, scores)


def _auroc(truth: Floats, said: Floats, own: np.ndarray, counts: Counts) -> Floats:
    return auroc_of(truth, said, counts[:, own])


def _calibration(
    truth: Floats, said: Floats, own: np.ndarray, which: int, counts: Counts
) -> Floats:
    return calibration_of(truth, said, counts[:, own])[:, which]


def _scored_if(
    enough: bool, name: str, statistic: Callable[[Counts], Floats], counts: Counts
) -> dict[str, Any]:
    if not enough:
        return with_interval(name, np.nan, np.empty(0))
    return scored(name, statistic, counts)


def _each(
    members: Members, scores: Callable[[np.ndarray, np.ndarray], dict[str, Any]]
) -> dict[str, Any]:
    """`scores(own, others)` of every group; others: the films of the attribute's other groups."""
    out: dict[str, Any] = {}
    for attribute, groups in members.items():
        whole = np.any(list(groups.values()), axis=0)
        out[attribute] = {name: scores(own, whole & ~own) for name, own in groups.items()}
    return out
