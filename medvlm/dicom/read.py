"""Reads what the caller gives into instances (usable images) and refusals (with the reason).

One broken file never harms the others: what cannot be read is listed as refused.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import MediaStorageDirectoryStorage

from medvlm.dicom.decode import (
    MAX_FILE_BYTES,
    MAX_FRAME_PIXELS,
    check_pixels,
    decode_every_frame,
    header_value,
    looks_like_dicom,
    parse,
    typed_errors,
)
from medvlm.dicom.facts import (
    integer,
    meaning,
    numbers,
    patient_pseudonym,
    spacing,
    text,
    uid,
    words,
)
from medvlm.dicom.files import Found, Unpacked, find_files
from medvlm.errors import (
    InputError,
    InputNotFound,
    NoPixels,
    NotDicom,
    TooLarge,
    TruncatedPixels,
)

Progress = Callable[[int, int], None]  # (files done, files in all)

_PICTURES = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}
_EXIF_ORIENTATION, _EXIF_SIDEWAYS = 0x0112, range(5, 9)


@dataclass(frozen=True)
class Instance:
    """One image file (DICOM, PNG or JPEG) and what its header says.

    Attributes:
        path: where the bytes lie now (inside a temporary folder for a file from an archive).
        file: the name shown to people: the path as the caller gave it.
        patient_key: a pseudonym, 12 hexadecimal digits; None where the file names no patient.
        rows, columns: size in pixels; of a picture, after its EXIF orientation is applied.
        pixel_spacing_mm: (between rows, between columns).
        position_mm: patient coordinates (x, y, z) of the centre of the top-left pixel.
        orientation: direction cosines of a row, then of a column (6 numbers).
        patient_orientation: where a row and a column point, such as ("L", "F").
    All header facts are None for a picture, and where the file does not say them.
    """

    path: Path
    file: str
    sha256: str
    is_dicom: bool
    rows: int
    columns: int
    frames: int = 1
    sop_instance_uid: str | None = None
    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    patient_key: str | None = None
    modality: str | None = None
    body_part: str | None = None
    view_position: str | None = None
    photometric: str | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    instance_number: int | None = None
    image_type: tuple[str, ...] = ()
    patient_orientation: tuple[str, ...] = ()
    presentation_intent: str | None = None
    position_mm: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    keep: tuple[Unpacked, ...] = field(default=(), repr=False, compare=False)

    def open(self) -> Dataset | Image.Image:
        """The data set, or the picture with its pixels loaded.

        Raises:
            InputError: the file is gone or has changed for the worse since it was read.
        """
        data = _read_bytes(self.path, self.file)
        if self.is_dicom:
            return parse(data, file=self.file)
        return _open_picture(data, self.file, load=True)


@dataclass(frozen=True)
class Refused:
    """A file that gave no image, and why.

    `index` marks a DICOMDIR found among the files it lists: it counts as a file that was given,
    not as a failure.
    """

    file: str
    code: str
    message: str
    remedy: str | None = None
    index: bool = False

    @classmethod
    def because(cls, error: InputError, file: str) -> Refused:
        """A refusal that carries the error's words."""
        return cls(error.file or file, error.code, error.message, error.remedy)


@dataclass(frozen=True)
class Reading:
    """Everything found behind the inputs: each file is an instance or refused."""

    instances: list[Instance]
    refused: list[Refused]

    @property
    def failed(self) -> list[Refused]:
        """The refusals that count as failures: all but the indices."""
        return [refused for refused in self.refused if not refused.index]


def read_inputs(
    paths: Sequence[Path | str] | Path | str,
    progress: Progress | None = None,
    *,
    decode: bool = False,
    but: Path | None = None,
) -> Reading:
    """Read files, folders (with their subfolders), zip archives and DICOMDIRs.

    A file reached twice is read once. Nothing raises because of a bad file.

    Args:
        paths: what the caller gave.
        progress: called with (files done, files in all) after each file.
        decode: also decode every frame once, and refuse what does not decode.
        but: a folder of earlier results, left out where it lies inside a folder that is given.
    """
    given = [paths] if isinstance(paths, Path | str) else paths
    found, refused = _find_once((Path(path) for path in given), but)
    instances: list[Instance] = []
    for number, item in enumerate(found, start=1):
        try:
            instance = read_instance(item)
            if decode:
                _decode_all(instance)
            instances.append(instance)
        except _IndexOnly as error:
            refused.append(Refused(item.name, error.code, error.message, index=True))
        except InputError as error:
            refused.append(Refused.because(error, item.name))
        if progress:
            progress(number, len(found))
    return Reading(instances, refused)


def read_instance(found: Found | Path) -> Instance:
    """Read one DICOM file or picture; decodes nothing.

    Raises:
        InputNotFound, NotDicom, NoPixels, TruncatedPixels, TooLarge, TooDeep, Undecodable.
    """
    if isinstance(found, Path):
        found = Found(found, str(found))
    data = _read_bytes(found.path, found.name)
    if not data:
        raise NotDicom("The file is empty.", file=found.name)
    digest = hashlib.sha256(data).hexdigest()
    if any(data.startswith(magic) for magic in _PICTURES):
        picture = _open_picture(data, found.name)
        sideways = picture.getexif().get(_EXIF_ORIENTATION) in _EXIF_SIDEWAYS
        columns, rows = picture.size[::-1] if sideways else picture.size
        return Instance(found.path, found.name, digest, False, rows, columns, keep=found.keep)
    if not looks_like_dicom(data[:132]):
        raise NotDicom(
            "This is neither DICOM nor a PNG or JPEG picture.",
            file=found.name,
            remedy="Give DICOM files, PNG, JPEG, folders or zip archives of them.",
        )
    ds = parse(data, file=found.name)
    if header_value(ds.file_meta, "MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        raise _IndexOnly("An index of other files (DICOMDIR); those beside it are read directly.")
    check_pixels(ds, file=found.name)
    with typed_errors(found.name):
        return _dicom_instance(ds, found, digest)


class _IndexOnly(NoPixels):
    """A DICOMDIR reached as one file among others."""


def _find_once(paths: Iterable[Path], but: Path | None) -> tuple[list[Found], list[Refused]]:
    results = Path(os.path.realpath(but)) if but is not None else None
    found: dict[Path, Found] = {}
    refused: dict[Refused, None] = {}
    for path in paths:
        inside = results is not None and Path(os.path.realpath(path)) in results.parents
        for item in find_files(path):
            if isinstance(item, InputError):
                refused[Refused.because(item, str(path))] = None
                continue
            path_on_disk = Path(os.path.realpath(item.path))
            if not (inside and results and path_on_disk.is_relative_to(results)):
                found.setdefault(path_on_disk, item)
    return list(found.values()), list(refused)


def _read_bytes(path: Path, file: str) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise TooLarge(f"The file is larger than {MAX_FILE_BYTES >> 30} GiB.", file=file)
        return path.read_bytes()
    except OSError as error:
        raise InputNotFound("The file cannot be read.", file=file) from error


def _open_picture(data: bytes, file: str, *, load: bool = False) -> Image.Image:
    try:
        with typed_errors(file):
            picture = Image.open(BytesIO(data), formats=list(_PICTURES.values()))
            if picture.width * picture.height > MAX_FRAME_PIXELS:
                raise Image.DecompressionBombError
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


def _decode_all(instance: Instance) -> None:
    opened = instance.open()
    if isinstance(opened, Dataset):
        decode_every_frame(opened, file=instance.file)


def _dicom_instance(ds: Dataset, found: Found, digest: str) -> Instance:
    between = spacing(ds)
    return Instance(
        path=found.path,
        file=found.name,
        sha256=digest,
        is_dicom=True,
        rows=int(ds.Rows),
        columns=int(ds.Columns),
        frames=integer(ds, "NumberOfFrames") or 1,
        sop_instance_uid=uid(ds, "SOPInstanceUID"),
        study_instance_uid=text(ds, "StudyInstanceUID"),
        series_instance_uid=uid(ds, "SeriesInstanceUID"),
        patient_key=patient_pseudonym(text(ds, "PatientID"), text(ds, "IssuerOfPatientID")),
        modality=text(ds, "Modality"),
        body_part=text(ds, "BodyPartExamined") or meaning(ds, "AnatomicRegionSequence"),
        view_position=text(ds, "ViewPosition") or meaning(ds, "ViewCodeSequence"),
        photometric=text(ds, "PhotometricInterpretation"),
        pixel_spacing_mm=(between[0], between[1]) if between else None,
        instance_number=integer(ds, "InstanceNumber"),
        image_type=words(ds, "ImageType"),
        patient_orientation=words(ds, "PatientOrientation"),
        presentation_intent=text(ds, "PresentationIntentType"),
        position_mm=numbers(ds, "ImagePositionPatient", 3),
        orientation=numbers(ds, "ImageOrientationPatient", 6),
        keep=found.keep,
    )
