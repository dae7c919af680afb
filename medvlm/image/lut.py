"""Lookup tables as DICOM stores them: modality, VOI and palette tables, plain or segmented."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medvlm.dicom.decode import header_value

MAX_ENTRIES = 1 << 16
_DISCRETE, _LINEAR, _INDIRECT = range(3)  # opcodes of a segmented table, PS3.3 C.7.9.2


@dataclass(frozen=True)
class Table:
    """A lookup table.

    Attributes:
        entries: float64 [N], whole numbers from 0 to `white`.
        first: the input that the first entry stands for.
        bits: of an entry.
        explanation: the file's words for it.
    """

    entries: NDArray[np.float64] = field(repr=False)
    first: int
    bits: int
    explanation: str = ""

    @property
    def white(self) -> float:
        """The largest value an entry may have."""
        return float((1 << self.bits) - 1)

    def __call__(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """The entries for these inputs, same shape; outside the table its first and last entry.

        Inputs between two whole numbers take the nearer one, and NaN the first entry.
        """
        nearest = np.rint(np.nan_to_num(values.astype(np.float64), nan=-np.inf)) - self.first
        return self.entries[np.clip(nearest, 0, len(self.entries) - 1).astype(np.intp)]


def lookup_table(item: Dataset, *, signed: bool, little_endian: bool = True) -> Table | None:
    """The table in an item of a Modality or VOI LUT sequence; None where there is none to use.

    Args:
        item: with LUTDescriptor and LUTData.
        signed: whether the inputs may be negative, which decides how the first one is read.
        little_endian: the byte order of the file.
    """
    words = str(header_value(item, "LUTExplanation") or "").strip()
    descriptor, data = header_value(item, "LUTDescriptor"), header_value(item, "LUTData")
    return _table(descriptor, data, signed, little_endian, words)


def palette_tables(ds: Dataset, *, little_endian: bool = True) -> tuple[Table, Table, Table] | None:
    """The red, green and blue table of a PALETTE COLOR image; None where one is missing.

    The tables of one palette share their number of bits, so that white is the same in all.
    """
    signed = header_value(ds, "PixelRepresentation") == 1
    tables = []
    for colour in ("Red", "Green", "Blue"):
        name = f"{colour}PaletteColorLookupTable"
        descriptor, data = header_value(ds, f"{name}Descriptor"), header_value(ds, f"{name}Data")
        if data is None:
            data = _expanded(ds, f"Segmented{name}Data", descriptor, little_endian)
        table = _table(descriptor, data, signed, little_endian)
        if table is None:
            return None
        tables.append(table)
    bits = max(table.bits for table in tables)
    if bits == 16 and max(table.entries.max() for table in tables) < 256:
        bits = 8  # written with one byte of each word in use, and so meant
    red, green, blue = (Table(table.entries, table.first, bits) for table in tables)
    return red, green, blue


def _table(
    descriptor: Any, data: Any, signed: bool, little_endian: bool, words: str = ""
) -> Table | None:
    said = _descriptor(descriptor, little_endian)
    if said is None or data is None:
        return None
    count, first, bits = said
    entries = _entries(data, count, bits, little_endian)
    if entries.size == 0:
        return None
    if signed and first >= MAX_ENTRIES // 2:
        first -= MAX_ENTRIES
    needed = int(entries.max()).bit_length()
    if not 1 <= bits <= 16 or needed > bits:  # entries larger than the descriptor allows
        bits = max(8, needed)
    return Table(entries, first, bits, words)


def _descriptor(value: Any, little_endian: bool) -> tuple[int, int, int] | None:
    """(entries, first input mod 65536, bits); whether it was read as US or as SS does not matter.

    0 stands for 65536 entries, which 16 bits cannot hold.
    """
    try:
        if isinstance(value, bytes):
            value = np.frombuffer(value, "<u2" if little_endian else ">u2")
        count, first, bits = (int(number) for number in value)
    except (TypeError, ValueError):
        return None
    return count % MAX_ENTRIES or MAX_ENTRIES, first % MAX_ENTRIES, bits


def _entries(data: Any, count: int, bits: int, little_endian: bool) -> NDArray[np.float64]:
    """At most `count` entries from words, or from bytes where there is one byte for each."""
    words = _words(data, little_endian)
    if words.size == (count + 1) // 2 < count and bits <= 8:
        words = words.astype("<u2").view(np.uint8)
    return words[:count].astype(np.float64)


def _words(data: Any, little_endian: bool) -> NDArray[Any]:
    """Table data as 16-bit words: bytes of an OW element, or numbers that are parsed already."""
    if isinstance(data, bytes):
        whole = data[: len(data) // 2 * 2]
        return np.frombuffer(whole, "<u2" if little_endian else ">u2")
    try:
        return (np.atleast_1d(np.asarray(data, dtype=np.int64)) % MAX_ENTRIES).astype(np.uint16)
    except (TypeError, ValueError):
        return np.zeros(0, dtype=np.uint16)


def _expanded(
    ds: Dataset, keyword: str, descriptor: Any, little_endian: bool
) -> NDArray[np.int64] | None:
    said, data = _descriptor(descriptor, little_endian), header_value(ds, keyword)
    if said is None or data is None:
        return None
    words = _words(data, little_endian)
    entry_bytes = 1 if said[2] <= 8 else 2
    if entry_bytes == 1:
        words = words.astype("<u2").view(np.uint8)
    return np.asarray(expand_segments(words.tolist(), entry_bytes)[: said[0]], dtype=np.int64)


def expand_segments(segments: Sequence[int], entry_bytes: int) -> list[int]:
    """The entries that a segmented table stands for, at most 65536 (PS3.3 C.7.9.2).

    Args:
        segments: opcodes, lengths and entries, each of `entry_bytes` (1 or 2) bytes. An indirect
            segment's offset counts bytes from the beginning and is itself stored in low part first.

    Raises:
        ValueError: an unknown opcode, or a segment that refers to what is not there.
    """
    entries: list[int] = []
    position = 0
    while position + 1 < len(segments) and len(entries) < MAX_ENTRIES:
        opcode, length = segments[position], segments[position + 1]
        if opcode != _INDIRECT:
            position = _expand_one(segments, position, entries)
            continue
        parts = segments[position + 2 : position + 2 + 4 // entry_bytes]
        offset = sum(part << (8 * entry_bytes * place) for place, part in enumerate(parts))
        copied = offset // entry_bytes
        position += 2 + len(parts)
        for _ in range(length):
            copied = _expand_one(segments, copied, entries)
    return entries[:MAX_ENTRIES]


def _expand_one(segments: Sequence[int], position: int, entries: list[int]) -> int:
    """Append one discrete or linear segment's entries; where the next segment begins."""
    if position + 2 >= len(segments) or len(entries) >= MAX_ENTRIES:
        raise ValueError("a segment of a lookup table lies outside it")
    opcode, length = segments[position], segments[position + 1]
    if opcode == _DISCRETE:
        entries += segments[position + 2 : position + 2 + length]
        return position + 2 + length
    if opcode != _LINEAR or not entries:
        raise ValueError(f"a segment of a lookup table cannot begin with {opcode} here")
    start, end = entries[-1], segments[position + 2]
    entries += np.rint(np.linspace(start, end, length + 1)[1:]).astype(int).tolist()
    return position + 3
