"""Groups instances into studies and gives each the name of its folder."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import PurePath

from medvlm.dicom.facts import is_uid
from medvlm.dicom.instance import Instance
from medvlm.dicom.patient import Sex
from medvlm.dicom.read import Reading

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Study:
    """The images of one examination of one patient.

    Attributes:
        study_instance_uid: None for a picture, and where the file's own is no UID.
        patient: the patient's pseudonym, None where unknown.
        name: a safe folder name, the same whenever the same files are read.
    """

    study_instance_uid: str | None
    patient: str | None
    name: str
    instances: tuple[Instance, ...] = field(repr=False)

    @property
    def modality(self) -> str | None:
        """The one modality of its images, or None where they differ or do not say."""
        return self._common("modality")

    @property
    def body_part(self) -> str | None:
        """The one body part of its images, or None."""
        return self._common("body_part")

    @property
    def view(self) -> str | None:
        """The one view position of its images, or None."""
        return self._common("view_position")

    @property
    def sex(self) -> Sex | None:
        """The one sex that its images tell, or None."""
        told = {instance.patient_sex for instance in self.instances}
        return told.pop() if len(told) == 1 else None

    @property
    def taken(self) -> tuple[str, str]:
        """(YYYYMMDD, HH[MM[SS]]) of its first image that has a date; "" where it is not known."""
        dated = [(i.study_date, i.study_time or "") for i in self.instances if i.study_date]
        return min(dated, default=("", ""))

    def _common(self, fact: str) -> str | None:
        values = {getattr(instance, fact) for instance in self.instances} - {None}
        return values.pop() if len(values) == 1 else None


def group_studies(reading: Reading) -> list[Study]:
    """The studies of a reading, in the order their first image was found.

    A study is the images that share a StudyInstanceUID and a patient; where two patients share
    the UID, the pseudonym is part of the name. A picture, and a file without a
    StudyInstanceUID, is a study of its own.
    """
    groups: dict[tuple[str, str | None, bool], list[Instance]] = defaultdict(list)
    patients: dict[str, set[str | None]] = defaultdict(set)
    for instance in reading.instances:
        uid = instance.study_instance_uid
        if uid is None:
            groups[lone_name(instance), instance.patient_key, False].append(instance)
        else:
            groups[uid, instance.patient_key, True].append(instance)
            patients[uid].add(instance.patient_key)
    studies = []
    for (key, patient, has_uid), instances in groups.items():
        name = safe_uid(key) if has_uid else key
        if has_uid and len(patients[key]) > 1:
            name = f"{name}-{patient or 'unknown'}"
        uid = key if has_uid and is_uid(key) else None
        ordered = sorted(instances, key=lambda item: item.instance_number or 0)  # a stable sort
        studies.append(Study(uid, patient, name, tuple(ordered)))
    return studies


def safe_uid(text: str) -> str:
    """The UID itself, or a name made from its hash where it is none and could lead anywhere."""
    if is_uid(text):
        return text
    return f"study-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:12]}"


def lone_name(instance: Instance) -> str:
    """`<file stem>-<8 characters of its sha256>`, the stem without anything unsafe in a path.

    The name of a DICOM file may be the patient's: it is left out.
    """
    if instance.is_dicom:
        return f"study-{instance.sha256[:12]}"
    stem = _NOT_IN_NAMES.sub("_", PurePath(instance.file).stem).strip("._-")[:80]
    return f"{stem or 'image'}-{instance.sha256[:8]}"
