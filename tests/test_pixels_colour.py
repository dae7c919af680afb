"""Colour, palettes and pictures: what becomes of them in grey."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image
from pydicom.dataset import Dataset

from medvlm.errors import Undecodable
from medvlm.image.pixels import LUMA, modality_values, render, render_picture
from tests.dicoms import ramp, synthetic


def test_colour_becomes_luminance() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    grey = render(synthetic(colours))
    assert_allclose(grey, colours @ LUMA / 255, atol=1e-6)
    picture = render_picture(Image.fromarray(colours))
    assert_allclose(picture, grey, atol=1e-6)
    values, unit = modality_values(synthetic(colours))
    assert unit == "luminance"
    assert_allclose(values, grey)


def colour_bytes(values: np.ndarray, photometric: str, planes: bool) -> Dataset:
    ds = synthetic(values, PhotometricInterpretation=photometric)
    ds.PlanarConfiguration = int(planes)
    ds.PixelData = (values.transpose(2, 0, 1) if planes else values).tobytes()
    return ds


@pytest.mark.parametrize("planes", [False, True])
def test_colour_by_pixel_and_by_plane(planes: bool) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    grey = render(colour_bytes(colours, "RGB", planes))
    assert_allclose(grey, colours @ LUMA / 255, atol=1e-6)
    # Of YBR_FULL, luminance is the first sample, as far as the colour exists in RGB.
    ybr = np.stack([np.arange(60, 180).reshape(6, 20), *np.full((2, 6, 20), 120)], axis=-1)
    grey = render(colour_bytes(ybr.astype(np.uint8), "YBR_FULL", planes))
    assert_allclose(grey, ybr[..., 0] / 255, atol=1.01 / 255)


def test_chroma_of_every_other_pixel() -> None:
    luma = np.arange(60, 180, dtype=np.uint8).reshape(6, 20)
    packed = np.full((6, 10, 4), 120, dtype=np.uint8)  # Y Y Cb Cr
    packed[..., :2] = luma.reshape(6, 10, 2)
    ds = synthetic(np.zeros((6, 20, 3), np.uint8), PhotometricInterpretation="YBR_FULL_422")
    ds.PixelData = packed.tobytes()
    assert_allclose(render(ds), luma / 255, atol=1.01 / 255)


def test_a_palette_that_is_not_there() -> None:
    ds = synthetic(ramp(dtype=np.uint8), PhotometricInterpretation="PALETTE COLOR")
    with pytest.raises(Undecodable, match=r"x\.dcm: .*palette"):
        render(ds, file="x.dcm")


def test_pictures_of_every_mode() -> None:
    values = np.tile(np.arange(256, dtype=np.uint8), (32, 1))
    picture = Image.fromarray(values)
    expected = values / 255
    for mode in ("L", "LA", "RGB", "RGBA", "P"):
        assert_allclose(render_picture(picture.convert(mode)), expected, atol=0.005)
    deep = Image.fromarray(values.astype(np.uint16) * 16)  # 12 bits in 16
    assert_allclose(render_picture(deep), expected, atol=0.01)
    clear = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    assert render_picture(clear).max() == 0


def test_a_sideways_photograph_is_turned_upright(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "sideways.png"
    Image.fromarray(ramp(40, 200, np.uint8)).save(path, exif=exif)
    with Image.open(path) as picture:
        grey = render_picture(picture)
    assert grey.shape == (200, 40)
    assert grey[-1].mean() > grey[0].mean()
