"""All inputs of a batch as parcels: files of this machine, a manifest, storage, DICOMweb."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from medvlm.batch import dicomweb, storage
from medvlm.batch.manifest import read_manifest
from medvlm.batch.parcel import Contents, Parcel, StudyParcel
from medvlm.dicom.prior import Prior
from medvlm.dicom.read import Progress, Refused, read_inputs
from medvlm.dicom.study import Study, group_studies
from medvlm.errors import InputError, UsageError

FindPrior = Callable[[Study], Prior | None]
FindPriors = Callable[[Sequence[Study], list[Refused]], FindPrior]
"""Of all studies given; what fails behind `--prior` joins the list. As `cli.prior.prior_finder`."""


@dataclass(frozen=True)
class Unlisted:
    """Stands for the rest of a source that could not be listed to its end: opening it fails.

    So the other sources are drafted, and the failure is reported like any other.
    """

    name: str
    error: InputError

    def mark(self) -> str | None:
        return None

    def open(self, scratch: Path) -> Contents:
        """Raises the InputError that ended the list."""
        raise self.error


def parcels(
    inputs: Sequence[str],
    *,
    manifest: str | None = None,
    but: Path | None = None,
    priors: FindPriors | None = None,
    progress: Progress | None = None,
) -> tuple[Iterator[Parcel], int | None, list[Refused]]:
    """The parcels, made while they are taken; how many, if known; what is refused already.

    Paths of this machine are read at once, for only their headers tell which files are a study.
    Servers and storage are asked as the parcels are taken.

    Args:
        inputs: paths; `scheme://...` that fsspec knows; `dicomweb+http(s)://host/path?filters`.
        manifest: a CSV or Parquet file (`medvlm.batch.manifest`).
        but: a folder of earlier results, left out where it lies inside a folder that is given.
        priors: finds each study's earlier study. Needs all studies, so paths of this machine only.
        progress: of reading those.

    Raises:
        UsageError: an input is of no known kind, holds a log-in, or has no priors to compare with.
        MissingExtra: a kind of input needs a package that is not installed.
        InputError: the manifest cannot be used.
    """
    local = [given for given in inputs if not storage.is_url(given)]
    elsewhere = [_elsewhere(given) for given in inputs if storage.is_url(given)]
    if priors and (elsewhere or manifest is not None):
        raise UsageError(
            "--prior compares only studies that lie on this machine",
            remedy="give files or folders, or leave it out",
        )
    refused: list[Refused] = []
    parts: list[Iterator[Parcel]] = []
    count = 0
    if local:
        studies = _read(local, but, progress, refused)
        compared = _with_priors(studies, priors, refused)
        parts.append(iter(compared))
        count = len(compared)
    if manifest is not None:
        listed, rows, wrong = read_manifest(Path(manifest))
        refused += wrong
        parts.append(listed)
        count += rows
    return chain(*parts, *elsewhere), None if elsewhere else count, refused


def _read(
    paths: Sequence[str], but: Path | None, progress: Progress | None, refused: list[Refused]
) -> list[Study]:
    reading = read_inputs([Path(path) for path in paths], progress, but=but)
    refused += reading.failed
    return group_studies(reading)


def _with_priors(
    studies: Sequence[Study], priors: FindPriors | None, refused: list[Refused]
) -> list[StudyParcel]:
    if priors is None or not studies:
        return [StudyParcel(study) for study in studies]
    find = priors(studies, refused)
    made = []
    for study in studies:
        try:
            made.append(StudyParcel(study, find(study)))
        except InputError as error:
            refused.append(Refused.because(error, study.instances[0].file))
    return made


def _elsewhere(url: str) -> Iterator[Parcel]:
    if url.startswith(dicomweb.SCHEME):
        return _to_its_end(dicomweb.studies(url), dicomweb.Server.of(url).address)
    return _to_its_end(storage.parcels(url), storage.shown(url))


def _to_its_end(source: Iterator[Parcel], name: str) -> Iterator[Parcel]:
    try:
        yield from source
    except InputError as error:
        yield Unlisted(name, error)
