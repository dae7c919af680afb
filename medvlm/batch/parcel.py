"""A unit of input: what is fetched, read and drafted together, and forgotten before the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from medvlm.dicom.prior import Prior
from medvlm.dicom.read import Reading, read_inputs
from medvlm.dicom.study import Study, group_studies


@dataclass(frozen=True)
class Contents:
    """What a parcel held: studies with the priors they are compared with, and the files read.

    `priors` has one entry for each of `studies`.
    """

    studies: Sequence[Study]
    priors: Sequence[Prior | None]
    reading: Reading


class Parcel(Protocol):
    """Can be pickled: it is opened in another process, perhaps on another machine."""

    @property
    def name(self) -> str:
        """For people, as the caller named it; never written into a log."""

    def mark(self) -> str | None:
        """Changes whenever what is inside may have changed, and costs no download; None: unknown.

        A parcel whose mark a finished run knows is not opened again.
        """

    def open(self, scratch: Path) -> Contents:
        """Fetches and reads it. What lies in `scratch` is the caller's to remove.

        Raises InputError if it cannot be fetched; a file that cannot be read is in `reading`.
        """


@dataclass(frozen=True)
class StudyParcel:
    """A study whose files were read already and lie on this machine."""

    study: Study
    prior: Prior | None = None

    @property
    def name(self) -> str:
        return self.study.instances[0].file

    def mark(self) -> str | None:
        return None

    def open(self, scratch: Path) -> Contents:
        return Contents([self.study], [self.prior], Reading(list(self.study.instances), []))

    def light(self) -> StudyParcel:
        """The same without the folders of unpacked archives, which stay with their owner."""
        prior = self.prior and replace(self.prior, study=_light(self.prior.study))
        return StudyParcel(_light(self.study), prior)


@dataclass(frozen=True)
class FetchedParcel:
    """Files or folders of this machine that are read when their turn comes."""

    name: str
    paths: tuple[Path, ...] = field(repr=False)

    def mark(self) -> str | None:
        return None

    def open(self, scratch: Path) -> Contents:
        return read_parcel(self.paths)


def read_parcel(paths: Sequence[Path]) -> Contents:
    """The studies in files or folders, none compared with another."""
    reading = read_inputs(list(paths))
    studies = group_studies(reading)
    return Contents(studies, [None] * len(studies), reading)


def _light(study: Study) -> Study:
    instances = tuple(instance.keeping(()) for instance in study.instances)
    return replace(study, instances=instances)
