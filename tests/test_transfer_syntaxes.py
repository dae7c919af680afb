"""Every way to encode pixels that the permissive decoders know, against what was encoded.

Where an encoder is at hand the test encodes; the rest are real files, and a few bytes made before.
"""

from __future__ import annotations

import io
import re
from importlib.metadata import distributions
from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from medvlm.dicom.instance import Instance
from medvlm.dicom.read import read_inputs
from medvlm.dicom.stream import stored_frames
from medvlm.errors import InputError
from medvlm.image.load import load_image
from tests.codestreams import LOSSLESS, LOSSY, wedge
from tests.dicoms import save, shipped, synthetic

TWELVE = {"BitsStored": 12, "HighBit": 11}
NATIVE = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
)


def grey(bits: int = 12, *, signed: bool = False) -> np.ndarray:
    """A wedge with noise in all its bits, 40 x 56."""
    noise = np.random.default_rng(0).integers(0, 2**bits, (40, 56))
    values = (wedge(40, 56) + noise // 8) % 2**bits
    if signed:
        return (values - 2 ** (bits - 1)).astype(np.int16)
    return values.astype(np.uint8 if bits <= 8 else np.uint16)


def colour() -> np.ndarray:
    """[40, 56, 3] with another direction for each colour."""
    rows, columns = np.mgrid[:40, :56]
    return np.stack([rows * 6, columns * 4, (rows * columns) % 256], axis=-1).astype(np.uint8)


def frames(path: Path) -> list[np.ndarray]:
    """The stored values of all frames, decoded as the program decodes them."""
    reading = read_inputs(path, decode=True)
    assert not reading.refused
    (instance,) = reading.instances
    out = []
    for number in range(instance.frames):
        (values,) = stored_frames([instance], number)
        assert not isinstance(values, InputError), values
        out.append(values)
    image = load_image(instance)
    assert np.isfinite(image.pixels).all()
    assert image.pixels.max() > image.pixels.min()
    return out


def holding(codestream: bytes, syntax: UID, pixels: np.ndarray) -> Dataset:
    """The data set of an image with other bytes in place of its pixels."""
    ds = synthetic(pixels, **(TWELVE if pixels.dtype == np.uint16 else {}))
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([codestream])
    ds["PixelData"].VR = "OB"
    return ds


def by_gdcm(ds: Dataset, syntax: UID, folder: Path) -> Path:
    """The image encoded by GDCM, for what nothing else here encodes."""
    source, target = save(ds, folder / "source.dcm"), folder / "target.dcm"
    reader, change, writer = (
        gdcm.ImageReader(),
        gdcm.ImageChangeTransferSyntax(),
        gdcm.ImageWriter(),
    )
    reader.SetFileName(str(source))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(target))
    assert writer.Write()
    source.unlink()
    return target


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("pixels", [grey(), grey(16, signed=True), colour()])
def test_what_is_not_compressed(syntax: UID, pixels: np.ndarray, tmp_path: Path) -> None:
    ds = synthetic(pixels)
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian and pixels.itemsize == 2:
        ds.PixelData = pixels.byteswap().tobytes()
    (values,) = frames(save(ds, tmp_path / "a.dcm"))
    assert np.array_equal(values, pixels)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize(
    "pixels", [grey(), grey(8), grey(16), grey(16, signed=True), colour()], ids=lambda p: p.dtype
)
def test_what_pydicom_compresses_without_loss(
    syntax: UID, pixels: np.ndarray, tmp_path: Path
) -> None:
    ds = synthetic(pixels)
    ds.compress(syntax, generate_instance_uid=False)
    (values,) = frames(save(ds, tmp_path / "a.dcm"))
    assert values.dtype.kind == pixels.dtype.kind
    assert np.array_equal(values, pixels)


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
@pytest.mark.parametrize("pixels", [grey(), grey(8), grey(16)], ids=["12", "8", "16"])
def test_lossless_jpeg(syntax: UID, pixels: np.ndarray, tmp_path: Path) -> None:
    (values,) = frames(by_gdcm(synthetic(pixels), syntax, tmp_path))
    assert np.array_equal(values, pixels)


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL])
def test_high_throughput_jpeg_2000(syntax: UID, tmp_path: Path) -> None:
    (values,) = frames(save(holding(LOSSLESS, syntax, wedge()), tmp_path / "a.dcm"))
    assert np.array_equal(values, wedge())


def test_what_loses_a_little_loses_only_that(tmp_path: Path) -> None:
    near = synthetic(grey())
    near.compress(JPEGLSNearLossless, jls_error=3, generate_instance_uid=False)
    (values,) = frames(save(near, tmp_path / "near.dcm"))
    assert np.abs(values.astype(int) - grey()).max() == 3
    lossy = synthetic(wedge(64, 64), **TWELVE)
    lossy.compress(JPEG2000, j2k_psnr=[60], generate_instance_uid=False)
    (values,) = frames(save(lossy, tmp_path / "lossy.dcm"))
    assert 0 < np.abs(values.astype(int) - wedge(64, 64)).mean() <= 10
    (values,) = frames(save(holding(LOSSY, HTJ2K, wedge()), tmp_path / "ht.dcm"))
    assert 0 < np.abs(values.astype(int) - wedge()).max() <= 50


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGExtended12Bit])
@pytest.mark.parametrize("pixels", [(wedge(40, 56) // 12).astype(np.uint8), colour()])
def test_lossy_jpeg_of_8_bits(syntax: UID, pixels: np.ndarray, tmp_path: Path) -> None:
    """An extended JPEG of 8 bits differs from a baseline one in a marker."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, subsampling=0)
    codestream = stream.getvalue()
    if syntax == JPEGExtended12Bit:
        codestream = codestream.replace(b"\xff\xc0", b"\xff\xc1", 1)
    ds = holding(codestream, syntax, pixels)
    if pixels.ndim == 3:
        ds.PhotometricInterpretation = "YBR_FULL"
    (values,) = frames(save(ds, tmp_path / "a.dcm"))
    assert values.shape == pixels.shape
    assert np.abs(values.astype(int) - pixels).mean() < 4


def test_an_extended_jpeg_of_12_bits_is_refused_with_a_reason() -> None:
    """The one common encoding that no permissive decoder reads through pydicom."""
    (refused,) = read_inputs(shipped("JPEG-lossy.dcm"), decode=True).refused
    assert (refused.code, refused.message[-1]) == ("undecodable", ".")


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_frames_come_in_their_order(syntax: UID, tmp_path: Path) -> None:
    encoded = []
    for number in range(5):
        one = synthetic(grey() // 2 + number)
        one.compress(syntax, generate_instance_uid=False)
        encoded += generate_frames(one.PixelData, number_of_frames=1)
    one.NumberOfFrames = 5
    for has_bot in (True, False):
        one.PixelData = encapsulate(encoded, has_bot=has_bot)
        values = frames(save(one, tmp_path / "a.dcm"))
        assert [np.array_equal(grey() // 2 + n, values[n]) for n in range(5)] == [True] * 5


# The same image, uncompressed and as other programs compressed it.
PAIRS = {
    "RG1_UNCR.dcm": ["RG1_J2KR.dcm"],
    "RG3_UNCR.dcm": ["RG3_J2KR.dcm"],
    "MR2_UNCR.dcm": ["MR2_J2KR.dcm"],
    "US1_UNCR.dcm": ["US1_J2KR.dcm"],
    "693_UNCR.dcm": ["693_J2KR.dcm"],
    "MR_small.dcm": [
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
    ],
    "emri_small.dcm": [
        "emri_small_RLE.dcm",
        "emri_small_big_endian.dcm",
        "emri_small_jpeg_2k_lossless.dcm",
        "emri_small_jpeg_ls_lossless.dcm",
    ],
    "SC_rgb.dcm": ["SC_rgb_rle.dcm", "SC_rgb_expb.dcm"],
    "SC_rgb_16bit_2frame.dcm": ["SC_rgb_rle_16bit_2frame.dcm", "SC_rgb_expb_16bit_2frame.dcm"],
    "rtdose.dcm": ["rtdose_rle.dcm", "rtdose_expb.dcm"],
}


@pytest.mark.parametrize("original", PAIRS)
def test_real_files_of_other_programs(original: str) -> None:
    expected = stored(original)
    for name in PAIRS[original]:
        values = stored(name)
        assert len(values) == len(expected)
        assert all(np.array_equal(one, other) for one, other in zip(values, expected, strict=True))


def stored(name: str) -> list[np.ndarray]:
    """The stored values of a shipped file's frames."""
    (instance,) = read_inputs(shipped(name)).instances
    return [one_frame(instance, number) for number in range(instance.frames)]


def one_frame(instance: Instance, number: int) -> np.ndarray:
    (values,) = stored_frames([instance], number)
    assert not isinstance(values, InputError), values
    return values


def test_every_syntax_that_pydicom_decodes_is_tried_here() -> None:
    known = set()
    for syntax in AllTransferSyntaxes:
        try:
            decoder = get_decoder(syntax)
        except NotImplementedError:
            continue
        if decoder.is_native or decoder.available_plugins:
            known.add(syntax)
    assert known == {
        *NATIVE,
        *(RLELossless, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1),
        *(JPEGLSLossless, JPEGLSNearLossless, JPEG2000Lossless, JPEG2000),
        *(HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K),
    }


def test_no_decoder_is_under_the_gpl(root: Path) -> None:
    """GDCM and OpenJPEG are BSD, CharLS BSD, pylibjpeg MIT; pylibjpeg-libjpeg is GPL-3.0."""
    named = (root / "pyproject.toml").read_text() + (root / "constraints.txt").read_text()
    assert not re.search(r"^\W*pylibjpeg-libjpeg", named, re.MULTILINE)
    installed = {distribution.name.lower().replace("_", "-") for distribution in distributions()}
    assert "pylibjpeg-libjpeg" not in installed
    assert "pylibjpeg-openjpeg" in installed
    for decoder in map(get_decoder, (JPEGBaseline8Bit, JPEGLossless, JPEGLSLossless)):
        assert "pylibjpeg" not in decoder.available_plugins
    assert pydicom.__version_info__[:2] >= ("3", "0")
