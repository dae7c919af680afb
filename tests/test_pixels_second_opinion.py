"""Real files, and made-up ones, through second implementations: dcmtk's and highdicom's.

Every image of pydicom, pydicom-data and the data pack is compared, the first, middle and last
frame of each. What the other program cannot read, or reads differently, is listed with its reason;
anything else that differs fails. Padding is left out: both show it as if it were tissue.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from medvlm.dicom.decode import decode_frame, parse
from medvlm.errors import InputError
from medvlm.image.modality import padding_mask
from medvlm.image.pixels import LUMA, modality_values, render
from medvlm.image.window import Window, file_windows
from tests.dcmtk import LEVEL_8, LEVEL_16, ROUNDING, dcm2pnm, is_colour, needs_dcmtk
from tests.dicoms import save

SMALL = 300_000  # bytes; larger files are compared in the slow tests

# What dcmtk 3.6.7 refuses or reads differently. JPEG 2000, which it never reads, it gets unpacked.
DIFFERENT_IN_DCMTK = {
    "SC_rgb_jpeg.dcm": "its JPEG decoder wants an end marker, which the file lacks",
    "SC_rgb_32bit.dcm": "no colour of 32 bits a sample in native encoding",
    "SC_rgb_32bit_2frame.dcm": "as SC_rgb_32bit.dcm",
    "SC_rgb_expb_32bit.dcm": "as SC_rgb_32bit.dcm",
    "SC_rgb_expb_32bit_2frame.dcm": "as SC_rgb_32bit.dcm",
    "gdcm-US-ALOKA-16.dcm": "no segmented palettes; tests/test_lut.py has pydicom expand this one",
    "gdcm-US-ALOKA-16_big.dcm": "as gdcm-US-ALOKA-16.dcm",
    "rtdose_expb.dcm": "it swaps the halves of 32 bits in big endian; we get what rtdose.dcm has",
    "rtdose_expb_1frame.dcm": "as rtdose_expb.dcm",
}
_BIG_ENDIAN = "it reads little endian only"
_NO_DOSE = "it does not apply DoseGridScaling, which is no part of the modality LUT module"
DIFFERENT_IN_HIGHDICOM = {
    **dict.fromkeys(
        ["ExplVR_BigEnd.dcm", "MR_small_bigendian.dcm", "MR_small_expb.dcm",
         "SC_rgb_small_odd_big_endian.dcm", "liver_expb_1frame.dcm", "liver_expb.dcm",
         "rtdose_expb.dcm", "rtdose_expb_1frame.dcm", "OBXXXX1A_expb.dcm",
         "OBXXXX1A_expb_2frame.dcm", "SC_rgb_expb.dcm", "SC_rgb_expb_16bit.dcm",
         "SC_rgb_expb_16bit_2frame.dcm", "SC_rgb_expb_2frame.dcm", "SC_rgb_expb_32bit.dcm",
         "SC_rgb_expb_32bit_2frame.dcm", "emri_small_big_endian.dcm", "gdcm-US-ALOKA-16_big.dcm"],
        _BIG_ENDIAN,
    ),
    **dict.fromkeys(
        ["rtdose.dcm", "rtdose_1frame.dcm", "rtdose_rle.dcm", "rtdose_rle_1frame.dcm"], _NO_DOSE
    ),
    "SC_rgb_small_odd.dcm": "it wants a ReferencedSOPInstanceUID that the file lacks",
    "color-pl.dcm": "the SOP class (ultrasound of 1993) is retired",
    "color-px.dcm": "as color-pl.dcm",
    "gdcm-US-ALOKA-16.dcm": "no segmented palettes",
    "mlut_18.dcm": "it takes a negative first input for one near 65536; dcmtk does not",
    "IM_0027_fMAP.dcm": "it cannot look up a private element; dcmtk is given the frames instead",
}  # fmt: skip


def images(folder: Path) -> Iterator[tuple[Path, Dataset]]:
    """The files below the folder that decode; of a series of many, the first slice."""
    for path in sorted(folder.rglob("*")):
        repeated = "dcm_qa_nih" in path.parts and not path.stem.endswith("-00001")
        if not path.is_file() or repeated:
            continue
        try:
            ds = parse(path.read_bytes())
            decode_frame(ds)
        except InputError:
            continue
        yield path, ds


def folder_of(package: str, inside: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / inside


def shipped_images(large: bool) -> list[tuple[Path, Dataset]]:
    folders = (folder_of("pydicom", "data/test_files"), folder_of("data_store", "data"))
    found = (item for folder in folders for item in images(folder))
    return [item for item in found if (item[0].stat().st_size > SMALL) == large]


def frames_of(ds: Dataset) -> list[int]:
    count = int(ds.get("NumberOfFrames", 1) or 1)
    return sorted({0, count // 2, count - 1})


def for_dcmtk(path: Path, ds: Dataset, folder: Path) -> Path:
    """The file itself; a decompressed copy where it is JPEG 2000."""
    if "JPEG 2000" not in ds.file_meta.TransferSyntaxUID.name:
        return path
    plain = pydicom.dcmread(path)
    count = int(ds.get("NumberOfFrames", 1) or 1)
    frames = [decode_frame(ds, frame) for frame in range(count)]
    plain.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    plain.PixelData = np.stack(frames).tobytes()
    plain["PixelData"].VR = "OB" if frames[0].itemsize == 1 else "OW"
    if frames[0].ndim == 3:
        plain.PhotometricInterpretation, plain.PlanarConfiguration = "RGB", 0
    return save(plain, folder / "plain.dcm")


def in_stored_values(ds: Dataset, frame: int, window: Window) -> Window:
    """A LINEAR window before the rescale instead of after it, where dcmtk applies none.

    dcmtk 3.6.7 knows the rescale of shared functional groups, but neither that of single frames
    nor a grid scaling of dose.
    """
    slope, intercept = float(ds.get("DoseGridScaling") or 1), 0.0
    groups = ds.get("PerFrameFunctionalGroupsSequence")
    if groups and "PixelValueTransformationSequence" in groups[frame]:
        item = groups[frame].PixelValueTransformationSequence[0]
        slope, intercept = float(item.RescaleSlope), float(item.RescaleIntercept)
    center = (window.center - 0.5 - intercept) / slope + 0.5
    return Window(center, (window.width - 1) / slope + 1)


def compare_with_dcmtk(path: Path, ds: Dataset, frame: int, folder: Path) -> dict[str, float]:
    """Largest deviations from dcm2pnm by what was asked of it, 0..1; inf where it refused."""
    stored, source = decode_frame(ds, frame), for_dcmtk(path, ds, folder)
    if is_colour(ds, stored):
        theirs = dcm2pnm(source, frame, colour=True, folder=folder)
        return {"colour": np.inf if theirs is None else np.abs(render(ds, frame) - theirs).max()}
    keep = ~padding_mask(stored, ds)
    low, high = np.percentile(modality_values(ds, frame).values[keep], (2, 98))
    own = Window(round((low + high) / 2), max(2, round(high - low)))
    asked: list[tuple[list[str], Any]] = [(_set_window(in_stored_values(ds, frame, own)), own)]
    if "VOILUTSequence" in ds:
        asked.append((["+Wl", "1"], None))
    for number, window in enumerate(file_windows(ds, frame)):
        grouped = "WindowCenter" not in ds
        stated = _set_window(in_stored_values(ds, frame, window)) if grouped else []
        asked.append((stated or ["+Wi", str(number + 1)], number))
    deviations = {}
    for options, window in asked:
        theirs = dcm2pnm(source, frame, *options, colour=False, folder=folder)
        ours = render(ds, frame, window=window)
        difference = np.inf if theirs is None else np.abs(ours - theirs)[keep].max()
        deviations[" ".join(options)] = difference
    return deviations


def _set_window(window: Window) -> list[str]:
    return ["+Ww", repr(window.center), repr(window.width)]


def tolerance(ds: Dataset, kind: str) -> float:
    """One grey level: of 16 bits where dcmtk keeps them.

    It writes colour with 8, and rounds what a fractional slope gives to whole numbers before the
    window.
    """
    slope = float(ds.get("RescaleSlope") or 1)
    return ROUNDING + (LEVEL_8 if kind == "colour" or not slope.is_integer() else LEVEL_16)


def check_with_dcmtk(found: list[tuple[Path, Dataset]], folder: Path) -> None:
    differing, compared = {}, 0
    for path, ds in found:
        for frame in frames_of(ds):
            for kind, deviation in compare_with_dcmtk(path, ds, frame, folder).items():
                compared += 1
                if deviation > tolerance(ds, kind) and path.name not in DIFFERENT_IN_DCMTK:
                    differing[f"{path.name} frame {frame} {kind}"] = deviation / LEVEL_8
    assert compared > 0
    assert differing == {}  # in grey levels of 8 bits


@needs_dcmtk
def test_small_files_with_dcmtk(tmp_path: Path) -> None:
    check_with_dcmtk(shipped_images(large=False), tmp_path)


@needs_dcmtk
@pytest.mark.slow
def test_large_files_with_dcmtk(tmp_path: Path) -> None:
    check_with_dcmtk(shipped_images(large=True), tmp_path)


@needs_dcmtk
def test_the_data_pack_with_dcmtk(data_pack: Path, tmp_path: Path) -> None:
    if not (data_pack / "dicom").is_dir():
        pytest.skip(f"needs {data_pack / 'dicom'}")
    check_with_dcmtk(list(images(data_pack / "dicom")), tmp_path)


def compare_with_highdicom(ds: Dataset, frame: int) -> dict[str, float]:
    """Largest deviations from highdicom by stage: 0..1 for what is shown, relative for values."""
    stored, image = decode_frame(ds, frame), highdicom.Image.from_dataset(ds)
    if is_colour(ds, stored):
        colours = image.get_frame(frame + 1, apply_icc_profile=False).astype(np.float64)
        bits = ds.BitsStored if stored.ndim == 3 else ds.RedPaletteColorLookupTableDescriptor[2]
        return {"colour": np.abs(colours @ LUMA / (2.0**bits - 1) - render(ds, frame)).max()}
    plain = {"apply_real_world_transform": False, "apply_presentation_lut": False}
    values = image.get_frame(frame + 1, apply_voi_transform=False, **plain)
    ours = modality_values(ds, frame).values
    deviations = {"values": np.abs(values - ours).max() / max(1.0, np.abs(ours).max())}
    if file_windows(ds, frame) or "VOILUTSequence" in ds:
        shown = image.get_frame(
            frame + 1, apply_real_world_transform=False, apply_voi_transform=True
        )
        keep = ~padding_mask(stored, ds)
        deviations["shown"] = np.abs(shown - render(ds, frame))[keep].max()
    return deviations


def check_with_highdicom(found: list[tuple[Path, Dataset]]) -> None:
    """Values agree to the last digits; what is shown, to one level of 8 bits.

    It moves a window to stored values without its half and its one (LINEAR's) being scaled.
    """
    limits = {"values": 1e-12, "colour": ROUNDING, "shown": LEVEL_8}
    differing, compared = {}, 0
    for path, ds in found:
        if path.name in DIFFERENT_IN_HIGHDICOM:
            continue
        for frame in frames_of(ds):
            for stage, deviation in compare_with_highdicom(ds, frame).items():
                compared += 1
                if deviation > limits[stage]:
                    differing[f"{path.name} frame {frame} {stage}"] = deviation
    assert compared > 0
    assert differing == {}


def test_small_files_with_highdicom() -> None:
    check_with_highdicom(shipped_images(large=False))


@pytest.mark.slow
def test_large_files_with_highdicom() -> None:
    check_with_highdicom(shipped_images(large=True))


def test_the_data_pack_with_highdicom(data_pack: Path) -> None:
    if not (data_pack / "dicom").is_dir():
        pytest.skip(f"needs {data_pack / 'dicom'}")
    check_with_highdicom(list(images(data_pack / "dicom")))
