"""Real DICOM files of pydicom and pydicom-data (never downloaded), and small made-up ones."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid


def shipped(name: str) -> Path:
    """A file from pydicom's own test files, or from pydicom-data."""
    for package, folder in (("pydicom", "data/test_files"), ("data_store", "data")):
        spec = find_spec(package)
        if spec and spec.origin:
            path = Path(spec.origin).parent / folder / name
            if path.exists():
                return path
    raise FileNotFoundError(name)


def synthetic(pixels: np.ndarray, **elements: Any) -> Dataset:
    """A CR chest film (PA, MONOCHROME2, no window) with these stored values [H, W] or [H, W, 3]."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    ds.SOPClassUID = ComputedRadiographyImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.PatientID, ds.PatientName = "ID-1", "Doe^Jane"
    ds.Modality, ds.BodyPartExamined, ds.ViewPosition = "CR", "CHEST", "PA"
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
    ds.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = ds.BitsStored = 8 * pixels.dtype.itemsize
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    ds["PixelData"].VR = "OW" if pixels.dtype.itemsize > 1 else "OB"
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def save(ds: Dataset, path: Path) -> Path:
    ds.save_as(path, enforce_file_format=True)
    return path


def ramp(rows: int = 160, columns: int = 200, dtype: type = np.uint16) -> np.ndarray:
    """Stored values that grow to the right, 0 .. columns - 1."""
    return np.tile(np.arange(columns, dtype=dtype), (rows, 1))
