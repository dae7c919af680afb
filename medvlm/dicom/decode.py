"""One DICOM file: parse it, and decode its frames, with typed errors instead of pydicom's."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, cast

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_frames, get_frame
from pydicom.errors import InvalidDicomError
from pydicom.pixels.utils import get_expected_length, pixel_array
from pydicom.tag import Tag
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from medvlm.dicom.codestream import codestream_size
from medvlm.dicom.header import AnyDataset, Elements, refuse_long
from medvlm.dicom.limits import limits
from medvlm.dicom.nesting import refuse_deep, too_many
from medvlm.errors import (
    InputError,
    NoPixels,
    NotDicom,
    TooDeep,
    TooLarge,
    TruncatedPixels,
    Undecodable,
)

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
# Group 0002 or 0008, little or big endian: how a data set without the 128-byte preamble begins.
_BARE_STARTS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
_JPEG_2000 = frozenset({JPEG2000, JPEG2000Lossless})
_SEQUENCE_VRS = ("SQ", "UN", None)  # what may be a sequence, None in an implicit data set
_RESEND = "Send or copy the file again."


def looks_like_dicom(head: bytes) -> bool:
    """Whether a file that begins with `head` (at least 132 bytes of it) may be DICOM."""
    return head[128:132] == b"DICM" or (len(head) > 8 and head[:2] in _BARE_STARTS)


def parse(data: bytes, *, file: str | None = None) -> Dataset:
    """The data set in the bytes of a DICOM file, with or without a preamble.

    Raises:
        NotDicom, TruncatedPixels (cut inside an element), TooLarge (a deflate bomb, elements
        without end), TooDeep (sequences nested beyond reason), Undecodable (damaged).
    """
    refuse_large_file(len(data), file)
    if not looks_like_dicom(data[:132]):
        raise NotDicom("This is not a DICOM file.", file=file)
    with typed_errors(file):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _refuse_deflate_bomb(data, file)
            ds = pydicom.dcmread(BytesIO(data), force=True)
        _refuse_endless(ds)
        # pydicom drops what it has read and only warns when the file ends inside an element.
        if any("End of file reached" in str(warning.message) for warning in caught):
            raise TruncatedPixels("The file ends too early.", file=file, remedy=_RESEND)
        if "SOPClassUID" not in ds and "Modality" not in ds and "PixelData" not in ds:
            if last_element_is_short(ds):
                message = "The file ends inside its header."
                raise TruncatedPixels(message, file=file, remedy=_RESEND)
            if data[128:132] != b"DICM":
                raise NotDicom("This is not a DICOM file.", file=file)
        _supply_transfer_syntax(ds)
        return ds


def refuse_large_file(size: int, file: str | None) -> None:
    """Raises TooLarge for a file of more bytes than the limit."""
    if size > limits().file_bytes:
        most = limits().file_bytes / 2**30
        raise TooLarge(f"The file is larger than {most:.1f} GiB.", file=file)


def pixel_bytes(ds: Dataset) -> int | None:
    """How many bytes of pixel data the data set holds, compressed ones as they are; or None."""
    # As it was read, in case that it is of no kind that can be converted.
    values = [ds._dict[Tag(keyword)].value or b"" for keyword in PIXEL_KEYWORDS if keyword in ds]
    return max((len(value) for value in values if isinstance(value, bytes)), default=None)


def check_pixels(ds: AnyDataset, have: int | None, *, file: str | None = None) -> None:
    """Check, without decoding, that the pixel data are there, whole and of a sensible size.

    Args:
        ds: a data set, with or without the pixel data themselves.
        have: how many bytes of pixel data the file holds.
        file: named in errors.

    Raises:
        NoPixels, TruncatedPixels, TooLarge, Undecodable.
    """
    if have is None:
        if isinstance(ds, Dataset) and last_element_is_short(ds):
            raise TruncatedPixels("The file ends inside its header.", file=file, remedy=_RESEND)
        value = header_value(ds, "SOPClassUID")
        uid = value if isinstance(value, str) else ""
        # Only a name from the standard: the header's own text could be anything.
        known = UID(uid).name if uid.replace(".", "").isdecimal() else uid
        kind = f" ({known})" if known != uid else ""
        raise NoPixels(f"The file holds no image{kind}.", file=file)
    with typed_errors(file):
        rows, columns = int(ds.Rows), int(ds.Columns)
        frames = int(header_value(ds, "NumberOfFrames") or 1)
        if min(rows, columns, frames) < 1:
            message = f"The image has {rows} rows, {columns} columns and {frames} frames."
            raise Undecodable(message, file=file)
        _refuse_large_frame(rows, columns, file)
        if frames > limits().frames:
            raise TooLarge(f"It has more than {limits().frames} frames.", file=file)
        need = get_expected_length(cast(Dataset, ds))
        if ds.file_meta.TransferSyntaxUID.is_encapsulated:
            refuse_expansion(need, have, file)
        elif have < need:
            raise TruncatedPixels(
                f"The pixel data end too early ({have} of {need} bytes).", file=file, remedy=_RESEND
            )


def refuse_expansion(unpacked: int, packed: int, file: str | None) -> None:
    """Raises TooLarge for what is large and expands further than images do (both in bytes)."""
    most = limits()
    if unpacked > max(most.expansion_from_bytes, most.expansion_ratio * packed):
        raise TooLarge(
            f"{packed} bytes would expand to {unpacked >> 20} MiB, far more than images do.",
            file=file,
            remedy="If it is a real image, raise MEDVLM_LIMIT_EXPANSION_RATIO.",
        )


def decode_frame(ds: Dataset, frame: int = 0, *, file: str | None = None) -> np.ndarray:
    """Stored values of one frame: [rows, columns], or [rows, columns, 3] for colour.

    YBR_FULL colour comes out as RGB; palette colour as indices. `frame` counts from 0.

    Raises:
        NoPixels, TruncatedPixels, TooLarge, Undecodable.
    """
    check_pixels(ds, pixel_bytes(ds), file=file)
    with typed_errors(file):
        count = int(header_value(ds, "NumberOfFrames") or 1)
        if ds.file_meta.TransferSyntaxUID.is_encapsulated:
            _check_codestream(ds, get_frame(ds.PixelData, frame, number_of_frames=count), file)
        return _decoded(ds, frame)


def decode_every_frame(ds: Dataset, *, file: str | None = None) -> None:
    """Decode all compressed frames, one at a time, and keep none: only the errors matter.

    Raises:
        as `decode_frame`.
    """
    check_pixels(ds, pixel_bytes(ds), file=file)
    with typed_errors(file):
        if ds.file_meta.TransferSyntaxUID.is_encapsulated:
            count = int(header_value(ds, "NumberOfFrames") or 1)
            for encoded in generate_frames(ds.PixelData, number_of_frames=count):
                _check_codestream(ds, encoded, file)
            for frame in range(count):
                _decoded(ds, frame)
        else:  # one is like the other, and the bytes have been counted
            _decoded(ds, 0)


def _decoded(ds: Dataset, frame: int) -> np.ndarray:
    """pydicom's array, of the decoder that takes least of the processor where there are several.

    For JPEG 2000 pydicom prefers GDCM, which spreads over all cores and takes longer in sum.
    """
    if ds.file_meta.TransferSyntaxUID in _JPEG_2000:
        try:
            return pixel_array(ds, index=frame, decoding_plugin="pylibjpeg")
        except Exception:  # another decoder may know better
            pass
    return pixel_array(ds, index=frame)


def _check_codestream(ds: Dataset, encoded: bytes, file: str | None) -> None:
    """Refuse a frame whose own header asks for far more memory than the DICOM header says."""
    size = codestream_size(encoded)
    if size is None:
        return
    rows, columns, samples = size
    _refuse_large_frame(rows, columns, file)
    # Decoders work on 32-bit integers.
    refuse_expansion(4 * rows * columns * samples, 4 * len(encoded), file)
    if rows * columns > 4 * int(ds.Rows) * int(ds.Columns):
        raise Undecodable(
            f"The compressed image is {columns} x {rows} pixels, the header says "
            f"{ds.Columns} x {ds.Rows}.",
            file=file,
        )


def _refuse_large_frame(rows: int, columns: int, file: str | None) -> None:
    if rows * columns > limits().frame_pixels:
        raise TooLarge(f"A frame has more than {limits().frame_pixels} pixels.", file=file)


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
    except BaseException as error:
        # A decoder in Rust panics with an exception that is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise Undecodable(
            f"It is damaged or of a kind no decoder here reads ({type(error).__name__}).",
            file=file,
        ) from error


def header_value(ds: AnyDataset, keyword: str) -> Any:
    """The element's value, or None where it is absent, empty or cannot be read."""
    if isinstance(ds, Elements) and keyword not in ds:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            value = ds.get(keyword)
        except Exception:  # a value pydicom cannot convert is as good as none
            return None
    return None if value is None or value == "" or value == [] else value


def last_element_is_short(ds: Dataset) -> bool:
    """Whether the last element has fewer bytes than it declares: the file was cut there."""
    tags = sorted(ds.keys())
    if not tags:
        return False
    raw = ds._dict[tags[-1]]
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


def _refuse_endless(ds: Dataset) -> None:
    """Refuse more elements than a header has, and sequences that would be nested too deeply."""
    if len(ds) > limits().elements:
        raise too_many()
    order = "<" if ds.original_encoding[1] else ">"
    for raw in ds._dict.values():
        if isinstance(raw, RawDataElement) and raw.VR in _SEQUENCE_VRS and raw.value:
            refuse_long(raw.tag, raw.VR.encode() if raw.VR else None, len(raw.value))
            refuse_deep(raw.value, order)


def _refuse_deflate_bomb(data: bytes, file: str | None) -> None:
    """Count what a deflated data set inflates to before pydicom does it in one piece."""
    stream = BytesIO(data)
    pydicom.filereader.read_preamble(stream, force=True)
    meta = pydicom.filereader._read_file_meta_info(stream)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    inflater, inflated, rest = zlib.decompressobj(-zlib.MAX_WBITS), 0, stream.read()
    packed = len(rest)
    while rest and not inflater.eof:
        inflated += len(inflater.decompress(rest, 1 << 20))
        rest = inflater.unconsumed_tail
        refuse_expansion(inflated, packed, file)
        if inflated > limits().inflated_bytes:
            raise TooLarge("It inflates to more than any image needs.", file=file)
