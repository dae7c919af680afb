"""Made-up reports for the tests of the exports, of real images' headers or of none."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

from medvlm.export.sr import sr_bytes
from medvlm.records import ModelRecord, Region
from medvlm.review.records import (
    Addendum,
    ImageRow,
    Patient,
    Report,
    SignedSentence,
    StudyRow,
)
from tests.dicoms import shipped, synthetic

STUDY = "0123456789abcdef" * 2
SIGNED_AT = datetime(2026, 5, 4, 4, 12, tzinfo=UTC)
MODEL = ModelRecord(name="medvlm-cxr-lite", version="0.2.2", weights_sha256="b" * 64)
needs_dciodvfy = pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="needs dciodvfy (Debian package dicom3tools)"
)


def header(name: str) -> Dataset:
    """The header of a file of pydicom or pydicom-data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of them bend the rules
        return dcmread(shipped(name), stop_before_pixels=True)


def film(**elements: Any) -> Dataset:
    """The header of a made-up film of 60 rows and 80 columns."""
    import numpy as np

    ds = synthetic(np.zeros((60, 80), np.uint16), **elements)
    del ds.PixelData
    return ds


def row_of(ds: Dataset, number: int = 1) -> ImageRow:
    return ImageRow(
        id=f"{number:032x}",
        study_id=STUDY,
        stack=0,
        number=number,
        sop_instance_uid=str(ds.SOPInstanceUID),
        rows=ds.Rows,
        columns=ds.Columns,
        frames=int(ds.get("NumberOfFrames") or 1),
        sha256="0" * 64,
    )


def region(ds: Dataset | None = None, **values: Any) -> Region:
    uid = str(ds.SOPInstanceUID) if ds is not None else None
    box = {"x": 3.25, "y": 4.5, "width": 20.0, "height": 10.0}
    return Region.model_validate({"sop_instance_uid": uid, **box, **values})


def said(text: str, finding: str = "Effusion", **values: Any) -> SignedSentence:
    fields: dict[str, Any] = {"polarity": "present", "origin": "machine", **values}
    return SignedSentence(text=text, finding=finding, **fields)


def study(ds: Dataset | None = None, **values: Any) -> StudyRow:
    patient = {"patient_id": str(ds.get("PatientID") or "") or None} if ds is not None else {}
    fields: dict[str, Any] = {
        "study_instance_uid": str(ds.StudyInstanceUID) if ds is not None else None,
        "patient": Patient.model_validate(patient),
        "modality": "CR",
        "body_part": "CHEST",
        "taken": "20260504130200",
        "received": datetime(2026, 5, 4, 4, 5, tzinfo=UTC),
        "status": "signed",
        "priority": "routine",
        **values,
    }
    return StudyRow(id=STUDY, **fields)


def report(*images: Dataset, **values: Any) -> Report:
    """A final report of one sentence with a region on the first image, and one denial."""
    first = images[0] if images else None
    sentences = (
        said("Small left pleural effusion.", probability=0.873, regions=(region(first),)),
        said("No pneumothorax.", "Pneumothorax", polarity="absent", probability=0.02),
    )
    fields: dict[str, Any] = {
        "status": "final",
        "study_id": STUDY,
        "version": 1,
        "study": study(first),
        "images": tuple(row_of(ds, number) for number, ds in enumerate(images, start=1)),
        "model": MODEL,
        "sentences": sentences,
        "indication": "Cough and fever.",
        "comparison": "None.",
        "impression": "Small left pleural effusion.",
        "signed_by": "Jane Doe",
        "signed_at": SIGNED_AT,
        "attestation": "locally attested",
        "sha256": "c" * 64,
        **values,
    }
    return Report(**fields)


def preliminary(*images: Dataset, **values: Any) -> Report:
    unsigned = dict.fromkeys(("signed_by", "signed_at", "attestation", "sha256"))
    return report(*images, **{"status": "preliminary", "version": 0, **unsigned, **values})


def amended(*images: Dataset, **values: Any) -> Report:
    addendum = Addendum(
        text="Discussed with the ward at 14:10.",
        signed_by="John Roe",
        signed_at=datetime(2026, 5, 4, 5, 20, tzinfo=UTC),
        attestation="hospital log-in",
    )
    return report(*images, **{"status": "amended", "version": 2, "addenda": (addendum,), **values})


def picture(width: int = 64, height: int = 48) -> bytes:
    with BytesIO() as file:
        Image.linear_gradient("L").resize((width, height)).save(file, format="PNG")
        return file.getvalue()


def complaints(ds: Dataset, folder: Path) -> list[str]:
    """The lines in which dciodvfy speaks of an error."""
    file = folder / "report.dcm"
    file.write_bytes(sr_bytes(ds))
    done = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).splitlines()
    assert any(line.endswith("SR") for line in said), said  # it knew what it looked at
    return [line for line in said if "error" in line.lower()]
