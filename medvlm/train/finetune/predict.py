"""What a checkpoint says of films, kept to compare two checkpoints on the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medvlm.data.sets import Film
from medvlm.draft.answer import presence_margins
from medvlm.evaluate.scan import look_at_files
from medvlm.findings import FINDINGS, NIH_FINDINGS
from medvlm.model.checkpoint import Checkpoint


class Predictions(NamedTuple):
    """Of N films: calibrated `probabilities` [N, F], the language model's yes-minus-no `margins`
    [N, 14] for the NIH findings, and from where on a finding is stated as present."""

    probabilities: np.ndarray
    margins: np.ndarray
    present_from: float


def predict(
    checkpoint: Checkpoint,
    films: Sequence[Film],
    path: Path,
    batch_size: int,
    title: str,
    margins: np.ndarray | None = None,
) -> Predictions:
    """Looks at the films as the product does; what an interrupted run left at `path` is taken.

    The caller sees to it that a path belongs to one checkpoint and one list of films. `margins`
    [N, 14], where they are known, spare the language model's reading, which takes most of the time.
    """
    if path.is_file():
        with np.load(path) as kept:
            return Predictions(kept["probabilities"], kept["margins"], float(kept["present_from"]))
    said, asked = [], []
    paths = [film.image for film in films]
    for seen in look_at_files(checkpoint, paths, batch_size, title):
        said.append([seen.probabilities[name] for name in FINDINGS])
        if margins is None:
            asked.append(presence_margins(checkpoint, seen, list(NIH_FINDINGS)))
    known = asked if margins is None else margins
    found = Predictions(
        np.array(said, dtype=np.float64).reshape(-1, len(FINDINGS)),
        np.array(known, dtype=np.float64).reshape(-1, len(NIH_FINDINGS)),
        checkpoint.config.operating_points.present_from,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, **found._asdict())
    partial.replace(path)
    return found
