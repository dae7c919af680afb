"""Prepares a site's studies for training: pixels, labels, boxes, sentences and a split on disk.

The folder is laid out like a set of the data pack (`docs/reports.md`), and nothing in it names a
patient: pictures have no header, names are keyed pseudonyms, texts are redacted.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medvlm import __version__
from medvlm.config import GateConfig
from medvlm.data.sets import split_sha256
from medvlm.data.site import Site, SiteFilm
from medvlm.data.site_card import CARD, write_card
from medvlm.data.site_labels import nih_labels
from medvlm.data.site_plan import SIDES, Plan, PlannedStudy, split_patients
from medvlm.data.site_plan import plan as plan
from medvlm.data.site_summary import LabelCounts, Part, ProblemRecord, Side, SiteSummary, counted
from medvlm.dicom.read import Progress
from medvlm.errors import DataSetError, InputError
from medvlm.findings import FINDINGS
from medvlm.image.gate import CHEST_FILMS, header_reasons
from medvlm.image.load import load_images
from medvlm.reports.labels import LABELLER
from medvlm.reports.report import Problem

SUMMARY, SPLIT, LABELS, BOXES, REPORTS = (
    *("summary.json", "split.json", "labels.csv", "boxes.csv", "reports.jsonl"),
)
LONGEST_SIDE = 1024  # pixels
_COLUMNS = (
    *("image", "patient_id", "study_id", "age_years", "sex", "view_position", "labels"),
    *FINDINGS,
)


def summarise(site: Site, gate: GateConfig = CHEST_FILMS, salt: bytes | str = b"") -> SiteSummary:
    """What `prepare` would do, without writing and without looking at pixels."""
    made = plan(site, gate, salt)
    kept = {made.image_name(film) for item in made.studies for film in item.films}
    return _summary(made, kept, [], None)


def prepare(
    site: Site,
    out: Path | str,
    gate: GateConfig = CHEST_FILMS,
    salt: bytes | str = b"",
    progress: Progress | None = None,
) -> SiteSummary:
    """Plans and writes the prepared set. Raises UsageError, DataSetError."""
    return write_prepared(plan(site, gate, salt), Path(out), progress)


def write_prepared(made: Plan, out: Path, progress: Progress | None = None) -> SiteSummary:
    """Writes the set into `out`, which appears when it is whole.

    Raises:
        DataSetError: there is something in `out` already, or no film is left to write.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataSetError("is not empty", file=str(out), remedy="give a new folder")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        (partial / "images").mkdir(parents=True)
        kept, refused = _write_images(made, partial / "images", progress)
        if not kept:
            raise DataSetError(
                "no film of the site can be used",
                remedy="look at the problems and refusals of a dry run",
            )
        # A patient whose every film turned out unusable is on no side.
        left = {
            item.patient_id
            for item in made.studies
            if any(made.image_name(film) in kept for film in item.films)
        }
        made = replace(made, sides=split_patients(left, made.key))
        for name, content in _tables(made, kept).items():
            (partial / name).write_text(content, encoding="utf-8")
        summary = _summary(made, kept, refused, _digest(partial))
        (partial / SUMMARY).write_text(summary.model_dump_json(indent=2) + "\n", encoding="utf-8")
        write_card(partial / CARD, summary)
        if out.exists():
            out.rmdir()
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return summary


def picture_of(pixels: NDArray[np.float32]) -> Image.Image:
    """Rendered pixels [H, W] in 0..1 as 8-bit grey, the longest side at most 1024."""
    height, width = pixels.shape
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        source = Image.fromarray(np.ascontiguousarray(pixels, dtype=np.float32))
        pixels = np.asarray(source.resize(size, Image.Resampling.BICUBIC))
    return Image.fromarray(np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8))


def _write_images(
    made: Plan, folder: Path, progress: Progress | None
) -> tuple[set[str], list[str | Problem]]:
    """Names of the pictures written; codes of refusals, and problems, of the others."""
    films = [film for item in made.studies for film in item.films]
    kept: set[str] = set()
    lost: list[str | Problem] = []
    images = load_images([film.instance for film in films])
    for number, (film, image) in enumerate(zip(films, images, strict=True), 1):
        if isinstance(image, InputError):
            lost.append(Problem(film.source, image.code, image.message))
        elif reasons := header_reasons(image, made.gate):
            lost.append(reasons[0].code)
        else:
            name = made.image_name(film)
            picture_of(image.pixels).save(folder / name, format="PNG")
            kept.add(name)
        if progress:
            progress(number, len(films))
    return kept, lost


def _tables(made: Plan, kept: set[str]) -> dict[str, str]:
    labels, boxes, reports = [], [], []
    for item, films in _kept_studies(made, kept):
        said = item.known.labels
        for film in films:
            facts, instance = film.facts, film.instance
            labels.append(
                {
                    "image": made.image_name(film),
                    "patient_id": item.patient_id,
                    "study_id": item.study_id,
                    "age_years": "" if facts.age_years is None else str(facts.age_years),
                    "sex": facts.sex,
                    "view_position": _view(instance.view_position),
                    "labels": nih_labels(said),
                    **{finding: said[finding] or "" for finding in FINDINGS},
                }
            )
            for box in item.known.boxes.get(instance.sop_instance_uid or "", ()):
                boxes.append(
                    {
                        "image": made.image_name(film),
                        "label": box.finding,
                        **{name: f"{getattr(box, name):.6f}" for name in _SIZES},
                        "source": box.source,
                    }
                )
        reports.append(
            {
                "study_id": item.study_id,
                "patient_id": item.patient_id,
                "images": [made.image_name(film) for film in films],
                "sentences": [
                    {
                        "section": sentence.section,
                        "text": sentence.text,
                        "statements": [vars(one) for one in sentence.statements],
                    }
                    for sentence in item.known.sentences
                ],
            }
        )
    split = {
        "patients": dict(sorted(made.sides.items())),
        "sha256": split_sha256(made.sides),
    }
    return {
        LABELS: _csv(_COLUMNS, labels),
        BOXES: _csv(("image", "label", *_SIZES, "source"), boxes),
        REPORTS: "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in reports),
        SPLIT: json.dumps(split, indent=2) + "\n",
    }


_SIZES = ("x", "y", "width", "height")


def _kept_studies(
    made: Plan, kept: set[str]
) -> Iterator[tuple[PlannedStudy, tuple[SiteFilm, ...]]]:
    """In the order of their pseudonyms, which says nothing."""
    for item in sorted(made.studies, key=lambda item: item.study_id):
        if films := tuple(film for film in item.films if made.image_name(film) in kept):
            yield item, films


def _view(view: str | None) -> str:
    words = (view or "").upper()
    return words if words in ("AP", "PA") else ""


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _digest(folder: Path) -> str:
    """Of every file in the folder, its name and its bytes, but for the split's."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != SPLIT:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def _summary(
    made: Plan, kept: set[str], lost: Sequence[str | Problem], data_sha256: str | None
) -> SiteSummary:
    site = made.site
    parts: dict[Side, Counter[str]] = {side: Counter() for side in SIDES}
    patients: dict[Side, set[str]] = {side: set() for side in SIDES}
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    redacted: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    for item, films in _kept_studies(made, kept):
        side = made.sides[item.patient_id]
        patients[side].add(item.patient_id)
        boxes = sum(
            len(item.known.boxes.get(film.instance.sop_instance_uid or "", ())) for film in films
        )
        parts[side].update(
            studies=1, films=len(films), boxes=boxes, sentences=len(item.known.sentences)
        )
        redacted += item.known.redacted
        dropped += item.known.dropped
        for finding, label in item.known.labels.items():
            labels[finding][label or "not_mentioned"] += len(films)
            if label == "present":
                labels[finding][side] += len(films)
    problems = [*site.problems, *made.problems, *(one for one in lost if isinstance(one, Problem))]
    return SiteSummary(
        medvlm=__version__,
        labeller=LABELLER,
        dry=data_sha256 is None,
        found={
            "files": site.files,
            "images": sum(len(study.films) for study in site.studies),
            "studies": len(site.studies),
            "patients": len({study.patient for study in site.studies}),
            "reports": site.reports,
            "reports_matched": sum(study.report is not None for study in site.studies),
            "reviews": site.reviews,
            "boxes": sum(map(len, site.boxes.values())),
        },
        prepared={
            side: Part(
                patients=len(patients[side]),
                **{name: parts[side][name] for name in ("studies", "films", "boxes", "sentences")},
            )
            for side in SIDES
        },
        labels={
            finding: LabelCounts(
                present=labels[finding]["present"],
                absent=labels[finding]["absent"],
                uncertain=labels[finding]["uncertain"],
                not_mentioned=labels[finding]["not_mentioned"],
                positives={side: labels[finding][side] for side in SIDES},
            )
            for finding in FINDINGS
        },
        refused=counted([*made.refused, *(one for one in lost if isinstance(one, str))]),
        redacted=dict(sorted(redacted.items())),
        dropped=dict(sorted(dropped.items())),
        problems=counted(problem.code for problem in problems),
        details=tuple(ProblemRecord(**vars(problem)) for problem in problems),
        key_id=made.key.digest("key", "id").hex()[:12],
        split_sha256=split_sha256(made.sides),
        data_sha256=data_sha256,
    )
