"""A report of the desk in every form, with the headers and key images that the forms need."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmread

from medvlm.config.desk import DeskConfig
from medvlm.desk.stored import stored_instance, stored_study
from medvlm.dicom.study import Study
from medvlm.draft.overlay import draw_overlay
from medvlm.errors import InputError, InputNotFound, Undecodable
from medvlm.export.files import Made, make_all
from medvlm.export.pdf import KeyImage
from medvlm.image.load import load_image
from medvlm.records import Region
from medvlm.review.records import ImageRow, Report
from medvlm.review.store import Store
from medvlm.review.worklist import image_path

MOST_KEY_IMAGES = 4
_MOST_SIDE = 1400  # pixels: as sharp as a page shows it


def export_report(store: Store, report: Report, config: DeskConfig) -> Made:
    """All forms of a report, with times of this machine's zone.

    Raises InputError if the study's images cannot be read any more, ExportError.
    """
    zone = datetime.now().astimezone().tzinfo
    assert zone is not None
    study = stored_study(store, report.study_id)
    return make_all(
        report,
        headers=_headers(store, report),
        key_images=key_images(study, report),
        organisation=config.institution or None,
        zone=zone,
    )


def key_images(study: Study, report: Report) -> list[KeyImage]:
    """The frames that the report's regions are on, with the regions, numbered as its sentences.

    A report without regions shows its first image.
    """
    places: dict[tuple[str, int], list[tuple[str, Region]]] = defaultdict(list)
    captions: dict[tuple[str, int], list[str]] = defaultdict(list)
    for number, sentence in enumerate(report.sentences, 1):
        for region in sentence.regions:
            image = _image_of(region, report)
            if image is None:
                continue
            place = (image.id, region.frame)
            places[place].append((str(number), region))
            said = f"{number}: {sentence.text}"
            if said not in captions[place]:
                captions[place].append(said)
    if not places and report.images:
        places[report.images[0].id, 0] = []
    made = []
    for (image_id, frame), regions in list(places.items())[:MOST_KEY_IMAGES]:
        try:
            pixels = load_image(stored_instance(study, image_id), frame).pixels
        except InputError:
            continue  # the report itself is worth more than its pictures
        picture = draw_overlay(pixels, regions)
        picture.thumbnail((_MOST_SIDE, _MOST_SIDE))
        with BytesIO() as file:
            picture.save(file, format="PNG")
            caption = "  ".join(captions[image_id, frame])
            made.append(KeyImage(file.getvalue(), caption))
    return made


def _image_of(region: Region, report: Report) -> ImageRow | None:
    """A region of a picture that is not DICOM names no image: there is only one."""
    for image in report.images:
        if image.sop_instance_uid == region.sop_instance_uid:
            return image
    return None


def _headers(store: Store, report: Report) -> list[Dataset]:
    headers: list[Dataset] = []
    for image in report.images:
        _, path = image_path(store, image.id)
        if image.sop_instance_uid is not None:
            headers.append(_header(path))
    return headers


def _header(path: Path) -> Dataset:
    try:
        # Some files have no preamble; the intake has seen that they are DICOM.
        return dcmread(path, stop_before_pixels=True, force=True)
    except OSError:
        raise InputNotFound(
            "An image of the study cannot be read any more.",
            remedy="Restore the desk's folder of files from a backup.",
        ) from None
    except Exception as error:  # whatever a damaged header makes of the parser
        raise Undecodable("An image's header cannot be read any more.") from error
