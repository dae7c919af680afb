"""Windows: the standard's formulas as properties, and which of a file's windows is used."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from medvlm.errors import UsageError
from medvlm.image.lut import Table
from medvlm.image.window import FUNCTIONS, Window, choose, file_windows, robust_range, voi_tables
from tests.dicoms import ramp, synthetic

centers = st.floats(-5000, 5000)
widths = st.floats(1, 10000)
functions = st.sampled_from(FUNCTIONS)
values = st.lists(st.floats(-1e5, 1e5), min_size=2, max_size=20).map(sorted).map(np.array)


@given(centers, widths, functions, values)
def test_windows_rise_from_0_to_1(center: float, width: float, function: str, x) -> None:
    shown = Window(center, width, function)(x)
    assert ((shown >= 0) & (shown <= 1)).all()
    assert (np.diff(shown) >= 0).all()


@given(st.integers(-2000, 2000), st.integers(2, 4000))
def test_linear_has_as_many_levels_as_its_width_says(center: int, width: int) -> None:
    """PS3.3 C.11.2.1.2.1: black up to c - 0.5 - (w - 1) / 2, white above c - 0.5 + (w - 1) / 2."""
    low, high = center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    assert_allclose(
        Window(center, width)(np.array([low - 1, low, (low + high) / 2, high, high + 1])),
        [0, 0, 0.5, 1, 1],
        atol=1e-12,
    )


@given(centers, widths)
def test_linear_exact_is_linear_without_its_half_pixel(center: float, width: float) -> None:
    x = np.linspace(center - width, center + width, 21)
    exact = Window(center, width, "LINEAR_EXACT")(x)
    assert_allclose(exact, Window(center + 0.5, width + 1)(x), atol=1e-9)
    ends = np.array([center - width / 2, center, center + width / 2])
    assert_allclose(Window(center, width, "LINEAR_EXACT")(ends), [0, 0.5, 1], atol=1e-9)


@given(centers, widths, st.floats(-3, 3))
def test_sigmoid_is_symmetric_about_its_center(center: float, width: float, step: float) -> None:
    window = Window(center, width, "SIGMOID")
    pair = window(np.array([center - step * width, center + step * width]))
    assert pair.sum() == pytest.approx(1, abs=1e-9)


def test_golden_numbers() -> None:
    """The examples of PS3.3 C.11.2.1.2.1: center 2048, width 4096, and width 1 at 2048."""
    assert_allclose(Window(2048, 4096)(np.array([0, 4095])), [0, 1])
    assert_allclose(Window(2048, 1)(np.array([2047, 2047.5, 2048])), [0, 0, 1])
    assert_allclose(Window(0, 100)(np.array([-50, 49])), [0, 1])
    assert_allclose(Window(10, 4, "SIGMOID")(np.array([10, 11])), [0.5, 1 / (1 + np.exp(-1))])


def test_extremes_do_not_overflow_and_nan_stays_nan() -> None:
    for function in FUNCTIONS:
        shown = Window(0, 1, function)(np.array([-1e300, 1e300, np.nan]))
        assert_allclose(shown, [0, 1, np.nan], atol=1e-300)


@pytest.mark.parametrize(
    ("center", "width", "function"),
    [(0, 0, "LINEAR"), (0, 0.9, "LINEAR"), (0, 0, "SIGMOID"), (0, -1, "LINEAR_EXACT"),
     (float("nan"), 10, "LINEAR"), (0, float("inf"), "LINEAR"), (0, 10, "CUBIC")],
)  # fmt: skip
def test_what_is_no_window(center: float, width: float, function: str) -> None:
    with pytest.raises(ValueError, match="window"):
        Window(center, width, function)


def test_a_files_windows_in_its_order() -> None:
    ds = synthetic(ramp(), WindowCenter=[50, 40, -600], WindowWidth=[0, 400, 1500])
    ds.WindowCenterWidthExplanation = ["BROKEN", "SOFT", "LUNG"]
    assert file_windows(ds) == [
        Window(40, 400, explanation="SOFT"),
        Window(-600, 1500, explanation="LUNG"),
    ]
    ds["VOILUTFunction"] = DataElement("VOILUTFunction", "CS", "sigmoid ", validation_mode=IGNORE)
    assert [window.function for window in file_windows(ds)] == ["SIGMOID", "SIGMOID"]
    ds.VOILUTFunction = "NEW"
    assert [window.function for window in file_windows(ds)] == ["LINEAR", "LINEAR"]


def test_windows_that_are_not_all_there() -> None:
    assert file_windows(synthetic(ramp(), WindowCenter=[50, 40], WindowWidth=10)) == [
        Window(50, 10)
    ]
    assert file_windows(synthetic(ramp(), WindowCenter=50)) == []
    ds = synthetic(ramp(), WindowWidth=50)
    ds["WindowCenter"] = DataElement("WindowCenter", "LO", "wide")
    assert file_windows(ds) == []


def test_each_frame_has_its_own_window() -> None:
    ds = synthetic(ramp(), WindowCenter=1, WindowWidth=1)
    groups = []
    for center in (10, 20):
        item, group = Dataset(), Dataset()
        item.WindowCenter, item.WindowWidth = center, 5
        group.FrameVOILUTSequence = [item]
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = groups
    assert [file_windows(ds, frame)[0].center for frame in (0, 1, 2)] == [10, 20, 1]


def test_choosing() -> None:
    soft, lung = Window(40, 400, explanation="SOFT TISSUE"), Window(-600, 1500, explanation="Lung")
    table = Table(np.array([0.0, 255.0]), 0, 8, "CARDIAC")
    assert choose([soft, lung], [], None) is soft
    assert choose([soft], [table], None) is table
    assert choose([], [], None) is None
    assert choose([soft, lung], [table], 1) is lung
    assert choose([soft, lung], [table], "lung") is lung
    assert choose([soft, lung], [table], "cardiac") is table
    assert choose([soft], [], own := Window(1, 2)) is own
    for windows, choice in (([soft], 1), ([soft], -1), ([], 0), ([soft], "bone")):
        with pytest.raises(UsageError, match="window"):
            choose(windows, [], choice)


def test_tables_that_cannot_be_used_are_left_out() -> None:
    good = Dataset()
    good.add_new("LUTDescriptor", "US", [2, 0, 8])
    good.add_new("LUTData", "US", [0, 255])
    ds = synthetic(ramp(), VOILUTSequence=[Dataset(), good])
    assert len(voi_tables(ds)) == 1


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50).map(np.array))
def test_the_robust_range_stays_in_0_to_1(x) -> None:
    shown = robust_range(x)
    assert ((shown >= 0) & (shown <= 1)).all()
