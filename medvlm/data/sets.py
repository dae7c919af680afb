"""A folder laid out as a set of the data pack -> films and questions with their labels.

Whatever is there is read: `labels.csv` (NIH or Kermany columns), `boxes.csv`, `images/`,
`lung_masks/`, `qa.jsonl`. Unknown labels are NaN, never 0.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medvlm.errors import DataSetError
from medvlm.findings import FINDINGS, NIH_FINDINGS
from medvlm.model.heads import ATTRIBUTES

Fractions = tuple[float, float, float, float]
SITE = "site"  # the kind of a set that `medvlm.data.prepare` wrote; its card lies in its folder
_KNOWN = {"present": 1.0, "absent": 0.0}
KERMANY_LABELS = {"normal": 0.0, "bacterial_pneumonia": 1.0, "viral_pneumonia": 1.0}


@dataclass(frozen=True)
class Film:
    """One image and what is known of it.

    `findings` [len(FINDINGS)] and `attributes` [len(ATTRIBUTES)] hold 0, 1 or NaN (unknown).
    `boxes` are (finding, (x, y, width, height)) in fractions of the image, origin top-left.
    `reviewed`: radiologists looked for lung opacities, so no box means none.
    `normal`: the film's label says that nothing was found.
    `age_years`: the patient's age, or None where the table does not say.
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
    age_years: float | None = None

    def boxes_of(self, finding: str) -> list[Fractions]:
        """Where people saw a finding."""
        return [box for name, box in self.boxes if name == finding]


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


def split_sha256(sides: Mapping[str, str]) -> str:
    """Of a stored split: the sorted lines "patient side"."""
    lines = "".join(f"{patient} {side}\n" for patient, side in sorted(sides.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def load_set(root: Path) -> DataSet:
    """Reads a folder: films of `labels.csv`, questions of `qa.jsonl`, or both.

    Raises DataSetError if it is no set, names an image it lacks, or has a row that makes no sense.
    """
    kind, films = _films(root)
    questions = _questions(root) if (root / "qa.jsonl").is_file() else ()
    if kind is None and not questions:
        raise DataSetError(
            "holds neither labels.csv nor qa.jsonl",
            file=str(root),
            remedy="lay the folder out as described in docs/data.md",
        )
    if kind is None:
        kind, films = "vqa_rad", tuple({q.image: _organ_film(q) for q in questions}.values())
    return DataSet(kind, root, films, questions)


def _films(root: Path) -> tuple[str | None, tuple[Film, ...]]:
    path = root / "labels.csv"
    if not path.is_file():
        return None, ()
    rows = _rows(path)
    try:
        if rows and "labels" in rows[0] and set(FINDINGS) <= set(rows[0]):
            return SITE, tuple(_site_films(root, rows))
        if rows and "labels" in rows[0]:
            return "nih_cxr", tuple(_nih_films(root, rows))
        if rows and "label" in rows[0]:
            return "kermany_cxr", tuple(_kermany_film(root, row) for row in rows)
    except (KeyError, ValueError, TypeError, AttributeError, OSError) as error:
        raise DataSetError(
            f"has a row or column that cannot be read: {error}",
            file=str(path),
            remedy="compare it with docs/data.md",
        ) from error
    raise DataSetError(
        "has neither a column 'labels' nor a column 'label'",
        file=str(path),
        remedy="name the column of findings 'labels'",
    )


def _rows(path: Path) -> list[dict[str, str]]:
    # Spreadsheets put a byte-order mark before the first column's name.
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def _group(row: dict[str, str]) -> str:
    """The patient, or the image itself where no patient is named."""
    return (row.get("patient_id") or "").strip() or row["image"]


def _lung_mask(root: Path, image: str) -> Path | None:
    mask = root / "lung_masks" / f"{Path(image).stem}.png"
    return mask if mask.is_file() else None


def _one_of(value: str | None, yes: str, no: str) -> float:
    """1 for `yes`, 0 for `no`, NaN for anything else."""
    return {yes: 1.0, no: 0.0}.get((value or "").strip().upper(), float("nan"))


def _age(row: dict[str, str]) -> float | None:
    said = (row.get("age_years") or "").strip()
    return float(said) if said else None


def _image(root: Path, name: str) -> Path:
    path = root / "images" / name
    if not path.is_file():
        raise DataSetError(
            "is named by the labels but missing", file=str(path), remedy="add it or its row's end"
        )
    return path


def _attributes(**known: float) -> np.ndarray:
    return np.array([known.get(name, np.nan) for name in ATTRIBUTES], dtype=np.float32)


def _boxes(root: Path) -> dict[str, list[tuple[str, Fractions]]]:
    """The boxes of each image."""
    boxes: dict[str, list[tuple[str, Fractions]]] = defaultdict(list)
    if (root / "boxes.csv").is_file():
        for row in _rows(root / "boxes.csv"):
            x, y, width, height = (float(row[key]) for key in ("x", "y", "width", "height"))
            boxes[row["image"]].append((_box_label(row["label"]), (x, y, width, height)))
    return boxes


def _site_films(root: Path, rows: list[dict[str, str]]) -> list[Film]:
    """Films of a prepared set: each finding known or NaN, the split as it was stored."""
    boxes = _boxes(root)
    stored = json.loads((root / "split.json").read_text("utf-8"))
    split = stored["patients"]
    if stored["sha256"] != split_sha256(split):
        raise ValueError("split.json is not the one that was written")
    return [
        Film(
            image=_image(root, row["image"]),
            group=row["patient_id"],
            findings=np.array([_KNOWN.get(row[name], np.nan) for name in FINDINGS], np.float32),
            attributes=_attributes(
                ap_view=_one_of(row.get("view_position"), "AP", "PA"),
                male=_one_of(row.get("sex"), "M", "F"),
                frontal_chest=1.0,
                head=0.0,
                abdomen=0.0,
            ),
            boxes=tuple(boxes[row["image"]]),
            normal=row["labels"] == "No Finding",
            validation=split[row["patient_id"]] == "validation",
            age_years=_age(row),
        )
        for row in rows
    ]


def _nih_films(root: Path, rows: list[dict[str, str]]) -> list[Film]:
    boxes = _boxes(root)
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
                group=_group(row),
                findings=np.append(findings, np.float32(opacity)),
                attributes=_attributes(
                    ap_view=_one_of(row.get("view_position"), "AP", "PA"),
                    male=_one_of(row.get("sex"), "M", "F"),
                    frontal_chest=1.0,
                    head=0.0,
                    abdomen=0.0,
                ),
                boxes=own,
                reviewed=reviewed,
                normal="No Finding" in said,
                lung_mask=_lung_mask(root, row["image"]),
                validation=in_validation("nih_cxr", _group(row)),
                age_years=_age(row),
            )
        )
    return films


def _box_label(label: str) -> str:
    """The finding's name; the box file says `Infiltrate` and `Lung Opacity`."""
    return {"Infiltrate": "Infiltration"}.get(label, label.replace(" ", "_"))


def _kermany_film(root: Path, row: dict[str, str]) -> Film:
    findings = np.full(len(FINDINGS), np.nan, dtype=np.float32)
    findings[FINDINGS.index("Pneumonia")] = KERMANY_LABELS[row["label"]]
    return Film(
        image=_image(root, row["image"]),
        group=_group(row),
        findings=findings,
        attributes=_attributes(frontal_chest=1.0, head=0.0, abdomen=0.0),
        normal=row["label"] == "normal",
        lung_mask=_lung_mask(root, row["image"]),
        validation=in_validation("kermany_cxr", _group(row)),
        age_years=_age(row),
    )


def _questions(root: Path) -> tuple[Question, ...]:
    path = root / "qa.jsonl"
    try:
        rows = [
            json.loads(line) for line in path.read_text("utf-8-sig").splitlines() if line.strip()
        ]
        return tuple(_question(root, row) for row in rows)
    except (KeyError, ValueError, TypeError) as error:
        raise DataSetError(
            f"has a line that cannot be read: {error}",
            file=str(path),
            remedy="compare it with docs/data.md",
        ) from error


def _question(root: Path, row: dict[str, Any]) -> Question:
    return Question(
        image=_image(root, row["image"]),
        group=row["image"],
        organ=str(row["organ"]),
        question=str(row["question"]).strip(),
        answer=str(row["answer"]).strip(),
        closed=row["answer_type"] == "CLOSED",
        kind=str(row.get("question_type", "")),
        validation=in_validation("vqa_rad", row["image"]),
    )


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
