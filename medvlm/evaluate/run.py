"""`medvlm evaluate`: whatever a folder holds labels for is scored, through the product's own path.

The gate is recorded and not enforced.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from medvlm.data.sets import load_set
from medvlm.draft.compose import model_record
from medvlm.errors import DataSetError
from medvlm.evaluate.heads import (
    anatomy,
    calibration,
    classification,
    grounding,
    known_findings,
)
from medvlm.evaluate.image_use import image_use
from medvlm.evaluate.references import read_references
from medvlm.evaluate.report import ReportPair, report
from medvlm.evaluate.scan import scan
from medvlm.evaluate.vqa import vqa
from medvlm.model.checkpoint import Checkpoint


class Evaluation(NamedTuple):
    """The evaluation JSON, and the drafts beside the reports that people wrote, where there are."""

    scores: dict[str, Any]
    reports: list[ReportPair]


def evaluate_folder(
    checkpoint: Checkpoint,
    root: Path,
    parts: Collection[str],
    validation_only: bool,
    batch_size: int,
) -> dict[str, Any]:
    """The evaluation JSON of the contract. Raises DataSetError if there is nothing to score."""
    return evaluate_set(checkpoint, root, parts, validation_only, batch_size).scores


def evaluate_set(
    checkpoint: Checkpoint,
    root: Path,
    parts: Collection[str],
    validation_only: bool,
    batch_size: int,
) -> Evaluation:
    """:func:`evaluate_folder`, with the pairs of texts that the part `report` compared."""
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
        return Evaluation(scores, [])
    found: dict[str, Any] = {}
    pairs: list[ReportPair] = []
    scanned = scan(checkpoint, films, batch_size)
    scores["data"]["gate_would_refuse"] = sum(not item.accepted for item in scanned)
    if "classification" in parts:
        found["classification"] = classification(scanned)
    if "calibration" in parts:
        found["calibration"] = calibration(scanned)
    if "grounding" in parts:
        found["grounding"] = grounding(scanned, checkpoint.config.constant_boxes)
    if "anatomy" in parts:
        found["anatomy"] = anatomy(scanned)
    names = known_findings(films)
    # One label among many findings says nothing of what else a draft should name.
    if "report" in parts and len(names) > 1:
        references = read_references(root)
        found["report"], pairs = report(checkpoint, films, names, references, batch_size)
    if "image_use" in parts and names:
        found["image_use"] = image_use(checkpoint, films, names, batch_size)
    return Evaluation(scores | {part: own for part, own in found.items() if own}, pairs)
