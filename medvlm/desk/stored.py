"""A study of the desk, as the layers below read it: its own files, named by their ids."""

from __future__ import annotations

from medvlm.dicom.files import Found
from medvlm.dicom.instance import Instance
from medvlm.dicom.prior import Prior, latest_prior
from medvlm.dicom.read import read_found
from medvlm.dicom.study import Study, group_studies
from medvlm.errors import InputError, Undecodable
from medvlm.review.records import StudyRow
from medvlm.review.store import Store
from medvlm.review.worklist import image_path, images, priors, study_row

# A film is compared with a film, whichever detector made it.
_ALIKE = {"CR": "DX"}


def stored_study(store: Store, study_id: str) -> Study:
    """Raises InputError if no image of it can be read, ReviewError if there is no such study."""
    found = []
    for image in images(store, study_id):
        _, path = image_path(store, image.id)
        found.append(Found(path, image.id))
    reading = read_found(found)
    studies = group_studies(reading)
    if not studies:
        refused = reading.failed[0] if reading.failed else None
        message = refused.message if refused else "The study holds no image."
        raise Undecodable(message, remedy=refused.remedy if refused else None)
    return max(studies, key=lambda study: len(study.instances))


def stored_instance(study: Study, image_id: str) -> Instance:
    """One image of `stored_study`. Raises InputError if it could not be read."""
    for instance in study.instances:
        if instance.path.stem == image_id:
            return instance
    raise Undecodable("The image cannot be read.")


def stored_prior(store: Store, study_id: str, study: Study) -> Prior | None:
    """The last earlier study of the same patient and kind; None where there is none to read."""
    own = study_row(store, study_id)
    for row in priors(store, study_id):
        if _kind(row) != _kind(own):
            continue
        try:
            prior = latest_prior(study, [stored_study(store, row.id)])
        except InputError:
            continue
        if prior is not None:
            return prior
    return None


def _kind(row: StudyRow) -> str | None:
    return _ALIKE.get(row.modality or "", row.modality)
