"""Who the patient is: decoded as the file says, and never told by accident."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from medvlm.dicom.context import NOBODY, patient_context
from medvlm.errors import InputNotFound
from tests.dicoms import save, synthetic

CHARSETS = Path(pydicom.__file__).parent / "data" / "charset_files"
FILM = np.zeros((4, 4), np.uint16)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("chrH31.dcm", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("chrH32.dcm", "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        ("chrI2.dcm", "Hong^Gildong=洪^吉洞=홍^길동"),
        ("chrX1.dcm", "Wang^XiaoDong=王^小東"),
        ("chrX2.dcm", "Wang^XiaoDong=王^小东"),
        ("chrGerm.dcm", "Äneas^Rüdiger"),
        ("chrJapMulti.dcm", "やまだ^たろう"),
    ],
)
def test_names_of_all_groups_and_character_sets(file: str, name: str) -> None:
    assert patient_context(CHARSETS / file).name == name


def test_what_the_header_says(tmp_path: Path) -> None:
    ds = synthetic(
        FILM,
        SpecificCharacterSet="ISO_IR 192",
        PatientName="Sato^Hanako^^Dr=佐藤^花子=",
        PatientID="007 ",
        IssuerOfPatientID="Kita",
        PatientBirthDate="19650301",
        PatientSex="F",
        StudyDate="20260301",
        AccessionNumber="A-1",
        StudyDescription="胸部\u3000正面\r\n",
        ReferringPhysicianName="Mori^Ogai",
    )
    found = patient_context(save(ds, tmp_path / "a.dcm"))
    assert found.name == "Sato^Hanako^^Dr=佐藤^花子"
    assert (found.patient_id, found.issuer) == ("007", "Kita")
    assert (found.birth_date, found.sex, found.age_years) == ("19650301", "F", 61.0)
    assert (found.accession_number, found.referring) == ("A-1", "Mori^Ogai")
    assert found.study_description == "胸部 正面"


def test_what_is_empty_or_nonsense_is_none(tmp_path: Path) -> None:
    ds = synthetic(FILM, PatientName="^^^^", PatientID="", PatientSex="O", PatientBirthDate="")
    found = patient_context(save(ds, tmp_path / "a.dcm"))
    assert (found.name, found.patient_id, found.sex, found.birth_date) == (None,) * 4


def test_it_tells_nothing_of_itself(tmp_path: Path) -> None:
    found = patient_context(save(synthetic(FILM), tmp_path / "a.dcm"))
    assert found.name == "Doe^Jane"
    assert "Doe" not in repr(found)
    assert "ID-1" not in f"{found}"


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(b"\0" * 300)
    assert patient_context(tmp_path / "noise") == NOBODY
    with pytest.raises(InputNotFound):
        patient_context(tmp_path / "gone")
