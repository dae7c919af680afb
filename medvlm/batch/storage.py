"""Files wherever fsspec reaches: object storage, other servers, or this machine."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from medvlm.batch.landing import Landing
from medvlm.batch.parcel import Contents, read_parcel
from medvlm.dicom.files import printable
from medvlm.errors import InputError, InputNotFound, MissingExtra, ServerError, UsageError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

ARCHIVES = (".zip",)
BLOCK = 8 << 20  # bytes asked for at once
CHUNK = 1 << 20
# What a storage says of a file that changes with its content, the surest first.
_VERSIONS = (
    *("ETag", "etag", "md5Hash", "content_md5", "checksum"),
    *("mtime", "LastModified", "last_modified", "updated", "modified", "created"),
)
_CONTAINERS = ("abfs", "abfss")  # container@account is a place there
_PORT = re.compile(r":[0-9]*$")
_QUERY = re.compile(r"\?[^/=]*=.*", re.DOTALL)
Info = Mapping[str, Any]


@dataclass(frozen=True)
class PlacesParcel:
    """Files, folders and archives that are one parcel.

    `places`: absolute paths of this machine, or URLs that `checked` let through.
    """

    name: str
    places: tuple[str, ...] = field(repr=False)

    def mark(self) -> str | None:
        """From the names, sizes and ETags or times of all files. None where one says neither."""
        told: list[list[str]] = []
        try:
            for place in self.places:
                told += _remote_state(place) if is_url(place) else _local_state(Path(place))
        except (InputError, OSError):
            return None  # opening it will tell why
        if not told or any(not version for _, _, version in told):
            return None
        return hashlib.sha256(json.dumps([self.places, told]).encode()).hexdigest()

    def open(self, scratch: Path) -> Contents:
        """Raises ServerError, InputNotFound, TooLarge."""
        remote = [place for place in self.places if is_url(place)]
        local = [Path(place) for place in self.places if not is_url(place)]
        if not remote:
            return read_parcel(local)
        landing = Landing(scratch / "fetched", self.name)
        for url in remote:
            _fetch(url, landing)
        return landing.contents(local)


def parcels(url: str) -> Iterator[PlacesParcel]:
    """What lies below a URL: each sub-folder with all below it, each archive, and the loose files.

    Raises UsageError, MissingExtra at once; InputNotFound, ServerError when it is looked at.
    """
    return _parcels(checked(url))


def is_url(place: str) -> bool:
    return "://" in place


def checked(url: str) -> str:
    """The URL, if fsspec knows its scheme and it holds no log-in.

    Raises UsageError; MissingExtra if the package for the scheme is not installed.
    """
    scheme, _, rest = url.partition("://")
    _check_scheme(scheme)
    if "::" in rest:
        raise UsageError(
            "the URL is a chain (::) of several storages, which is not taken",
            remedy="give the URL of the files or archives themselves",
        )
    if _holds_log_in(scheme, rest):
        raise UsageError(
            "the URL holds a log-in, which others could read",
            remedy="take it out, and give it to fsspec by its configuration or environment",
        )
    return url


def _holds_log_in(scheme: str, rest: str) -> bool:
    host = rest.partition("/")[0]
    if "@" in host:
        return scheme not in _CONTAINERS or ":" in host.partition("@")[0]
    # A password may hold a slash; a port is none.
    return "@" in rest and ":" in host and _PORT.search(host) is None


def absolute(place: str, folder: str) -> str:
    """A place as written in a file of `folder`, an absolute path. Raises as `checked`."""
    # pathlib would take five times as long, which a list of ten million places feels.
    return checked(place) if is_url(place) else os.path.join(folder, place)  # noqa: PTH118


def shown(url: str) -> str:
    """For people: without a query, which may be a signature."""
    if url.startswith(("http://", "https://")):
        url = urlsplit(url)._replace(query="", fragment="").geturl()
    elif is_url(url):
        url = _QUERY.sub("", url)  # a name may hold a question mark
    return url if url.isprintable() else printable(url)


@functools.cache
def _check_scheme(scheme: str) -> None:
    try:
        from fsspec import available_protocols, get_filesystem_class
    except ImportError as error:
        raise MissingExtra(
            f"{printable(scheme)}:// needs fsspec",
            remedy="install it with `pip install 'medvlm[batch]'`",
        ) from error
    if scheme not in available_protocols():
        raise UsageError(
            f"{printable(scheme)}:// is no kind of storage that is known",
            remedy="give a path, a URL that fsspec knows, or dicomweb+https://host/path",
        )
    try:
        get_filesystem_class(scheme)
    except ImportError as error:
        raise MissingExtra(
            f"{scheme}:// needs another package: {error}", remedy="install it with pip"
        ) from error


def _parcels(url: str) -> Iterator[PlacesParcel]:
    with _typed_errors(shown(url)):
        fs, root = _opened(url)
        if not fs.isdir(root):
            entries: list[Info] = [fs.info(root)]
        else:
            entries = sorted(fs.ls(root, detail=True), key=lambda entry: str(entry["name"]))
        loose = []
        for entry in entries:
            place = fs.unstrip_protocol(entry["name"])
            if not _is_file(entry):
                if entry["name"].rstrip("/") != root.rstrip("/"):  # S3 lists a folder in itself
                    yield PlacesParcel(shown(place), (place,))
            elif place.lower().endswith(ARCHIVES):
                yield PlacesParcel(shown(place), (place,))
            elif not place.endswith("/"):  # an empty object that stands for a folder
                loose.append(place)
    if loose:
        yield PlacesParcel(shown(loose[0] if len(loose) == 1 else url), tuple(loose))


def _fetch(url: str, landing: Landing) -> None:
    with _typed_errors(landing.name):
        fs, root = _opened(url)
        files = _files(fs, root)
        for path in files:
            with fs.open(path, "rb", block_size=BLOCK, cache_type="readahead") as source:
                landing.add(shown(fs.unstrip_protocol(path)), iter(lambda: source.read(CHUNK), b""))
    if not files:
        raise InputNotFound("There is nothing under this name.", file=shown(url))


def _remote_state(url: str) -> list[list[str]]:
    with _typed_errors(shown(url)):
        fs, root = _opened(url)
        return [
            [path, str(info.get("size")), _version(info)] for path, info in _files(fs, root).items()
        ]


def _local_state(path: Path) -> list[list[str]]:
    if not path.is_dir():
        return [_stat(path, path)]
    found = []
    for folder, folders, names in os.walk(path):
        folders.sort()
        found += [_stat(Path(folder, name), path) for name in sorted(names)]
    return found


def _stat(path: Path, root: Path) -> list[str]:
    state = path.stat()
    return [str(path.relative_to(root)), str(state.st_size), str(state.st_mtime_ns)]


def _version(info: Info) -> str:
    return next((str(info[key]) for key in _VERSIONS if info.get(key)), "")


def _opened(url: str) -> tuple[AbstractFileSystem, str]:
    from fsspec.core import url_to_fs

    fs, root = url_to_fs(url)
    fs.invalidate_cache()  # what was listed an hour ago is not what is there
    return fs, str(root)


def _files(fs: AbstractFileSystem, root: str) -> dict[str, Info]:
    """The file itself, or all files below the folder, by path, in order."""
    found: dict[str, Info] = fs.find(root, detail=True)
    files = {path: info for path, info in found.items() if _is_file(info)}
    return {path: files[path] for path in sorted(files) if not path.endswith("/")}


def _is_file(info: Info) -> bool:
    return bool(info.get("type") != "directory")


@contextmanager
def _typed_errors(name: str) -> Iterator[None]:
    """Whatever a storage's library raises, without its words, which may hold keys."""
    try:
        yield
    except (InputError, GeneratorExit):
        raise
    except FileNotFoundError:
        raise InputNotFound("There is nothing under this name.", file=name) from None
    except Exception as error:
        raise ServerError(
            f"The storage does not give it ({type(error).__name__}).",
            file=name,
            remedy="Check the log-in that fsspec is configured with, and that it can be reached.",
        ) from None
