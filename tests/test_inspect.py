"""Inspection: studies, regular volumes, and what is wrong with the irregular ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage
from typer.testing import CliRunner

from medvlm.cli import application
from medvlm.dicom.assemble import assemble
from medvlm.dicom.inspect import inspect_reading
from medvlm.dicom.read import read_inputs
from medvlm.dicom.study import group_studies
from tests.dicoms import ramp, save, shipped, synthetic


def ct_slices(count: int = 6, **changes: Any) -> list[Dataset]:
    """An axial CT series, 2.5 mm apart, from the feet up."""
    common = {
        "Modality": "CT",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.4",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "PixelSpacing": [0.7, 0.8],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        **changes,
    }
    pixels = ramp(20, 24, np.int16)
    return [
        synthetic(pixels, ImagePositionPatient=[0, 0, 2.5 * z], InstanceNumber=z, **common)
        for z in range(count)
    ]


def inspected(slices: list[Dataset], folder: Path) -> dict[str, Any]:
    """The one series of the inspection of these data sets."""
    for number, ds in enumerate(slices):
        save(ds, folder / f"{number}.dcm")
    inspection = inspect_reading(read_inputs(folder, decode=True))
    assert not inspection["refused"]
    (study,) = inspection["studies"]
    (series,) = study["series"]
    assert series["instances"] == len(slices)
    return series


def codes(series: dict[str, Any]) -> list[str]:
    return [problem["code"] for problem in series["problems"]]


def test_a_regular_volume(tmp_path: Path) -> None:
    series = inspected(ct_slices()[::-1], tmp_path)
    assert series["volume"] == {
        "shape": [6, 20, 24],
        "spacing_mm": [2.5, 0.7, 0.8],
        "orientation": "SPL",
    }
    assert series["problems"] == []


def test_a_coronal_volume(tmp_path: Path) -> None:
    slices = ct_slices(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    for y, ds in enumerate(slices):
        ds.ImagePositionPatient = [0, 3 * y, 0]
    assert inspected(slices, tmp_path)["volume"]["orientation"] == "PIL"


def drop(slices: list[Dataset]) -> None:
    del slices[2:4]


def drop_one(slices: list[Dataset]) -> None:
    del slices[3]


def double_differently(slices: list[Dataset]) -> None:
    double(slices)
    slices[2].PixelData = (ramp(20, 24, np.int16) + 1).tobytes()


def stray(slices: list[Dataset]) -> None:
    slices[2].ImagePositionPatient = [4, 0, 5]


def repeat(slices: list[Dataset]) -> None:
    """Every place twice, told apart by echo time."""
    slices += ct_slices()
    for number, ds in enumerate(slices):
        ds.EchoTime = 10 + number // 6
        ds.InstanceNumber = number


def acquire_twice(slices: list[Dataset]) -> None:
    """A second, shorter acquisition over some of the same places."""
    slices += ct_slices(4)
    for number, ds in enumerate(slices):
        ds.AcquisitionNumber = 1 + number // 6


def double(slices: list[Dataset]) -> None:
    slices[2].ImagePositionPatient = slices[3].ImagePositionPatient


def resize(slices: list[Dataset]) -> None:
    other = synthetic(ramp(30, 24, np.int16))
    slices[1].Rows, slices[1].PixelData = 30, other.PixelData


def turn(slices: list[Dataset]) -> None:
    slices[0].ImageOrientationPatient = [0, 1, 0, 0, 0, -1]


def lose(slices: list[Dataset]) -> None:
    del slices[4].ImagePositionPatient


def tilt(slices: list[Dataset]) -> None:
    for z, ds in enumerate(slices):
        ds.ImagePositionPatient = [0, 0.8 * z, 2.5 * z]


def jitter(slices: list[Dataset]) -> None:
    slices[2].ImagePositionPatient = [0, 0, 5.5]


def rescale(slices: list[Dataset]) -> None:
    slices[2].PixelSpacing = [0.9, 0.9]


@pytest.mark.parametrize(
    ("damage", "found", "shape"),
    [
        (drop, ["missing_slice refused"], None),
        (drop_one, ["missing_slice resampled"], [6, 20, 24]),
        (double, ["duplicate_position accepted", "missing_slice resampled"], [6, 20, 24]),
        (double_differently, ["duplicate_position refused"], None),
        (resize, ["mixed_size split", "missing_slice resampled"], [6, 20, 24]),
        (turn, ["mixed_orientation split"], [5, 20, 24]),
        (lose, ["missing_position refused"], None),
        (tilt, ["gantry_tilt resampled"], [6, 20, 24]),
        (jitter, ["irregular_spacing resampled"], [6, 20, 24]),
        (rescale, ["mixed_spacing split", "missing_slice resampled"], [6, 20, 24]),
        (stray, ["irregular_position refused"], None),
        (repeat, [], [6, 20, 24]),
        (acquire_twice, ["mixed_acquisition split"], [6, 20, 24]),
    ],
)
def test_what_becomes_of_an_irregular_series(
    tmp_path: Path, damage: Any, found: list[str], shape: list[int] | None
) -> None:
    slices = ct_slices()
    damage(slices)
    series = inspected(slices, tmp_path)
    assert [f"{one['code']} {one['action']}" for one in series["problems"]] == found
    assert (series["volume"] or {"shape": None})["shape"] == shape


def two_kernels(slices: list[Dataset]) -> None:
    """The same places and numbers twice, the kernel alone tells them apart."""
    slices += ct_slices()
    for number, ds in enumerate(slices):
        ds.ConvolutionKernel = "AB"[number // 6]
        ds.PixelData = (ramp(20, 24, np.int16) + number // 6).tobytes()


def numbered_alike(slices: list[Dataset]) -> None:
    """The same places and numbers twice, and nothing tells which goes with which."""
    slices += ct_slices()
    for number, ds in enumerate(slices):
        ds.PixelData = (ramp(20, 24, np.int16) + number // 6).tobytes()


def creeping(slices: list[Dataset]) -> None:
    """Gaps each within the tolerance, whose sum is not."""
    slices += ct_slices(60)[6:]
    height = 0.0
    for number, ds in enumerate(slices):
        ds.ImagePositionPatient = [0, 0, height]
        height += 2.5 if number < 30 else 2.6


def second_moved(slices: list[Dataset]) -> None:
    """The second acquisition was taken 40 mm beside the first."""
    slices += ct_slices()
    for number, ds in enumerate(slices):
        ds.AcquisitionNumber = 1 + number // 6
        if number >= 6:
            ds.ImagePositionPatient = [40, 0, 2.5 * (number - 6)]


def one_echo_in_two_forms(slices: list[Dataset]) -> None:
    slices += ct_slices()
    for number, ds in enumerate(slices):
        ds["EchoTime"] = DataElement("EchoTime", "DS", ["10", "10.0"][number % 2])
        ds.InstanceNumber = number
        ds.PixelData = (ramp(20, 24, np.int16) + number // 6).tobytes()


def two_stations(slices: list[Dataset]) -> None:
    """Chest and pelvis in one series, 300 mm apart."""
    slices += ct_slices()
    for number, ds in enumerate(slices):
        ds.AcquisitionNumber = 1 + number // 6
        if number >= 6:
            ds.ImagePositionPatient = [0, 0, 300 + 2.5 * number]


def a_picture_among_them(slices: list[Dataset]) -> None:
    picture = slices[0]
    picture.SOPClassUID = SecondaryCaptureImageStorage
    picture.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    del picture.ImagePositionPatient


def nowhere(slices: list[Dataset]) -> None:
    slices[2].ImagePositionPatient = [0, 0, "1e300"]


@pytest.mark.parametrize(
    ("damage", "found", "volumes"),
    [
        (two_kernels, [], [(6, 2)]),
        (numbered_alike, ["duplicate_position refused"], []),
        (creeping, ["irregular_spacing resampled"], [(61, 1)]),
        (second_moved, ["mixed_acquisition split"], [(6, 1), (6, 1)]),
        (one_echo_in_two_forms, [], [(6, 2)]),
        (two_stations, ["mixed_acquisition split"], [(6, 1), (6, 1)]),
        (a_picture_among_them, ["secondary_capture split"], [(5, 1)]),
        (nowhere, ["missing_position refused"], []),
    ],
)
def test_no_voxel_is_put_in_the_wrong_place(
    tmp_path: Path, damage: Any, found: list[str], volumes: list[tuple[int, int]]
) -> None:
    slices = ct_slices()
    damage(slices)
    series = inspected(slices, tmp_path)
    assert [f"{one['code']} {one['action']}" for one in series["problems"]] == found
    assert [(one["shape"][0], one["repeats"]) for one in series["volumes"]] == volumes


def test_names_of_files_have_no_say(tmp_path: Path) -> None:
    for name, ds in zip("fcaebd", ct_slices(), strict=True):
        save(ds, tmp_path / f"{name}.dcm")
    (instances,) = [study.instances for study in group_studies(read_inputs(tmp_path))]
    (stack,) = assemble(instances).stacks
    heights = [(plane.position or ())[2] for plane in stack.volumes[0]]
    assert heights == sorted(heights)


def test_two_patients_under_one_study_uid(tmp_path: Path) -> None:
    for patient in ("A", "B"):
        for number, ds in enumerate(ct_slices(4)):
            ds.PatientID = patient
            ds.SOPInstanceUID = f"1.2.{ord(patient)}.{number}"
            save(ds, tmp_path / f"{patient}{number}.dcm")
    inspection = inspect_reading(read_inputs(tmp_path))
    assert len(inspection["patients"]) == len(inspection["studies"]) == 2
    for study in inspection["studies"]:
        (series,) = study["series"]
        assert codes(series) == ["uid_collision"]
        assert series["problems"][0]["action"] == "split"
        assert series["volume"]["shape"] == [4, 20, 24]


def test_a_copy_of_a_film_is_named(tmp_path: Path) -> None:
    film = save(synthetic(ramp()), tmp_path / "a.dcm")
    shutil.copy(film, tmp_path / "b.dcm")
    (study,) = inspect_reading(read_inputs(tmp_path))["studies"]
    assert codes(study["series"][0]) == ["duplicate_file"]


def test_pictures_beside_a_study_with_no_uid_are_not_its_patients(tmp_path: Path) -> None:
    ds = synthetic(ramp())
    ds["StudyInstanceUID"] = DataElement("StudyInstanceUID", "UI", "abc", validation_mode=IGNORE)
    save(ds, tmp_path / "a.dcm")
    for name in ("b", "c"):
        Image.fromarray(ramp(dtype=np.uint8) + ord(name)).save(tmp_path / f"{name}.png")
    inspection = inspect_reading(read_inputs(tmp_path))
    said = {code for study in inspection["studies"] for code in codes(study["series"][0])}
    assert said == {"non_dicom"}


def test_a_copy_of_a_file_is_left_out(tmp_path: Path) -> None:
    slices = ct_slices()
    for number, ds in enumerate([*slices, slices[2]]):
        save(ds, tmp_path / f"{number}.dcm")
    (study,) = inspect_reading(read_inputs(tmp_path))["studies"]
    assert codes(study["series"][0]) == ["duplicate_file"]
    assert study["series"][0]["volume"]["shape"] == [6, 20, 24]


def test_the_missing_slices_are_counted(tmp_path: Path) -> None:
    slices = ct_slices(8)
    del slices[5], slices[2:4]
    message = inspected(slices, tmp_path)["problems"][0]["message"]
    assert message.startswith("3 slices missing")


def test_a_localizer_is_kept_out(tmp_path: Path) -> None:
    slices = ct_slices()
    slices[0].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    series = inspected(slices, tmp_path)
    assert codes(series) == ["localizer"]
    assert series["volume"]["shape"] == [5, 20, 24]


def test_colliding_uids(tmp_path: Path) -> None:
    slices = ct_slices()
    slices[1].SOPInstanceUID = slices[0].SOPInstanceUID
    series = inspected(slices, tmp_path)
    assert codes(series) == ["uid_collision"]
    assert series["volume"] is None


def test_real_series() -> None:
    folder = shipped("MR_small.dcm").parent / "dicomdirtests"
    inspection = inspect_reading(read_inputs(folder / "98892001", decode=True))
    series = [series for study in inspection["studies"] for series in study["series"]]
    volumes = [one["volume"] for one in series if one["volume"]]
    assert [volume["shape"] for volume in volumes] == [[5, 16, 16]]
    assert "localizer" in {code for one in series for code in codes(one)}


def test_pictures_multiframes_and_refused_files(tmp_path: Path) -> None:
    Image.fromarray(ramp(dtype=np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "b.txt").write_text("hello")
    reading = read_inputs([tmp_path, shipped("emri_small.dcm")], decode=True)
    inspection = inspect_reading(reading)
    picture, multiframe = inspection["studies"]
    assert (picture["study_instance_uid"], picture["patient"]) == (None, None)
    assert codes(picture["series"][0]) == ["non_dicom"]
    assert codes(multiframe["series"][0]) == ["missing_position"]
    assert multiframe["series"][0]["volume"] is None
    assert [set(refused) for refused in inspection["refused"]] == [{"file", "code", "message"}]
    assert inspection["refused"][0]["code"] == "not_dicom"
    json.dumps(inspection, allow_nan=False)


def test_the_table_names_everything_but_the_patient(tmp_path: Path) -> None:
    for number, ds in enumerate(ct_slices()):
        save(ds, tmp_path / f"{number}.dcm")
    (tmp_path / "notes.txt").write_text("hello")
    result = CliRunner().invoke(application, ["inspect", str(tmp_path)])
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert text.startswith("6 images in 1 study of 1 patient; 1 file refused")
    assert "CT 6 6 x 20 x 24 2.5 x 0.7 x 0.8 SPL -" in text
    assert "notes.txt" in text
    assert "[not_dicom]" in text
    assert "Doe" not in result.output
    assert "ID-1" not in result.output
