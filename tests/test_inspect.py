"""Inspection: studies, regular volumes, and what is wrong with the irregular ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from medvlm.dicom.inspect import inspect_reading, summarise
from medvlm.dicom.read import read_inputs
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
    ("damage", "code"),
    [
        (drop, "missing_slice"),
        (double, "duplicate_position"),
        (resize, "mixed_size"),
        (turn, "mixed_orientation"),
        (lose, "missing_position"),
        (tilt, "gantry_tilt"),
        (jitter, "irregular_spacing"),
        (rescale, "mixed_spacing"),
    ],
)
def test_an_irregular_series_gives_no_volume(tmp_path: Path, damage: Any, code: str) -> None:
    slices = ct_slices()
    damage(slices)
    series = inspected(slices, tmp_path)
    assert series["volume"] is None
    assert codes(series) == [code]
    assert series["problems"][0]["action"] == "refused"


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
    assert codes(multiframe["series"][0]) == ["multi_frame"]
    assert [set(refused) for refused in inspection["refused"]] == [{"file", "code", "message"}]
    assert inspection["refused"][0]["code"] == "not_dicom"
    json.dumps(inspection, allow_nan=False)


def test_the_summary_names_everything_but_the_patient(tmp_path: Path) -> None:
    for number, ds in enumerate(ct_slices()):
        save(ds, tmp_path / f"{number}.dcm")
    (tmp_path / "notes.txt").write_text("hello")
    inspection = inspect_reading(read_inputs(tmp_path))
    text = summarise(inspection)
    assert text.startswith("6 images in 1 study of 1 patient; 1 file refused")
    assert "volume 6 x 20 x 24, 2.5 x 0.7 x 0.8 mm, SPL" in text
    assert "notes.txt" in text
    assert "[not_dicom]" in text
    assert "Doe" not in text + json.dumps(inspection)
    assert "ID-1" not in text + json.dumps(inspection)
