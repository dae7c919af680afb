"""Volumes: equal to the reference converter's, and every voxel found again in its source."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import RLELossless

from medvlm.data.volumes import to_metatensor
from medvlm.dicom.assemble import assemble
from medvlm.dicom.planes import Plane
from medvlm.dicom.read import read_inputs
from medvlm.dicom.stack import Stack
from medvlm.errors import InputNotFound, Undecodable
from medvlm.image.volume import Volume, load_volume
from tests.dicoms import save, shipped
from tests.test_inspect import ct_slices

SERIES = {
    "20180918GE/mr_0004": "DCM2NIIX_regression_test_4",
    "20180918GE/mr_0005": "DCM2NIIX_regression_test_5",
    "20180918GE/mr_0006": "DCM2NIIX_regression_test_6",
    "20180918GE/mr_0007": "DCM2NIIX_regression_test_7",
    "20180918Si/mr_0003": "EPI_PE=AP_3",
    "20180918Si/mr_0004": "EPI_PE=PA_4",
    "20180918Si/mr_0005": "EPI_PE=RL_5",
    "20180918Si/mr_0006": "EPI_PE=LR_6",
}


def stack_of(folder: Path) -> Stack:
    (stack,) = assemble(read_inputs(folder).instances).stacks
    return stack


@pytest.mark.parametrize("series", SERIES)
def test_equal_to_the_reference_converter(data_pack: Path, series: str) -> None:
    """Shape, spacing, place and values of dcm2niix, whose axes are others and run otherwise."""
    folder = data_pack / "dicom" / "dcm_qa_nih"
    stack = stack_of(folder / "In" / series)
    reference = nibabel.load(folder / "Ref" / f"{SERIES[series]}.nii")
    expected = np.asarray(reference.dataobj)
    assert len(stack.volumes) == expected.shape[3]
    for time in range(len(stack.volumes)):
        volume = load_volume(stack, time)
        assert volume.voxels.shape == expected.shape[2::-1]
        assert np.allclose(volume.spacing_mm, reference.header.get_zooms()[2::-1], atol=1e-3)
        indices = np.stack(np.indices(volume.voxels.shape), axis=-1).reshape(-1, 3)
        world = volume.patient_from_voxel(indices) * (-1, -1, 1)
        there = nibabel.affines.apply_affine(np.linalg.inv(reference.affine), world)
        assert np.abs(there - np.round(there)).max() < 1e-3
        i, j, k = np.round(there).astype(int).T
        assert np.abs(expected[i, j, k, time] - volume.voxels.ravel()).max() <= 1e-3


def test_enhanced_and_classic_objects_make_the_same_volume(data_pack: Path) -> None:
    folder = data_pack / "dicom" / "dcmqi" / "data" / "segmentations" / "24x38x3"
    classic, enhanced = (load_volume(stack_of(folder / kind)) for kind in ("image", "multiframe"))
    assert np.array_equal(classic.voxels, enhanced.voxels)
    assert np.allclose(classic.affine, enhanced.affine)


def saved(folder: Path, **changes: object) -> Path:
    """Six CT slices whose values differ, rescaled each by its own slope and intercept."""
    for z, ds in enumerate(ct_slices(**changes)):
        pixels = np.arange(20 * 24, dtype=np.int16).reshape(20, 24) + 100 * z
        ds.PixelData = pixels.tobytes()
        ds.RescaleSlope, ds.RescaleIntercept = 1 + z, -z
        save(ds, folder / f"{5 - z}.dcm")
    return folder


def test_every_slice_has_its_own_rescale(tmp_path: Path) -> None:
    volume = load_volume(stack_of(saved(tmp_path)))
    assert volume.unit == "HU"
    for z in range(6):
        assert volume.voxels[z, 3, 5] == (1 + z) * (3 * 24 + 5 + 100 * z) - z


def test_compressed_slices_make_the_same_volume(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "rle").mkdir()
    raw = stack_of(saved(tmp_path / "raw"))
    for plane in raw.volumes[0]:
        ds = plane.instance.open()
        ds.compress(RLELossless, generate_instance_uid=False)
        save(ds, tmp_path / "rle" / plane.instance.path.name)
    rle = stack_of(tmp_path / "rle")
    assert rle.volumes[0][0].instance.is_compressed
    assert np.array_equal(load_volume(raw).voxels, load_volume(rle).voxels)


def test_progress_and_a_slice_that_vanished(tmp_path: Path) -> None:
    stack = stack_of(saved(tmp_path))
    seen: list[tuple[int, int]] = []
    load_volume(stack, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 6) for number in range(1, 7)]
    (tmp_path / "3.dcm").unlink()
    with pytest.raises(InputNotFound, match=r"3\.dcm"):
        load_volume(stack)


def test_slices_in_different_units_make_no_volume(tmp_path: Path) -> None:
    saved(tmp_path)
    stack = stack_of(tmp_path)
    ds = stack.volumes[0][2].instance.open()
    ds.RescaleType = "US"
    save(ds, stack.volumes[0][2].instance.path)
    with pytest.raises(Undecodable, match="different units"):
        load_volume(stack)


def test_a_missing_slice_is_the_mean_of_its_neighbours(tmp_path: Path) -> None:
    whole = load_volume(stack_of(saved(tmp_path)))
    (tmp_path / "2.dcm").unlink()  # slice 3
    volume = load_volume(stack_of(tmp_path))
    assert volume.voxels.shape == whole.voxels.shape
    assert np.allclose(volume.affine, whole.affine)
    for z in (0, 1, 2, 4, 5):
        assert np.array_equal(volume.voxels[z], whole.voxels[z])
    assert np.allclose(volume.voxels[3], (whole.voxels[2] + whole.voxels[4]) / 2)
    assert [source.interpolated for source in volume.sources] == [z == 3 for z in range(6)]
    assert volume.source_from_voxel(3, 0, 0).interpolated


def phantom(point: np.ndarray) -> np.ndarray:
    """A smooth density in patient coordinates [..., 3]."""
    x, y, z = np.moveaxis(point, -1, 0)
    return 1000 + 20 * x + 10 * y + 30 * z


def test_a_slant_is_straightened(tmp_path: Path) -> None:
    """A linear density, sampled by sheared slices, comes out in its place."""
    rows, columns = np.mgrid[:20, :24]
    for z, ds in enumerate(ct_slices()):
        origin = np.array([0.0, 0.8 * z, 2.5 * z])
        ds.ImagePositionPatient = origin.tolist()
        points = origin + np.stack([0.8 * columns, 0.7 * rows, 0 * rows], axis=-1)
        ds.PixelData = np.round(phantom(points)).astype(np.int16).tobytes()
        save(ds, tmp_path / f"{z}.dcm")
    assembly = assemble(read_inputs(tmp_path).instances)
    assert "17.7 degrees" in assembly.problems[0].message
    volume = load_volume(assembly.stacks[0])
    depth, height, width = volume.voxels.shape
    assert (depth, height, width) == (6, 26, 24)
    indices = np.stack(np.indices(volume.voxels.shape), axis=-1)
    world = volume.patient_from_voxel(indices.reshape(-1, 3)).reshape(indices.shape)
    inside = np.zeros(volume.voxels.shape, dtype=bool)
    for z in range(6):
        first = int(np.ceil(z * 0.8 / 0.7))
        inside[z, first : first + 19] = True
    error = np.abs(volume.voxels - phantom(world))[inside]
    assert error.max() < 1.0  # stored values are whole numbers
    point = volume.source_from_voxel(4, 10.0, 7.0)
    assert point.x == 7.5
    assert point.y == pytest.approx(10 - 4 * 0.8 / 0.7 + 0.5)


def test_a_slight_slant_stays_in_the_affine(tmp_path: Path) -> None:
    slices = ct_slices(40)
    for z, ds in enumerate(slices):
        ds.ImagePositionPatient = [0, 0.02 * z, 2.5 * z]
        save(ds, tmp_path / f"{z}.dcm")
    assembly = assemble(read_inputs(tmp_path).instances)
    assert not assembly.problems
    volume = load_volume(assembly.stacks[0])
    assert volume.voxels.shape == (40, 20, 24)
    assert volume.patient_from_voxel(np.array([[39, 0, 0]]))[0] == pytest.approx([0, 0.78, 97.5])


def test_a_plane_between_those_of_the_volume_is_found(tmp_path: Path) -> None:
    slices = ct_slices(9)
    heights = [0, 2, 4, 6.5, 8.5, 10.5, 12, 14, 16]
    for z, ds in zip(heights, slices, strict=True):
        ds.ImagePositionPatient = [0, 0, z]
        save(ds, tmp_path / f"{z}.dcm")
    volume = load_volume(stack_of(tmp_path))
    plane, row, column = volume.voxel_from_source(slices[3].SOPInstanceUID, 0, 5.5, 3.5)
    assert (plane, row, column) == (pytest.approx(3.25), 3, 5)
    (place,) = volume.patient_from_voxel(np.array([[plane, row, column]]))
    assert place[2] == pytest.approx(6.5)


def test_a_file_that_took_anothers_place_is_read_anew(tmp_path: Path) -> None:
    for value in (1, 2):
        for z, ds in enumerate(ct_slices()):
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{z}"
            ds.PixelData = np.full((20, 24), value, np.int16).tobytes()
            ds.compress(RLELossless, generate_instance_uid=False)
            save(ds, tmp_path / f"{z}.dcm")
        assert load_volume(stack_of(tmp_path)).voxels.max() == value


@settings(max_examples=60, deadline=None)
@given(
    plane=st.integers(0, 5),
    x=st.floats(0.001, 23.999),
    y=st.floats(0.001, 19.999),
    angle=st.floats(-1.5, 1.5),
    slant=st.floats(-0.5, 0.5),
)
def test_voxel_patient_and_source_are_one_place(
    plane: int, x: float, y: float, angle: float, slant: float
) -> None:
    volume = made_up(angle, slant)
    source = volume.sources[plane].plane
    voxel = volume.voxel_from_source(str(plane), 0, x, y)
    assert voxel[0] == plane
    back = volume.source_from_voxel(*voxel)
    assert back.sop_instance_uid == str(plane)
    assert (back.x, back.y) == pytest.approx((x, y))
    (patient,) = volume.patient_from_voxel(np.array([voxel]))
    between_rows, between_columns = source.spacing or (1, 1)
    direct = (
        np.array(source.position)
        + source.row * (x - 0.5) * between_columns
        + source.column * (y - 0.5) * between_rows
    )
    assert patient == pytest.approx(direct, abs=1e-6)
    (again,) = volume.voxel_from_patient(patient[None])
    assert again == pytest.approx(np.array(voxel), abs=1e-6)


def made_up(angle: float, slant: float) -> Volume:
    """A turned, sheared volume of six planes without files."""
    from unittest import mock

    row = np.array([np.cos(angle), np.sin(angle), 0])
    column = np.array([-np.sin(angle) * 0.6, np.cos(angle) * 0.6, -0.8])
    normal = np.cross(row, column)
    aside = slant * column
    planes = tuple(
        Plane(
            instance=mock.Mock(sop_instance_uid=str(z), modality="CT"),
            frame=0,
            rows=20,
            columns=24,
            position=tuple(np.array([10.0, -20.0, 30.0]) + z * (2.5 * normal + aside)),
            orientation=(*row, *column),
            spacing=(0.7, 0.8),
        )
        for z in range(6)
    )
    steps = tuple(float(z) for z in range(6))
    stack = Stack((planes,), steps, 6, 2.5, tuple(aside), is_straight=abs(slant) <= 0.025)
    blank = [(np.zeros((20, 24)), "HU")] * 6
    with mock.patch("medvlm.image.volume._decode", return_value=blank):
        return load_volume(stack)


def test_outside_the_volume(tmp_path: Path) -> None:
    volume = load_volume(stack_of(saved(tmp_path)))
    uid = volume.sources[0].plane.instance.sop_instance_uid
    with pytest.raises(IndexError):
        volume.source_from_voxel(6, 0, 0)
    with pytest.raises(IndexError):
        volume.source_from_voxel(2, -3, 0)
    with pytest.raises(KeyError):
        volume.voxel_from_source("1.2.3", 0, 1, 1)
    with pytest.raises(KeyError):
        volume.voxel_from_source(uid, 0, 24.5, 1)


def test_monai_takes_it_as_its_own(tmp_path: Path) -> None:
    """MONAI's transforms turn and resample it to the same places."""
    transforms = pytest.importorskip("monai.transforms")
    volume = load_volume(stack_of(saved(tmp_path)))
    tensor = to_metatensor(volume)
    turned = transforms.Orientation("RAS", labels=None)(tensor)
    assert tuple(turned.shape) == (1, 24, 20, 6)
    index = np.linalg.inv(turned.affine.numpy()) @ volume.affine_ras @ [2, 3, 5, 1]
    i, j, k, _ = np.round(index).astype(int)
    assert float(turned[0, i, j, k]) == volume.voxels[2, 3, 5]
    spaced = transforms.Spacing(pixdim=(1.25, 0.7, 0.8), mode="bilinear")(tensor)
    assert tuple(spaced.shape) == (1, 11, 20, 24)
    assert np.allclose(spaced[0, ::2].numpy(), volume.voxels, atol=1e-3)


def test_a_real_enhanced_object_says_its_unit() -> None:
    """A CT perfusion map: frames of one file, and not in Hounsfield units."""
    volume = load_volume(stack_of(shipped("eCT_Supplemental.dcm")))
    assert volume.unit == "ml/100ml/s"
    assert volume.voxels.shape == (2, 512, 512)
    assert volume.source_from_voxel(1, 4, 5).frame != volume.source_from_voxel(0, 4, 5).frame
