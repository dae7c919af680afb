"""`medvlm evaluate`: whatever a folder holds labels for is scored, through the product's own path.

The gate is recorded and not enforced.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from medvlm.data.sets import load_set
from medvlm.draft.compose import model_record
from medvlm.errors import DataSetError
from medvlm.evaluate.heads import anatomy, calibration, classification, grounding
from medvlm.evaluate.report import report
from medvlm.evaluate.scan import scan
from medvlm.evaluate.vqa import vqa
from medvlm.model.checkpoint import Checkpoint


def evaluate_folder(
    checkpoint: Checkpoint,
    root: Path,
    parts: Collection[str],
    validation_only: bool,
    batch_size: int,
) -> dict[str, Any]:
    """The evaluation JSON of the contract. Raises DataSetError if there is nothing to score."""
    data = load_set(root)
    films = [film for film in data.films if film.validation or not validation_only]
    questions = [q for q in data.questions if q.validation or not validation_only]
    if not films and not questions:
        raise DataSetError("holds nothing to score", file=str(root), remedy="use --split all")
    scores: dict[str, Any] = {
        "model": model_record(checkpoint).model_dump(),
        "data": {
            "name": data.kind,
            "split": "validation" if validation_only else "all",
            "images": len(films),
            "groups": len({film.group for film in films}),
            "questions": len(questions),
        },
    }
    if questions and "vqa" in parts:
        scores["vqa"] = vqa(checkpoint, questions, batch_size)
        scores["data"]["gate_would_refuse"] = scores["vqa"].pop("gate_would_refuse")
    if data.kind == "vqa_rad" or not films:
        return scores
    scanned = scan(checkpoint, films, batch_size)
    scores["data"]["gate_would_refuse"] = sum(not item.accepted for item in scanned)
    found: dict[str, Any] = {}
    if "classification" in parts:
        found["classification"] = classification(data.kind, scanned)
    if "calibration" in parts:
        found["calibration"] = calibration(data.kind, scanned)
    if "grounding" in parts:
        found["grounding"] = grounding(scanned, checkpoint.config.constant_boxes)
    if "anatomy" in parts:
        found["anatomy"] = anatomy(scanned)
    if "report" in parts and data.kind == "nih_cxr":
        found["report"] = report(checkpoint, films, batch_size)
    return scores | {part: figures for part, figures in found.items() if figures}
