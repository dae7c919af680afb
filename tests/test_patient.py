"""Sex and age as the header tells them."""

from __future__ import annotations

from pathlib import Path

import pytest

from medvlm.dicom.patient import age_months, age_years, sex
from medvlm.dicom.read import read_instance
from medvlm.dicom.study import Study
from tests.dicoms import ramp, save, synthetic


@pytest.mark.parametrize(
    ("said", "years"),
    [
        (("045Y", None, None), 45),
        (("018M", "19000101", "20200101"), 1.5),
        (("052W", None, None), 52 * 7 / 365.25),
        (("000D", None, None), 0),
        (("000Y", None, None), None),  # a placeholder
        (("000Y", "20000601", "20200601"), 20),
        ((None, "20000601", "20200531"), 19 + 11 / 12),
        ((None, "20000601", "20200601"), 20),
        (("old", "20000601", "20200601"), 20),
        (("", "20000601", None), None),
        ((None, "20200601", "20000601"), None),
        ((None, "2000", "20200601"), None),
        (("Y", None, None), None),
        (("-12Y", None, None), None),
        (("9" * 400 + "Y", "20000601", "20200601"), 20),
        (("\u0664\u0665Y", None, None), None),
    ],
)
def test_age(said: tuple[str | None, str | None, str | None], years: float | None) -> None:
    assert age_years(*said) == (None if years is None else pytest.approx(years))


def test_months_are_whole() -> None:
    assert age_months("20200131", "20200229") == 0
    assert age_months("20200131", "20200301") == 1


@pytest.mark.parametrize(("said", "meant"), [("F", "F"), ("m", "M"), ("O", None), (None, None)])
def test_sex(said: str | None, meant: str | None) -> None:
    assert sex(said) == meant


def test_a_study_tells_the_sex_that_its_images_agree_on(tmp_path: Path) -> None:
    def study(*sexes: str) -> Study:
        instances = [
            read_instance(
                save(
                    synthetic(
                        ramp(), PatientSex=own, PatientBirthDate="19700101", PatientAge="050Y"
                    ),
                    tmp_path / f"{i}.dcm",
                )
            )
            for i, own in enumerate(sexes)
        ]
        assert {instance.age_years for instance in instances} == {50}
        assert not any("age_years" in repr(instance) for instance in instances)
        return Study(None, None, "study", tuple(instances))

    assert study("F", "F").sex == "F"
    assert study("F", "M").sex is None
    assert study("", "F").sex is None
