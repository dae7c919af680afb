"""One DICOM file: parse it, and decode its frames, with typed errors instead of pydicom's."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels.utils import get_expected_length, iter_pixels, pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medvlm.errors import (
    InputError,
    NoPixels,
    NotDicom,
    TooDeep,
    TooLarge,
    TruncatedPixels,
    Undecodable,
)

MAX_FILE_BYTES = 2 << 30
MAX_INFLATED_BYTES = 2 << 30
MAX_FRAME_PIXELS = 200_000_000  # the largest radiography detectors have about 30 million
PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
# Group 0002 or 0008, little or big endian: how a data set without the 128-byte preamble begins.
_BARE_STARTS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
_RESEND = "Send or copy the file again."


def looks_like_dicom(head: bytes) -> bool:
    """Whether a file that begins with `head` (at least 132 bytes of it) may be DICOM."""
    return head[128:132] == b"DICM" or (len(head) > 8 and head[:2] in _BARE_STARTS)


def parse(data: bytes, *, file: str | None = None) -> Dataset:
    """The data set in the bytes of a DICOM file, with or without a preamble.

    Raises:
        NotDicom, TruncatedPixels (cut inside an element), TooLarge (a deflate bomb),
        TooDeep (sequences nested beyond reason), Undecodable (damaged).
    """
    if len(data) > MAX_FILE_BYTES:
        raise TooLarge(f"The file is larger than {MAX_FILE_BYTES >> 30} GiB.", file=file)
    if not looks_like_dicom(data[:132]):
        raise NotDicom("This is not a DICOM file.", file=file)
    with typed_errors(file), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _refuse_deflate_bomb(data, file)
        ds = pydicom.dcmread(BytesIO(data), force=True)
    # pydicom drops what it has read and only warns when the file ends inside an element.
    if any("End of file reached" in str(warning.message) for warning in caught):
        raise TruncatedPixels("The file ends too early.", file=file, remedy=_RESEND)
    if "SOPClassUID" not in ds and "Modality" not in ds and "PixelData" not in ds:
        if _last_element_is_short(ds):
            raise TruncatedPixels("The file ends inside its header.", file=file, remedy=_RESEND)
        if data[128:132] != b"DICM":
            raise NotDicom("This is not a DICOM file.", file=file)
    _supply_transfer_syntax(ds)
    return ds


def check_pixels(ds: Dataset, *, file: str | None = None) -> None:
    """Check, without decoding, that the pixel data are there, whole and of a sensible size.

    Raises:
        NoPixels, TruncatedPixels, TooLarge, Undecodable.
    """
    if not any(keyword in ds for keyword in PIXEL_KEYWORDS):
        if _last_element_is_short(ds):
            raise TruncatedPixels("The file ends inside its header.", file=file, remedy=_RESEND)
        uid = str(header_value(ds, "SOPClassUID") or "")
        # Only a name from the standard: the header's own text could be anything.
        known = UID(uid).name if uid.replace(".", "").isdecimal() else uid
        kind = f" ({known})" if known != uid else ""
        raise NoPixels(f"The file holds no image{kind}.", file=file)
    with typed_errors(file):
        rows, columns = int(ds.Rows), int(ds.Columns)
        if rows < 1 or columns < 1:
            raise Undecodable(f"The image has {rows} rows and {columns} columns.", file=file)
        if rows * columns > MAX_FRAME_PIXELS:
            raise TooLarge(f"A frame of {columns} x {rows} pixels is too large.", file=file)
        if not ds.file_meta.TransferSyntaxUID.is_encapsulated:
            have = max(len(ds.get(keyword) or b"") for keyword in PIXEL_KEYWORDS)
            need = get_expected_length(ds)
            if have < need:
                raise TruncatedPixels(
                    f"The pixel data end too early ({have} of {need} bytes).",
                    file=file,
                    remedy=_RESEND,
                )


def decode_frame(ds: Dataset, frame: int = 0, *, file: str | None = None) -> np.ndarray:
    """Stored values of one frame: [rows, columns], or [rows, columns, 3] for colour.

    YBR_FULL colour comes out as RGB; palette colour as indices. `frame` counts from 0.

    Raises:
        NoPixels, TruncatedPixels, TooLarge, Undecodable.
    """
    check_pixels(ds, file=file)
    with typed_errors(file):
        return pixel_array(ds, index=frame)


def decode_every_frame(ds: Dataset, *, file: str | None = None) -> None:
    """Decode all frames, one at a time, and keep none: only the errors matter.

    Raises:
        as `decode_frame`.
    """
    check_pixels(ds, file=file)
    with typed_errors(file):
        for _ in iter_pixels(ds):
            pass


@contextmanager
def typed_errors(file: str | None) -> Iterator[None]:
    """Turn whatever a parser or decoder throws at hostile bytes into one of our errors.

    The original message is left out on purpose, and so are warnings: they may quote header values.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except RecursionError as error:
        raise TooDeep("Its sequences are nested too deeply.", file=file) from error
    except (MemoryError, OverflowError) as error:
        raise TooLarge("It does not fit into memory.", file=file) from error
    except (EOFError, zlib.error) as error:
        raise TruncatedPixels("The file ends too early.", file=file, remedy=_RESEND) from error
    except InvalidDicomError as error:
        raise NotDicom("This is not a DICOM file.", file=file) from error
    except Exception as error:
        raise Undecodable(
            f"It is damaged or of a kind no decoder here reads ({type(error).__name__}).",
            file=file,
        ) from error


def header_value(ds: Dataset, keyword: str) -> Any:
    """The element's value, or None where it is absent, empty or cannot be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            value = ds.get(keyword)
        except Exception:  # a value pydicom cannot convert is as good as none
            return None
    return None if value is None or value == "" or value == [] else value


def _last_element_is_short(ds: Dataset) -> bool:
    """Whether the last element has fewer bytes than it declares: the file was cut there."""
    tags = sorted(ds.keys())
    if not tags:
        return False
    raw = ds.get_item(tags[-1])
    value, length = getattr(raw, "value", None), getattr(raw, "length", None)
    return isinstance(value, bytes) and isinstance(length, int) and len(value) < length


def _supply_transfer_syntax(ds: Dataset) -> None:
    """Write down the encoding pydicom found, where the file's own header does not say it."""
    if not hasattr(ds, "file_meta"):
        ds.file_meta = FileMetaDataset()
    if "TransferSyntaxUID" in ds.file_meta:
        return
    implicit, little = ds.original_encoding
    if implicit:
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    else:
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _refuse_deflate_bomb(data: bytes, file: str | None) -> None:
    """Count what a deflated data set inflates to before pydicom does it in one piece."""
    if DeflatedExplicitVRLittleEndian.encode() not in data[:2048]:
        return
    stream = BytesIO(data)
    pydicom.filereader.read_preamble(stream, force=True)
    pydicom.filereader._read_file_meta_info(stream)
    inflater, inflated, rest = zlib.decompressobj(-zlib.MAX_WBITS), 0, stream.read()
    while rest and not inflater.eof:
        inflated += len(inflater.decompress(rest, 1 << 20))
        rest = inflater.unconsumed_tail
        if inflated > MAX_INFLATED_BYTES:
            raise TooLarge("It inflates to more than any image needs.", file=file)
