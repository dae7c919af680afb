"""A batch's inputs as a table."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medvlm.batch import manifest
from medvlm.batch.manifest import read_manifest, rows
from medvlm.batch.sources import parcels
from medvlm.errors import InputError, InputNotFound
from tests.conftest import SetLimit
from tests.dicoms import ramp, save, shipped, synthetic

Table = dict[str, list[str | None]]
Write = Callable[[Table], Path]
FILM, CT = "RG1_J2KR.dcm", "CT_small.dcm"


@pytest.fixture(params=["csv", "parquet"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Write:
    """Writes a table beside the files of `tmp_path`, once in each form."""

    def write_one(table: Table) -> Path:
        path = tmp_path / f"night.{request.param}"
        if request.param == "parquet":
            pq.write_table(pa.table(table), path, row_group_size=2)
            return path
        lines = [
            ",".join(table),
            *(",".join(c or "" for c in row) for row in zip(*table.values(), strict=True)),
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write_one


def test_a_row_is_a_file_a_folder_an_archive_or_a_url(write: Write, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    shutil.copy(shipped(CT), tmp_path / "folder")
    shutil.copy(shipped(FILM), tmp_path / "film.dcm")
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "folder")
    fs = fsspec.filesystem("memory")
    fs.pipe("/night/mr.dcm", shipped("MR_small.dcm").read_bytes())
    given = ["film.dcm", str(tmp_path / "folder"), "packed.zip", "memory://night/mr.dcm", "gone"]
    path = write({"path": list(given)})
    found, count, refused = parcels([], manifest=str(path))
    made = list(found)
    assert (count, refused) == (5, [])
    assert [parcel.name for parcel in made] == given
    opened = [parcel.open(tmp_path / str(number)) for number, parcel in enumerate(made)]
    fs.rm("/night", recursive=True)
    assert [len(one.studies) for one in opened] == [1, 1, 1, 1, 0]
    assert [item.code for item in opened[4].reading.refused] == ["not_found"]
    assert opened[3].reading.instances[0].file == "memory:///night/mr.dcm"


def test_rows_of_one_study_are_one_parcel(write: Write, tmp_path: Path) -> None:
    study = str(synthetic(ramp()).StudyInstanceUID)
    for number in range(4):
        save(synthetic(ramp(), StudyInstanceUID=study), tmp_path / f"{number}.dcm")
    path = write(
        {
            "study": ["s1", "s1", None, None, "s2", "s3"],
            "path": ["0.dcm", "1.dcm", "2.dcm", "3.dcm", "2.dcm", "3.dcm"],
        }
    )
    found, count, _ = read_manifest(path)
    made = list(found)
    assert count == len(made) == 5
    assert [len(parcel.places) for parcel in made] == [2, 1, 1, 1, 1]
    (one,) = made[0].open(tmp_path).studies
    assert len(one.instances) == 2


def test_a_wrong_row_is_told_by_its_number_before_the_work(write: Write, tmp_path: Path) -> None:
    path = write(
        {
            "path": [
                "a",
                "",
                "s4://bucket/x",
                "ftp://u:hunter2@h/x",
                "dicomweb+http://h",
                "b",
                "c",
            ],
            "study": [None, None, None, None, None, "s", "s"],
        }
    )
    found, count, refused = read_manifest(path)
    assert [parcel.name for parcel in found] == ["a", "b"]
    assert count == 2
    assert [item.file for item in refused] == [f"{path}, row {n}" for n in (2, 3, 4, 5)]
    assert "hunter2" not in str(refused)


def test_rows_of_one_study_stand_together(write: Write) -> None:
    path = write({"path": list("abcd"), "study": ["s", "t", None, "s"]})
    with pytest.raises(InputError, match=r"Row 4 .* elsewhere") as caught:
        read_manifest(path)
    assert caught.value.code == "manifest"
    assert "Sort" in str(caught.value.remedy)


def test_half_a_study_is_not_drafted(write: Write) -> None:
    path = write({"path": ["a", "", "c"], "study": ["s", "s", "s"]})
    found, count, refused = read_manifest(path)
    assert (list(found), count) == ([], 0)
    assert [item.file for item in refused] == [f"{path}, row 2"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"path": ["a"], "patient": ["b"]}, "Unknown columns: patient"),
        ({"Path": ["a"]}, "Unknown columns: Path"),
        ({"study": ["a"]}, "one column path"),
    ],
)
def test_other_columns_are_refused(write: Write, table: Table, words: str) -> None:
    path = write(table)
    with pytest.raises(InputError, match=words) as caught:
        read_manifest(path)
    assert caught.value.code == "manifest"
    assert caught.value.remedy == "There may be path and study only."


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "one column path"),
        (b"path,path\na,b\n", "one column path"),
        (b"path\na\nb,c\n", "Row 2 has 2 cells"),
        (b'path\na\n"b\n', "Row 2 is no CSV"),
        (b"path\na\n\xff\xfe\n", "no CSV in UTF-8"),
        (b"PAR1 and what else?", "damaged"),
    ],
)
def test_what_is_no_table_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "night"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_manifest(path)
    assert caught.value.code == "manifest"


def test_a_parquet_of_other_types_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "night.parquet"
    pq.write_table(pa.table({"path": [["a"]]}), path)
    with pytest.raises(InputError, match="Row 1 holds a list"):
        read_manifest(path)


def test_a_manifest_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputNotFound):
        read_manifest(tmp_path / "night.csv")


def test_as_spreadsheets_write_it(tmp_path: Path) -> None:
    path = tmp_path / "night.csv"
    path.write_bytes('\ufeffpath , study\r\n"a, b.dcm",1\r\n\r\n  \r\n c ,\r\n'.encode())
    assert [tuple(row) for row in rows(path)] == [(1, "a, b.dcm", "1"), (2, "c", "")]


def test_too_many_mistakes_end_it(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "MOST_MISTAKES", 3)
    with pytest.raises(InputError, match="More than 3 rows") as caught:
        read_manifest(write({"path": ["s4://x"] * 5}))
    assert "row 1" in str(caught.value.remedy)


def test_a_study_of_too_many_rows_is_refused(write: Write, set_limit: SetLimit) -> None:
    set_limit("archive_members", 3)
    path = write({"path": list("abcd"), "study": ["s"] * 4})
    with pytest.raises(InputError, match="Too many rows of one study, at row 4"):
        read_manifest(path)


def test_a_mark_follows_size_and_time(write: Write, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a").write_bytes(b"one")
    (folder / "b").write_bytes(b"two")
    (parcel,) = read_manifest(write({"path": ["in"]}))[0]
    marks = [parcel.mark()]
    os.utime(folder / "a", ns=(1, 1))
    marks.append(parcel.mark())
    (folder / "b").write_bytes(b"three")
    marks.append(parcel.mark())
    (folder / "sub").mkdir()
    (folder / "sub" / "c").write_bytes(b"")
    marks.append(parcel.mark())
    assert None not in marks
    assert len(set(marks)) == 4
    assert parcel.mark() == marks[-1]
    shutil.rmtree(folder)
    assert parcel.mark() is None


def test_a_long_table_is_never_whole_in_memory(write: Write) -> None:
    path = write({"path": [f"{number:06d}/{'x' * 100}.dcm" for number in range(20_000)]})
    tracemalloc.start()
    found, count, _ = read_manifest(path)
    assert sum(1 for _ in found) == count == 20_000
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1_500_000  # the paths alone are 2.2 million bytes
