"""Coded concepts: findings, presence, headings, kinds of study.

A code stands here only where its meaning was checked; anything else has a code of our own scheme
(``99MEDVLM``), which claims nothing. Sources: DICOM PS3.16 (its context groups CID 240, 6102, 7000
to 7002, as pydicom carries them), SNOMED CT International, LOINC.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import NamedTuple

from medvlm.export.words import cut, plain
from medvlm.findings import PHRASES, Polarity
from medvlm.review.records import StudyRow

PRIVATE = "99MEDVLM"
# Names that UUIDs of version 5 are made below, so that one thing has one UID wherever it is made.
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "medvlm.export")
PRIVATE_UID = f"2.25.{NAMESPACE.int}"
SYSTEMS = {  # of FHIR
    "SCT": "http://snomed.info/sct",
    "LN": "http://loinc.org",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "UCUM": "http://unitsofmeasure.org",
    PRIVATE: f"urn:oid:{PRIVATE_UID}",
}


class Concept(NamedTuple):
    """A code (up to 16 characters), its scheme as DICOM names it, its meaning (up to 64)."""

    value: str
    scheme: str
    meaning: str


FINDINGS: dict[str, Concept] = {
    "Atelectasis": Concept("46621007", "SCT", "Atelectasis"),  # SNOMED CT
    "Cardiomegaly": Concept("8186001", "SCT", "Cardiomegaly"),  # SNOMED CT
    "Effusion": Concept("60046008", "SCT", "Pleural effusion"),  # PS3.16 and SNOMED CT
    "Infiltration": Concept("112121", "DCM", "Infiltrate"),  # PS3.16 CID 6102
    # Of the chest by their context group; SNOMED CT's own meaning is of any place.
    "Mass": Concept("4147007", "SCT", "Mass"),  # PS3.16 CID 6102
    "Nodule": Concept("27925004", "SCT", "Nodule"),  # PS3.16 CID 6102
    "Pneumonia": Concept("233604007", "SCT", "Pneumonia"),  # SNOMED CT
    "Pneumothorax": Concept("36118008", "SCT", "Pneumothorax"),  # PS3.16 CID 6102
    "Consolidation": Concept("95436008", "SCT", "Lung consolidation"),  # SNOMED CT
    "Edema": Concept("19242006", "SCT", "Pulmonary edema"),  # PS3.16 and SNOMED CT
    "Emphysema": Concept("87433001", "SCT", "Pulmonary emphysema"),  # SNOMED CT
    "Fibrosis": Concept("51615001", "SCT", "Fibrosis of lung"),  # SNOMED CT
    "Hernia": Concept("84089009", "SCT", "Hiatal hernia"),  # SNOMED CT
    "Lung_Opacity": Concept("112001", "DCM", "Opacity"),  # PS3.16 CID 6102
    # No code of a standard was found whose meaning could be checked.
    "Pleural_Thickening": Concept("PLEURAL_THICK", PRIVATE, "Pleural thickening"),
}

# PS3.16 CID 240, Present-Absent.
PRESENCE: dict[Polarity, Concept] = {
    "present": Concept("52101004", "SCT", "Present"),
    "absent": Concept("272519000", "SCT", "Absent"),
    "uncertain": Concept("373068000", "SCT", "Undetermined"),
}

ORIGINS: dict[str, Concept] = {
    "machine": Concept("MACHINE", PRIVATE, "Drafted by software"),
    "edited": Concept("EDITED", PRIVATE, "Drafted by software, edited by a person"),
    "human": Concept("HUMAN", PRIVATE, "Written by a person"),
}
ORIGIN = Concept("ORIGIN", PRIVATE, "Origin of the sentence")
PROBABILITY = Concept("PROBABILITY", PRIVATE, "Probability that the finding is present")
ATTESTATION = Concept("ATTESTATION", PRIVATE, "Attestation")
NO_UNITS = Concept("1", "UCUM", "no units")

# PS3.16 CID 7001, headings, and CID 7002, elements of a diagnostic imaging report.
INDICATIONS = Concept("18785-6", "LN", "Indications for Procedure")
PRIOR_PROCEDURES = Concept("55114-3", "LN", "Prior Procedure Descriptions")
FINDINGS_HEADING = Concept("59776-5", "LN", "Findings")
IMPRESSIONS = Concept("19005-8", "LN", "Impressions")
ADDENDUM = Concept("55107-7", "LN", "Addendum")
PROCEDURE_DESCRIPTION = Concept("121065", "DCM", "Procedure Description")
FINDING = Concept("121071", "DCM", "Finding")
IMPRESSION = Concept("121073", "DCM", "Impression")

# PS3.16 CID 7000, titles.
_IMAGING_REPORT = Concept("18748-4", "LN", "Diagnostic Imaging Report")
_CT_CHEST_REPORT = Concept("24627-2", "LN", "CT Chest Report")
_XRAY_REPORT = Concept("43468-8", "LN", "X-Ray Report")
# LOINC's own names of studies.
_IMAGING_STUDY = Concept("18748-4", "LN", "Diagnostic imaging study")
_CT_CHEST = Concept("24627-2", "LN", "CT Chest")
_XRAY_CHEST = Concept("30745-4", "LN", "XR Chest Views")
_PORTABLE_XRAY_CHEST = Concept("30746-2", "LN", "Portable XR Chest Views")

_CHEST = re.compile(r"CHEST|THORAX|LUNG|胸", re.IGNORECASE)
_PORTABLE = re.compile(r"\bportable\b|ポータブル", re.IGNORECASE)
_XRAYS = frozenset({"CR", "DX"})


def uid_of(*names: str) -> str:
    """The UID of what these names stand for, the same wherever and whenever it is made."""
    return f"2.25.{uuid.uuid5(NAMESPACE, chr(0).join(names)).int}"


def finding(name: str) -> Concept:
    """The concept of a finding; one of our own for a name that is none of the fifteen."""
    if name in FINDINGS:
        return FINDINGS[name]
    digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()
    return Concept(f"F-{digest[:12]}", PRIVATE, cut(plain(name), 64) or "Other finding")


def phrase(name: str) -> str:
    """The finding in the words used for people."""
    return PHRASES.get(name) or cut(plain(name), 64) or "other finding"


def document_title(study: StudyRow) -> Concept:
    """What kind of report DICOM calls it."""
    if study.modality in _XRAYS:
        return _XRAY_REPORT
    return _CT_CHEST_REPORT if study.modality == "CT" and _of_chest(study) else _IMAGING_REPORT


def examination(study: StudyRow) -> Concept:
    """What LOINC calls the study; a portable film only where the description says so."""
    if not _of_chest(study):
        return _IMAGING_STUDY
    if study.modality in _XRAYS:
        return _PORTABLE_XRAY_CHEST if _PORTABLE.search(study.description or "") else _XRAY_CHEST
    return _CT_CHEST if study.modality == "CT" else _IMAGING_STUDY


def _of_chest(study: StudyRow) -> bool:
    return bool(_CHEST.search(study.body_part or study.description or ""))
