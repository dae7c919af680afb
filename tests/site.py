"""A hospital's folder: real DICOM files varied into patients, with reports that say what is seen.

Every patient has a name, numbers and a birth date of their own, in headers, in reports and in the
names of files and folders. Some films carry a sign that anybody can see: a white wedge at the
bottom (called a pleural effusion), a white block in the middle (called an enlarged heart).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.uid import UID

from tests.dicoms import save, shipped, synthetic

FAMILIES = ["Quibbleson", "Zandermoor", "Wobblethorpe", "Yarrowgate", "Fizzlewick", "Grumbledon"]
DOCTOR = "Tiddlemarsh"
EFFUSION = (
    "Small left pleural effusion.",
    "There is a left pleural effusion.",
    "Left pleural effusion is seen.",
)
NO_EFFUSION = ("No pleural effusion.", "There is no pleural effusion.")
HEART = ("Cardiomegaly.", "The heart is enlarged.")
NO_HEART = ("The heart size is normal.", "No cardiomegaly.")


@dataclass
class Hospital:
    """The folder, and every word and number in it that identifies somebody."""

    folder: Path
    secrets: set[str] = field(default_factory=set)


def hospital(root: Path, patients: int = 24, films: int = 2, seed: int = 0) -> Hospital:
    """Writes `patients` x `films` studies of one film each, and a table of their reports."""
    made = Hospital(root)
    rows = []
    for i in range(patients):
        random = np.random.default_rng([seed, i])
        family, given = f"{FAMILIES[i % len(FAMILIES)]}{chr(97 + i // 6)}", f"Zebedia{chr(97 + i)}"
        number, birth = f"MRN{4711000 + 37 * i}", f"19{30 + i % 60}0{1 + i % 9}{11 + i % 17}"
        made.secrets |= {family, given, number, birth, DOCTOR}
        for k in range(films):
            effusion, heart = bool(random.random() < 0.5), bool(random.random() < 0.5)
            accession = f"ACC{90817000 + 100 * i + k}"
            study = UID(f"1.2.826.0.1.4711009.{birth}.{i}.{k}")
            made.secrets |= {accession, f"4711009.{birth}"}
            ds = synthetic(
                film_pixels(effusion, heart, random),
                PatientName=f"{family}^{given}",
                PatientID=number,
                PatientBirthDate=birth,
                PatientSex="MF"[i % 2],
                PatientAge=f"{(17, 34, 52, 71)[i % 4]:03}Y",
                AccessionNumber=accession,
                ReferringPhysicianName=f"{DOCTOR}^Hortense",
                StudyDate="20240119",
                ViewPosition=("PA", "AP")[i % 2],
                StudyInstanceUID=study,
                SeriesInstanceUID=UID(f"{study}.1"),
                SOPInstanceUID=UID(f"{study}.1.1"),
            )
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
            place = root / f"{family}_{given}" / f"{accession}.dcm"
            place.parent.mkdir(parents=True, exist_ok=True)
            save(ds, place)
            rows.append(_report(study, accession, f"{family}, {given}", number, effusion, heart, k))
    with (root / "reports.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return made


def _report(
    study: str, accession: str, name: str, number: str, effusion: bool, heart: bool, k: int
) -> dict[str, str]:
    pick = sum(map(ord, study)) + k
    said = [
        EFFUSION[pick % len(EFFUSION)] if effusion else NO_EFFUSION[pick % len(NO_EFFUSION)],
        HEART[pick % len(HEART)] if heart else NO_HEART[pick % len(NO_HEART)],
    ]
    text = (
        f"Patient: {name} ({number})\nHISTORY: Cough. Seen by Dr. {DOCTOR} on 19.01.2024.\n"
        f"FINDINGS: {' '.join(said)} Discussed with {name.split(',')[0]} in person.\n"
        f"Signed: Dr. {DOCTOR}"
    )
    return {
        "StudyInstanceUID": study,
        "AccessionNumber": accession,
        "PatientName": name,
        "Report": text,
    }


@cache
def _chest() -> np.ndarray:
    """A real radiograph, 0 .. 1, small."""
    ds = pydicom.dcmread(shipped("RG1_UNCR.dcm"))
    pixels = ds.pixel_array.astype(np.float32)
    grey = (pixels.max() - pixels) / np.ptp(pixels)  # MONOCHROME1
    return np.asarray(Image.fromarray(grey).resize((150, 160), Image.Resampling.BOX))


def film_pixels(effusion: bool, heart: bool, random: np.random.Generator) -> np.ndarray:
    """A film [160, 150] of 12 bits with the signs asked for, uint16."""
    film = _chest() * random.uniform(0.55, 0.75) + random.normal(0, 0.02, _chest().shape)
    if effusion:
        film[115:150, 95:140] = random.uniform(0.9, 1.0)
    if heart:
        film[70:110, 50:90] = random.uniform(0.9, 1.0)
    shift = random.integers(-4, 5, 2)
    film = np.roll(film, tuple(shift), axis=(0, 1))
    return np.round(film.clip(0, 1) * 4095).astype(np.uint16)
