"""Blanks what compressed frames carry beside the picture: comments, camera data, thumbnails.

JPEG, JPEG-LS and JPEG 2000 have segments for free text, and anything may follow the end of the
picture. Their bytes are set to zero and nothing is moved, so that every length and offset inside
the stream still holds and the decoded pixels stay the same.
"""

from __future__ import annotations

from struct import error as StructError
from struct import unpack_from

from medvlm.errors import RefusedByPolicy, TruncatedPixels

# What a decoder needs of an application segment to tell colour spaces; all the rest is zeroed.
_KNOWN_APPLICATIONS = {0xE0: (b"JFIF\0", 14), 0xEE: (b"Adobe", 12), 0xE8: (b"mrfx", 5)}
# Start of frame (baseline to hierarchical, JPEG-LS), tables, restart interval, scan, JPEG-LS
# parameters: what makes the picture. Others are comments or unknown.
_PICTURE = frozenset({*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF, 0xF7, 0xF8} - {0xC8})
_COMMENT, _SCAN, _END = 0xFE, 0xDA, 0xD9
# SIZ, COD, COC, RGN, QCD, QCC, POC, TLM, PLM, PLT, PPM, PPT, CRG, and CAP, PRF, CPF of later parts.
_J2K_PICTURE = frozenset(
    [0x51, 0x52, 0x53, 0x5E, 0x5C, 0x5D, 0x5F, 0x55, 0x57, 0x58, 0x60, 0x61, 0x63, 0x50, 0x56, 0x59]
)
_J2K_COMMENT, _J2K_TILE, _J2K_DATA, _J2K_END = 0x64, 0x90, 0x93, 0xD9
_J2K_START, _J2K_TILE_HEADER = b"\xff\x4f\xff\x51", 12


def without_comments(frame: bytes) -> bytes:
    """The frame of equal length with every byte zeroed that is not part of the picture.

    Raises:
        RefusedByPolicy: neither JPEG, JPEG-LS nor JPEG 2000, or with a segment of unknown meaning.
        TruncatedPixels: it ends inside its header.
    """
    blanked = bytearray(frame)
    try:
        if frame.startswith(_J2K_START):
            end = _jpeg_2000(blanked)
        elif frame.startswith(b"\xff\xd8"):
            end = _jpeg(blanked)
        else:
            raise _unknown()
    except (IndexError, StructError) as error:
        raise TruncatedPixels("A compressed frame ends inside its header.") from error
    _zero(blanked, end, len(blanked))
    return bytes(blanked)


def _jpeg(data: bytearray) -> int:
    """Zeroes the segments that are no picture; the position behind the picture's end."""
    position = 2
    while position < len(data):
        if data[position] != 0xFF:
            raise _unknown()
        marker = data[position + 1]
        if marker == 0xFF:  # filling
            position += 1
            continue
        if marker == _END:
            return position + 2
        (length,) = unpack_from(">H", data, position + 2)
        body, position = position + 4, position + 2 + length
        if position > len(data):
            raise IndexError
        if marker == _COMMENT or 0xE0 <= marker <= 0xEF:
            name, known = _KNOWN_APPLICATIONS.get(marker, (b"", 0))
            keep = known if name and data.startswith(name, body) else 0
            if keep and marker == 0xE0:  # a thumbnail of 0 x 0, whatever followed
                _zero(data, body + 12, min(body + 14, position))
            _zero(data, body + keep, position)
        elif marker not in _PICTURE:
            raise _unknown()
        if marker == _SCAN:
            position = _behind_scan(data, position)
    return len(data)  # no end marker: some writers leave it out


def _behind_scan(data: bytearray, position: int) -> int:
    """Where the compressed values end: the first marker that is not a restart.

    A byte FF among the values is followed by 00 (JPEG) or by less than 80 (JPEG-LS).
    """
    while True:
        position = data.find(0xFF, position)
        if position < 0 or position + 1 >= len(data):
            return len(data)
        following = data[position + 1]
        if following == 0xFF:
            position += 1
        elif following < 0x80 or 0xD0 <= following <= 0xD7:
            position += 2
        else:
            return position


def _jpeg_2000(data: bytearray) -> int:
    """Zeroes the comments; the position behind the picture's end."""
    position = 2
    while position + 2 <= len(data):
        if data[position] != 0xFF:
            raise _unknown()
        marker = data[position + 1]
        if marker == _J2K_END:
            return position + 2
        (length,) = unpack_from(">H", data, position + 2)
        if marker == _J2K_TILE:
            (part,) = unpack_from(">I", data, position + 6)
            # 0: the last part, of unknown length; no packet holds the end marker's bytes.
            found = data.find(b"\xff\xd9", position + _J2K_TILE_HEADER)
            end = position + part if part else found
            if not position + _J2K_TILE_HEADER <= end <= len(data):
                raise IndexError
            _tile_part(data, position + _J2K_TILE_HEADER, end)
            position = end
        else:
            _j2k_segment(data, position, marker, length)
            position += 2 + length
    return len(data)


def _tile_part(data: bytearray, position: int, end: int) -> None:
    while data[position + 1] != _J2K_DATA:
        (length,) = unpack_from(">H", data, position + 2)
        _j2k_segment(data, position, data[position + 1], length)
        position += 2 + length
        if position >= end:
            raise IndexError


def _j2k_segment(data: bytearray, position: int, marker: int, length: int) -> None:
    if marker == _J2K_COMMENT:
        _zero(data, position + 6, min(position + 2 + length, len(data)))
    elif data[position] != 0xFF or marker not in _J2K_PICTURE:
        raise _unknown()


def _zero(data: bytearray, start: int, end: int) -> None:
    if end > start:
        data[start:end] = bytes(end - start)


def _unknown() -> RefusedByPolicy:
    return RefusedByPolicy(
        "A compressed frame holds parts of unknown meaning, which may be text.",
        code="unknown_stream",
    )
