"""One image file and what its header says."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from io import BytesIO
from pathlib import Path

from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import UID

from medvlm.dicom.decode import parse, refuse_expansion, refuse_large_file, typed_errors
from medvlm.dicom.files import Unpacked
from medvlm.dicom.limits import limits
from medvlm.dicom.patient import Sex
from medvlm.errors import InputError, InputNotFound, TooLarge, TruncatedPixels

LARGE = 32_000_000  # samples in a frame; detectors have fewer
PICTURES = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}


@dataclass(frozen=True)
class Instance:
    """One image file (DICOM, PNG or JPEG) and what its header says.

    Attributes:
        path: where the bytes lie now (inside a temporary folder for a file from an archive).
        file: the name shown to people: the path as the caller gave it.
        study_date, study_time: YYYYMMDD and HH[MM[SS]]; only to put studies in order, never shown.
        patient_key: a pseudonym, 12 hexadecimal digits; None where the file names no patient.
        age_years: at the examination.
        rows, columns: size in pixels; of a picture, after its EXIF orientation is applied.
        pixel_spacing_mm: (between rows, between columns).
        position_mm: patient coordinates (x, y, z) of the centre of the top-left pixel.
        orientation: direction cosines of a row, then of a column (6 numbers).
        patient_orientation: where a row and a column point, such as ("L", "F").
        is_plain: whether all of its header is small and of the common encodings.
        acquisition: values that tell images of one place apart, by keyword (`ACQUISITION`).
    All header facts are None for a picture, and where the file does not say them.
    """

    path: Path
    file: str
    is_dicom: bool
    rows: int
    columns: int
    frames: int = 1
    samples: int = 1
    transfer_syntax: str | None = None
    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None
    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    study_date: str | None = None
    study_time: str | None = None
    patient_key: str | None = None
    patient_sex: Sex | None = None
    age_years: float | None = field(default=None, repr=False)
    modality: str | None = None
    body_part: str | None = None
    view_position: str | None = None
    laterality: str | None = None
    photometric: str | None = None
    burned_in_annotation: str | None = None
    conversion_type: str | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    instance_number: int | None = None
    image_type: tuple[str, ...] = ()
    patient_orientation: tuple[str, ...] = ()
    presentation_intent: str | None = None
    position_mm: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    acquisition: tuple[str | None, ...] = ()
    is_plain: bool = True
    keep: tuple[Unpacked, ...] = field(default=(), repr=False, compare=False)

    @cached_property
    def sha256(self) -> str:
        """Of the whole file; read when first asked for. Raises InputNotFound, TooLarge."""
        return hashlib.sha256(read_bytes(self.path, self.file)).hexdigest()

    @property
    def is_compressed(self) -> bool:
        """Whether a decoder has to look at the bytes."""
        return not self.is_dicom or UID(self.transfer_syntax or "").is_encapsulated

    @property
    def needs_worker(self) -> bool:
        """Whether its pixels are fetched in another process: what they may do harms only that."""
        large = self.rows * self.columns * self.samples > LARGE
        return self.is_compressed or large or not self.is_plain

    def keeping(self, keep: tuple[Unpacked, ...]) -> Instance:
        """The same, holding the folders of unpacked archives alive; its digest is kept."""
        other = replace(self, keep=keep)
        if "sha256" in self.__dict__:
            other.__dict__["sha256"] = self.sha256
        return other

    def open(self) -> Dataset | Image.Image:
        """The data set, or the picture with its pixels loaded.

        Raises:
            InputError: the file is gone or has changed for the worse since it was read.
        """
        data = read_bytes(self.path, self.file)
        if self.is_dicom:
            return parse(data, file=self.file)
        return open_picture(data, self.file, load=True)


def read_bytes(path: Path, file: str) -> bytes:
    """The whole file. Raises InputNotFound, TooLarge."""
    try:
        refuse_large_file(path.stat().st_size, file)
        return path.read_bytes()
    except OSError as error:
        raise InputNotFound("The file cannot be read.", file=file) from error


def open_picture(data: bytes, file: str, *, load: bool = False) -> Image.Image:
    """A PNG or JPEG, its size judged before its pixels are loaded.

    Raises:
        TooLarge, TruncatedPixels, Undecodable.
    """
    try:
        with typed_errors(file):
            picture = Image.open(BytesIO(data), formats=list(PICTURES.values()))
            pixels = picture.width * picture.height
            if pixels > limits().frame_pixels:
                raise Image.DecompressionBombError
            # Pixels are worked on as 32-bit numbers.
            refuse_expansion(4 * pixels * len(picture.getbands()), 4 * len(data), file)
            picture.getexif()  # of a PNG, it may come after the pixels and be as broken as they
            if load:
                picture.load()
            return picture
    except InputError as error:
        cause = error.__cause__
        if isinstance(cause, Image.DecompressionBombError):
            raise TooLarge("The picture has too many pixels.", file=file) from cause
        if isinstance(cause, OSError | SyntaxError) and "truncated" in str(cause):
            raise TruncatedPixels("The picture ends too early.", file=file) from cause
        raise
