"""Taking studies in: whole or not at all, once, in order, without the names of files."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, generate_uid

from medvlm.desk import intake as intakes
from medvlm.desk.intake import ARRIVING, Intake, clean, load_sample, take_in, take_uploads
from medvlm.desk.prepare import prepare_wanted
from medvlm.dicom.read import read_instance
from medvlm.errors import NotAllowed, StoreError
from medvlm.review.records import Person
from medvlm.review.store import Store
from medvlm.review.tables import AuditTable, JobTable, StudyTable
from medvlm.review.worklist import Filter, image_path, images, priors, study_row, worklist
from tests.desk import somebody
from tests.dicoms import save, synthetic

pytest_plugins = ["tests.desk"]

GREY = np.arange(20, dtype=np.uint16).reshape(4, 5)


@pytest.fixture
def by(store: Store) -> Person:
    return somebody(store)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "Doe^Jane"
    made.mkdir()
    return made


def ct(series: str, study: str, number: int, place: float) -> Dataset:
    ds = synthetic(
        GREY + number,
        Modality="CT",
        SOPClassUID=CTImageStorage,
        InstanceNumber=number,
        ImagePositionPatient=[0, 0, place],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
    )
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
    return ds


def all_rows(store: Store) -> list[str]:
    return [row.id for row in worklist(store, Filter()).rows]


def test_a_film_comes_onto_the_worklist(store: Store, by: Person, folder: Path) -> None:
    film = synthetic(
        GREY,
        SpecificCharacterSet="ISO_IR 192",
        PatientName="Yamada^Taro=山田^太郎",
        PatientBirthDate="19700101",
        StudyDate="20260301",
        StudyTime="101500",
        AccessionNumber="A-1",
        StudyDescription="Chest PA",
    )
    path = save(film, folder / "Doe^Jane.dcm")
    seen: list[tuple[int, int]] = []
    taken = take_in(store, [folder], by, progress=lambda *done: seen.append(done))
    assert (len(taken.added), taken.known, taken.refused) == (1, [], [])
    assert seen == [(1, 1)]
    row = study_row(store, taken.added[0])
    assert row.patient.name == "Yamada^Taro=山田^太郎"
    assert (row.modality, row.body_part, row.view, row.images) == ("CR", "CHEST", "PA", 1)
    assert (row.taken, row.accession_number) == ("20260301101500", "A-1")
    assert row.patient.age_years == pytest.approx(56, abs=0.2)
    image = images(store, row.id)[0]
    _, kept = image_path(store, image.id)
    assert kept.read_bytes() == path.read_bytes()
    assert kept.stat().st_mode & 0o077 == 0
    assert kept.parent.stat().st_mode & 0o077 == 0
    with store.reading() as session:
        assert session.query(JobTable.kind, JobTable.state).all() == [("draft", "waiting")]
        assert [one.person for one in session.query(AuditTable).filter_by(action="added")] == [
            by.id
        ]


def test_nothing_on_the_disk_names_the_patient_or_the_file(
    store: Store, by: Person, folder: Path
) -> None:
    save(synthetic(GREY), folder / "Doe^Jane.dcm")
    take_in(store, [folder], by)
    prepare_wanted(store)
    names = " ".join(str(path.relative_to(store.files)) for path in store.files.rglob("*"))
    for word in ("Doe", "Jane", "ID-1"):
        assert word not in names
    for path in store.files.rglob("*.json"):
        assert b"Doe" not in path.read_bytes()


def test_the_same_files_are_known(store: Store, by: Person, folder: Path) -> None:
    one = save(synthetic(GREY), folder / "a.dcm")
    first = take_in(store, [folder], by)
    with zipfile.ZipFile(folder / "again.zip", "w") as archive:
        archive.write(one, "elsewhere/b")
    again = take_in(store, [folder / "again.zip", one], by)
    assert (again.added, again.known) == ([], first.added)
    assert len([p for p in store.files.iterdir() if p.is_dir()]) == 1


def test_a_part_of_a_known_study_is_known(store: Store, by: Person, folder: Path) -> None:
    study, series = generate_uid(), generate_uid()
    files = [save(ct(series, study, n, n), folder / f"{n}.dcm") for n in range(3)]
    first = take_in(store, files, by)
    assert take_in(store, files[1:], by).known == first.added
    more = save(ct(series, study, 9, 9), folder / "9.dcm")
    assert len(take_in(store, [*files, more], by).added) == 1


def test_bad_files_harm_no_other(store: Store, by: Person, folder: Path) -> None:
    film = save(synthetic(GREY), folder / "good.dcm")
    (folder / "cut.dcm").write_bytes(film.read_bytes()[:-9])
    (folder / "notes.txt").write_text("Jane Doe")
    taken = take_in(store, [folder], by)
    assert len(taken.added) == 1
    assert sorted(one.code for one in taken.refused) == ["not_dicom", "truncated_pixels"]


def test_pictures_are_studies_of_their_own(store: Store, by: Person, folder: Path) -> None:
    Image.fromarray(GREY.astype(np.uint8)).save(folder / "Jane.png")
    Image.fromarray(GREY.astype(np.uint8)).save(folder / "Doe.jpg")
    taken = take_in(store, [folder], by)
    assert len(taken.added) == 2
    suffixes = {image_path(store, images(store, id)[0].id)[1].suffix for id in taken.added}
    assert suffixes == {".png", ".jpg"}
    row = study_row(store, taken.added[0])
    assert (row.patient.name, row.study_instance_uid, row.taken) == (None, None, "")
    assert priors(store, taken.added[0]) == []


def test_images_lie_in_the_order_in_which_they_are_looked_through(
    store: Store, by: Person, folder: Path
) -> None:
    study, axial, other = (generate_uid() for _ in range(3))
    # Instance numbers rise towards the feet; two of them lie the wrong way round.
    for name, (number, place) in enumerate(
        [(3, -20.0), (1, 0.0), (4, -10.0), (5, -40.0), (2, -30)]
    ):
        save(ct(axial, study, number, place), folder / f"{name}.dcm")
    for number in (2, 1):  # at one place: by number
        save(ct(other, study, number, 7.0), folder / f"x{number}.dcm")
    taken = take_in(store, [folder], by)
    rows = images(store, taken.added[0])
    assert [(row.stack, row.number) for row in rows] == [
        *((0, n) for n in range(5)),
        (1, 0),
        (1, 1),
    ]

    instances = [read_instance(image_path(store, row.id)[1]) for row in rows]
    assert [one.position_mm[2] for one in instances[:5] if one.position_mm] == [
        0,
        -10,
        -20,
        -30,
        -40,
    ]
    assert [one.instance_number for one in instances[5:]] == [1, 2]


def test_priors_are_the_same_patients(store: Store, by: Person, folder: Path) -> None:
    for name, (patient, date) in enumerate(
        [
            ("ID-1", "20260101"),
            ("ID-1", "20250101"),
            ("ID-2", "20240101"),
            ("ANONYMOUS", "20230101"),
        ]
    ):
        save(synthetic(GREY, PatientID=patient, StudyDate=date), folder / f"{name}.dcm")
    taken = take_in(store, [folder], by)
    found = {study_row(store, id).taken: id for id in taken.added}
    assert [row.taken for row in priors(store, found["20260101"])] == ["20250101"]
    assert priors(store, found["20230101"]) == []


class _Upload:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def getbuffer(self) -> memoryview:
        return memoryview(self.data)


def test_uploads(store: Store, by: Person, folder: Path) -> None:
    film = save(synthetic(GREY), folder / "a.dcm")
    with zipfile.ZipFile(folder / "b.zip", "w") as archive:
        archive.write(save(synthetic(GREY), folder / "b.dcm"), "b")
    uploads = [_Upload((folder / name).read_bytes()) for name in ("a.dcm", "b.zip")]
    taken = take_uploads(store, [*uploads, _Upload(b"?")], by)
    assert len(taken.added) == 2
    assert [one.code for one in taken.refused] == ["not_dicom"]
    assert film.name not in taken.refused[0].file


def test_the_sample(store: Store, by: Person) -> None:
    taken = load_sample(store, by)
    assert study_row(store, taken.added[0]).modality == "CR"
    assert load_sample(store, by) == Intake(known=taken.added)


def test_a_reader_adds_nothing(store: Store, folder: Path) -> None:
    save(synthetic(GREY), folder / "a.dcm")
    with pytest.raises(NotAllowed):
        take_in(store, [folder], somebody(store, "kato", "reader"))
    assert all_rows(store) == []


def test_a_disk_that_is_full(
    store: Store, by: Person, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(synthetic(GREY), folder / "a.dcm")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(intakes, "copy_whole", full)
    with pytest.raises(StoreError, match="No space left"):
        take_in(store, [folder], by)
    assert all_rows(store) == []
    assert [path.name for path in store.files.iterdir()] == []


def test_rows_that_cannot_be_written_leave_no_files(
    store: Store, by: Person, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(synthetic(GREY), folder / "a.dcm")

    def broken(*_: object) -> None:
        raise StoreError("the database is busy")

    monkeypatch.setattr(intakes, "ask_for_draft_of", broken)
    with pytest.raises(StoreError, match="busy"):
        take_in(store, [folder], by)
    assert all_rows(store) == []
    assert list(store.files.iterdir()) == []


_KILLED = """
import os, signal, sys
from pathlib import Path
from medvlm.desk import intake
from medvlm.review.people import local_person
from medvlm.review.store import open_store
url, files, given, where = sys.argv[1:]
def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
setattr(intake, where, die)
with open_store(url, Path(files)) as store:
    intake.take_in(store, [Path(given)], local_person(store))
"""


@pytest.mark.parametrize(
    ("where", "rows"), [("sync_folder", 0), ("add_study", 0), ("want_pixels", 1)]
)
def test_killed_in_the_middle(store: Store, folder: Path, where: str, rows: int) -> None:
    """Before the folder is in place, before the rows, after them."""
    save(synthetic(GREY), folder / "a.dcm")
    url = f"sqlite:///{store.engine.url.database}"
    command = [sys.executable, "-c", _KILLED, url, str(store.files), str(folder), where]
    assert subprocess.run(command, check=False, timeout=60).returncode == -9
    assert len(all_rows(store)) == rows
    left = [path for path in store.files.iterdir() if path.is_dir()]
    assert len(left) == 1
    assert left[0].name.startswith(ARRIVING) == (where == "sync_folder")
    assert clean(store) == 1 - rows
    assert len(list(store.files.iterdir())) == rows
    assert clean(store) == 0
    taken = take_in(store, [folder], somebody(store))
    assert (len(taken.added), len(taken.known)) == (1 - rows, rows)
    for row in images(store, all_rows(store)[0]):
        assert image_path(store, row.id)[1].is_file()


def test_cleaning_leaves_an_intake_at_work_alone(
    store: Store, by: Person, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(synthetic(GREY), folder / "a.dcm")
    cleanings = []

    def cleaned(_: Path) -> None:
        cleanings.append(subprocess.run(_clean_command(store), check=False, timeout=60).returncode)

    monkeypatch.setattr(intakes, "sync_folder", cleaned)  # before and after it is in place
    taken = take_in(store, [folder], by)
    assert cleanings == [0, 0]
    assert image_path(store, images(store, taken.added[0])[0].id)[1].is_file()


def _clean_command(store: Store) -> list[str]:
    code = (
        "import sys; from pathlib import Path; from medvlm.desk.intake import clean;"
        "from medvlm.review.store import open_store;"
        "s = open_store(sys.argv[1], Path(sys.argv[2])); n = clean(s); s.close(); sys.exit(n)"
    )
    url = f"sqlite:///{store.engine.url.database}"
    return [sys.executable, "-c", code, url, os.fspath(store.files)]


def test_pixels_are_prepared_in_the_background(store: Store, by: Person, folder: Path) -> None:
    save(synthetic(GREY), folder / "a.dcm")
    taken = take_in(store, [folder], by)
    cache = store.files / taken.added[0] / "cache"
    assert [path.name for path in cache.iterdir()] == [".wanted"]
    assert prepare_wanted(store, lambda: True) == 0  # told to stop: the mark stays
    assert prepare_wanted(store) == 1
    image = images(store, taken.added[0])[0].id
    assert {path.name for path in cache.iterdir()} == {f"{image}.json", f"{image}-0.raw"}
    assert prepare_wanted(store) == 0


def test_an_id_of_the_store_names_each_folder(store: Store, by: Person, folder: Path) -> None:
    save(synthetic(GREY), folder / "a.dcm")
    taken = take_in(store, [folder], by)
    with store.reading() as session:
        assert session.get(StudyTable, taken.added[0]) is not None
    assert (store.files / taken.added[0]).is_dir()
