"""dcmtk's command line as a second implementation of the grey-scale pipeline."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from medvlm.image.pixels import LUMA

LEVEL_8, LEVEL_16 = 1 / 255, 1 / 65535
ROUNDING = 1e-6  # of float32

DCMTK = tuple(name for name in ("dcm2pnm", "dcmj2pnm", "dcml2pnm") if shutil.which(name))
needs_dcmtk = pytest.mark.skipif(
    "dcm2pnm" not in DCMTK, reason="needs dcm2pnm (Debian package dcmtk)"
)


def is_colour(ds: Dataset, stored: np.ndarray) -> bool:
    return stored.ndim == 3 or ds.PhotometricInterpretation == "PALETTE COLOR"


def dcm2pnm(path: Path, frame: int, *options: str, colour: bool, folder: Path) -> np.ndarray | None:
    """The frame as dcmtk shows it, 0..1; colour as luminance; None where it refuses."""
    out = folder / ("out.ppm" if colour else "out.png")
    for program in DCMTK:
        out.unlink(missing_ok=True)
        kind = "--write-raw-pnm" if colour else "--write-16-bit-png"
        command = [program, "-O", "+F", str(frame + 1), *options, kind, str(path), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0 and out.is_file() and out.stat().st_size:
            shown = np.asarray(Image.open(out)).astype(np.float64)
            return shown @ LUMA / 255 if colour else shown / 65535
    return None
