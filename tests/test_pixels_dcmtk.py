"""Made-up files, one for each turn the grey-scale pipeline may take, against dcmtk."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from medvlm.dicom.decode import decode_frame, parse
from medvlm.image.pixels import render
from medvlm.image.window import file_windows
from tests.dcmtk import LEVEL_8, LEVEL_16, ROUNDING, dcm2pnm, is_colour, needs_dcmtk
from tests.dicoms import ramp, save, synthetic
from tests.test_lut import item, palette

COLOURS = np.stack(np.mgrid[0:160, 0:200], axis=-1)
SIGNED = (ramp(dtype=np.int16) - 100).astype(np.int16)
WINDOW: dict[str, Any] = {"WindowCenter": 100, "WindowWidth": 150}
DOWN = [4095 - 20 * number for number in range(200)]
WORDS = np.arange(200, dtype="<u2")


def mono(stored: np.ndarray, *options: str, **elements: Any) -> tuple[Dataset, tuple[str, ...]]:
    return synthetic(stored, **elements), options


def typed_lut(descriptor: list[int], data: list[int], vr: str = "US") -> Dataset:
    made = item(descriptor, data, descriptor_vr=vr)
    made.ModalityLUTType = "US"
    return made


MADE_UP = {
    "overlay bits": mono(ramp() | 0x8000, "+Wi", "1", BitsStored=12, HighBit=11, **WINDOW),
    "left aligned": mono(ramp() << 4, "+Wi", "1", BitsStored=12, HighBit=15, **WINDOW),
    "12 bits with a sign": mono(
        SIGNED & 0x0FFF, "+Wi", "1", BitsStored=12, HighBit=11, WindowCenter=0, WindowWidth=150
    ),
    "sigmoid": mono(ramp(), "+Wi", "1", VOILUTFunction="SIGMOID", **WINDOW),
    "width 1": mono(ramp(), "+Wi", "1", WindowCenter=100, WindowWidth=1),
    "falling rescale": mono(
        ramp(), "+Wi", "1", RescaleSlope=-1, RescaleIntercept=200, **WINDOW
    ),
    "slope 0": mono(ramp(), "+Wi", "1", RescaleSlope=0, RescaleIntercept=5, **WINDOW),
    "MONOCHROME1": mono(ramp(), "+Wi", "1", PhotometricInterpretation="MONOCHROME1", **WINDOW),
    "MONOCHROME1, INVERSE": mono(
        ramp(), "+Wi", "1", PhotometricInterpretation="MONOCHROME1",
        PresentationLUTShape="INVERSE", **WINDOW,
    ),
    "MONOCHROME2, INVERSE": mono(ramp(), "+Wi", "1", PresentationLUTShape="INVERSE", **WINDOW),
    "VOI LUT": mono(ramp(), "+Wl", "1", VOILUTSequence=[item([100, 50, 12], DOWN[:100])]),
    "VOI LUT from -100": mono(
        SIGNED, "+Wl", "1", VOILUTSequence=[item([200, -100, 12], DOWN, descriptor_vr="SS")]
    ),
    "VOI LUT from -100 as US": mono(
        SIGNED, "+Wl", "1", VOILUTSequence=[item([200, 65436, 12], DOWN)]
    ),
    "VOI LUT of 65536 entries": mono(
        ramp() * 300, "+Wl", "1",
        VOILUTSequence=[item([0, 0, 16], np.arange(65536, dtype="<u2").tobytes(), vr="OW")],
    ),
    "VOI LUT in bytes": mono(
        ramp(), "+Wl", "1", VOILUTSequence=[item([200, 0, 8], bytes(range(200)), vr="OW")]
    ),
    "VOI LUT of 8 bits with 16 in use": mono(
        ramp(), "+Wl", "1", VOILUTSequence=[item([200, 0, 8], [257 * n for n in range(200)])]
    ),
    "VOI LUT after a rescale": mono(
        ramp(), "+Wl", "1", RescaleSlope=1, RescaleIntercept=-100,
        VOILUTSequence=[item([200, -100, 12], DOWN, descriptor_vr="SS")],
    ),
    "modality LUT": mono(
        SIGNED, "+Wi", "1", WindowCenter=30000, WindowWidth=60000,
        ModalityLUTSequence=[typed_lut([200, -100, 16], [300 * n for n in range(200)], "SS")],
    ),
    "both LUTs": mono(
        ramp(), "+Wl", "1",
        ModalityLUTSequence=[typed_lut([200, 0, 12], [10 * n for n in range(200)])],
        VOILUTSequence=[item([2000, 0, 8], [n // 8 for n in range(2000)])],
    ),
    "RGB": (synthetic(np.dstack([COLOURS, COLOURS[..., :1]]).astype(np.uint8)), ()),
    "palette of 16 bits": (palette(ramp(), [200, 0, 16], (257 * WORDS).tobytes()), ()),
    "palette in bytes": (palette(ramp(), [200, 0, 8], bytes(range(200))), ()),
    "palette of 8 bits in words": (palette(ramp(), [200, 0, 8], WORDS.tobytes()), ()),
    "palette from -100": (palette(SIGNED, [200, -100, 16], (257 * WORDS).tobytes()), ()),
}  # fmt: skip


@needs_dcmtk
@pytest.mark.parametrize("name", MADE_UP)
def test_made_up_files_with_dcmtk(name: str, tmp_path: Path) -> None:
    """Tables to one level of 8 bits: dcmtk takes 12 bits to 16 by a shift, which loses 1/4096."""
    ds, options = MADE_UP[name]
    path = save(ds, tmp_path / "made_up.dcm")
    colour = is_colour(ds, decode_frame(ds))
    theirs = dcm2pnm(path, 0, *options, colour=colour, folder=tmp_path)
    assert theirs is not None
    coarse = colour or "+Wl" in options
    assert np.abs(render(ds) - theirs).max() <= ROUNDING + (LEVEL_8 if coarse else LEVEL_16)


@needs_dcmtk
def test_a_contradiction_is_read_differently(tmp_path: Path) -> None:
    """MONOCHROME1 and IDENTITY exclude each other; dcmtk believes the shape, this program the
    photometric interpretation, which every file has and every viewer knows.
    """
    contradiction = {
        "PhotometricInterpretation": "MONOCHROME1",
        "PresentationLUTShape": "IDENTITY",
    }
    ds = synthetic(ramp(), **contradiction, **WINDOW)
    path = save(ds, tmp_path / "made_up.dcm")
    theirs = dcm2pnm(path, 0, "+Wi", "1", colour=False, folder=tmp_path)
    assert theirs is not None
    assert np.abs(render(ds) - (1 - theirs)).max() <= ROUNDING + LEVEL_16


@pytest.mark.skipif(shutil.which("dcmdump") is None, reason="needs dcmdump (Debian package dcmtk)")
@pytest.mark.parametrize("name", ["Siemens/XA10/6_1.dcm", "Philips/IM_0027_fMAP.dcm"])
def test_windows_of_each_frame_with_dcmdump(name: str, data_pack: Path) -> None:
    path = data_pack / "dicom/dcm_qa_enh/In" / name
    if not path.is_file():
        pytest.skip(f"needs {path}")
    ds = parse(path.read_bytes())
    ours = [file_windows(ds, frame)[0] for frame in range(int(ds.NumberOfFrames))]
    for tag, values in (
        ("0028,1050", [window.center for window in ours]),
        ("0028,1051", [window.width for window in ours]),
    ):
        listed = subprocess.run(
            ["dcmdump", "+P", tag, "+p", str(path)], capture_output=True, text=True, check=True
        ).stdout
        stated = [
            float(line.split("[")[1].split("]")[0])
            for line in listed.splitlines()
            if line.startswith("(5200,9230).(0028,9132).")
        ]
        assert stated == values
