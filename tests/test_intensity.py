"""What the model may see of each modality: the rules, and that they are deterministic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from medvlm.errors import UsageError
from medvlm.image.intensity import (
    CT_WINDOWS,
    SUV_WHITE,
    background_threshold,
    model_view,
    normalise,
)
from medvlm.image.pixels import render
from medvlm.image.window import Window
from tests.dicoms import ramp, shipped, synthetic

HU = np.array([[-1024.0, -600, 0, 40, 1000]])


@pytest.mark.parametrize("name", CT_WINDOWS)
def test_ct_windows_are_in_hu(name: str) -> None:
    window = CT_WINDOWS[name]
    x = np.array([[window.center - window.width, window.center - 0.5, window.center + 2000]])
    assert_allclose(normalise(x, "HU", "CT", window=name), [[0, 0.5, 1]], atol=1e-6)


def test_golden_numbers_of_the_lung_window() -> None:
    """-600 +- 750: PS3.3 C.11.2.1.2.1 with c = -600, w = 1500."""
    shown = normalise(HU, "HU", "CT", window="lung")
    expected = [[-423.5 / 1499 + 0.5, 0.5 / 1499 + 0.5, 600.5 / 1499 + 0.5, 640.5 / 1499 + 0.5, 1]]
    assert_allclose(shown, expected, atol=1e-6)
    assert_allclose(normalise(HU, "HU", "CT"), normalise(HU, "HU", "CT", window="soft tissue"))


def test_a_window_of_ones_own() -> None:
    own = Window(0, 100, "LINEAR_EXACT")
    assert_allclose(normalise(HU, "HU", "CT", window=own), [[0, 0, 0.5, 0.9, 1]])
    assert_allclose(normalise(HU, "OD", "CR", window=own), [[0, 0, 0.5, 0.9, 1]])


@pytest.mark.parametrize(
    ("unit", "modality", "name"),
    [("HU", "CT", "spleen"), ("unspecified", "CT", "lung"), ("stored values", "MR", "brain")],
)
def test_a_named_window_for_what_is_not_hu(unit: str, modality: str, name: str) -> None:
    with pytest.raises(UsageError, match="window"):
        normalise(HU, unit, modality, window=name)


def test_ct_that_is_not_in_hu_takes_its_robust_range() -> None:
    shown = normalise(ramp(), "unspecified", "CT")
    assert (shown[0, 0], shown[0, -1]) == (0, 1)
    assert shown[0, 100] == pytest.approx(0.5, abs=0.02)


def head(air: int, seed: int = 0) -> np.ndarray:
    """A bright square with texture in a frame of faint noise, `air` pixels wide on each side."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(0, 20, (100 + 2 * air, 100 + 2 * air))
    image[air : air + 100, air : air + 100] = rng.uniform(300, 700, (100, 100))
    return image


def test_air_around_the_patient_does_not_dim_mr() -> None:
    close, far = normalise(head(10), "stored values", "MR"), normalise(head(300), "", "MR")
    assert np.median(close[20:90, 20:90]) == pytest.approx(
        np.median(far[310:390, 310:390]), abs=0.03
    )
    assert close[:10].max() < 0.05


def test_bright_vessels_do_not_dim_mr() -> None:
    image = head(50)
    plain = normalise(image, "stored values", "MR")
    image[60:62, 60:62] = 30000
    bright = normalise(image, "stored values", "MR")
    assert_allclose(bright[100:140, 100:140], plain[100:140, 100:140], atol=0.01)


def test_mr_scale_and_unit_do_not_matter() -> None:
    image = head(30)
    shown = normalise(image, "stored values", "MR")
    assert_allclose(normalise(image * 7.3, "unspecified", "MR"), shown, atol=1e-6)


def test_field_maps_keep_zero_in_the_middle() -> None:
    image = np.linspace(-500, 500, 10000).reshape(100, 100)
    shown = normalise(image, "Hz", "MR")
    assert shown[49:51].mean() == pytest.approx(0.5, abs=0.01)


def test_suv_has_a_fixed_scale_and_activity_a_relative_one() -> None:
    suv = np.array([[0.0, 2.5, SUV_WHITE, 40]])
    assert_allclose(normalise(suv, "SUVbw", "PT"), [[0, 0.25, 1, 1]])
    image = head(50)
    for unit, modality in (("BQML", "PT"), ("stored values", "NM"), ("SUVbsa", "PT")):
        shown = normalise(image, unit, modality)
        assert shown[100, 100] == pytest.approx(image[100, 100] / 698, abs=0.01)


def test_luminance_passes() -> None:
    grey = np.random.default_rng(0).random((4, 5))
    assert_allclose(normalise(grey, "luminance", "US"), grey, atol=1e-7)


def test_padding_is_black_and_out_of_the_statistics() -> None:
    image = head(20)
    plain = normalise(image, "stored values", "MR")
    padded = np.pad(image, ((0, 40), (0, 0)), constant_values=-30000)
    valid = np.pad(np.ones(image.shape, bool), ((0, 40), (0, 0)))
    shown = normalise(padded, "stored values", "MR", valid=valid)
    assert_allclose(shown[:-40], plain)
    assert (shown[-40:] == 0).all()
    padded[~valid] = np.nan
    assert_array_equal(normalise(padded, "stored values", "MR"), shown)


@pytest.mark.parametrize(
    ("unit", "modality"), [("HU", "CT"), ("stored values", "MR"), ("BQML", "PT"), ("", "OT")]
)
def test_volumes_are_one_whole(unit: str, modality: str) -> None:
    """Percentiles are those of the volume: a slice of the neck is not as bright as the brain's."""
    volume = np.stack([head(20) * dim for dim in (1.0, 0.5)])
    shown = normalise(volume.astype(np.float32), unit, modality)
    assert shown.shape == volume.shape
    assert shown.dtype == np.float32
    assert shown[0].mean() > shown[1].mean()
    assert_array_equal(normalise(volume.astype(np.float32), unit, modality), shown)


@pytest.mark.parametrize("modality", ["CT", "MR", "PT", "NM", "CR"])
@pytest.mark.parametrize("fill", [0.0, 7.0, -7.0, np.nan])
def test_flat_and_empty_images(modality: str, fill: float) -> None:
    shown = normalise(np.full((5, 6), fill), "stored values", modality)
    assert np.isfinite(shown).all()
    assert shown.min() >= 0
    assert shown.max() <= 1


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e5, 1e5) | st.just(float("nan")), min_size=1, max_size=40),
    st.sampled_from(["HU", "SUVbw", "BQML", "stored values", "luminance"]),
    st.sampled_from(["CT", "MR", "PT", "NM", "US", ""]),
)
def test_always_in_0_to_1(numbers: list[float], unit: str, modality: str) -> None:
    shown = normalise(np.array([numbers]), unit, modality)
    assert shown.shape == (1, len(numbers))
    assert ((shown >= 0) & (shown <= 1)).all()


def test_the_threshold_separates_two_heaps() -> None:
    rng = np.random.default_rng(0)
    heaps = np.concatenate([rng.normal(10, 3, 5000), rng.normal(200, 20, 2000)])
    assert 20 < background_threshold(heaps) < 150


FILM = {"WindowCenter": 100, "WindowWidth": 150}


@pytest.mark.parametrize("modality", ["CR", "DX", "MG", "US", "XA", ""])
def test_other_modalities_are_seen_as_their_file_says(modality: str) -> None:
    ds = synthetic(ramp(), Modality=modality, PhotometricInterpretation="MONOCHROME1", **FILM)
    assert_array_equal(model_view(ds), render(ds))
    own = Window(50, 60)
    assert_array_equal(model_view(ds, window=own), render(ds, window=own))
    with pytest.raises(UsageError, match="window"):
        model_view(ds, window="lung")


def test_ct_by_name_and_padding() -> None:
    values: dict[str, Any] = {"Modality": "CT", "RescaleSlope": 10, "RescaleIntercept": -1000}
    ds = synthetic(ramp(), PixelPaddingValue=199, **values)
    shown = model_view(ds, window="lung")
    assert_allclose(shown[0, :199], CT_WINDOWS["lung"](10.0 * np.arange(199) - 1000), atol=1e-6)
    assert shown[0, 199] == 0


def test_real_films_pass_unchanged_and_mr_uses_its_range() -> None:
    film = pydicom.dcmread(shipped("RG3_UNCR.dcm"))
    assert_array_equal(model_view(film), render(film))
    mr = model_view(pydicom.dcmread(shipped("MR_small.dcm")))
    assert mr.std() > 0.1
    assert (mr == 1).mean() < 0.02
