"""The viewer's pixels: the modality's own values, exactly, and a window that shows them rightly."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless

from medvlm.desk import pixels
from medvlm.desk.frames import DTYPES, batches, frames_of
from medvlm.desk.header import ImageHeader, open_image
from medvlm.desk.intake import take_in
from medvlm.desk.pixels import frame_bytes, header_in, image_header, prepare_image
from medvlm.desk.voi import FileWindow
from medvlm.dicom.decode import parse
from medvlm.dicom.instance import Instance
from medvlm.dicom.read import read_instance
from medvlm.errors import InputNotFound, ReviewError, Undecodable
from medvlm.image.pixels import modality_values, render, render_picture
from medvlm.image.window import Window
from medvlm.review.records import ImageRow
from medvlm.review.store import Store
from medvlm.review.worklist import image_path, images
from tests.desk import somebody
from tests.dicoms import save, shipped, synthetic

pytest_plugins = ["tests.desk"]

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 4000, (5, 7)).astype(np.uint16)


@pytest.fixture
def film(tmp_path: Path) -> Callable[..., Instance]:
    def made(values: NDArray[np.generic] = GREY, **elements: object) -> Instance:
        return read_instance(save(synthetic(values, **elements), tmp_path / "film.dcm"))

    return made


def values(instance: Instance, frame: int = 0) -> NDArray[np.generic]:
    header = open_image(instance).header
    data, dtype = frames_of(instance, [frame])[0]
    assert dtype == header.dtype
    shape = (
        (header.rows, header.columns, 3) if header.samples == 3 else (header.rows, header.columns)
    )
    return np.frombuffer(data, DTYPES[dtype]).reshape(shape)


def on_screen(header: ImageHeader, shown: NDArray[np.generic]) -> NDArray[np.floating]:
    """What the browser makes of the values."""
    one = header.window
    grey = Window(one.center, one.width, one.function)(shown.astype(np.float64))
    return 1 - grey if header.invert else grey


# ---- values ----


@pytest.mark.parametrize(
    ("stored", "elements", "dtype"),
    [
        (np.array([[0, 4095]], np.uint16), {}, "int16"),
        (np.array([[0, 65535]], np.uint16), {}, "uint16"),
        (np.array([[-1024, 3071]], np.int16), {}, "int16"),
        (np.array([[0, 4095]], np.uint16), {"RescaleSlope": 1, "RescaleIntercept": -1024}, "int16"),
        (np.array([[0, 65535]], np.uint16), {"RescaleSlope": 1, "RescaleIntercept": -1}, "float32"),
        (np.array([[1, 3]], np.uint16), {"RescaleSlope": 0.1, "RescaleIntercept": 0}, "float32"),
        (np.array([[0, 200]], np.uint8), {}, "int16"),
    ],
)
def test_the_smallest_kind_that_holds_the_values(
    film: Callable[..., Instance],
    stored: NDArray[np.generic],
    elements: dict[str, object],
    dtype: str,
) -> None:
    instance = film(stored, **elements)
    shown = values(instance)
    assert shown.dtype == DTYPES[dtype]  # type: ignore[index]
    exact = modality_values(parse(instance.path.read_bytes())).values
    np.testing.assert_array_equal(shown, exact.astype(shown.dtype))
    header = open_image(instance).header
    assert (header.minimum, header.maximum) == (exact.min(), exact.max())


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "RG1_J2KR.dcm", "MR_small_RLE.dcm", "mlut_18.dcm"]
)
def test_real_files_look_as_the_program_renders_them(name: str) -> None:
    instance = read_instance(shipped(name))
    header = open_image(instance).header
    expected = render(parse(instance.path.read_bytes()))
    np.testing.assert_allclose(on_screen(header, values(instance)), expected, atol=1e-6)


def test_an_image_of_padding_alone(film: Callable[..., Instance]) -> None:
    instance = film(np.full((2, 3), 5, np.uint16), PixelPaddingValue=5)
    header, shown = open_image(instance).header, values(instance)
    assert header.padding == -32768
    assert (shown == -32768).all()


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("slope", [1, 0.5])
@pytest.mark.parametrize(("center", "width"), [(-5000, 10), (0, 4000), (5000, 10)])
def test_padding_lies_at_the_dark_end(
    film: Callable[..., Instance], photometric: str, slope: float, center: float, width: float
) -> None:
    stored = np.array([[2000, 1000], [500, 2000]], np.int16)
    instance = film(
        stored,
        PhotometricInterpretation=photometric,
        PixelPaddingValue=2000,
        RescaleSlope=slope,
        RescaleIntercept=-1024,
    )
    header, shown = open_image(instance).header, values(instance)
    hole = stored == 2000
    np.testing.assert_array_equal(shown[~hole], (stored[~hole] * slope - 1024).astype(shown.dtype))
    grey = on_screen(
        header.model_copy(update={"window": FileWindow(center=center, width=width)}), shown
    )
    assert (grey[hole] == 0).all()
    assert (header.minimum, header.maximum) == (500 * slope - 1024, 1000 * slope - 1024)


def test_many_frames_are_of_one_kind(film: Callable[..., Instance]) -> None:
    """Though the first would fit into less."""
    frames = np.stack([np.full((3, 4), 7), np.full((3, 4), 60_000)]).astype(np.uint16)
    ds = synthetic(frames[0])
    ds.NumberOfFrames, ds.PixelData = 2, frames.tobytes()
    instance = film()
    save(ds, instance.path)
    instance = read_instance(instance.path)
    assert open_image(instance).header.dtype == "uint16"
    for number in range(2):
        np.testing.assert_array_equal(values(instance, number), frames[number])
    with pytest.raises(InputNotFound):
        frames_of(instance, [2])


# ---- colour and pictures ----


@pytest.mark.parametrize(("dtype", "scale"), [(np.uint8, 1), (np.uint16, 257)])
def test_colour_is_rgb_of_8_bits(
    film: Callable[..., Instance], dtype: type[np.unsignedinteger], scale: int
) -> None:
    colours = RANDOM.integers(0, 256, (4, 6, 3)).astype(np.uint8)
    instance = film(colours.astype(dtype) * dtype(scale))
    header = open_image(instance).header
    assert (header.colour, header.dtype, header.samples, header.invert) == (True, "uint8", 3, False)
    np.testing.assert_array_equal(values(instance), colours)


@pytest.mark.parametrize("name", ["OT-PAL-8-face.dcm", "SC_ybr_full_uncompressed.dcm"])
def test_palettes_and_ybr_are_resolved(name: str) -> None:
    instance = read_instance(shipped(name))
    shown = values(instance).astype(np.float64) @ [0.299, 0.587, 0.114] / 255
    expected = render(parse(instance.path.read_bytes()))
    np.testing.assert_allclose(shown, expected, atol=0.01)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1", "I;16"])
def test_pictures_look_as_the_program_renders_them(tmp_path: Path, mode: str) -> None:
    grey = np.linspace(0, 255, 24).reshape(4, 6).astype(np.uint8)
    picture = Image.fromarray(grey)
    picture = (
        Image.fromarray(grey.astype(np.uint16) * 16) if mode == "I;16" else picture.convert(mode)
    )
    picture.save(tmp_path / "a.png")
    instance = read_instance(tmp_path / "a.png")
    header, shown = open_image(instance).header, values(instance)
    seen = on_screen(header, shown if shown.ndim == 2 else shown @ [0.299, 0.587, 0.114])
    np.testing.assert_allclose(seen, render_picture(Image.open(tmp_path / "a.png")), atol=0.005)


def test_a_picture_is_turned_upright(tmp_path: Path) -> None:
    picture = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    picture.save(tmp_path / "a.png", exif=exif)
    shown = values(read_instance(tmp_path / "a.png"))
    np.testing.assert_array_equal(shown, np.rot90(np.asarray(picture), -1))


# ---- header ----


def test_windows_in_the_files_order_and_words(film: Callable[..., Instance]) -> None:
    header = open_image(
        film(
            WindowCenter=[40, -600],
            WindowWidth=[400, 1500],
            WindowCenterWidthExplanation=["SOFT <b>", "LUNG"],
        )
    ).header
    assert [(one.label, one.center, one.width) for one in header.windows] == [
        ("SOFT <b>", 40, 400),
        ("LUNG", -600, 1500),
    ]
    assert header.window == header.windows[0]


@pytest.mark.parametrize("shape", ["LINEAR", "SIGMOID"])
def test_a_voi_table_becomes_the_window_nearest_to_it(
    film: Callable[..., Instance], shape: str
) -> None:
    inputs = np.arange(4096.0)
    curve = Window(1800.0, 900.0, "LINEAR_EXACT" if shape == "LINEAR" else "SIGMOID")(inputs)
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 12]
    table.LUTData = np.rint(curve * 4095).astype("<u2").tobytes()
    table.LUTExplanation = "NORMAL"
    instance = film(VOILUTSequence=[table], WindowCenter=1, WindowWidth=2)
    header = open_image(instance).header
    assert header.window.label == "NORMAL"
    assert len(header.windows) == 2
    expected = render(parse(instance.path.read_bytes()))
    np.testing.assert_allclose(on_screen(header, values(instance)), expected, atol=0.01)


def test_spacing_directions_and_time(film: Callable[..., Instance]) -> None:
    header = open_image(film(PixelSpacing=[0.3, 0.2], PatientOrientation=["L", "F"])).header
    assert header.spacing_mm == (0.3, 0.2)
    assert header.pixel_aspect == pytest.approx(1.5)
    assert header.directions == ("L", "F")
    assert not header.at_detector
    header = open_image(film(ImagerPixelSpacing=[0.1, 0.1], FrameTime=40)).header
    assert header.at_detector
    assert header.frame_ms == 40
    header = open_image(film(PixelAspectRatio=[4, 3], CineRate=25)).header
    assert header.spacing_mm is None
    assert header.pixel_aspect == pytest.approx(4 / 3)
    assert header.frame_ms == 40
    axial = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, 0]}
    assert open_image(film(**axial)).header.directions == ("L", "P")
    coronal = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "ImagePositionPatient": [0, 0, 0]}
    assert open_image(film(**coronal)).header.directions == ("L", "F")


def test_a_flat_image_has_a_window(film: Callable[..., Instance]) -> None:
    header = open_image(film(np.full((4, 4), 9, np.uint16))).header
    assert header.window.width > 0


def test_batches_cover_every_frame_once() -> None:
    assert [f for part in batches(512, 512, 300) for f in part] == list(range(300))
    assert all(len(part) * 4 * 512 * 512 <= 32 << 20 for part in batches(512, 512, 300))
    assert batches(20_000, 20_000, 2) == [range(0, 1), range(1, 2)]


# ---- of the desk ----


@pytest.fixture
def kept(store: Store, tmp_path: Path) -> tuple[Store, ImageRow, Path]:
    """A film that was taken in."""
    (tmp_path / "in").mkdir()
    save(synthetic(GREY), tmp_path / "in" / "film.dcm")
    taken = take_in(store, [tmp_path / "in"], somebody(store))
    image = images(store, taken.added[0])[0]
    return store, *image_path(store, image.id)


def test_a_prepared_image_is_only_read(
    kept: tuple[Store, ImageRow, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, row, path = kept
    prepare_image(row, path)

    def decoded(*_: object) -> None:
        raise AssertionError("it was decoded again")

    monkeypatch.setattr(pixels, "frames_of", decoded)
    monkeypatch.setattr(pixels, "open_image", decoded)
    assert image_header(store, row.id).rows == 5
    data, dtype = frame_bytes(store, row.id, 0)
    assert data == GREY.astype("<i2").tobytes()
    assert dtype == "int16"
    mode = (path.parent / "cache" / f"{row.id}-0.raw").stat().st_mode
    assert mode & 0o077 == 0


def test_what_is_not_prepared_is_made_once(
    kept: tuple[Store, ImageRow, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, row, _ = kept
    made = []
    open_it = pixels.open_image

    def counting(instance: Instance) -> object:
        made.append(instance)
        return open_it(instance)

    monkeypatch.setattr(pixels, "open_image", counting)
    threads = [Thread(target=frame_bytes, args=(store, row.id, 0)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert not pixels._making_now


def test_a_damaged_cache_is_made_anew(kept: tuple[Store, ImageRow, Path]) -> None:
    store, row, path = kept
    prepare_image(row, path)
    frame, header = (path.parent / "cache" / f"{row.id}{end}" for end in ("-0.raw", ".json"))
    frame.write_bytes(frame.read_bytes()[:-3])
    assert frame_bytes(store, row.id, 0).data == GREY.astype("<i2").tobytes()
    header.write_text("{}")
    assert header_in(row, path).columns == 7


def test_a_file_that_was_cut_is_refused_in_words(kept: tuple[Store, ImageRow, Path]) -> None:
    store, row, path = kept
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(Undecodable, match="end too early") as caught:
        frame_bytes(store, row.id, 0)
    assert str(path.parent) not in str(caught.value)


@pytest.mark.parametrize(
    "id", ["../../etc/passwd", "a" * 31, "A" * 32, "", "a" * 32 + "/..", "é" * 32]
)
def test_only_ids_are_looked_up(store: Store, id: str) -> None:
    with pytest.raises(InputNotFound):
        image_header(store, id)


def test_an_unknown_image_and_frame(kept: tuple[Store, ImageRow, Path]) -> None:
    store, row, _ = kept
    with pytest.raises(ReviewError):
        image_header(store, "0" * 32)
    for frame in (-1, 1):
        with pytest.raises(InputNotFound):
            frame_bytes(store, row.id, frame)


@pytest.mark.slow
def test_a_large_film_opens_at_once(store: Store, tmp_path: Path) -> None:
    """2,000 x 2,500, compressed: prepared, its header and frame are read in a tenth of a second."""
    film = synthetic(RANDOM.integers(0, 4096, (2500, 2000)).astype(np.uint16))
    film.compress(JPEG2000Lossless, generate_instance_uid=False)
    (tmp_path / "in").mkdir()
    save(film, tmp_path / "in" / "film.dcm")
    taken = take_in(store, [tmp_path / "in"], somebody(store))
    image = images(store, taken.added[0])[0]
    prepare_image(*image_path(store, image.id))
    start = time.perf_counter()
    image_header(store, image.id)
    assert len(frame_bytes(store, image.id, 0).data) == 2 * 2500 * 2000
    assert time.perf_counter() - start < 0.1
