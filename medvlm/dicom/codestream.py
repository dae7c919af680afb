"""The size that a compressed frame itself claims, read without decoding it.

A DICOM header may say 512 x 512 and hold a codestream of 30,000 x 30,000, for which the decoder
asks memory before anybody compares the two.
"""

from __future__ import annotations

from struct import error as StructError
from struct import unpack_from

_J2K_START = b"\xff\x4f\xff\x51"
_JP2_SIGNATURE = b"\0\0\0\x0cjP  "
# Start-of-frame markers of JPEG, and that of JPEG-LS; C4, C8 and CC are other things.
_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})


def codestream_size(encoded: bytes) -> tuple[int, int, int] | None:
    """(rows, columns, samples) of a JPEG, JPEG-LS or JPEG 2000 codestream; None for others.

    Raises ValueError for a JP2 file that leads nowhere.
    """
    try:
        if encoded.startswith((_J2K_START, _JP2_SIGNATURE)):
            return _jpeg_2000(encoded)
        if encoded.startswith(b"\xff\xd8"):
            return _jpeg(encoded)
    except StructError:  # it ends inside its header: the decoder will say so
        pass
    return None


def _jpeg_2000(encoded: bytes) -> tuple[int, int, int] | None:
    start = _codestream_box(encoded) if encoded.startswith(_JP2_SIGNATURE) else 0
    if not encoded.startswith(_J2K_START, start):
        return None
    # The size of the reference grid, less the image's offset on it.
    right, bottom, left, top = unpack_from(">4I", encoded, start + 8)
    (samples,) = unpack_from(">H", encoded, start + 40)
    return max(0, bottom - top), max(0, right - left), samples


def _codestream_box(encoded: bytes) -> int:
    """Where the codestream of a JP2 file begins; boxes before it may hold what looks like one."""
    position = 0
    while True:
        length, kind = unpack_from(">I4s", encoded, position)
        header = 8
        if length == 1:  # too long for 32 bits
            (length,) = unpack_from(">Q", encoded, position + 8)
            header = 16
        if kind == b"jp2c":
            return position + header
        if length < header:  # pydicom would look for the next box here, and again, without end
            raise ValueError("a box of a JP2 file has no length")
        position += length


def _jpeg(encoded: bytes) -> tuple[int, int, int] | None:
    position = 2
    while position + 4 <= len(encoded):
        if encoded[position] != 0xFF:
            return None
        marker = encoded[position + 1]
        if marker == 0xFF or marker in _STANDALONE:  # filling, and markers without a length
            position += 1 if marker == 0xFF else 2
        elif marker in _FRAME_MARKERS:
            rows, columns, samples = unpack_from(">HHB", encoded, position + 5)
            return rows, columns, samples
        else:
            position += 2 + unpack_from(">H", encoded, position + 2)[0]
    return None
