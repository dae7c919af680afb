"""Made-up reports, in the formats that hospitals export, about made-up studies."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Sequence
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import BasicTextSRStorage, ExplicitVRLittleEndian, generate_uid

STUDY, OTHER_STUDY = "1.2.826.0.1.77.1", "1.2.826.0.1.77.2"


def table(
    rows: Sequence[Sequence[str]],
    header: Sequence[str] = ("study_instance_uid", "text"),
    delimiter: str = ",",
    encoding: str = "utf-8",
) -> bytes:
    """A table as an export program writes it."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([header, *rows])
    return text.getvalue().encode(encoding)


def coded(meaning: str, code: str = "1", scheme: str = "DCM") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, scheme, meaning
    return item


def content(kind: str, concept: str, text: str = "", *children: Dataset) -> Dataset:
    """One content item of a structured report."""
    item = Dataset()
    item.ValueType, item.RelationshipType = kind, "CONTAINS"
    item.ConceptNameCodeSequence = [coded(concept)]
    if text:
        item.TextValue = text
    if children:
        item.ContentSequence = list(children)
    return item


def structured(*children: Dataset, **elements: Any) -> Dataset:
    """A Basic Text SR of STUDY with these content items."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = BasicTextSRStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.Modality, ds.StudyInstanceUID, ds.SeriesInstanceUID = "SR", STUDY, generate_uid()
    ds.PatientID, ds.PatientName, ds.AccessionNumber = "ID-1", "Doe^Jane", "ACC-1"
    ds.ValueType, ds.CompletionFlag, ds.VerificationFlag = "CONTAINER", "COMPLETE", "VERIFIED"
    ds.ConceptNameCodeSequence = [coded("Radiology Report", "11528-7", "LN")]
    ds.ContentDate, ds.ContentTime = "20200301", "101112"
    ds.ContentSequence = list(children)
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def file_bytes(ds: Dataset) -> bytes:
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def attached(text: str, kind: str = "text/plain") -> dict[str, str]:
    """A FHIR attachment."""
    return {"contentType": kind, "data": base64.b64encode(text.encode()).decode()}


def diagnostic_report(**elements: Any) -> dict[str, Any]:
    """A FHIR DiagnosticReport of STUDY, by a contained ImagingStudy as R4 has it."""
    study = {
        "resourceType": "ImagingStudy",
        "id": "study",
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{STUDY}"}],
    }
    return {
        "resourceType": "DiagnosticReport",
        "id": "one",
        "status": "final",
        "contained": [study],
        "imagingStudy": [{"reference": "#study"}],
        "conclusion": "Small effusion.",
        **elements,
    }


def accession(value: str) -> dict[str, Any]:
    """A FHIR identifier that is an accession number."""
    return {"type": {"coding": [{"code": "ACSN"}]}, "value": value}
