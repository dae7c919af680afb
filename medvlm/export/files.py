"""All forms of one report at once: in memory, or as files in a folder."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from pathlib import Path

from pydicom.dataset import Dataset

from medvlm.errors import ExportError
from medvlm.export.as_json import to_json
from medvlm.export.fhir import to_fhir
from medvlm.export.pdf import KeyImage, to_pdf
from medvlm.export.sr import sr_bytes, to_sr
from medvlm.export.sr_content import Kind
from medvlm.export.text import to_text
from medvlm.review.records import Report

TEXT, JSON, PDF = "report.txt", "report.json", "report.pdf"
BASIC, COMPREHENSIVE, FHIR = "report.basic.dcm", "report.comprehensive.dcm", "report.fhir.json"
MEDIA_TYPES = {
    TEXT: "text/plain",
    JSON: "application/json",
    PDF: "application/pdf",
    BASIC: "application/dicom",
    COMPREHENSIVE: "application/dicom",
    FHIR: "application/fhir+json",
}


@dataclass(frozen=True)
class Made:
    """`files`: contents by name. `skipped`: why a form was left out, by its name."""

    files: dict[str, bytes]
    skipped: dict[str, str] = field(default_factory=dict)


def make_all(
    report: Report,
    *,
    headers: Sequence[Dataset] = (),
    key_images: Sequence[KeyImage] = (),
    organisation: str | None = None,
    zone: tzinfo = UTC,
) -> Made:
    """Every form of the report. A picture that is not DICOM has no structured report.

    Raises ExportError, MissingExtra: as the single forms do; then nothing was made.
    """
    pdf = to_pdf(report, key_images, zone=zone)
    fhir = to_fhir(report, pdf=pdf, zone=zone)
    files = {
        TEXT: to_text(report, zone=zone).encode(),
        JSON: to_json(report).encode(),
        PDF: pdf,
        FHIR: (json.dumps(fhir, ensure_ascii=False, indent=2) + "\n").encode(),
    }
    if report.study.study_instance_uid is None:
        why = "a picture that is not DICOM belongs to no study"
        return Made(files, {BASIC: why, COMPREHENSIVE: why})
    kinds: tuple[tuple[str, Kind], ...] = ((BASIC, "basic"), (COMPREHENSIVE, "comprehensive"))
    for name, kind in kinds:
        sr = to_sr(report, headers, kind, organisation=organisation, zone=zone)
        files[name] = sr_bytes(sr)
    return Made(files)


def write_all(
    report: Report,
    folder: Path,
    *,
    headers: Sequence[Dataset] = (),
    key_images: Sequence[KeyImage] = (),
    organisation: str | None = None,
    zone: tzinfo = UTC,
) -> list[Path]:
    """Writes the forms into a folder, which is made if need be, and returns their paths.

    All are made before the first is written, and each appears whole or not at all. Only the owner
    may read them.

    Raises:
        ExportError: also if the folder cannot be written.
        MissingExtra: a library is not installed.
    """
    made = make_all(
        report, headers=headers, key_images=key_images, organisation=organisation, zone=zone
    )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return [_write(folder / name, content) for name, content in made.files.items()]
    except OSError as error:
        raise ExportError(
            f"The report cannot be written ({type(error).__name__})",
            remedy="choose a folder that may be written and has room",
        ) from error


def _write(path: Path, content: bytes) -> Path:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path
