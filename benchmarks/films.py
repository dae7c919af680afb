"""DICOM studies to measure a batch with: one CR film each, of an own patient, some of them broken.

The grey values are of a folder of films, or of pydicom-data's chest film; where there are more
studies than films, each copy is darker or brighter and moved a little, by seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from medvlm.dicom.read import read_inputs
from medvlm.image.load import load_image
from medvlm.resources import sample_film
from tests.dicoms import save, synthetic

PICTURES = {".jpg", ".jpeg", ".png"}
MOST_PIXELS = 32
"""By which a copy is moved."""

Grey = NDArray[np.float32]


@dataclass(frozen=True)
class Made:
    """The studies of a benchmark: a folder each below `folder`, by number."""

    folder: Path
    intact: list[Path]
    broken: list[Path]


def make_studies(
    folder: Path,
    count: int,
    films: Path | None = None,
    *,
    size: tuple[int, int] | None = None,
    bits: int = 12,
    broken: float = 0.0,
    seed: int = 0,
) -> Made:
    """Writes `count` studies, of which the share `broken` cannot be read.

    `size`: columns and rows that films are scaled to, else their own. `bits`: stored, 8 to 16.
    """
    random = np.random.default_rng(seed)
    spoiled = set(random.choice(count, round(broken * count), replace=False).tolist())
    made = Made(folder, [], [])
    for number, grey in zip(range(count), greys(films, size, seed), strict=False):
        path = folder / f"{number:06d}" / "film.dcm"
        path.parent.mkdir(parents=True)
        save(film(grey, f"{seed}.{number}", bits), path)
        if number in spoiled:
            spoil = SPOILED[len(made.broken) % len(SPOILED)]
            path.write_bytes(spoil(path.read_bytes()))
        (made.broken if number in spoiled else made.intact).append(path.parent)
    return made


def greys(films: Path | None, size: tuple[int, int] | None = None, seed: int = 0) -> Iterator[Grey]:
    """Grey values [H, W] in 0..1 without end: each film once, then changed copies."""
    if films is None:
        paths = [sample_film()]
    else:
        paths = sorted(path for path in films.rglob("*") if path.suffix.lower() in PICTURES)
    if not paths:
        raise SystemExit(f"no pictures in {films}")
    random = np.random.default_rng(seed)
    first = True
    while True:
        for path in paths:
            grey = _read(path, size)
            yield grey if first else changed(grey, random)
        first = False


def changed(grey: Grey, random: np.random.Generator) -> Grey:
    """Moved by some pixels, which come in again at the other side, and darker or brighter."""
    down, right = random.integers(-MOST_PIXELS, MOST_PIXELS + 1, 2)
    moved = np.roll(grey, (int(down), int(right)), axis=(0, 1))
    out: Grey = moved ** np.float32(random.uniform(0.9, 1.1))
    return out


def film(grey: Grey, name: str, bits: int = 12) -> Dataset:
    """A CR chest film of an own patient; its UIDs depend on `name` alone."""
    stored = np.rint(grey * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    study, series, instance = (
        generate_uid(entropy_srcs=["medvlm benchmark", name, part])
        for part in ("study", "series", "instance")
    )
    ds = synthetic(
        stored,
        StudyInstanceUID=study,
        SeriesInstanceUID=series,
        SOPInstanceUID=instance,
        PatientID=f"BENCHMARK-{name}",
        PatientName=f"Benchmark^{name}",
        BitsStored=bits,
        HighBit=bits - 1,
    )
    ds.file_meta.MediaStorageSOPInstanceUID = instance
    return ds


def _read(path: Path, size: tuple[int, int] | None) -> Grey:
    if path.suffix.lower() in PICTURES:
        with Image.open(path) as picture:
            grey = np.asarray(picture.convert("L"), np.float32) / np.float32(255)
    else:
        grey = load_image(read_inputs(path).instances[0]).pixels
    if size is None:
        return grey
    scaled = Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(scaled, np.float32).clip(0, 1)


SPOILED: tuple[Callable[[bytes], bytes], ...] = (
    lambda content: b"",
    lambda content: content[:400],
    lambda content: content[: len(content) // 2],
    lambda content: b"not an image at all " * 50,
)
"""Empty, cut in its header, cut in its pixels, no DICOM."""
