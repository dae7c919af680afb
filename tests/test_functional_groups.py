"""Enhanced multi-frame objects: which item speaks for a frame, however the sequences are broken."""

from __future__ import annotations

import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from medvlm.dicom.functional_groups import PER_FRAME, functional_group, stating
from tests.dicoms import ramp, shipped, synthetic

MACRO = "PixelMeasuresSequence"


def measures(thickness: float) -> Dataset:
    """A group with a PixelMeasuresSequence."""
    item, group = Dataset(), Dataset()
    item.SliceThickness = thickness
    group.PixelMeasuresSequence = [item]
    return group


def enhanced(per_frame: list[Dataset], shared: list[Dataset]) -> Dataset:
    ds = synthetic(ramp())
    ds.PerFrameFunctionalGroupsSequence = per_frame
    ds.SharedFunctionalGroupsSequence = shared
    return ds


def test_the_frames_own_group_comes_before_the_shared_one() -> None:
    ds = enhanced([measures(1), Dataset()], [measures(5)])
    assert functional_group(ds, 0, MACRO).SliceThickness == 1
    assert functional_group(ds, 1, MACRO).SliceThickness == 5
    assert functional_group(ds, 2, MACRO).SliceThickness == 5  # no such frame


def test_a_classic_data_set_speaks_for_itself() -> None:
    ds = synthetic(ramp())
    assert functional_group(ds, 0, MACRO) is ds
    ds.SharedFunctionalGroupsSequence = []
    assert functional_group(ds, 3, MACRO) is ds


def test_an_enhanced_data_set_that_says_nothing() -> None:
    assert len(functional_group(enhanced([Dataset()], [Dataset()]), 0, MACRO)) == 0


def test_a_macro_at_the_top_level_counts_last() -> None:
    ds = enhanced([Dataset()], [Dataset()])
    ds.PixelMeasuresSequence = measures(7).PixelMeasuresSequence
    assert functional_group(ds, 0, MACRO).SliceThickness == 7


@pytest.mark.parametrize("index", [-1, 5, 10**9])
def test_odd_frame_numbers(index: int) -> None:
    assert len(functional_group(enhanced([measures(1)], [Dataset()]), index, MACRO)) == 0


def test_broken_sequences_count_as_absent() -> None:
    empty = measures(1)
    empty.PixelMeasuresSequence = []
    hollow = measures(1)
    hollow.PixelMeasuresSequence = [Dataset()]
    bytes_only = Dataset()
    bytes_only[MACRO] = DataElement(MACRO, "OB", b"\x00\x01\x02")
    for broken in (empty, hollow, bytes_only):
        assert functional_group(enhanced([broken], [measures(5)]), 0, MACRO).SliceThickness == 5
    ds = synthetic(ramp())
    ds[PER_FRAME] = DataElement(PER_FRAME, "OB", b"\xfe\xff")
    assert functional_group(ds, 0, MACRO) is ds


def test_elements_at_the_top_level_of_an_enhanced_object() -> None:
    ds = enhanced([measures(1)], [Dataset()])
    ds.RescaleSlope = 2
    macro = "PixelValueTransformationSequence"
    assert stating(ds, 0, macro, "RescaleSlope") is ds
    assert stating(ds, 0, MACRO, "SliceThickness").SliceThickness == 1


def test_a_real_enhanced_file() -> None:
    ds = pydicom.dcmread(shipped("eCT_Supplemental.dcm"))
    assert functional_group(ds, 1, "FrameVOILUTSequence").WindowWidth == 102
    first, second = (
        functional_group(ds, frame, "PlanePositionSequence").ImagePositionPatient[2]
        for frame in (0, 1)
    )
    assert (first, second) == (-159, -149)
