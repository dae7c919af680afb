"""Header scan and decoding beside plain pydicom, dicomsdl and SimpleITK, in one run.

python benchmarks/ingestion.py FOLDER [--files 10000] [--repeats 3]

FOLDER holds DICOM files (searched recursively); they are linked under as many names as `--files`
says. dicomsdl and SimpleITK are measured where they are installed. Each figure is the best of the
repeats, all taken in turn, with warm files; ratios are against plain pydicom.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels import pixel_array
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from medvlm.dicom.instance import Instance
from medvlm.dicom.read import read_inputs
from medvlm.dicom.stream import stored_frames
from medvlm.errors import InputError

EIGHT = ("Rows", "Columns", "SOPInstanceUID", "StudyInstanceUID")
EIGHT += ("SeriesInstanceUID", "PatientID", "Modality", "ImagePositionPatient")
SYNTAXES = {"jpeg2000": JPEG2000Lossless, "jpegls": JPEGLSLossless, "rle": RLELossless}
# JPEG lossless, baseline and extended, JPEG 2000, of pydicom and pydicom-data.
REAL = ("JPGLosslessP14SV1_1s_1f_8b.dcm", "SC_rgb_jpeg_gdcm.dcm", "RG1_J2KR.dcm", "MR2_J2KI.dcm")


def best(methods: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds of each method: the best of several turns."""
    times: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(repeats):
        for name, method in methods.items():
            start = time.perf_counter()
            method()
            times[name].append(time.perf_counter() - start)
    return {name: min(values) for name, values in times.items()}


def show(title: str, seconds: dict[str, float], count: int) -> None:
    """A table with the ratio to the first method."""
    print(f"\n{title} ({count} files)")
    base = next(iter(seconds.values()))
    for name, value in seconds.items():
        print(f"  {name:34} {value:8.2f} s  {count / value:9.0f} files/s  {base / value:5.2f} x")


def linked(source: Path, folder: Path, count: int) -> list[Path]:
    """`count` names for the readable images below `source`."""
    images = [one.path for one in read_inputs(source).instances if one.is_dicom]
    names = [folder / f"{number:06d}.dcm" for number in range(count)]
    for number, name in enumerate(names):
        image = images[number % len(images)].resolve()
        try:
            name.hardlink_to(image)
        except OSError:  # another disk
            shutil.copy(image, name)
    return names


def scan(folder: Path, names: Sequence[Path], repeats: int) -> None:
    methods: dict[str, Callable[[], object]] = {
        "pydicom.dcmread, no pixels": lambda: consume(
            pydicom.dcmread(name, stop_before_pixels=True) for name in names
        ),
        "medvlm read_inputs (30 elements)": lambda: read_inputs(folder),
    }
    if find_spec("dicomsdl"):
        sdl = import_module("dicomsdl")

        def eight(name: Path) -> list[object]:
            ds = sdl.open(str(name))
            return [getattr(ds, keyword) for keyword in EIGHT]

        methods["dicomsdl (8 elements)"] = lambda: consume(map(eight, names))
    show("header scan", best(methods, repeats), len(names))


def decode(title: str, instances: Sequence[Instance], repeats: int) -> None:
    methods: dict[str, Callable[[], object]] = {
        "pydicom.pixel_array, one by one": lambda: consume(
            pixel_array(instance.path) for instance in instances
        ),
        "medvlm stored_frames": lambda: checked(stored_frames(instances)),
    }
    if find_spec("SimpleITK"):
        itk = import_module("SimpleITK")
        methods["SimpleITK, one by one"] = lambda: consume(
            itk.GetArrayViewFromImage(itk.ReadImage(str(instance.path))) for instance in instances
        )
    show(title, best(methods, repeats), len(instances))


def consume(items: Iterable[object]) -> None:
    for _ in items:
        pass


def checked(frames: Iterable[np.ndarray | InputError]) -> None:
    for frame in frames:
        if isinstance(frame, InputError):
            raise frame


def synthetic(folder: Path, kind: str, count: int) -> list[Instance]:
    """Noisy CT slices, 512 x 512 x 16 bits, raw or compressed."""
    template = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
    random = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(512), np.arange(512)).astype(np.int16)
    (folder / kind).mkdir()
    for number in range(count):
        ds = pydicom.dcmread(template.filename)
        pixels = smooth + random.integers(0, 40, (512, 512), dtype=np.int16)
        ds.Rows = ds.Columns = 512
        ds.PixelData = pixels.tobytes()
        ds.SOPInstanceUID = f"1.2.3.{number}"
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        if kind in SYNTAXES:
            ds.compress(SYNTAXES[kind], generate_instance_uid=False)
        ds.save_as(folder / kind / f"{number:04d}.dcm")
    return read_inputs(folder / kind).instances


def repeated(folder: Path, file: str, count: int) -> list[Instance]:
    """A real compressed file under many names."""
    target = folder / Path(file).stem
    target.mkdir()
    for number in range(count):
        shutil.copy(pydicom.data.get_testdata_file(file), target / f"{number}.dcm")
    return read_inputs(target).instances


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "scan"
        folder.mkdir()
        scan(folder, linked(given.folder, folder, given.files), given.repeats)
        for kind, count in (("jpeg2000", 120), ("jpegls", 120), ("rle", 400), ("raw", 400)):
            decode(f"decode, {kind}", synthetic(Path(name), kind, count), given.repeats)
        for file in REAL:
            decode(f"decode, {file}", repeated(Path(name), file, 60), given.repeats)


if __name__ == "__main__":
    main()
