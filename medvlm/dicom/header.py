"""Reads of a DICOM file's header only the elements that are asked for, and no pixels.

A reading room's folder holds ten thousand files, and building a data set of each takes longer than
reading it. This walks over the elements' lengths and keeps the few that matter; their values are
equal to pydicom's (a test compares them over all files at hand). Whatever is not the plain, healthy
kind of file (no preamble, big endian, deflated, lengths that do not fit) is left to pydicom.
"""

from __future__ import annotations

import functools
import os
import re
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from struct import Struct
from typing import Any

from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import IS

from medvlm.dicom.limits import limits
from medvlm.dicom.nesting import (
    ITEM,
    ITEM_END,
    LONG_VRS,
    SEQUENCE_END,
    SHORT_VRS,
    UNDEFINED,
    refuse_deep,
    too_deep,
    too_many,
)
from medvlm.errors import TooLarge

_CHUNK = 64 << 10
# A shorter element is not looked into: it holds few sequences. A longer one is no number or name.
_SHORT_ELEMENT, _LONG_ELEMENT = 1 << 10, 1 << 20
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_TRAILING_PADDING = 0xFFFCFFFC
_CHARACTER_SET, _TRANSFER_SYNTAX = 0x00080005, 0x00020010
_META = frozenset({_TRANSFER_SYNTAX, 0x00020002, 0x00020003})  # and the SOP class and instance
_PLAIN_VRS = frozenset(["AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "SH", "TM", "UI"])
_PLAIN_NUMBERS = {
    "DS": re.compile(r" *[-+]?[0-9]+(\.[0-9]*)?( *\\ *[-+]?[0-9]+(\.[0-9]*)?)*").fullmatch,
    "IS": re.compile(r" *[-+]?[0-9]{1,9}( *\\ *[-+]?[0-9]{1,9})*").fullmatch,
}
_short = Struct("<HH2sH").unpack_from  # group, element, VR, length
_long = Struct("<I").unpack_from
_one_short = Struct("<H").unpack
_implicit = Struct("<HHI").unpack_from  # group, element, length


@dataclass(frozen=True)
class Header:
    """The elements asked for, and how many bytes of pixel data follow them.

    `pixel_bytes` is what is in the file, not what it declares; None where there are no pixels.
    `plain` is false if something in the file takes much memory or another reader to convert.
    """

    ds: Elements | Dataset
    pixel_bytes: int | None
    plain: bool = False


class Elements:
    """Elements as read, converted when asked for: the reading half of a `Dataset`.

    Plain text and single numbers, nearly all there is, are converted here, everything else by
    pydicom. Decimal strings stay strings.
    """

    def __init__(self, found: dict[int, RawDataElement], ds: Dataset, meta: FileMetaDataset):
        self._found = found
        self._ds = ds
        self.file_meta = meta

    def get(self, keyword: str, default: Any = None) -> Any:
        """The element's value; `default` where it is absent. Raises whatever pydicom does."""
        raw = self._found.get(_tag(keyword))
        if raw is None:
            return default
        value = _plain(raw)
        return self._ds.get(keyword, default) if value is None else value

    def __contains__(self, keyword: str) -> bool:
        return _tag(keyword) in self._found

    def __getattr__(self, keyword: str) -> Any:
        value = self.get(keyword)
        if value is None:
            raise AttributeError(keyword)
        return value


AnyDataset = Dataset | Elements


@functools.cache
def _tag(keyword: str) -> int:
    return int(tag_for_keyword(keyword) or 0)


@functools.cache
def _dictionary_vr(tag: int) -> str:
    return dictionary_VR(tag)


def _encodings(ds: Dataset) -> list[str]:
    """How Python calls the character sets of the data set."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            element = ds.get(_CHARACTER_SET)
            return convert_encodings(element.value if element else None)
    except Exception as error:  # whatever pydicom makes of nonsense
        raise _Unusual from error


def refuse_long(tag: int, vr: bytes | None, length: int) -> None:
    """Raises TooLarge for numbers, names and other short things of more than a megabyte.

    Only an implicit data set can hold such; each of the numbers becomes an object of its own.
    """
    if length <= _LONG_ELEMENT:
        return
    try:
        short = (vr or _dictionary_vr(tag).encode()) in SHORT_VRS
    except KeyError:  # a private element
        short = False
    if short:
        raise TooLarge("An element of its header is longer than any can be.")


def _may_be_sequence(tag: int) -> bool:
    """Whether the dictionary calls the element a sequence, or does not know it."""
    try:
        return _dictionary_vr(tag) == "SQ"
    except KeyError:
        return True


def _plain(raw: RawDataElement) -> Any:
    """The value of an ASCII text or a single short; None where pydicom has to see to it."""
    vr, value = raw.VR or _dictionary_vr(int(raw.tag)), raw.value
    if not value:
        return None
    if vr == "US":
        return _one_short(value)[0] if len(value) == 2 else None
    if vr not in _PLAIN_VRS or not value.isascii() or b"\x1b" in value:
        return None
    text = value.decode("ascii").rstrip("\0 ")
    if vr in ("DS", "IS"):
        # Only what Python reads as pydicom does; pydicom judges the rest.
        if not _PLAIN_NUMBERS[vr](text):
            return None
        numbers = [IS(part.strip()) if vr == "IS" else part.strip() for part in text.split("\\")]
        return numbers if len(numbers) > 1 else numbers[0]
    parts = [part.strip() for part in text.split("\\")]
    return parts if len(parts) > 1 else parts[0]


def read_header(
    path: str | os.PathLike[str], wanted: Collection[int]
) -> tuple[bytes, Header | None]:
    """The file's first 132 bytes, and its elements whose tags are `wanted`.

    The header is None if the file is for pydicom to judge.

    Raises:
        OSError: the file cannot be read.
        TooDeep: sequences are nested beyond the limit.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        walk = _Walk(descriptor)
        head = walk.data[:132]
        try:
            return head, walk.header(wanted)
        except (_Unusual, IndexError):
            return head, None
    finally:
        os.close(descriptor)


class _Unusual(Exception):
    """The file is not of the plain kind."""


class _Walk:
    """A position in a file, and the piece of the file around it that has been read."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self.data = os.pread(descriptor, _CHUNK, 0)
        self.base = 0
        self.elements = 0
        self.plain = True

    def header(self, wanted: Collection[int]) -> Header:
        if self.data[128:132] != b"DICM":
            raise _Unusual
        meta, end = self._elements(132, _META, False, True)
        ds_meta = FileMetaDataset()
        ds_meta._dict.update(meta)  # raw elements; the public way would convert them
        syntax = _plain(meta[_TRANSFER_SYNTAX]) if _TRANSFER_SYNTAX in meta else None
        if syntax in (None, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian):
            raise _Unusual
        implicit = syntax == ImplicitVRLittleEndian
        if implicit and self._bytes(end + 4, 2).isalpha():
            raise _Unusual  # the first element has a VR
        found, end = self._elements(end, {_CHARACTER_SET, *wanted}, implicit, False)
        if not found:
            raise _Unusual
        ds = Dataset(found)
        ds.set_original_encoding(implicit, True, _encodings(ds))
        ds.file_meta = ds_meta
        pixels = self._pixel_bytes(end, implicit)
        return Header(Elements(found, ds, ds_meta), pixels, self.plain)

    def _elements(
        self, start: int, wanted: Collection[int], implicit: bool, meta: bool
    ) -> tuple[dict[Any, Any], int]:
        """The wanted elements from `start` on, and where pixel data or the end begin."""
        found: dict[Any, Any] = {}
        position, previous, size, most = start, 0, self.size, limits().elements
        while position < size:
            self.elements += 1
            if self.elements > most:
                raise too_many()
            # Written out and not called: this runs for every element of every file.
            at = position - self.base
            if at < 0 or at + 12 > len(self.data):
                at = self._at(position, 12)
            if implicit:
                group, element, length = _implicit(self.data, at)
                vr, value = None, position + 8
            else:
                group, element, vr, length = _short(self.data, at)
                value = position + 8
                if vr not in SHORT_VRS:
                    if meta and group != 2:
                        break  # of an implicit data set, which has no VRs
                    if vr not in LONG_VRS:
                        raise _Unusual
                    (length,) = _long(self.data, at + 8)
                    value = position + 12
            tag = group << 16 | element
            if tag in _PIXELS or (meta and group != 2):
                break
            if tag <= previous:
                raise _Unusual  # elements stand in ascending order; pydicom sorts out the rest
            previous = tag
            if length == UNDEFINED:
                if vr != b"SQ" and (vr or not _may_be_sequence(tag)):
                    raise _Unusual
                end, position = self._skip_sequence(value, implicit)
            else:
                end = position = value + length
            if position > size:
                raise _Unusual
            if position - value > _SHORT_ELEMENT:
                self._look_into(tag, vr, value, end - value)
            if tag in wanted:
                if end - value > _LONG_ELEMENT:
                    raise _Unusual
                found[tag] = RawDataElement(
                    BaseTag(tag),
                    vr.decode("ascii") if vr else None,
                    end - value,
                    self._bytes(value, end - value),
                    value,
                    implicit,
                    True,
                )
        return found, position

    def _element(self, position: int, implicit: bool) -> tuple[int, bytes | None, int, int]:
        """(tag, VR, length, where the value begins) of the element at `position`."""
        at = self._at(position, 12)
        if implicit:
            group, element, length = _implicit(self.data, at)
            return group << 16 | element, None, length, position + 8
        group, element, vr, length = _short(self.data, at)
        tag = group << 16 | element
        if vr in SHORT_VRS:
            return tag, vr, length, position + 8
        if vr in LONG_VRS:
            return tag, vr, _long(self.data, at + 8)[0], position + 12
        raise _Unusual

    def _look_into(self, tag: int, vr: bytes | None, value: int, length: int) -> None:
        """Refuse an element too long for its kind, and one that holds sequences without end."""
        if length > _LONG_ELEMENT:
            self.plain = False
            refuse_long(tag, vr, length)
        if vr in (b"SQ", b"UN", None) and self._bytes(value, 4) == b"\xfe\xff\x00\xe0":
            refuse_deep(self._bytes(value, length))

    def _skip_sequence(self, position: int, implicit: bool) -> tuple[int, int]:
        """(end of the items, end of the delimiter) of a sequence of undefined length."""
        deepest, most = limits().sequence_depth, limits().elements
        inside_item: list[bool] = [False]
        while True:
            self.elements += 1
            if self.elements > most:
                raise too_many()
            group, element, length = _implicit(self.data, self._at(position, 8))
            tag = group << 16 | element
            if not inside_item[-1]:
                position += 8
                if tag == SEQUENCE_END:
                    inside_item.pop()
                    if not inside_item:
                        return position - 8, position
                elif tag != ITEM:
                    raise _Unusual
                elif length == UNDEFINED:
                    inside_item.append(True)
                else:
                    position += length
            elif tag == ITEM_END:
                inside_item.pop()
                position += 8
            else:
                _, vr, length, position = self._element(position, implicit)
                if length != UNDEFINED:
                    position += length
                elif vr != b"SQ" and (vr or not _may_be_sequence(tag)):
                    raise _Unusual
                else:
                    inside_item.append(False)
            if len(inside_item) > 2 * deepest:
                raise too_deep()
            if position > self.size:
                raise _Unusual

    def _pixel_bytes(self, position: int, implicit: bool) -> int | None:
        if position >= self.size:
            return None
        _, vr, length, value = self._element(position, implicit)
        if value > self.size or vr == b"SQ":
            raise _Unusual
        if length != UNDEFINED:
            end, position = min(value + length, self.size), value + length
        else:
            end, position = self._skip_sequence(value, implicit)  # the items are its fragments
        self._refuse_more(position, implicit)
        return end - value

    def _refuse_more(self, position: int, implicit: bool) -> None:
        """Leave a file to pydicom that has more than padding after its pixel data."""
        if position < self.size:
            tag, _, length, value = self._element(position, implicit)
            if tag != _TRAILING_PADDING or value + length != self.size:
                raise _Unusual

    def _at(self, position: int, length: int) -> int:
        """Where `length` bytes from `position` on lie in `self.data`, read if need be."""
        at = position - self.base
        if at < 0 or at + length > len(self.data):
            self.data = os.pread(self.descriptor, max(length, _CHUNK), position)
            self.base, at = position, 0
            if len(self.data) < length:
                self.data += bytes(length)  # behind the end: no element begins there
        return at

    def _bytes(self, position: int, length: int) -> bytes:
        at = self._at(position, length)
        return self.data[at : at + length]
