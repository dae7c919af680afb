"""Small made-up sets, laid out as those of the data pack."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image


def picture(path: Path, seed: int, size: tuple[int, int] = (160, 140)) -> None:
    """A grey picture of smooth noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8)).astype(np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(path)


def nih(root: Path, count: int = 24) -> Path:
    """`count` films of as many patients; every third has an effusion, every fourth a box."""
    rows, boxes = [], []
    for i in range(count):
        name = f"{i:04}.png"
        picture(root / "images" / name, i)
        labels = ["Effusion"] if i % 3 == 0 else []
        labels += ["Pneumonia"] if i % 4 == 0 else []
        rows.append(
            {
                "image": name,
                "patient_id": str(i),
                "age_years": "50",
                "sex": "MF"[i % 2],
                "view_position": ("PA", "AP")[i % 2],
                "labels": "|".join(labels) or "No Finding",
                "opacity_boxes_reviewed": "1",
            }
        )
        if i % 4 == 0:
            box = {"x": 0.1, "y": 0.5, "width": 0.3, "height": 0.3, "source": "made up"}
            boxes.append({"image": name, "label": "Lung Opacity", **box})
    _write(root / "labels.csv", rows)
    _write(root / "boxes.csv", boxes)
    return root


def kermany(root: Path, count: int = 12) -> Path:
    """`count` films; half with pneumonia, all with lung masks."""
    rows = []
    for i in range(count):
        name = f"k{i:03}.png"
        picture(root / "images" / name, 100 + i, (140, 120))
        mask = np.zeros((120, 140), np.uint8)
        mask[20:100, 15:60], mask[20:100, 80:125] = 1, 2
        (root / "lung_masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(root / "lung_masks" / name)
        label = ("normal", "viral_pneumonia")[i % 2]
        rows.append({"image": name, "patient_id": f"p{i}", "label": label, "has_lung_mask": "1"})
    _write(root / "labels.csv", rows)
    return root


def vqa(root: Path, count: int = 12) -> Path:
    """`count` images of three organs, with two questions each."""
    lines = []
    for i in range(count):
        name = f"v{i:03}.png"
        picture(root / "images" / name, 200 + i)
        for j, (question, answer, kind) in enumerate(
            [("Is this normal?", ("Yes", "No")[i % 2], "CLOSED"), ("What is this?", "CT", "OPEN")]
        ):
            lines.append(
                {
                    "qid": 2 * i + j,
                    "image": name,
                    "organ": ("HEAD", "CHEST", "ABD")[i % 3],
                    "question": question,
                    "answer": answer,
                    "answer_type": kind,
                    "question_type": "OTHER",
                }
            )
    (root / "qa.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return root


def pack(root: Path) -> Path:
    """All three."""
    nih(root / "nih_cxr")
    kermany(root / "kermany_cxr")
    vqa(root / "vqa_rad")
    return root


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
