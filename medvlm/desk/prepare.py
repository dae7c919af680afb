"""Makes the viewer's pixels of new studies before anybody opens them.

An intake leaves a mark in the study's folder; the desk's keeper finds it, makes the pixels and
takes the mark away. Where the keeper is not running, they are made when they are asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from medvlm.desk.files import write_whole
from medvlm.desk.pixels import CACHE, is_id, prepare_image
from medvlm.errors import InputError, ReviewError
from medvlm.review.store import Store
from medvlm.review.worklist import image_path, images

WANTED = ".wanted"
_log = logging.getLogger(__name__)


def want_pixels(folder: Path) -> None:
    """Marks a study's folder."""
    write_whole(folder / CACHE / WANTED, b"")


def prepare_wanted(store: Store, stop: Callable[[], bool] = lambda: False) -> int:
    """Prepares the marked studies, the latest first; returns how many were done."""
    marks = [(_age(mark), mark) for mark in store.files.glob(f"*/{CACHE}/{WANTED}")]
    done = 0
    for _, mark in sorted(marks, reverse=True):
        study_id = mark.parent.parent.name
        if not is_id(study_id):
            continue
        if not prepare_study(store, study_id, stop):
            break
        mark.unlink(missing_ok=True)
        done += 1
    return done


def prepare_study(store: Store, study_id: str, stop: Callable[[], bool] = lambda: False) -> bool:
    """Makes all pixels of a study; what cannot be decoded is left. False if told to stop."""
    try:
        found = [image_path(store, image.id) for image in images(store, study_id)]
    except ReviewError:
        return True
    for row, path in found:
        if stop():
            return False
        try:
            prepare_image(row, path)
        except InputError as error:
            _log.info("an image of study %s cannot be prepared: %s", study_id, error.code)
        except OSError as error:
            _log.warning("pixels cannot be kept: %s", error.strerror)
    return True


def _age(mark: Path) -> float:
    try:
        return mark.stat().st_mtime
    except OSError:
        return 0.0
