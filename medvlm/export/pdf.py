"""A report as PDF on A4, with its key images.

Text is drawn letter by letter and never read as markup. The same report gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo

from medvlm.errors import ExportError, MissingExtra
from medvlm.export.notice import checked
from medvlm.review.records import Report


@dataclass(frozen=True)
class KeyImage:
    """A picture for the report, PNG or JPEG, with the regions drawn on it, and what they show."""

    png: bytes
    caption: str = ""


def to_pdf(report: Report, key_images: Sequence[KeyImage] = (), *, zone: tzinfo = UTC) -> bytes:
    """The report as a PDF file.

    Raises:
        ExportError: the report is not what its status says, or a key image is no picture.
        MissingExtra: reportlab is not installed.
    """
    checked(report)
    try:
        from medvlm.export.pages import UnreadablePicture, draw
    except ImportError as error:
        raise MissingExtra(
            "a PDF needs reportlab", remedy="install it with `pip install 'medvlm[app]'`"
        ) from error
    try:
        return draw(report, [(image.png, image.caption) for image in key_images], zone)
    except UnreadablePicture:
        raise ExportError(
            "A key image cannot be read", remedy="give PNG or JPEG files, or leave the images out"
        ) from None
