"""The last step of a checkpoint: calibration and operating points, on validation patients; extras.

A few numbers are fitted on some two hundred patients who trained nothing: one slope and an
intercept per finding (Platt, 1999), and single cut-offs. Per-finding cut-offs for "present" would
fit the noise of a dozen positives. What depends on these numbers (calibration, F1 of the text, box
size) is therefore measured on the patients that they were fitted on; AUROCs are untouched by them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from medvlm.data.sets import DataSet, Film, load_set
from medvlm.draft.answer import presence_margins
from medvlm.draft.ground import OPACITY, regions
from medvlm.draft.locate import DENSE_OPACITY, map_boxes
from medvlm.draft.look import Seen
from medvlm.evaluate.boxes import best_constant_boxes, mean_best_iou
from medvlm.evaluate.metrics import finding_f1
from medvlm.evaluate.scan import fractions, look_at_files
from medvlm.findings import FINDINGS, NIH_FINDINGS
from medvlm.model.checkpoint import (
    CARD,
    Calibration,
    Checkpoint,
    CheckpointConfig,
    OperatingPoints,
    load_checkpoint,
    save_checkpoint,
)
from medvlm.model.extras import Extras
from medvlm.model.phrase_head import PhraseHead
from medvlm.model.references import References
from medvlm.train.donors import choose_donors
from medvlm.train.familiarity import familiarity_of
from medvlm.train.films import FilmStore
from medvlm.train.opacity_boxes import Marked, fit_box_scorer, true_boxes
from medvlm.train.opacity_head import fit_opacity_head
from medvlm.train.phrase_head import fit_phrase_head

# "Is seen" is said of what is more likely than not; an F1-optimal cut-off would say it at 0.2.
PRESENT_FROM = 0.5
MISS_RATE = 0.05
# Kermany's children are one to five years old; NIH has none that is younger.
YOUNGEST_YEARS = 1
RIDGE = 0.25
OPACITY_CUTS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)


def release(
    checkpoint: Path,
    data: Path,
    out: Path,
    llm_path: Path | None = None,
    cache: Path = Path("runs/cache"),
) -> Path:
    """Fits the figures on NIH's validation patients and writes the checkpoint with them.

    `data`: the folder of `nih_cxr`, and of `kermany_cxr`, whose lung masks teach phrases, if it is
    there. `cache`: for the films' pixels.
    """
    loaded = load_checkpoint(str(checkpoint), llm_path)
    adults, children = load_set(data / "nih_cxr"), _children(data)
    nih = adults.films
    opacity = fit_opacity_head(loaded, nih)
    # Everything else is read from the averaged map.
    loaded = replace(loaded, extras=Extras(opacity=opacity))
    films = [film for film in nih if film.validation]
    said, margins, opacities = _collect(loaded.uncalibrated(), films)
    truth = np.stack([film.findings for film in films]).astype(float)
    calibration = fit_calibration(truth, logit(said.clip(1e-6, 1 - 1e-6)))
    intercepts = np.array([calibration.intercepts[name] for name in FINDINGS])
    probabilities = expit(logit(said.clip(1e-6, 1 - 1e-6)) * calibration.slope + intercepts)
    own = slice(0, len(NIH_FINDINGS))
    true = truth[:, own] == 1
    points = OperatingPoints(
        present_from=PRESENT_FROM,
        absent_below=absent_cuts(truth, probabilities, best_cut(true, probabilities[:, own]) / 2),
        checklist=best_cut(true, margins),
        opacity=_opacity_cut(films, opacities),
        frontal_chest=0.5,
    )
    training = [film.boxes_of(OPACITY) for film in nih if film.reviewed and not film.validation]
    config: CheckpointConfig = loaded.config.model_copy(
        update={
            "calibration": calibration,
            "operating_points": points,
            "constant_boxes": tuple(best_constant_boxes(training)),
            "gate": loaded.config.gate.model_copy(update={"min_age_years": YOUNGEST_YEARS}),
        }
    )
    learned = [film for film in nih if not film.validation]
    extras = Extras(
        choose_donors(loaded, learned),
        fit_box_scorer(_marked(loaded, learned)),
        References.of(truth, probabilities),
        None if children is None else _phrases(loaded, adults, children, cache),
        familiarity_of(loaded, [own.films for own in (adults, children) if own is not None]),
        opacity,
    )
    save_checkpoint(loaded.model, config, out, extras)
    if (card := checkpoint / CARD).is_file() and checkpoint.resolve() != out.resolve():
        (out / CARD).write_bytes(card.read_bytes())
    return out


def _children(data: Path) -> DataSet | None:
    """Kermany's set, if it is there."""
    root = data / "kermany_cxr"
    return load_set(root) if (root / "labels.csv").is_file() else None


def _phrases(
    checkpoint: Checkpoint, adults: DataSet, children: DataSet, cache: Path
) -> PhraseHead | None:
    """Taught on the children's films with lung masks, and on adults' without."""
    films = tuple(film for film in children.films if film.lung_mask is not None)
    store = FilmStore.build([adults, replace(children, films=films)], cache)
    model = checkpoint.model
    return fit_phrase_head(model.vision, model.language, store, model.config.encoder.size)


def fit_calibration(truth: np.ndarray, logits: np.ndarray) -> Calibration:
    """Slope and intercepts of least log loss over known labels [N, F] (NaN: unknown).

    A ridge of `RIDGE` pulls the intercepts to 0, for findings with few positives.
    """
    known = ~np.isnan(truth)
    target = np.nan_to_num(truth)

    def loss(parameters: np.ndarray) -> float:
        z = logits * np.exp(parameters[0]) + parameters[1:]
        each = np.logaddexp(0, z) - target * z
        ridge = RIDGE * (parameters[1:] ** 2).sum()
        return float((each * known).sum() + ridge)

    fitted = minimize(loss, np.zeros(1 + truth.shape[1]), method="L-BFGS-B").x
    return Calibration(
        slope=float(np.exp(fitted[0])),
        intercepts={name: float(b) for name, b in zip(FINDINGS, fitted[1:], strict=True)},
    )


def best_cut(truth: np.ndarray, scores: np.ndarray) -> float:
    """The one cut-off for all findings with the best micro F1; [N, F] both."""
    cuts = np.quantile(scores, np.linspace(0.3, 0.995, 200))
    f1 = [finding_f1(truth, scores >= cut)["f1"] or 0.0 for cut in cuts]
    return float(cuts[int(np.argmax(f1))])


def absent_cuts(truth: np.ndarray, probabilities: np.ndarray, least: float) -> dict[str, float]:
    """Per finding, the probability under which at most `MISS_RATE` of its positives lie.

    Never under `least`: what is much less probable than a statement is not worth a "possible", or
    every film would have a dozen.
    """
    cuts = {}
    for i, name in enumerate(FINDINGS):
        positive = probabilities[truth[:, i] == 1, i]
        low = float(np.quantile(positive, MISS_RATE, method="lower")) if len(positive) else 0.0
        cuts[name] = max(low, least)
    return cuts


def _collect(
    checkpoint: Checkpoint, films: list[Film]
) -> tuple[np.ndarray, np.ndarray, list[Callable[[float], list]]]:
    said, margins, opacities = [], [], []
    paths = [film.image for film in films]
    for seen in look_at_files(checkpoint, paths, 8, "calibrating"):
        said.append([seen.probabilities[name] for name in FINDINGS])
        margins.append(presence_margins(checkpoint, seen, list(NIH_FINDINGS)))
        opacities.append(_boxes_at(seen))
    return np.array(said), np.array(margins), opacities


def _marked(checkpoint: Checkpoint, films: list[Film]) -> list[Marked]:
    """The reviewed films with an opacity box, as the model sees them."""
    boxed = [f for f in films if f.reviewed and f.boxes_of(OPACITY)]
    looks = look_at_files(checkpoint, [film.image for film in boxed], 8, "fitting boxes")
    # Visual tokens of a hundred films would fill the memory for nothing.
    return [
        Marked(replace(seen, sight=None), true_boxes(seen, film))  # type: ignore[arg-type]
        for film, seen in zip(boxed, looks, strict=True)
    ]


def _boxes_at(seen: Seen) -> Callable[[float], list]:
    """The opacity boxes of a film at any cut-off; keeps the map, not the features."""
    heat, light = seen.dense[DENSE_OPACITY].copy(), replace(seen, sight=None)  # type: ignore[arg-type]

    def boxes(cut: float) -> list:
        found = map_boxes(heat, cut, light.transform.size)
        return [
            (fractions(light, region), item.score)
            for item in found
            for region in regions(light, [item.box])
        ]

    return boxes


def _opacity_cut(films: list[Film], opacities: list[Callable[[float], list]]) -> float:
    """The coarse cut-off with the best mean best IoU on the reviewed films with a box."""
    marked = [
        (boxes, film.boxes_of(OPACITY))
        for film, boxes in zip(films, opacities, strict=True)
        if film.reviewed and film.boxes_of(OPACITY)
    ]
    scores = [
        mean_best_iou([boxes(cut) for boxes, _ in marked], [true for _, true in marked])
        for cut in OPACITY_CUTS
    ]
    return OPACITY_CUTS[int(np.argmax(scores))]
