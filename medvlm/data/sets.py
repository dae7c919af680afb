"""A folder laid out as a set of the data pack -> films and questions with their labels.

Whatever is there is read: `labels.csv` (NIH or Kermany columns), `boxes.csv`, `images/`,
`lung_masks/`, `qa.jsonl`. Unknown labels are NaN, never 0.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medvlm.errors import DataSetError
from medvlm.findings import FINDINGS, NIH_FINDINGS
from medvlm.model.heads import ATTRIBUTES

Fractions = tuple[float, float, float, float]


@dataclass(frozen=True)
class Film:
    """One image and what is known of it.

    `findings` [len(FINDINGS)] and `attributes` [len(ATTRIBUTES)] hold 0, 1 or NaN (unknown).
    `boxes` are (finding, (x, y, width, height)) in fractions of the image, origin top-left.
    `reviewed`: radiologists looked for lung opacities, so no box means none.
    `normal`: the film's label says that nothing was found.
    """

    image: Path
    group: str
    findings: np.ndarray
    attributes: np.ndarray
    boxes: tuple[tuple[str, Fractions], ...] = ()
    reviewed: bool = False
    normal: bool = False
    lung_mask: Path | None = None
    validation: bool = False


@dataclass(frozen=True)
class Question:
    """One question-answer pair over one image; `group` is the image's name."""

    image: Path
    group: str
    organ: str
    question: str
    answer: str
    closed: bool
    kind: str
    validation: bool = False


@dataclass(frozen=True)
class DataSet:
    """A set of films, of questions, or of both; `kind` names the data card it falls under."""

    kind: str
    root: Path
    films: tuple[Film, ...] = ()
    questions: tuple[Question, ...] = field(default=())


def in_validation(kind: str, group: str) -> bool:
    """A fifth of the patients (or images, where no patient is known), for good.

    The rule hashes the name, so a patient stays on its side however many are added.
    """
    digest = hashlib.sha256(f"medvlm:{kind}:{group}".encode()).hexdigest()
    return int(digest[:8], 16) % 5 == 0


def load_set(root: Path) -> DataSet:
    """Reads a folder. Raises DataSetError if it is no set, or names an image it lacks."""
    if (root / "qa.jsonl").is_file():
        questions = _questions(root)
        films = {q.image: _organ_film(q) for q in questions}
        return DataSet("vqa_rad", root, tuple(films.values()), questions)
    if not (root / "labels.csv").is_file():
        raise DataSetError(
            "holds neither labels.csv nor qa.jsonl",
            file=str(root),
            remedy="lay the folder out as described in docs/data.md",
        )
    rows = _rows(root / "labels.csv")
    if rows and "labels" in rows[0]:
        return DataSet("nih_cxr", root, tuple(_nih_films(root, rows)))
    if rows and "label" in rows[0]:
        return DataSet("kermany_cxr", root, tuple(_kermany_film(root, row) for row in rows))
    raise DataSetError(
        "has neither a column 'labels' nor a column 'label'",
        file=str(root / "labels.csv"),
        remedy="name the column of findings 'labels'",
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _image(root: Path, name: str) -> Path:
    path = root / "images" / name
    if not path.is_file():
        raise DataSetError(
            "is named by the labels but missing", file=str(path), remedy="add it or its row's end"
        )
    return path


def _attributes(**known: float) -> np.ndarray:
    return np.array([known.get(name, np.nan) for name in ATTRIBUTES], dtype=np.float32)


def _nih_films(root: Path, rows: list[dict[str, str]]) -> list[Film]:
    boxes: dict[str, list[tuple[str, Fractions]]] = defaultdict(list)
    if (root / "boxes.csv").is_file():
        for row in _rows(root / "boxes.csv"):
            x, y, width, height = (float(row[key]) for key in ("x", "y", "width", "height"))
            boxes[row["image"]].append((_box_label(row["label"]), (x, y, width, height)))
    films = []
    for row in rows:
        said = set(row["labels"].split("|"))
        findings = np.array([float(name in said) for name in NIH_FINDINGS], dtype=np.float32)
        reviewed = row.get("opacity_boxes_reviewed") == "1"
        own = tuple(boxes[row["image"]])
        opacity = float(any(label == "Lung_Opacity" for label, _ in own)) if reviewed else np.nan
        films.append(
            Film(
                image=_image(root, row["image"]),
                group=row["patient_id"],
                findings=np.append(findings, np.float32(opacity)),
                attributes=_attributes(
                    ap_view=float(row["view_position"] == "AP"),
                    male=float(row["sex"] == "M"),
                    frontal_chest=1.0,
                    head=0.0,
                    abdomen=0.0,
                ),
                boxes=own,
                reviewed=reviewed,
                normal="No Finding" in said,
                validation=in_validation("nih_cxr", row["patient_id"]),
            )
        )
    return films


def _box_label(label: str) -> str:
    """The finding's name; the box file says `Infiltrate` and `Lung Opacity`."""
    return {"Infiltrate": "Infiltration"}.get(label, label.replace(" ", "_"))


def _kermany_film(root: Path, row: dict[str, str]) -> Film:
    findings = np.full(len(FINDINGS), np.nan, dtype=np.float32)
    findings[FINDINGS.index("Pneumonia")] = float(row["label"] != "normal")
    mask = root / "lung_masks" / f"{Path(row['image']).stem}.png"
    return Film(
        image=_image(root, row["image"]),
        group=row["patient_id"],
        findings=findings,
        attributes=_attributes(frontal_chest=1.0, head=0.0, abdomen=0.0),
        normal=row["label"] == "normal",
        lung_mask=mask if mask.is_file() else None,
        validation=in_validation("kermany_cxr", row["patient_id"]),
    )


def _questions(root: Path) -> tuple[Question, ...]:
    questions = []
    for line in (root / "qa.jsonl").read_text(encoding="utf-8").splitlines():
        if not line.strip():
            continue
        row = json.loads(line)
        questions.append(
            Question(
                image=_image(root, row["image"]),
                group=row["image"],
                organ=row["organ"],
                question=str(row["question"]).strip(),
                answer=str(row["answer"]).strip(),
                closed=row["answer_type"] == "CLOSED",
                kind=row["question_type"],
                validation=in_validation("vqa_rad", row["image"]),
            )
        )
    return tuple(questions)


def _organ_film(question: Question) -> Film:
    """VQA-RAD's images teach what is a frontal chest film: all of its chest images are."""
    organ = question.organ
    return Film(
        image=question.image,
        group=question.group,
        findings=np.full(len(FINDINGS), np.nan, dtype=np.float32),
        attributes=_attributes(
            frontal_chest=float(organ == "CHEST"),
            head=float(organ == "HEAD"),
            abdomen=float(organ == "ABD"),
        ),
        validation=question.validation,
    )
