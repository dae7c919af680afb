"""`--prior`: which earlier study each study is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from medvlm.cli.common import read_with_progress
from medvlm.dicom.prior import Prior, chosen_prior, latest_prior
from medvlm.dicom.read import Refused
from medvlm.dicom.study import Study, group_studies
from medvlm.errors import InputNotFound

AUTO = "auto"
PriorInput = Annotated[
    str | None,
    typer.Option(
        "--prior",
        metavar="INPUT|auto",
        help="An earlier study of the same patient to compare with; `auto`: the last before it "
        "in the INPUTs, by StudyDate and StudyTime, if there is one. Left out: no comparison.",
    ),
]
FindPrior = Callable[[Study], Prior | None]


def no_prior(study: Study) -> Prior | None:
    """Compares nothing."""
    return None


def prior_finder(
    given: str | None, studies: Sequence[Study], failed: list[Refused], but: Path | None = None
) -> FindPrior:
    """Finds each study's prior as `--prior` says; files behind it that fail join `failed`.

    `but`: a folder of results, left out where it is met.

    Raises InputNotFound if the prior named holds no image.
    """
    if given is None:
        return no_prior
    if given == AUTO:
        return lambda study: latest_prior(study, studies)
    priors = read_priors(given, failed, but)
    return lambda study: chosen_prior(study, priors)


def read_priors(given: str, failed: list[Refused], but: Path | None = None) -> list[Study]:
    """The studies behind `--prior INPUT`; `but`: a folder of results, left out where it is met.

    Raises InputNotFound if there is none.
    """
    reading = read_with_progress([Path(given)], but=but)
    failed += reading.failed
    if not reading.instances:
        raise InputNotFound(
            "--prior holds no image", file=given, remedy="Give an earlier study of the patient."
        )
    return group_studies(reading)


def priors_of(
    given: str | None, but: Path | None = None
) -> Callable[[Sequence[Study], list[Refused]], FindPrior] | None:
    """`prior_finder` for studies that are not read yet; None where nothing is compared."""
    if given is None:
        return None
    return lambda studies, failed: prior_finder(given, studies, failed, but)
