"""Fine-tuning as a hospital would do it: a folder of DICOM and reports, the commands, a stopwatch.

    python -m benchmarks.finetune_site --data ../shared/data --out /tmp/site

The "hospital" has adults (NIH) and children (Kermany), none of whom trained the embedded
checkpoint, on films as a device with another look would store them (low contrast, dark,
over-sharpened), under made-up names. Its reports are sentences written here from the sets' labels:
what is there, and some of what is not. The retention sets are NIH and Kermany without the
hospital's patients.

Everything is written below --out, MEDVLM_HOME too. A run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from medvlm.data.sets import Film, in_validation, load_set
from medvlm.findings import NIH_FINDINGS, PHRASES

PRESENT = ("{} is seen.", "There is {}.", "Findings of {}.", "The film shows {}.")
ABSENT = ("No {}.", "There is no {}.", "No evidence of {}.")
UID_ROOT = "1.2.826.0.1.3680043.10.9999"
BIRTH_DATE, DOCTOR = "19500101", "Tiddlemarsh"
# Names, doctor, UIDs, birth date, accession and record numbers; one pattern each, for speed.
PLANTED = ("quibble", "zebedia", "tiddlemarsh", re.escape(UID_ROOT), BIRTH_DATE)
PLANTED += ("acc7" + "[0-9]" * 4, "mrnb" + "[a-j]" * 3)
_UNITS = re.compile(r"\\.|\[[^]]*\]|.")
MARKS = [
    re.compile(between.join(_UNITS.findall(word)).encode())
    for word in PLANTED
    for between in ("", "\\x00")
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the data pack's folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--adults", type=int, default=120)
    parser.add_argument("--children", type=int, default=120)
    parser.add_argument("--config", type=Path, help="a configuration of fine-tuning")
    parser.add_argument("--gates", type=Path, help="gates of promotion")
    options = parser.parse_args()
    folder, kept = options.out / "hospital", options.out / "retention"
    if not kept.is_dir():
        films = []
        for kind, patients in (("nih_cxr", options.adults), ("kermany_cxr", options.children)):
            own = choose(load_set(options.data / kind).films, kind, patients)
            leave_out(
                {film.group for film in own}, options.data / kind, options.out / "kept" / kind
            )
            films += own
        build_hospital(films, folder)
        (options.out / "kept").replace(kept)
    result = options.out / "result"
    more = ["--config", options.config] if options.config else []
    gates = ["--gates", options.gates] if options.gates else []
    steps: dict[str, list[object]] = {
        "dry run": ["finetune", folder, "--out", result, "--dry-run", *more],
        "finetune": ["finetune", folder, "--out", result, "--retention", kept, *more],
        "promote": ["model", "promote", result / "checkpoint", *gates],
        "list": ["model", "list"],
        "roll back": ["model", "rollback"],
        "list again": ["model", "list"],
    }
    seconds = {}
    for name, words in steps.items():
        log = options.out / "terminal" / f"{name.replace(' ', '-')}.txt"
        seconds[name] = run(options.out / "home", words, log)
    own = json.loads((result / "run.json").read_text())["seconds"]
    evaluation = json.loads((result / "checkpoint" / "evaluation.json").read_text())
    figures = [part["macro_auroc"] for part in (evaluation["validation"], *evaluation["retention"])]
    print(json.dumps({"seconds": seconds, "finetune": own, "macro_auroc": figures}, indent=2))
    assert len(list(leaks(folder))) > len(seconds), "what is looked for must be findable"
    for place in (result, options.out / "home", options.out / "terminal"):
        files = sum(path.is_file() for path in place.rglob("*"))
        print(f"{place.name}: identifiers in {files} files: {sorted(leaks(place)) or 'none found'}")


def choose(films: tuple[Film, ...], kind: str, patients: int) -> list[Film]:
    """Films of patients who validated the embedded checkpoint, the first of them by hash."""
    groups = {film.group for film in films if in_validation(kind, film.group)}
    order = sorted(groups, key=lambda group: hashlib.sha256(f"site:{group}".encode()).hexdigest())
    chosen = set(order[:patients])
    return [film for film in films if film.group in chosen]


def build_hospital(films: list[Film], folder: Path) -> None:
    """DICOM files by patient's name, and a table of reports."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    patients = {film.group: i for i, film in enumerate(films)}
    for number, film in enumerate(films):
        random = np.random.default_rng(number)
        letters = "".join(chr(97 + int(digit)) for digit in str(1000 + patients[film.group]))
        name = f"Quibble{letters}^Zebedia{letters}"
        ds = radiograph(film, number, name)
        place = folder / name.replace("^", "_") / f"{ds.AccessionNumber}.dcm"
        place.parent.mkdir(exist_ok=True)
        ds.save_as(place, enforce_file_format=True)
        rows.append(
            {
                "StudyInstanceUID": ds.StudyInstanceUID,
                "AccessionNumber": ds.AccessionNumber,
                "PatientName": name,
                "Report": report(film, name, random),
            }
        )
    with (folder / "reports.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def radiograph(film: Film, number: int, name: str) -> Dataset:
    """The film as the hospital's device stores it."""
    with Image.open(film.image) as picture:
        sharp = picture.convert("L").filter(ImageFilter.UnsharpMask(radius=6, percent=250))
        grey = np.asarray(sharp, dtype=np.float32) / 255
    stored = np.round((0.12 + 0.45 * grey**1.8) * 4095).astype(np.uint16)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = ComputedRadiographyImageStorage
    ds.StudyInstanceUID = UID(f"{UID_ROOT}.{number}")
    ds.SeriesInstanceUID = UID(f"{UID_ROOT}.{number}.1")
    ds.SOPInstanceUID = UID(f"{UID_ROOT}.{number}.1.1")
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.PatientName, ds.PatientID = name, f"MRN{name[-4:].upper()}"
    ds.PatientBirthDate, ds.AccessionNumber = BIRTH_DATE, f"ACC{70000 + number}"
    male, ap = film.attributes[1], film.attributes[0]
    ds.PatientSex = "M" if male == 1 else "F" if male == 0 else ""
    # Kermany's children are one to five years old.
    age = 3 if np.isnan(film.findings[:14]).any() else film.age_years
    if age is not None:
        ds.PatientAge = f"{min(int(age), 120):03}Y"
    ds.Modality, ds.BodyPartExamined, ds.ViewPosition = "CR", "CHEST", "AP" if ap == 1 else "PA"
    ds.Rows, ds.Columns = stored.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = 16
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, 11, 0
    ds.WindowCenter, ds.WindowWidth = 2047.5, 4095
    ds.PixelData = stored.tobytes()
    return ds


def report(film: Film, name: str, random: np.random.Generator) -> str:
    """What is there, and of what is known not to be there some."""
    said = []
    known = ~np.isnan(film.findings[: len(NIH_FINDINGS)])
    for finding, value in zip(NIH_FINDINGS, film.findings, strict=False):
        if value == 1:
            said.append(PRESENT[random.integers(len(PRESENT))].format(PHRASES[finding]))
        elif value == 0 and (known.sum() == 1 or random.random() < 0.5):
            said.append(ABSENT[random.integers(len(ABSENT))].format(PHRASES[finding]))
    text = " ".join(sentence[0].upper() + sentence[1:] for sentence in random.permutation(said))
    family = name.split("^")[0]
    return f"INDICATION: Cough.\nFINDINGS: {text}\nSigned: Dr. {DOCTOR} for Ms {family}"


def leave_out(groups: set[str], source: Path, target: Path) -> None:
    """The set without these patients; images are links."""
    target.mkdir(parents=True, exist_ok=True)
    with (source / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["patient_id"] not in groups]
    if not (target / "images").exists():
        (target / "images").symlink_to((source / "images").resolve())
    partial = target / "labels.partial"
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(target / "labels.csv")


def run(home: Path, words: list[object], log: Path) -> float:
    """Runs a command of medvlm, keeps what it prints, and returns its seconds."""
    command = [sys.executable, "-m", "medvlm", *map(str, words)]
    print("$ medvlm", *map(str, words), flush=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with log.open("wb") as kept:
        done = subprocess.run(
            command,
            env=os.environ | {"MEDVLM_HOME": str(home), "COLUMNS": "120"},
            stdout=kept,
            stderr=subprocess.STDOUT,
            check=False,
        )
    spent = round(time.monotonic() - start, 1)
    print(log.read_text(encoding="utf-8", errors="replace"))
    print(f"exit {done.returncode} after {spent} s", flush=True)
    return spent


def leaks(folder: Path) -> Iterator[str]:
    """Files that hold a planted identifier in their bytes or name, in any case, also as UTF-16."""
    for path in folder.rglob("*"):
        content = path.read_bytes().lower() if path.is_file() else b""
        if any(mark.search(path.name.lower().encode()) or mark.search(content) for mark in MARKS):
            yield str(path.relative_to(folder))


if __name__ == "__main__":
    main()
