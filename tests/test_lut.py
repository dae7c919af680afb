"""Lookup tables: how they are read, plain and segmented, and what odd files mean by them."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from medvlm.image.lut import Table, expand_segments, lookup_table, palette_tables
from medvlm.image.pixels import render
from tests.dicoms import ramp, shipped, synthetic


def item(descriptor: Any, data: Any, vr: str = "US", descriptor_vr: str = "US") -> Dataset:
    """An item of a Modality or VOI LUT sequence."""
    made = Dataset()
    made.add_new("LUTDescriptor", descriptor_vr, descriptor)
    made.add_new("LUTData", vr, data)
    return made


def table(*args: Any, signed: bool = False, **kwargs: Any) -> Table:
    found = lookup_table(item(*args, **kwargs), signed=signed)
    assert found is not None
    return found


def test_inputs_outside_the_table_take_its_ends() -> None:
    found = table([3, 10, 8], [5, 100, 255])
    assert_array_equal(found(np.array([0, 10, 11, 12, 99])), [5, 5, 100, 255, 255])
    assert_array_equal(found(np.array([10.4, 10.6, np.nan, np.inf])), [5, 100, 5, 255])
    assert found.white == 255


@pytest.mark.parametrize(("first", "vr"), [(-2, "SS"), (65534, "US")])
def test_a_negative_first_input_however_it_was_read(first: int, vr: str) -> None:
    found = table([3, first, 8], [1, 2, 3], descriptor_vr=vr, signed=True)
    assert_array_equal(found(np.array([-3, -2, -1, 0, 1])), [1, 1, 2, 3, 3])


def test_a_large_first_input_of_unsigned_pixels() -> None:
    assert table([2, 65534, 8], [1, 2]).first == 65534


def test_no_entries_stand_for_65536() -> None:
    data = (np.arange(65536, dtype="<u2") ^ 0xFFFF).tobytes()
    found = table([0, 0, 16], data, vr="OW")
    assert len(found.entries) == 65536
    assert_array_equal(found(np.array([0, 1, 65535])), [65535, 65534, 0])


def test_one_byte_for_each_entry() -> None:
    packed = table([5, 0, 8], bytes([1, 2, 3, 4, 5, 0]), vr="OW")
    assert_array_equal(packed.entries, [1, 2, 3, 4, 5])
    words = table([4, 0, 8], [0x0201, 0x0403])
    assert_array_equal(words.entries, [1, 2, 3, 4])


def test_entries_larger_than_the_descriptor_allows() -> None:
    assert table([3, 0, 8], [0, 257, 65535]).bits == 16
    assert table([3, 0, 0], [0, 1, 4095]).bits == 12
    assert table([3, 0, 16], [0, 1, 4095]).bits == 16  # a dark table is not a wrong one


def test_tables_of_another_length_than_said() -> None:
    short = table([200, 0, 8], [1, 2, 3])
    assert_array_equal(short(np.array([0, 2, 100])), [1, 3, 3])
    assert len(table([2, 0, 8], [1, 2, 3]).entries) == 2


def test_what_is_no_table() -> None:
    assert lookup_table(Dataset(), signed=False) is None
    for descriptor, data in (([1, 0], [1]), ([2, 0, 8], []), ([2, 0, 8], b"")):
        vr = "OW" if isinstance(data, bytes) else "US"
        assert lookup_table(item(descriptor, data, vr=vr), signed=False) is None


def test_big_endian_words_and_bytes() -> None:
    words = item([2, 0, 16], b"\x01\x02\x03\x04", vr="OW")
    found = lookup_table(words, signed=False, little_endian=False)
    assert found is not None
    assert_array_equal(found.entries, [0x0102, 0x0304])
    packed = item([4, 0, 8], b"\x02\x01\x04\x03", vr="OW")
    found = lookup_table(packed, signed=False, little_endian=False)
    assert found is not None
    assert_array_equal(found.entries, [1, 2, 3, 4])


def test_segments_of_all_three_kinds() -> None:
    assert expand_segments([0, 2, 5, 9, 1, 4, 1], 2) == [5, 9, 7, 5, 3, 1]
    # The copied linear segment starts where the table stands now.
    discrete, linear = [0, 1, 0], [1, 2, 10]
    copied = [2, 2, 0, 0]  # two segments, from byte 0
    assert expand_segments(discrete + linear + copied, 2) == [0, 5, 10, 0, 5, 10]
    # From byte 6 of 16-bit words, which is word 3: the linear segment alone, from 10 to 10.
    assert expand_segments([*discrete, *linear, 2, 1, 6, 0], 2) == [0, 5, 10, 10, 10]
    assert expand_segments([*discrete, *linear, 2, 1, 3, 0, 0, 0], 1) == [0, 5, 10, 10, 10]


@pytest.mark.parametrize("segments", [[1, 2, 3], [7, 1, 1], [0, 1, 5, 2, 1, 99, 0]])
def test_senseless_segments(segments: list[int]) -> None:
    with pytest.raises(ValueError, match="segment"):
        expand_segments(segments, 2)


@settings(deadline=None)
@given(st.lists(st.integers(0, 65535), max_size=60))
def test_segments_never_run_away(segments: list[int]) -> None:
    with contextlib.suppress(ValueError):
        assert len(expand_segments(segments, 2)) <= 65536


def test_segmented_palettes_of_real_files() -> None:
    """pydicom expands them with code of its own."""
    for name in ("gdcm-US-ALOKA-16.dcm", "gdcm-US-ALOKA-16_big.dcm"):
        ds = pydicom.dcmread(shipped(name))
        little = ds.file_meta.TransferSyntaxUID.is_little_endian
        tables = palette_tables(ds, little_endian=little)
        assert tables is not None
        stored = ds.pixel_array
        ours = np.stack([found(stored) for found in tables], axis=-1)
        assert_array_equal(ours, apply_color_lut(stored, ds))


def palette(index: np.ndarray, descriptor: list[int], data: bytes, **elements: Any) -> Dataset:
    ds = synthetic(index, PhotometricInterpretation="PALETTE COLOR", **elements)
    for colour in ("Red", "Green", "Blue"):
        vr = "SS" if descriptor[1] < 0 else "US"
        ds.add_new(f"{colour}PaletteColorLookupTableDescriptor", vr, descriptor)
        ds.add_new(f"{colour}PaletteColorLookupTableData", "OW", data)
    return ds


@pytest.mark.parametrize(
    ("descriptor", "data"),
    [
        ([200, 0, 16], (np.arange(200, dtype="<u2") * 257).tobytes()),
        ([200, 0, 8], np.arange(200, dtype=np.uint8).tobytes()),
        ([200, 0, 8], np.arange(200, dtype="<u2").tobytes()),
        ([200, 0, 16], np.arange(200, dtype="<u2").tobytes()),
    ],
    ids=["16 bits", "bytes", "8 bits in words", "8 bits called 16"],
)
def test_grey_palettes_in_every_width(descriptor: list[int], data: bytes) -> None:
    expected = ramp() / 255
    for dtype in (np.uint8, np.uint16):
        grey = render(palette(ramp(dtype=dtype), descriptor, data))
        np.testing.assert_allclose(grey, expected, atol=1e-6)


def test_a_palette_that_begins_below_zero() -> None:
    data = (np.arange(200, dtype="<u2") * 257).tobytes()
    index = (ramp(dtype=np.int16) - 100).astype(np.int16)
    grey = render(palette(index, [200, -100, 16], data))
    np.testing.assert_allclose(grey, ramp() / 255, atol=1e-6)
