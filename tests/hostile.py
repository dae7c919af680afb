"""Builds files that mean harm: bombs, lies about sizes, sequences without end, names that lead out.

Every one is a real file, as small as an attacker would make it. Run as a program, this module reads
its arguments the way `medvlm draft` does and says in JSON what came of each.
"""

from __future__ import annotations

import io
import json
import os
import signal
import struct
import sys
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import jpeg_ls
import numpy as np
from openjpeg.utils import encode_array
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medvlm.dicom.read import read_inputs
from medvlm.dicom.study import group_studies
from medvlm.errors import InputError
from medvlm.image.load import load_image
from tests.dicoms import ramp, synthetic

UNDEFINED = 0xFFFFFFFF
PIXELS = b"\xe0\x7f\x10\x00"
FILM = ramp(16, 16)


def film(pixels: np.ndarray = FILM, syntax: UID = ExplicitVRLittleEndian, **elements: Any) -> bytes:
    """A whole, harmless file."""
    ds = synthetic(pixels, **elements)
    ds.file_meta.TransferSyntaxUID = syntax
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def compressed(codestream: bytes, syntax: UID, rows: int, columns: int, **elements: Any) -> bytes:
    """A file with one compressed frame, and a header that says what it likes about its size."""
    said = {"Rows": rows, "Columns": columns, "PixelData": encapsulate([codestream]), **elements}
    ds = synthetic(FILM, **said)
    ds.file_meta.TransferSyntaxUID = syntax
    ds["PixelData"].VR = "OB"
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def before_pixels(data: bytes, elements: bytes) -> bytes:
    """The file with raw elements put in before its pixel data."""
    at = data.rindex(PIXELS)
    return data[:at] + elements + data[at:]


def element(group: int, number: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """An explicit little-endian element; `length` lies about its value's."""
    length = len(value) if length is None else length
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        return struct.pack("<HH2sHI", group, number, vr, 0, length) + value
    return struct.pack("<HH2sH", group, number, vr, length) + value


def nested(depth: int, *, explicit: bool, defined: bool) -> bytes:
    """A sequence in a sequence in a sequence: its bytes, `depth` levels of them."""

    def opening(length: int) -> bytes:
        item = struct.pack("<HHI", 0xFFFE, 0xE000, length)
        outer = length + 8 if defined else UNDEFINED
        if explicit:
            return struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, outer) + item
        return struct.pack("<HHI", 0x0040, 0xA730, outer) + item

    if not defined:
        closing = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
        return opening(UNDEFINED) * depth + closing * depth
    levels, length = [], 0
    for _ in range(depth):
        levels.append(opening(length))
        length += len(levels[-1])
    return b"".join(reversed(levels))


def deep(depth: int, *, explicit: bool, defined: bool) -> bytes:
    """A film with a sequence nested so deep."""
    syntax = ExplicitVRLittleEndian if explicit else ImplicitVRLittleEndian
    return before_pixels(film(syntax=syntax), nested(depth, explicit=explicit, defined=defined))


def j2k_bomb(tiles: int = 8, size: int = 1024) -> bytes:
    """A true JPEG 2000 codestream of zeros: tiles x tiles of size x size pixels of 16 bits."""
    zeros = np.zeros((size, size), dtype=np.uint16)
    return tiled(encode_array(zeros, bits_stored=16, photometric_interpretation=2), tiles)


def tiled(one: bytes, tiles: int) -> bytes:
    """A codestream of one square tile repeated to tiles x tiles of them."""
    start = one.index(b"\xff\x90")
    head, tile = bytearray(one[:start]), one[start : one.rindex(b"\xff\xd9")]
    (size,) = struct.unpack_from(">I", head, 8)
    struct.pack_into(">II", head, 8, tiles * size, tiles * size)
    parts = [tile[:4] + struct.pack(">H", n) + tile[6:] for n in range(tiles * tiles)]
    return bytes(head) + b"".join(parts) + b"\xff\xd9"


def in_jp2(codestream: bytes, decoy: bytes = b"") -> bytes:
    """The codestream in the boxes of a JP2 file, after a box that holds the decoy."""

    def box(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", 8 + len(content)) + kind + content

    rows, columns = struct.unpack_from(">II", codestream, 8)
    header = box(b"ihdr", struct.pack(">IIHBBBB", rows, columns, 1, 15, 7, 0, 0))
    header += box(b"colr", b"\1\0\0" + struct.pack(">I", 17))
    return (
        box(b"jP  ", b"\r\n\x87\n")
        + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
        + (box(b"xml ", decoy) if decoy else b"")
        + box(b"jp2h", header)
        + box(b"jp2c", codestream)
    )


def jpeg_bomb(rows: int = 12000, columns: int = 12000) -> bytes:
    """A small baseline JPEG whose frame header claims to be huge; decoders fill in the rest."""
    stream = io.BytesIO()
    Image.fromarray(np.zeros((16, 16), dtype=np.uint8)).save(stream, "JPEG")
    data = bytearray(stream.getvalue())
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, rows, columns)
    return bytes(data)


def jpeg_ls_bomb(size: int = 8192) -> bytes:
    """A true JPEG-LS image of zeros."""
    return bytes(jpeg_ls.encode_array(np.zeros((size, size), dtype=np.uint8)))


def png_bomb(columns: int, rows: int, packed: int | None = None) -> bytes:
    """A true PNG of black pixels, of which only the first `packed` rows may be there."""

    def chunk(name: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)

    packer = zlib.compressobj(9)
    line = bytes(1 + columns)
    lines = range(rows if packed is None else packed)
    pixels = b"".join(packer.compress(line) for _ in lines) + packer.flush()
    head = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def deflate_bomb(mebibytes: int, *, meta_padding: int = 0) -> bytes:
    """A deflated data set that inflates to so much; its group 2 may be long."""
    ds = synthetic(FILM)
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    if meta_padding:
        ds.file_meta.SourceApplicationEntityTitle = "A"
        ds.file_meta.PrivateInformationCreatorUID = "1.2.3"
        ds.file_meta.PrivateInformation = bytes(meta_padding)
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    data = stream.getvalue()
    start = 144 + struct.unpack_from("<I", data, 140)[0]
    packer = zlib.compressobj(9, wbits=-15)
    packed = packer.compress(element(0x0009, 0x0010, b"UN", b"", mebibytes << 20))
    zeros = bytes(1 << 20)
    packed += b"".join(packer.compress(zeros) for _ in range(mebibytes)) + packer.flush()
    return data[:start] + packed


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive of these files."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def lying_zip(size: int, said: int, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive of zeros whose table of contents says they are few, with the right sum."""
    data = bytearray(zipped({"zeros.dcm": bytes(size)}, method))
    sums = struct.pack("<I", zlib.crc32(bytes(said)))
    for at, signature in ((14, b"PK\x03\x04"), (16, b"PK\x01\x02")):
        header = data.index(signature)
        data[header + at : header + at + 4] = sums
        struct.pack_into("<I", data, header + at + 8, said)
    return bytes(data)


def overlapping_zip(size: int, entries: int) -> bytes:
    """A zip archive whose table of contents names the same compressed bytes many times."""
    one = zipped({"zeros.dcm": bytes(size)})
    start = one.index(b"PK\x01\x02")
    end = one.index(b"PK\x05\x06")
    table = one[start:end] * entries
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, entries, entries, len(table), start, 0)
    return one[:start] + table + tail


def crowded_zip(entries: int) -> bytes:
    """A zip archive of one file whose table of contents lists it so many times: a memory bomb."""
    one = zipped({"a": b""})
    start, end = one.index(b"PK\x01\x02"), one.index(b"PK\x05\x06")
    table = one[start:end] * entries
    few = min(entries, 0xFFFF)  # only the table's length counts
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, few, few, len(table), start, 0)
    return one[:start] + table + tail


def png_with_text(mebibytes: int) -> bytes:
    """A small PNG with a compressed comment of so many zeros."""

    def chunk(name: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)

    whole = png_bomb(8, 8)
    comment = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(mebibytes << 20), 9))
    return whole[:33] + comment + whole[33:]


def with_value(data: bytes, group: int, number: int, new: bytes) -> bytes:
    """The file with a short explicit element replaced by other bytes."""
    at = data.index(struct.pack("<HH", group, number), 132)
    return data[:at] + new + data[at + 8 + struct.unpack_from("<H", data, at + 6)[0] :]


def crash(job: str) -> str:
    """For a worker: ends its process as a decoder's bug would."""
    if job == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    return job


def hang(job: str) -> str:
    """For a worker: never comes back."""
    while job == "hang":
        time.sleep(1)
    return job


def hog(job: str) -> str:
    """For a worker: takes memory, a piece at a time, until it is stopped."""
    pieces = []
    while job == "hog":
        pieces.append(bytearray(64 << 20))
    return job


_left_behind: list[bytearray] = []


def stumble(job: str) -> str:
    """For a worker: crashes at "second" where "first" was done in the same process before."""
    if job == "second" and _left_behind:
        os.kill(os.getpid(), signal.SIGSEGV)
    _left_behind.append(bytearray())
    return job


def leak(mebibytes: int) -> int:
    """For a worker: takes memory and keeps it."""
    _left_behind.append(bytearray(mebibytes << 20))
    return mebibytes


def main(paths: list[str]) -> None:
    """What `medvlm draft` does with files before any model sees them."""
    reading = read_inputs(paths)
    said: dict[str, list[str]] = {"refused": [refused.code for refused in reading.refused]}
    said["studies"] = [study.name for study in group_studies(reading)]
    said["images"] = []
    for instance in reading.instances:
        try:
            load_image(instance)
            said["images"].append("loaded")
        except InputError as error:
            said["images"].append(error.code)
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main([str(Path(path)) for path in sys.argv[1:]])
