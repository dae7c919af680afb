"""The image that a question is about: sent along in a `data:` URI, or of an uploaded study."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from medvlm.dicom.decode import looks_like_dicom
from medvlm.dicom.files import Found
from medvlm.dicom.instance import PICTURES, Instance
from medvlm.dicom.read import read_instance
from medvlm.dicom.study import Study
from medvlm.errors import InputNotFound, UsageError
from medvlm.image.load import ImageInput, load_image
from medvlm.serve.disk import disk_errors
from medvlm.serve.problems import Refusal
from medvlm.serve.reader import Reader
from medvlm.serve.store import Store

SCHEME = "medvlm"
_DATA = re.compile(r"data:([a-z]+/[a-z]+);base64,", re.IGNORECASE)
_LONGEST_REFERENCE = 512
_REMEDY = (
    "Give data:image/png, data:image/jpeg or data:application/dicom in base64, or "
    "medvlm://study/UID?instance=SOPInstanceUID&frame=0 of an uploaded study."
)
Kind = Literal["PNG", "JPEG", "DICOM"]
_KINDS: dict[str, Kind] = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "application/dicom": "DICOM",
}


@dataclass(frozen=True)
class Sent:
    """A file that came with the question."""

    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Uploaded:
    """A frame of an uploaded study; `instance`: its SOPInstanceUID, None for the only image."""

    study: str
    instance: str | None
    frame: int


def source_of(url: str) -> Sent | Uploaded:
    """What an `image_url` means. Raises Refusal (400): nothing is fetched from other machines."""
    head = url[:16].lower()
    if head.startswith("data:"):
        return _sent(url)
    if head.startswith(f"{SCHEME}:") and len(url) <= _LONGEST_REFERENCE:
        return _uploaded(url)
    if head.startswith(("http:", "https:")):
        raise _refused("remote_image", "Images are not fetched from other machines.")
    raise _refused("invalid_image_url", "The image_url is of no kind that is taken.")


def load(source: Sent | Uploaded, store: Store, reader: Reader) -> tuple[ImageInput, Study | None]:
    """The image, decoded unless it was seen lately, and the study that it belongs to.

    Raises InputError, UsageError, StoreError.
    """
    if isinstance(source, Uploaded):
        study = store.study(source.study)
        instance, frame = _chosen(study, source)
        known = reader.known((instance.sha256, frame))
        return known or load_image(instance, frame), study
    known = reader.known((hashlib.sha256(source.data).hexdigest(), 0))
    if known is not None:
        return known, None
    with store.incoming() as folder:
        path = folder / "image"
        with disk_errors("the image"):
            path.write_bytes(source.data)
        return load_image(read_instance(Found(path, "image"))), None


def _sent(url: str) -> Sent:
    match = _DATA.match(url[:64])
    kind = _KINDS.get(match[1].lower()) if match else None
    if match is None or kind is None:
        raise _refused("invalid_image_url", "The data: URI is of no type that is taken.")
    try:
        data = base64.b64decode(url[match.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise _refused("invalid_image_url", "The data: URI is not base64.") from None
    if _kind(data) != kind:
        raise _refused("invalid_image", "The data are not of the type that the URI names.")
    return Sent(data)


def _kind(data: bytes) -> Kind | None:
    if looks_like_dicom(data[:132]):
        return "DICOM"
    for start, name in PICTURES.items():
        if data.startswith(start):
            return "PNG" if name == "PNG" else "JPEG"
    return None


def _uploaded(url: str) -> Uploaded:
    try:
        parts = urlsplit(url)
        given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise _refused("invalid_image_url", "The image_url cannot be read.") from None
    wanted = dict(given)
    frame = wanted.get("frame", "0")
    uid = unquote(parts.path.removeprefix("/"))
    odd = len(wanted) < len(given) or wanted.keys() - {"instance", "frame"} or parts.fragment
    if parts.netloc != "study" or not uid or odd or not re.fullmatch("[0-9]{1,6}", frame):
        raise _refused("invalid_image_url", "The image_url names no image of a study.")
    return Uploaded(uid, wanted.get("instance"), int(frame))


def _chosen(study: Study, source: Uploaded) -> tuple[Instance, int]:
    named = [
        one
        for one in study.instances
        if source.instance is None or one.sop_instance_uid == source.instance
    ]
    if not named:
        raise InputNotFound(
            "The study has no such image.", remedy="Take a SOPInstanceUID that the study lists."
        )
    if len(named) > 1:
        raise UsageError(
            f"the study has {len(named)} images", remedy="name one with ?instance=SOPInstanceUID"
        )
    (instance,) = named
    if source.frame >= instance.frames:
        raise InputNotFound(f"The image has {instance.frames} frames, counted from 0.")
    return instance, source.frame


def _refused(code: str, message: str) -> Refusal:
    return Refusal(400, code, message, remedy=_REMEDY, param="messages")
