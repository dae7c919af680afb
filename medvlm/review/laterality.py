"""Right and left: what words say of the patient, and what regions show.

On a frontal film the patient's right lies on the left of the picture. Of side views, turned films
and slices, whose orientation the desk does not keep, nothing is concluded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from medvlm.draft.parse import parse_sentence
from medvlm.records import Region
from medvlm.review.records import ImageRow, StudyRow
from medvlm.review.wording import readable

Sides = frozenset[str]
"""The patient's sides: right, left, both of them, or none that is known."""

NONE: Sides = frozenset()
BOTH: Sides = frozenset({"right", "left"})

MIDDLE = (0.45, 0.55)
"""Between these shares of a film's width a region says nothing of its side."""
CROSSES_FROM = 0.25
"""Nor does a region with this share of its own width on either side of the film's middle."""

_FRONTAL = frozenset({"AP", "PA"})
_FILMS = frozenset({"CR", "DX", "DR", "RG", ""})  # "": a picture that is not DICOM
_WORDS = re.compile(
    r"\b(?P<side>left|right|bilateral(?:ly)?)\b"
    r"(?!\s+(?:heart|atri\w+|ventric\w+|cardiac|in place|in situ|untreated|alone))",
    re.IGNORECASE,
)


def sides_named(text: str, finding: str) -> Sides:
    """The sides on which a text sees a finding; of one that it names by no known word, any side."""
    if not readable(text):
        return NONE
    about = [one for one in parse_sentence(text) if one.finding == finding]
    if about:
        places = (one.location for one in about if one.polarity != "absent")
        return united(place.side for place in places if place)
    return united(match["side"].lower() for match in _WORDS.finditer(text))


def united(words: Iterable[str | None]) -> Sides:
    """The sides that words name; every word but right and left names both."""
    return NONE.union(*({word} if word in BOTH else BOTH for word in words if word))


def frontal_widths(images: Sequence[ImageRow], row: StudyRow) -> dict[str | None, int]:
    """The widths in pixels of the study's frontal films by SOPInstanceUID, and by None if the study
    has one image only: that is whose a region without a UID is."""
    widths: dict[str | None, int] = {
        one.sop_instance_uid: one.columns for one in images if _is_frontal(one, row)
    }
    if len(images) == 1 and widths:
        widths[None] = images[0].columns
    elif None in widths:
        del widths[None]
    return widths


def is_film(image: ImageRow, row: StudyRow) -> bool:
    """Whether it is a plain film, or a picture that may be one."""
    return (image.modality or row.modality or "").upper() in _FILMS


def _is_frontal(image: ImageRow, row: StudyRow) -> bool:
    view = (image.view_position or row.view or "PA").upper()
    return is_film(image, row) and view in _FRONTAL


def sides_shown(regions: Sequence[Region], widths: Mapping[str | None, int]) -> Sides:
    """The patient's sides on which the regions lie that are on frontal films."""
    return NONE.union(
        *(
            _side(one, widths[one.sop_instance_uid])
            for one in regions
            if one.sop_instance_uid in widths
        )
    )


def _side(region: Region, columns: int) -> Sides:
    left, right = region.x, region.x + region.width
    beyond = min(columns / 2 - left, right - columns / 2)
    share = (left + right) / 2 / columns
    if beyond >= CROSSES_FROM * region.width or MIDDLE[0] <= share <= MIDDLE[1]:
        return NONE
    return frozenset({"right" if share < MIDDLE[0] else "left"})
