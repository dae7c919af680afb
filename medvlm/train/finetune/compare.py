"""Before and after on the same films: paired differences with intervals by patient.

N films, F findings. What a report does not mention counts as absent here (`filled`): how often
something is there cannot be told otherwise, and films whose report happens to mention a finding
are not those that a model will see. One figure stays among what is mentioned. What a report calls
uncertain is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from medvlm.data.sets import Film
from medvlm.evaluate.bootstrap import Counts, Floats, percentiles, ratio, resamples
from medvlm.evaluate.calibration import calibration_of
from medvlm.evaluate.metrics import auroc_of, macro_auroc_of, pooled_f1_of
from medvlm.evaluate.subgroups import members_of
from medvlm.findings import FINDINGS, NIH_FINDINGS
from medvlm.train.finetune.predict import Predictions
from medvlm.train.finetune.record import Figure, FindingFigures, Part

FEWEST = 1e-6


def truth_of(films: Sequence[Film]) -> Floats:
    """Labels [N, F]: 0, 1 or NaN."""
    return np.array([film.findings for film in films], np.float64).reshape(-1, len(FINDINGS))


def filled(truth: Floats, silent: np.ndarray) -> Floats:
    """The same with silence, bool [N, F], taken for absence."""
    return np.where(silent & np.isnan(truth), 0.0, truth)


def compare(
    name: str,
    films: Sequence[Film],
    before: Predictions,
    after: Predictions,
    silent: np.ndarray,
    min_patients: int,
    min_positives: int,
) -> Part:
    """Both checkpoints on these films; `silent` [N, F]: what their reports do not mention."""
    groups = [film.group for film in films]
    counts = np.concatenate([np.ones((1, len(films))), resamples(groups)])
    truth = truth_of(films)
    known = filled(truth, silent)
    positives, negatives = (known == 1).sum(axis=0), (known == 0).sum(axis=0)
    denied = (truth == 0).sum(axis=0)
    enough = np.minimum(positives, negatives) >= min_positives
    mentioned = np.minimum(positives, denied) >= min_positives
    spoken = enough[: len(NIH_FINDINGS)]

    def both(statistic: Callable[[Predictions], Floats]) -> Figure:
        return _figure(statistic(before), statistic(after))

    def macro(said: Floats, labels: Floats, columns: np.ndarray) -> Floats:
        return macro_auroc_of(labels[:, columns], said[:, columns], counts)

    return Part(
        name=name,
        patients=len(set(groups)),
        films=len(films),
        enough=len(set(groups)) >= min_patients,
        macro_auroc=both(lambda said: macro(said.probabilities, known, enough)),
        mentioned_auroc=both(lambda said: macro(said.probabilities, truth, mentioned)),
        language_auroc=both(
            lambda said: macro(said.margins, known[:, : len(NIH_FINDINGS)], spoken)
        ),
        ece=both(lambda said: calibration_of(known, said.probabilities, counts)[:, 0]),
        brier=both(lambda said: calibration_of(known, said.probabilities, counts)[:, 1]),
        log_loss=both(lambda said: _log_loss(known, said.probabilities, counts)),
        stated_f1=both(lambda said: _stated_f1(known, said, counts)),
        findings={
            finding: FindingFigures(
                positives=int(positives[f]),
                negatives=int(negatives[f]),
                denied=int(denied[f]),
                enough=bool(enough[f]),
                auroc=both(
                    lambda said, f=f: auroc_of(  # type: ignore[misc]
                        known[:, f], said.probabilities[:, f], counts
                    )
                ),
            )
            for f, finding in enumerate(FINDINGS)
            if positives[f]
        },
    )


def subgroups(
    films: Sequence[Film],
    before: Predictions,
    after: Predictions,
    silent: np.ndarray,
    min_patients: int,
    min_positives: int,
    *,
    prefix: str = "",
) -> Iterator[Part]:
    """The same for each sex, age group and view that has films."""
    for groups in members_of(films).values():
        for name, own in groups.items():
            part = compare(
                prefix + name,
                [film for film, chosen in zip(films, own, strict=True) if chosen],
                _rows(before, own),
                _rows(after, own),
                silent[own],
                min_patients,
                min_positives,
            )
            yield part.model_copy(update={"findings": {}})


def _rows(said: Predictions, own: np.ndarray) -> Predictions:
    return said._replace(probabilities=said.probabilities[own], margins=said.margins[own])


def _figure(before: Floats, after: Floats) -> Figure:
    """From the values [1 + R] on all rows and on each resample."""
    change = after - before
    low, high = percentiles(change[1:])
    undefined = np.isnan(change[0])
    return Figure(
        before=_number(before[0]),
        after=_number(after[0]),
        change=_number(change[0]),
        change_ci=None if undefined or np.isnan(low) else (low, high),
    )


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _log_loss(truth: Floats, said: Floats, counts: Counts) -> Floats:
    known = ~np.isnan(truth)
    right = np.where(truth == 1, said, 1 - said).clip(FEWEST)
    each = np.where(known, -np.log(right), 0).sum(axis=1)
    return ratio(counts @ each, counts @ known.sum(axis=1))


def _stated_f1(truth: Floats, said: Predictions, counts: Counts) -> Floats:
    return pooled_f1_of(truth, said.probabilities >= said.present_from, counts)[:, 2]
