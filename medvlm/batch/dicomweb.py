"""Studies on a DICOMweb server: found by QIDO-RS, fetched by WADO-RS, reports stored by STOW-RS."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydicom.datadict import tag_for_keyword
from pydicom.uid import UID

from medvlm.batch import web
from medvlm.batch.landing import Landing
from medvlm.batch.multipart import joined, parts
from medvlm.batch.parcel import Contents
from medvlm.dicom.facts import is_uid
from medvlm.dicom.files import printable
from medvlm.errors import InputError, InputNotFound, NoPixels, ServerError, UsageError

SCHEME = "dicomweb+"
PAGE = 200  # answers that a server is asked for at once
TRIES = 3  # of a study whose transfer breaks off
_JSON = {"Accept": "application/dicom+json"}
# In whatever transfer syntax the server has it: it need not decode, and nothing is lost.
_AS_STORED = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
_OF_PAGING = ("limit", "offset", "includefield")
_BOUNDARY = "medvlm-{}"
_DUPLICATE = 0x0111  # PS3.7 C.5.8: the very object is there already
_UIDS = {
    "study": "0020000D",
    "series": "0020000E",
    "instance": "00080018",
    "sop_class": "00080016",
    "number": "00200013",
}


@dataclass(frozen=True)
class Listed:
    """An instance as the server lists it."""

    series: str
    instance: str
    sop_class: str
    number: str

    @property
    def is_image(self) -> bool:
        """Not where its class is known as a report, a presentation state, a document or such."""
        name = UID(self.sop_class).name
        return name == self.sop_class or "Image" in name or "US Volume" in name


@dataclass(frozen=True)
class Server:
    """A DICOMweb service. `address` holds neither log-in nor query: it may be shown."""

    address: str

    @classmethod
    def of(cls, url: str) -> Server:
        """From `http(s)://host/path`, with or without `dicomweb+` before it and filters behind it.

        Raises UsageError.
        """
        try:
            parsed = urlsplit(url.removeprefix(SCHEME))
            host, port = parsed.hostname, parsed.port
        except ValueError:
            host = port = None
        if not host or parsed.scheme not in ("http", "https"):
            raise UsageError(
                "this is no address of a DICOMweb server",
                remedy=f"give it as {SCHEME}https://host/dicom-web",
            )
        if parsed.username is not None or parsed.password is not None:
            raise UsageError(
                f"the address of {host} holds a log-in, which others could read",
                remedy=f"take it out. {web.LOG_IN}",
            )
        place = f"[{host}]" if ":" in host else host
        place += f":{port}" if port else ""
        return cls(f"{parsed.scheme}://{place}{parsed.path.rstrip('/')}")

    def studies(self, filters: Sequence[tuple[str, str]] = ()) -> Iterator[str]:
        """StudyInstanceUIDs, asked for a page at a time. Raises ServerError."""
        for found in self._search("studies", "study", filters):
            yield _value(found, "study")

    def instances(self, study: str, filters: Sequence[tuple[str, str]] = ()) -> list[Listed]:
        """Of a study, in the order of their UIDs; empty if it is not there. Raises ServerError."""
        path = f"studies/{self._checked(study)}/instances"
        names = ("series", "instance", "sop_class", "number")
        listed = {
            one.instance: one
            for found in self._search(path, "instance", filters)
            for one in [Listed(*(_value(found, name) for name in names))]
        }
        return [listed[uid] for uid in sorted(listed)]

    def has(self, study: str, uid: str) -> bool:
        """Whether the study has this instance, whatever else the server lists with it.

        Raises ServerError.
        """
        return any(one.instance == uid for one in self.instances(study, [("SOPInstanceUID", uid)]))

    @contextmanager
    def fetch(self, study: str, series: str) -> Iterator[Iterator[Iterator[bytes]]]:
        """The files of a series, each in pieces. Raises ServerError, web.Interrupted."""
        path = f"studies/{self._checked(study)}/series/{self._checked(series)}"
        with web.ask(self.address, path, headers=_AS_STORED) as answer:
            kind = answer.headers.get("Content-Type", "")
            yield parts(web.chunks(self.address, answer), kind, self.address)

    def store(self, file: bytes, study: str, uid: str) -> None:
        """A DICOM file of this study and SOPInstanceUID. One that is there is left as it is.

        Raises ServerError: it was not taken.
        """
        boundary = _BOUNDARY.format(hashlib.sha256(file).hexdigest())
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        headers = {**_JSON, "Content-Type": kind}
        answer = web.ask(
            self.address,
            "studies",
            method="POST",
            headers=headers,
            body=joined(file, boundary),
            fine=(409,),
        )
        named = self._named(_json(web.whole(self.address, answer)))
        # An answer that names nothing (XML, or none) may be of a server that kept nothing.
        if uid not in named and (named or not self.has(study, uid)):
            raise self._refused("The server does not take the report.")

    def _named(self, told: Any) -> set[Any]:
        """The SOPInstanceUIDs that were stored, or were there. Raises ServerError for others."""
        told = told[0] if isinstance(told, list) and told else told
        told = told if isinstance(told, dict) else {}
        failures = _items(told, "00081198")
        for failed in failures:
            reason = _first(failed, "00081197")
            if reason != _DUPLICATE:
                shown = f"{reason:04X}" if isinstance(reason, int) else "without a reason"
                raise self._refused(f"The server does not take the report ({shown}).")
        told_of = [*failures, *_items(told, "00081199")]
        return {uid for one in told_of if (uid := _first(one, "00081155")) is not None}

    def _refused(self, message: str) -> ServerError:
        return ServerError(message, file=self.address, remedy="Ask the log of the server.")

    def _search(
        self, path: str, level: str, filters: Sequence[tuple[str, str]]
    ) -> Iterator[dict[str, Any]]:
        """Every match once. A server may give fewer at once than it is asked for.

        `level`: whose UID tells one from another.
        """
        offset = 0
        seen: set[int] = set()  # hashes of UIDs, which take less memory
        while True:
            query = [*filters, ("limit", str(PAGE)), ("offset", str(offset))]
            answer = web.ask(self.address, path, query=query, headers=_JSON, fine=(404,))
            body = web.whole(self.address, answer)
            if answer.status_code == 404 and offset == 0 and "/" not in path:
                raise ServerError(
                    "There is no DICOMweb service (404).",
                    file=self.address,
                    remedy="Check the path, such as /dicom-web.",
                )
            found = [] if answer.status_code in (204, 404) else _json(body or b"[]")
            if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
                raise ServerError("The server's answer is no DICOM JSON.", file=self.address)
            new = {hash(uid): one for one in found if (uid := _value(one, level))}
            new = {key: one for key, one in new.items() if key not in seen}
            # One that knows no offset says the same again, perhaps in another order.
            if not new:
                return
            seen |= new.keys()
            yield from new.values()
            offset += len(found)

    def _checked(self, uid: str) -> str:
        if not is_uid(uid):
            raise ServerError("The server gives a study no valid UID.", file=self.address)
        return uid


@dataclass(frozen=True)
class StudyOnServer:
    """A study as a parcel. Its images are fetched; what else lies in it is left there."""

    server: Server
    study: str

    @property
    def name(self) -> str:
        return printable(self.study)

    @property
    def server_url(self) -> str:
        """Where a report on it belongs."""
        return self.server.address

    def mark(self) -> str | None:
        """From which images the server lists; a report that is added changes nothing."""
        try:
            images = self._images()
        except InputError:
            return None  # opening it will tell why
        told = [[one.instance, one.series, one.number] for one in images]
        return hashlib.sha256(json.dumps([self.study, told]).encode()).hexdigest()

    def open(self, scratch: Path) -> Contents:
        """Raises ServerError, InputNotFound (it is gone), NoPixels, TooLarge."""
        for attempt in range(TRIES):
            folder = scratch / f"try-{attempt}"
            try:
                return self._fetched(Landing(folder, self.name))
            except web.Interrupted:
                shutil.rmtree(folder, ignore_errors=True)
                if attempt == TRIES - 1:
                    raise
                time.sleep(web.BACK_OFF * 2**attempt)
        raise AssertionError

    def _fetched(self, landing: Landing) -> Contents:
        images = self._images()
        if not images:
            raise NoPixels("The study holds no image.", file=self.name)
        for series in dict.fromkeys(one.series for one in images):
            expected = sum(one.series == series for one in images)
            before = len(landing.names)
            with self.server.fetch(self.study, series) as files:
                for file in files:
                    landing.add(f"{self.name}/{len(landing.names):06d}", file)
            if len(landing.names) - before < expected:
                raise self._too_few()
        contents = landing.contents()
        come = {one.sop_instance_uid for one in contents.reading.instances}
        # What cannot be read does not tell its UID.
        if sum(one.instance not in come for one in images) > len(contents.reading.refused):
            raise self._too_few()
        return contents

    def _too_few(self) -> web.Interrupted:
        return web.Interrupted(
            "The server sent fewer images of a study than it lists.",
            file=self.server.address,
            remedy="Ask its log.",
        )

    def _images(self) -> list[Listed]:
        listed = self.server.instances(self.study)
        if not listed:
            raise InputNotFound("The server does not have the study any more.", file=self.name)
        return [one for one in listed if one.is_image]


def studies(url: str) -> Iterator[StudyOnServer]:
    """The studies behind `dicomweb+https://host/path?filters`, asked for while they are taken.

    Filters are those of QIDO-RS: `StudyDate=20260101-20260131&ModalitiesInStudy=CR`.

    Raises UsageError for the address or a filter at once, ServerError later.
    """
    server, filters = Server.of(url), _filters(url)
    return (StudyOnServer(server, uid) for uid in server.studies(filters))


def _filters(url: str) -> list[tuple[str, str]]:
    # The value may be a patient's name: errors tell the key only.
    given = parse_qsl(urlsplit(url.removeprefix(SCHEME)).query, keep_blank_values=True)
    for key, _ in given:
        if key in _OF_PAGING:
            raise UsageError(f"the filter {key} is set by medvlm itself", remedy="take it out")
        is_tag = len(key) == 8 and all(char in "0123456789abcdefABCDEF" for char in key)
        known = is_tag or key == "fuzzymatching" or (key and tag_for_keyword(key) is not None)
        if not known:
            raise UsageError(
                f"{printable(key)} is no filter of QIDO-RS",
                remedy="give keywords of DICOM, such as StudyDate=20260101-20260131",
            )
    return given


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _value(found: dict[str, Any], name: str) -> str:
    value = _first(found, _UIDS[name])
    return "" if value is None else str(value)


def _first(found: dict[str, Any], tag: str) -> Any:
    element = found.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _items(found: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    element = found.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []
