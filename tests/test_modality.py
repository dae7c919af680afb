"""Stored values to the modality's own: bits, padding, rescale or table, and above all the unit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from medvlm.image.modality import (
    may_be_negative,
    modality_output,
    padding_mask,
    stored_bits,
    values_and_unit,
)
from medvlm.image.pixels import modality_values, render
from tests.dicoms import ramp, shipped, synthetic


def ct(**elements: Any) -> Dataset:
    """A CT slice with stored values 0..199 and HU = value - 1024."""
    values = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024}
    return synthetic(ramp(), **(values | elements))


def real_world(**elements: Any) -> Dataset:
    """An item of a RealWorldValueMappingSequence in mm2/s."""
    item, unit = Dataset(), Dataset()
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "mm2/s", "UCUM", "mm2/s"
    item.MeasurementUnitsCodeSequence = [unit]
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


@pytest.mark.parametrize(
    ("elements", "unit"),
    [
        ({}, "HU"),
        ({"RescaleType": "HU"}, "HU"),
        ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]}, "HU"),
        ({"RescaleType": "US"}, "unspecified"),
        ({"RescaleType": "EDW"}, "EDW"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "unspecified"),
        ({"Modality": "MR"}, "unspecified"),
        ({"Modality": "CR", "RescaleType": "OD"}, "OD"),
    ],
)
def test_the_unit_of_a_rescale(elements: dict[str, Any], unit: str) -> None:
    values, found = modality_values(ct(**elements))
    assert found == unit
    assert values.dtype == np.float64
    assert_array_equal(values[0], np.arange(200) - 1024)


def test_where_nothing_was_applied() -> None:
    for modality in ("CT", "MR", "CR"):
        values, unit = modality_values(synthetic(ramp(), Modality=modality))
        assert unit == "stored values"
        assert_array_equal(values, ramp())
    identity = {"Modality": "MR", "RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "US"}
    assert modality_values(synthetic(ramp(), **identity)).unit == "stored values"


@pytest.mark.parametrize(
    ("elements", "unit"),
    [
        ({"Units": "BQML"}, "BQML"),
        ({"Units": "CNTS"}, "CNTS"),
        ({"Units": "GML"}, "SUVbw"),
        ({"Units": "GML", "SUVType": "BW"}, "SUVbw"),
        ({"Units": "GML", "SUVType": "LBMJANMA"}, "SUVlbm"),
        ({"Units": "GML", "SUVType": "IBW"}, "SUVibw"),
        ({"Units": "CM2ML"}, "SUVbsa"),
        ({"Units": "NONE"}, "unspecified"),
        ({}, "unspecified"),
    ],
)
def test_the_unit_of_pet(elements: dict[str, Any], unit: str) -> None:
    ds = synthetic(ramp(), Modality="PT", RescaleSlope=0.5, RescaleIntercept=0, **elements)
    values, found = modality_values(ds)
    assert found == unit
    assert values[0, 10] == 5


def test_no_suv_is_computed() -> None:
    """Weight, dose and times are there, but the file states Bq/ml: so it stays."""
    ds = synthetic(ramp(), Modality="PT", Units="BQML", PatientWeight=70, DecayCorrection="START")
    assert modality_values(ds).unit == "BQML"


def test_a_modality_table_and_its_unit() -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS", [200, -100, 16])
    item.add_new("LUTData", "US", [3 * i for i in range(200)])
    item.ModalityLUTType = "HU"
    signed = (ramp(dtype=np.int16) - 100).astype(np.int16)
    ds = synthetic(signed, ModalityLUTSequence=[item], RescaleSlope=9, RescaleIntercept=9)
    values, unit = modality_values(ds)
    assert unit == "HU"
    assert_array_equal(values[0], 3 * np.arange(200))
    assert not may_be_negative(ds)


@pytest.mark.parametrize(("slope", "intercept"), [(0, 5), (2, None), (None, 5)])
def test_half_a_rescale_is_none(slope: Any, intercept: Any) -> None:
    ds = synthetic(ramp(), RescaleSlope=slope, RescaleIntercept=intercept)
    assert_array_equal(modality_output(ramp(), ds), ramp())


def test_each_frame_has_its_own_rescale() -> None:
    ds = synthetic(ramp(), Modality="MR")
    ds.NumberOfFrames = 2
    ds.PixelData = ds.PixelData * 2
    groups = []
    for slope, unit in ((1, "US"), (2, "US"), (1, "HU")):
        item, group = Dataset(), Dataset()
        item.RescaleSlope, item.RescaleIntercept, item.RescaleType = slope, 10, unit
        group.PixelValueTransformationSequence = [item]
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = groups[:2]
    first, second = modality_values(ds, 0), modality_values(ds, 1)
    assert (first.values[0, 5], second.values[0, 5]) == (15, 20)
    assert first.unit == "unspecified"
    del ds.PerFrameFunctionalGroupsSequence
    ds.SharedFunctionalGroupsSequence = groups[2:]
    assert modality_values(ds, 1).unit == "HU"


def test_a_real_world_map_alone_is_applied() -> None:
    line = {"RealWorldValueSlope": 0.001, "RealWorldValueIntercept": 1.0}
    covered = {"RealWorldValueFirstValueMapped": 0, "RealWorldValueLastValueMapped": 150}
    ds = synthetic(ramp(), Modality="MR")
    ds.RealWorldValueMappingSequence = [real_world(**line)]
    for keyword, value in covered.items():
        ds.RealWorldValueMappingSequence[0].add_new(keyword, "US", value)
    values, unit = modality_values(ds)
    assert unit == "mm2/s"
    assert_allclose(values[0, :151], 1 + 0.001 * np.arange(151))
    assert np.isnan(values[0, 151:]).all()
    # The window is meant for what the modality stage gives, so it is not applied to these.
    ds.WindowCenter, ds.WindowWidth = 100, 150
    assert_allclose(render(ds), render(synthetic(ramp(), WindowCenter=100, WindowWidth=150)))


def test_a_real_world_table() -> None:
    item = real_world(RealWorldValueLUTData=[0.5 * i for i in range(100)])
    item.add_new("RealWorldValueFirstValueMapped", "US", 50)
    item.add_new("RealWorldValueLastValueMapped", "US", 149)
    values, unit = values_and_unit(
        ramp(), synthetic(ramp(), Modality="MR", RealWorldValueMappingSequence=[item])
    )
    assert unit == "mm2/s"
    assert_allclose(values[0, 50:150], 0.5 * np.arange(100))
    assert np.isnan(values[0, [0, 49, 150]]).all()


def test_a_real_world_map_that_does_what_the_rescale_does_names_its_unit() -> None:
    """Philips writes both, and the unit into the map alone."""
    ds = synthetic(ramp(), Modality="MR", RescaleSlope=2, RescaleIntercept=-5, RescaleType="US")
    same = real_world(RealWorldValueSlope=2.0, RealWorldValueIntercept=-5.0)
    other = real_world(RealWorldValueSlope=3.0, RealWorldValueIntercept=-5.0)
    ds.RealWorldValueMappingSequence = [same]
    assert modality_values(ds).unit == "mm2/s"
    ds.RealWorldValueMappingSequence = [other]
    values, unit = modality_values(ds)
    assert (values[0, 10], unit) == (15, "unspecified")


def test_overlay_bits_are_dropped_and_left_aligned_values_moved() -> None:
    ds = synthetic(ramp(), BitsStored=12, HighBit=11)
    assert_array_equal(stored_bits(ramp() | 0x8000, ds), ramp())
    ds = synthetic(ramp(), BitsStored=12, HighBit=15)
    assert_array_equal(stored_bits(ramp() << 4, ds), ramp())
    signed = (ramp(dtype=np.int16) - 100).astype(np.int16)
    ds = synthetic(signed, BitsStored=12, HighBit=11)
    assert_array_equal(stored_bits(signed & 0x0FFF, ds), signed)
    ds = synthetic(ramp(), BitsStored=12, HighBit=15)
    ds.file_meta.TransferSyntaxUID = RLELossless
    assert_array_equal(stored_bits(ramp() << 4, ds), ramp())
    ds.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    assert_array_equal(stored_bits(ramp(), ds), ramp())


@pytest.mark.parametrize(("used", "high"), [(0, 15), (16, 15), (12, 16), (12, 5), (20, 19)])
def test_senseless_bits_change_nothing(used: int, high: int) -> None:
    ds = synthetic(ramp())
    ds.BitsStored, ds.HighBit = used, high
    assert_array_equal(stored_bits(ramp(), ds), ramp())


def test_padding_keeps_its_own_bits() -> None:
    """-2000 in 16 bits is 2096 in 12: soft tissue would appear where no tissue is."""
    stored = ramp(dtype=np.int16)
    stored[:, :5] = -2000
    ds = synthetic(stored, Modality="CT", BitsStored=12, HighBit=11, PixelPaddingValue=-2000,
                   RescaleSlope=1, RescaleIntercept=-1024)  # fmt: skip
    assert (modality_values(ds).values[:, :5] == -3024).all()
    values = modality_values(ds, padding=np.nan).values
    assert np.isnan(values[:, :5]).all()
    assert np.isfinite(values[:, 5:]).all()


@pytest.mark.parametrize(
    ("first", "limit", "masked"),
    [(5, None, [5]), (5, 8, [5, 6, 7, 8]), (8, 5, [5, 6, 7, 8]), (None, 8, []), (70000, None, [])],
)
def test_padding_value_and_range(first: Any, limit: Any, masked: list[int]) -> None:
    ds = synthetic(ramp())
    for keyword, value in (("PixelPaddingValue", first), ("PixelPaddingRangeLimit", limit)):
        if value is not None:
            ds.add_new(keyword, "UL", value)
    assert np.flatnonzero(padding_mask(ramp(), ds)[0]).tolist() == masked


@pytest.mark.parametrize(("keyword", "vr"), [("Float", "f4"), ("DoubleFloat", "f8")])
def test_float_pixels(keyword: str, vr: str) -> None:
    stored = np.linspace(-1.5, 2.5, 200, dtype=vr)[None].repeat(160, axis=0)
    stored[:, :3] = -9.0, np.nan, np.inf
    ds = synthetic(ramp(), WindowCenter=0.5, WindowWidth=4, VOILUTFunction="LINEAR_EXACT")
    for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(ds, name)
    ds.BitsAllocated = 8 * stored.dtype.itemsize
    setattr(ds, f"{keyword}PixelData", stored.tobytes())
    setattr(ds, f"{keyword}PixelPaddingValue", -9.0)
    values, unit = modality_values(ds)
    assert unit == "stored values"
    assert_allclose(values[0, 3:], stored[0, 3:])
    grey = render(ds)
    assert (grey[:, :3] == 0).all()
    assert_allclose(grey[0, 3:], (stored[0, 3:] + 1.5) / 4, atol=1e-6)


def test_dose_and_its_unit() -> None:
    values, unit = modality_values(pydicom.dcmread(shipped("rtdose.dcm")), 7)
    ds = pydicom.dcmread(shipped("rtdose.dcm"))
    assert unit == ds.DoseUnits
    assert_allclose(values, ds.pixel_array[7] * float(ds.DoseGridScaling))


@pytest.mark.parametrize(
    ("name", "unit", "row", "column", "value"),
    [
        ("CT_small.dcm", "HU", 64, 64, 1928 - 1024),
        ("693_UNCR.dcm", "HU", 256, 256, 1048 - 1024),
        ("eCT_Supplemental.dcm", "ml/100ml/s", 256, 256, 1105 - 1024),
        ("dicomdirtests/77654033/CR1/6154", "OD", 0, 0, 200 + 0.684 * 1994),
        ("MR_small.dcm", "stored values", 0, 0, 905),
    ],
)
def test_golden_values_of_real_files(
    name: str, unit: str, row: int, column: int, value: float
) -> None:
    """Stored values as they stand in the file's bytes, and the header's rescale by hand."""
    found = modality_values(pydicom.dcmread(shipped(name)))
    assert found.unit == unit
    assert found.values[row, column] == pytest.approx(value, abs=1e-9)


def test_philips_frames_of_one_file_in_several_units(data_pack) -> None:
    """Magnitude first, then field maps in Hz, each with a rescale and a window of its own."""
    path = data_pack / "dicom/dcm_qa_enh/In/Philips/IM_0027_fMAP.dcm"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    ds = pydicom.dcmread(path)
    assert modality_values(ds, 0).unit == "1"
    values, unit = modality_values(ds, 63)
    assert unit == "Hz"
    assert -500 <= values.min() < 0 < values.max() <= 500
