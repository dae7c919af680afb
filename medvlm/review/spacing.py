"""Whether a study's files tell how large a pixel is."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from medvlm.dicom.facts import spacing
from medvlm.review.store import Store
from medvlm.review.studies import study_of
from medvlm.review.worklist import image_path, images


def spacing_known(store: Store, study_id: str) -> bool:
    """Whether the size of a pixel is known for every image.

    Of a stack of equally large images one is looked at: slices of a volume are of one kind.
    """
    with store.reading() as session:
        study_of(session, study_id)
    kinds = {(one.stack, one.rows, one.columns): one.id for one in images(store, study_id)}
    try:
        return bool(kinds) and all(_tells(image_path(store, one)[1]) for one in kinds.values())
    except (OSError, InvalidDicomError):  # a picture, or a file that is gone
        return False


@lru_cache(maxsize=4096)  # the desk's files never change
def _tells(path: Path) -> bool:
    # Some DICOM files have no preamble; a picture is told by its name on the desk.
    plain = path.suffix == ".dcm"
    return spacing(pydicom.dcmread(path, stop_before_pixels=True, force=plain)) is not None
