"""Text in the pixels: which images may hold some, and what is blanked or refused for it.

Nothing here reads text out of an image. What passes is what a detector measured; of ultrasound,
what lies inside the regions that the device itself declared; everything else is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pydicom.uid as uids
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.processing import apply_color_lut

from medvlm.dicom.decode import decode_frame, header_value, typed_errors
from medvlm.dicom.facts import integer, words
from medvlm.dicom.limits import limits
from medvlm.errors import RefusedByPolicy, TooLarge


@dataclass(frozen=True)
class Region:
    """Pixels x0..x1 (columns, to the right) and y0..y1 (rows, down), both ends included.

    The origin is the top-left pixel, (0, 0).
    """

    x0: int
    y0: int
    x1: int
    y1: int


_ULTRASOUND = frozenset({uids.UltrasoundImageStorage, uids.UltrasoundMultiFrameImageStorage})
_SLICES = frozenset(
    {
        uids.CTImageStorage,
        uids.EnhancedCTImageStorage,
        uids.LegacyConvertedEnhancedCTImageStorage,
        uids.MRImageStorage,
        uids.EnhancedMRImageStorage,
        uids.LegacyConvertedEnhancedMRImageStorage,
        uids.PositronEmissionTomographyImageStorage,
    }
)
_PROJECTIONS = frozenset(
    {
        uids.ComputedRadiographyImageStorage,
        uids.DigitalXRayImageStorageForPresentation,
        uids.DigitalXRayImageStorageForProcessing,
        uids.DigitalMammographyXRayImageStorageForPresentation,
        uids.DigitalMammographyXRayImageStorageForProcessing,
        uids.BreastTomosynthesisImageStorage,
        uids.BreastProjectionXRayImageStorageForPresentation,
        uids.BreastProjectionXRayImageStorageForProcessing,
        uids.DigitalIntraOralXRayImageStorageForPresentation,
        uids.DigitalIntraOralXRayImageStorageForProcessing,
        uids.XRayAngiographicImageStorage,
        uids.XRayRadiofluoroscopicImageStorage,
        uids.NuclearMedicineImageStorage,
    }
)
_MODALITIES = frozenset({"CR", "DX", "MG", "CT", "MR", "PT", "NM", "XA", "RF", "IO", "PX", "US"})
_DIGITAL_INTERFACE = "DI"  # the one ConversionType that is no scan, photograph or screen
# Words of ImageType by which vendors mark pictures of a screen or of a page of text.
_SCREENS = ("SCREEN", "CAPTURE", "REPORT", "PROTOCOL", "DOSE", "SUMMARY")
# Region Spatial Format: tissue, motion over time, spectrum, waveform; not graphics, not none.
_PICTURE_FORMATS = frozenset({1, 2, 3, 4})
_CORNERS = ("MinX0", "MinY0", "MaxX1", "MaxY1")
_MOST_COVERED = 0.98  # of the image; beyond, the banner with the name lies inside the region
_AT_A_TIME = 1 << 24  # pixels
_DEEP_BITS = 8  # a picture of a screen has no more bits a sample


def regions_to_keep(ds: Dataset) -> list[Region] | None:
    """None for an image that may stay as it is; else what stays of it, and all around is text.

    Raises:
        RefusedByPolicy: there may be text anywhere in it.
    """
    kind = str(header_value(ds, "SOPClassUID") or "")
    if _says(ds, "BurnedInAnnotation") == "YES":
        raise RefusedByPolicy(
            "Its header says that text is burned into the pixels.", code="burned_in_annotation"
        )
    if "SecondaryCapture" in uids.UID(kind).keyword:
        raise RefusedByPolicy(
            "A secondary capture, such as a picture of a screen, may show names.",
            code="secondary_capture",
        )
    if _says(ds, "ConversionType") not in ("", _DIGITAL_INTERFACE):
        raise RefusedByPolicy(
            "It was scanned, photographed or drawn, and may show names.", code="converted_image"
        )
    if kind not in _ULTRASOUND | _SLICES | _PROJECTIONS or (
        _says(ds, "Modality") not in _MODALITIES | {""}
    ):
        raise RefusedByPolicy(
            "Nothing is known of the text that images of this kind may show.",
            code="unknown_kind",
        )
    if _overlay_in_pixels(ds):
        raise _drawing()
    if kind in _ULTRASOUND:
        return _ultrasound_regions(ds)
    _refuse_pictures_of_screens(ds, kind)
    return None


def blank_outside(ds: Dataset, regions: list[Region]) -> None:
    """Makes every pixel outside the regions black, in all frames, in place.

    The pixel data become uncompressed, Explicit VR Little Endian; RGB where they had three samples.

    Raises:
        TooLarge, and as `decode_frame`.
    """
    inside = np.zeros((int(ds.Rows), int(ds.Columns)), bool)
    for region in regions:
        inside[region.y0 : region.y1 + 1, region.x0 : region.x1 + 1] = True
    if ds.file_meta.TransferSyntaxUID == uids.ExplicitVRBigEndian:
        ds.walk(_swap_words)
    frames = max(1, integer(ds, "NumberOfFrames") or 1)
    pixels = bytearray()
    for number in range(frames):
        frame = decode_frame(ds, number)
        if frame.nbytes * frames > limits().file_bytes:
            raise TooLarge("Uncompressed, it is larger than a file may be.")
        if not number:
            with typed_errors(None):
                black = _black(ds, frame)
        frame = np.where(inside if frame.ndim == 2 else inside[..., None], frame, black)
        pixels += frame.astype(frame.dtype.newbyteorder("<")).tobytes()
    _store(ds, bytes(pixels), frame)


def refuse_spare_bits(ds: Dataset) -> None:
    """Refuses uncompressed pixels whose spare bits draw something, as overlays once did.

    One value alone may use them: it marks what lies outside the picture.

    Raises:
        RefusedByPolicy.
    """
    size, stored, high = int(ds.BitsAllocated) // 8, int(ds.BitsStored), int(ds.HighBit)
    if "PixelData" not in ds or size not in (1, 2, 4) or not stored <= high + 1 <= 8 * size:
        return
    order = ">" if ds.file_meta.TransferSyntaxUID == uids.ExplicitVRBigEndian else "<"
    kind = "i" if integer(ds, "PixelRepresentation") else "u"
    count = len(ds.PixelData) // size
    pixels = np.frombuffer(ds.PixelData, f"{order}{kind}{size}", count)
    above, below = 8 * size - 1 - high, high + 1 - stored
    marks: set[int] = set()
    for start in range(0, count, _AT_A_TIME):
        part = pixels[start : start + _AT_A_TIME]
        # There and back: a signed value has its sign in the bits above, an unsigned one zeros.
        values = (((part << above) >> above) >> below) << below
        marks |= set(np.unique(part[values != part])[:2].tolist())
        if len(marks) > 1:
            raise _drawing()


def _store(ds: Dataset, pixels: bytes, frame: np.ndarray) -> None:
    for keyword in ("PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        ds.pop(keyword, None)
    size = frame.dtype.itemsize
    ds.add_new("PixelData", "OB" if size == 1 else "OW", pixels + b"\0" * (len(pixels) % 2))
    ds.file_meta.TransferSyntaxUID = uids.ExplicitVRLittleEndian
    ds.set_original_encoding(False, True)  # or pydicom would not write big endian as little endian
    ds.BitsAllocated = 8 * size
    if frame.ndim == 3:
        ds.PhotometricInterpretation, ds.PlanarConfiguration = "RGB", 0


def _swap_words(ds: Dataset, element: DataElement) -> None:
    """Words of look-up tables, which pydicom leaves in the byte order of the file."""
    if element.VR == "OW" and element.keyword != "PixelData" and element.value:
        element.value = np.frombuffer(element.value, ">u2").astype("<u2").tobytes()


def _black(ds: Dataset, frame: np.ndarray) -> np.ndarray:
    """The stored value that is shown darkest, of the frame's type."""
    possible = np.iinfo(frame.dtype)
    photometric = _says(ds, "PhotometricInterpretation")
    if photometric == "PALETTE COLOR":
        indices = np.arange(min(possible.max, (1 << int(ds.BitsStored)) - 1) + 1)
        colours = apply_color_lut(indices.astype(frame.dtype), _palette(ds))[:, :3]
        return colours.sum(axis=1, dtype=np.int64).argmin().astype(frame.dtype)
    bits = int(ds.BitsStored) - (possible.min < 0)
    darkest = (1 << bits) - 1 if photometric == "MONOCHROME1" else -(possible.min < 0) << bits
    return np.asarray(darkest, frame.dtype)


def _palette(ds: Dataset) -> Dataset:
    """The palette alone, in little endian, as `_swap_words` left it."""
    palette = Dataset()
    palette.file_meta = FileMetaDataset()
    palette.file_meta.TransferSyntaxUID = uids.ExplicitVRLittleEndian
    palette.update({e.tag: e for e in ds if "PaletteColorLookupTable" in e.keyword})
    return palette


def _ultrasound_regions(ds: Dataset) -> list[Region]:
    rows, columns = integer(ds, "Rows") or 0, integer(ds, "Columns") or 0
    regions = []
    for item in header_value(ds, "SequenceOfUltrasoundRegions") or ():
        corners = [integer(item, f"RegionLocation{corner}") for corner in _CORNERS]
        if integer(item, "RegionSpatialFormat") in _PICTURE_FORMATS and None not in corners:
            x0, y0, x1, y1 = (corner or 0 for corner in corners)
            # Some devices give the first pixel behind the region, even behind the image.
            region = Region(x0, y0, min(x1, columns - 1), min(y1, rows - 1))
            if 0 <= x0 < region.x1 and 0 <= y0 < region.y1:
                regions.append(region)
    if not regions:
        raise RefusedByPolicy(
            "An ultrasound image that does not say which part of it is picture and which text.",
            code="no_regions",
        )
    covered = max((r.x1 - r.x0 + 1) * (r.y1 - r.y0 + 1) for r in regions) / (rows * columns)
    if covered > _MOST_COVERED:
        raise RefusedByPolicy(
            "An ultrasound image whose regions leave no room for text outside them.",
            code="regions_cover_all",
        )
    return regions


def _refuse_pictures_of_screens(ds: Dataset, kind: str) -> None:
    image_type = [word.strip().upper() for word in words(ds, "ImageType")]
    screen = any(mark in word for word in image_type[2:] for mark in _SCREENS)
    if _says(ds, "PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        screen = True
    if image_type[1:2] == ["SECONDARY"]:
        # Vendors call projections and maps secondary, too. Those have deep grey values and a place
        # in the patient; pictures of screens have neither.
        placed = "ImagePositionPatient" in ds or "PerFrameFunctionalGroupsSequence" in ds
        deep = (integer(ds, "BitsStored") or 0) > _DEEP_BITS
        screen = screen or not (kind in _SLICES and placed and deep)
    if screen:
        raise RefusedByPolicy(
            "It is made from other images or a screen, and may show text.", code="secondary_image"
        )


def _overlay_in_pixels(ds: Dataset) -> bool:
    groups = {tag.group for tag in ds.keys() if 0x6000 <= tag.group <= 0x60FF}  # noqa: SIM118
    return any((group, 0x0102) in ds and ds[group, 0x0102].value for group in groups)


def _drawing() -> RefusedByPolicy:
    return RefusedByPolicy(
        "A drawing lies in the spare bits of its pixels.", code="overlay_in_pixels"
    )


def _says(ds: Dataset, keyword: str) -> str:
    return str(header_value(ds, keyword) or "").strip().upper()
