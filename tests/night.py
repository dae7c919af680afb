"""A night's studies, small: real headers, made-up pixels, some of them broken, one that kills.

Run as a program it drafts them, as `medvlm draft` does, so that a test can kill it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

from medvlm.batch.drafting import draft_parcel
from medvlm.batch.engine import Settings
from medvlm.batch.local import LocalEngine
from medvlm.batch.outcome import Outcome
from medvlm.batch.parcel import Contents, Parcel
from medvlm.batch.quarantine import Quarantine
from medvlm.batch.sources import parcels
from medvlm.batch.table import write_table
from medvlm.resources import sample_film

if TYPE_CHECKING:
    from medvlm.model.checkpoint import Checkpoint

BROKEN = ("truncated_pixels", "not_dicom", "undecodable", "no_pixels")


@dataclass(frozen=True)
class Deadly:
    """A parcel over which every process dies but `mine`, which leads the run."""

    name: str = "deadly"
    mine: int = 0

    def mark(self) -> str | None:
        return "deadly"

    def open(self, scratch: Path) -> Contents:
        if os.getpid() != self.mine:
            os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("opened in the process that leads the run")


@dataclass(frozen=True)
class DeadlyOnce:
    """Any parcel, over which one process dies; `died` is a file that tells that one has."""

    parcel: Parcel
    died: Path

    @property
    def name(self) -> str:
        return self.parcel.name

    def mark(self) -> str | None:
        return self.parcel.mark()

    def open(self, scratch: Path) -> Contents:
        if not self.died.exists():
            self.died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.parcel.open(scratch)


@dataclass(frozen=True)
class TooLargeAModel(Settings):
    """Of a run whose model does not fit into memory."""

    def load(self) -> Checkpoint:
        raise MemoryError


def film(number: int, **elements: Any) -> pydicom.Dataset:
    """A study of one film: the header of a real one, its own UIDs, pixels and patient."""
    ds = pydicom.dcmread(sample_film(), stop_before_pixels=True)
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    entropy = [f"night {number}"]
    ds.StudyInstanceUID = generate_uid(entropy_srcs=[*entropy, "study"])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=[*entropy, "series"])
    ds.SOPInstanceUID = generate_uid(entropy_srcs=[*entropy, "instance"])
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.PatientID, ds.PatientName = f"NIGHT-{number}", f"Night^{number}"
    ds.Rows, ds.Columns = 160, 140
    ds.PixelData = pixels(number).tobytes()
    ds["PixelData"].VR = "OW"
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def pixels(number: int) -> np.ndarray:
    """Stored values [160, 140]: blobs that differ from film to film."""
    rng = np.random.default_rng(number)
    coarse = np.kron(rng.integers(0, 900, (16, 14)), np.ones((10, 10)))
    return (coarse + rng.integers(0, 60, (160, 140))).astype(np.uint16)


def night(folder: Path, count: int, broken: int) -> dict[str, str]:
    """Writes `count` files, one a study; `broken` of them are, by name, for these codes."""
    folder.mkdir(parents=True)
    wrong: dict[str, str] = {}
    for number in range(count):
        path = folder / f"{number:04}.dcm"
        ds = film(number)
        if broken and number % (count // broken) == 1 and len(wrong) < broken:
            code = BROKEN[len(wrong) % len(BROKEN)]
            wrong[path.name] = code
            _break(ds, code, path)
        else:
            ds.save_as(path, enforce_file_format=True)
    return wrong


def _break(ds: pydicom.Dataset, code: str, path: Path) -> None:
    if code == "no_pixels":
        del ds.PixelData
    elif code == "undecodable":
        ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        ds.BitsAllocated = ds.BitsStored = 8
        ds.HighBit = 7
        ds.PixelData = encapsulate([b"\xff\xd8\xff\xe0 no JPEG at all \xff\xd9" * 40])
    ds.save_as(path, enforce_file_format=True)
    if code == "truncated_pixels":
        path.write_bytes(path.read_bytes()[:-20_000])
    elif code == "not_dicom":
        path.write_text("Not DICOM, though the name of the file says so.")


def settings(out: Path, checkpoint: Path, llm: Path, **others: Any) -> Settings:
    """Of a run with a tiny checkpoint."""
    return replace(
        Settings(out, str(checkpoint), llm, total=None, workers=1, device="cpu"), **others
    )


def run(found: Iterator[Parcel], chosen: Settings) -> list[Outcome]:
    """A run's outcomes, in the order they came."""
    chosen.out.mkdir(exist_ok=True)
    with chosen.results.in_use():
        return [o for outcomes in LocalEngine().run(found, chosen) for o in outcomes]


def unbroken(source: Path, out: Path, checkpoint: Checkpoint) -> None:
    """The same studies drafted one by one in this process."""
    out.mkdir(parents=True)
    found, _, refused = parcels([str(source)], but=out)
    chosen = Settings(out)
    Quarantine(out).keep_unread(refused)
    with chosen.results.in_use():
        for parcel in found:
            draft_parcel(checkpoint, parcel, chosen.results)
    write_table(out)


def main(source: Path, out: Path, checkpoint: Path, llm: Path, workers: int, deadly: bool) -> None:
    """All files in `source`, and perhaps a deadly parcel among them, drafted into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    found, total, refused = parcels([str(source)], but=out)
    Quarantine(out).keep_unread(refused)

    def all_parcels() -> Iterator[Parcel]:
        for number, parcel in enumerate(found):
            if deadly and number == 5:
                yield Deadly(mine=os.getpid())
            yield parcel

    chosen = settings(out, checkpoint, llm, workers=workers, total=(total or 0) + deadly)
    outcomes = run(all_parcels(), chosen)
    write_table(out)
    failed = [(o.failure.file, o.failure.code) for o in outcomes if o.failure]
    failed += [(item.file, item.code) for item in refused]
    print(json.dumps({Path(file).name: code for file, code in failed}, sort_keys=True))


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a folder of results, the drafts' timings apart."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if not path.is_file() or name == ".lock":
            continue
        found[name] = path.read_bytes()
        if path.name == "draft.json":
            found[name] = found[name].split(b'"timings_s"')[0]
        if path.name == "draft.md":
            found[name] = found[name].rsplit(b"; load ", 1)[0]
    return found


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]), int(sys.argv[5]), sys.argv[6] == "deadly")
