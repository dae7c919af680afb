"""What is watched while aligning: does the language model see the image, or only the question?

Every figure stands beside the same figure over another film's image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from medvlm.data.sets import Question
from medvlm.draft.wording import checklist_question
from medvlm.evaluate.controls import other_patient
from medvlm.evaluate.metrics import auroc
from medvlm.findings import NIH_FINDINGS
from medvlm.model.language import Turn
from medvlm.model.vlm import Sight, VisionLanguageModel
from medvlm.train.films import FilmStore, Side

See = Callable[[np.ndarray], Sight]
"""Films of the store, as the product reads them -> how the language model sees them."""


@torch.no_grad()
def watch(
    model: VisionLanguageModel,
    see: See,
    store: FilmStore,
    films: np.ndarray,
    questions: Sequence[Question] | None,
    side: Side,
) -> dict[str, float]:
    """Macro AUROC of the probe and of the model's own yes/no; accuracy on closed questions.

    `films` are of `side`, and so are the `questions` that are asked. If they are None the language
    model is not asked at all.
    """
    figures: dict[str, float] = {}
    if len(films):
        truth = store.findings[films, : len(NIH_FINDINGS)].numpy()
        said, seen = [], []
        for film in films:
            sight = see(np.array([film]))
            said.append(model.probe(sight.tokens.mean(dim=1))[0, : len(NIH_FINDINGS)].float().cpu())
            if questions is not None:
                turns = [Turn(checklist_question(name)) for name in NIH_FINDINGS]
                seen.append(model.margins(sight, turns).cpu())
        figures["probe"] = macro_auroc(truth, torch.stack(said).numpy())
        if questions is not None:
            margins = torch.stack(seen).numpy()
            figures["checklist"] = macro_auroc(truth, margins)
            other = other_patient([store.films[film].group for film in films])
            if other is not None:
                figures["checklist_swapped"] = macro_auroc(truth, margins[other])
    if questions:
        figures["closed"], figures["closed_swapped"] = _closed(model, see, store, questions, side)
    return figures


def macro_auroc(truth: np.ndarray, scores: np.ndarray) -> float:
    """Mean AUROC over the columns with at least 3 positives and a negative, else NaN."""
    columns = [i for i in range(truth.shape[1]) if 3 <= truth[:, i].sum() < len(truth)]
    if not columns:
        return float("nan")
    return float(np.mean([auroc(truth[:, i], scores[:, i]) for i in columns]))


def _closed(
    model: VisionLanguageModel,
    see: See,
    store: FilmStore,
    questions: Sequence[Question],
    side: Side,
) -> tuple[float, float]:
    """Accuracy on yes/no questions, over their image and over another of its organ."""
    row_of = {store.films[row].image.name: row for row in store.rows("vqa_rad", side)}
    asked = [q for q in questions if q.image.name in row_of and q.answer.lower() in ("yes", "no")]
    images = sorted({(q.organ, q.image.name) for q in asked})
    right = [0, 0]
    for i, (organ, image) in enumerate(images):
        own = [q for q in asked if q.image.name == image]
        others = [j for j, (o, _) in enumerate(images) if o == organ and j != i]
        after = next((j for j in others if j > i), others[0] if others else i)
        for k, name in enumerate((image, images[after][1])):
            sight = see(np.array([row_of[name]]))
            margins = model.margins(sight, [Turn(q.question) for q in own]).tolist()
            right[k] += sum(
                (m > 0) == (q.answer.lower() == "yes") for m, q in zip(margins, own, strict=True)
            )
    total = max(1, len(asked))
    return right[0] / total, right[1] / total
