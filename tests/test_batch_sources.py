"""Where a batch's studies come from: this machine, storage, a PACS, all at once."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from PIL import Image

from medvlm.batch import storage, web
from medvlm.batch.parcel import StudyParcel
from medvlm.batch.sources import Unlisted, parcels
from medvlm.batch.storage import PlacesParcel
from medvlm.dicom.prior import chosen_prior, latest_prior
from medvlm.dicom.study import Study
from medvlm.errors import (
    InputNotFound,
    MissingExtra,
    ServerError,
    TooLarge,
    UsageError,
)
from tests.conftest import SetLimit
from tests.dicoms import ramp, save, shipped, synthetic
from tests.orthanc import Orthanc, free_port

pytest_plugins = ["tests.orthanc"]

FILM, CT = "RG1_J2KR.dcm", "CT_small.dcm"


@pytest.fixture
def memory() -> Iterator[Any]:
    """An object storage in memory, at memory://night."""
    fs = fsspec.filesystem("memory")
    yield fs
    fs.rm("/", recursive=True)


def put(fs: Any, key: str, content: Path | bytes) -> None:
    with fs.open(key, "wb") as file:
        file.write(content if isinstance(content, bytes) else content.read_bytes())


def archive_of(folder: Path, *files: Path) -> Path:
    path = folder / "night.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in files:
            archive.write(file, file.name)
    return path


def no_prior(study: Study) -> None:
    """Compares nothing."""


# ---- this machine ----


def test_files_of_this_machine_are_read_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(shipped(FILM), folder)
    shutil.copy(shipped(CT), folder)
    (folder / "note.txt").write_text("no image")
    seen: list[tuple[int, int]] = []
    found, count, refused = parcels([str(folder)], progress=lambda *step: seen.append(step))
    made = list(found)
    assert count == len(made) == 2
    assert all(isinstance(parcel, StudyParcel) for parcel in made)
    assert [item.code for item in refused] == ["not_dicom"]
    assert seen[-1] == (3, 3)


def test_earlier_results_are_left_out(tmp_path: Path) -> None:
    out = tmp_path / "in" / "out"
    out.mkdir(parents=True)
    shutil.copy(shipped(CT), tmp_path / "in")
    Image.new("L", (64, 64)).save(out / "overlay.png")
    _, count, refused = parcels([str(tmp_path / "in")], but=out)
    assert (count, refused) == (1, [])


def test_priors_are_found_among_all(tmp_path: Path) -> None:
    for date in ("20250101", "20260101"):
        save(synthetic(ramp(), StudyDate=date), tmp_path / f"{date}.dcm")
    found, _, _ = parcels(
        [str(tmp_path)],
        priors=lambda studies, refused: lambda study: latest_prior(study, studies),
    )
    priors = [parcel.prior for parcel in found if isinstance(parcel, StudyParcel)]
    assert [prior is None for prior in priors] == [True, False]


def test_a_study_whose_prior_will_not_do_is_refused_alone(tmp_path: Path) -> None:
    for date in ("20250101", "20260101"):
        save(synthetic(ramp(), StudyDate=date), tmp_path / f"{date}.dcm")
    found, count, refused = parcels(
        [str(tmp_path)],
        priors=lambda studies, refused: lambda study: chosen_prior(study, studies),
    )
    assert count == len(list(found)) == 1
    assert [item.code for item in refused] == ["not_earlier"]


@pytest.mark.parametrize("given", [{"inputs": ["memory://night"]}, {"manifest": "night.csv"}])
def test_priors_are_for_files_of_this_machine(given: Any) -> None:
    with pytest.raises(UsageError, match="on this machine"):
        parcels(given.get("inputs", []), manifest=given.get("manifest"), priors=lambda *_: no_prior)


# ---- storage ----


def test_each_folder_each_archive_and_what_lies_loose(memory: Any, tmp_path: Path) -> None:
    put(memory, "/night/a/series/film.dcm", shipped(FILM))
    put(memory, "/night/a/note.txt", b"no image")
    put(memory, "/night/b/ct.dcm", shipped(CT))
    put(memory, "/night/c.zip", archive_of(tmp_path, shipped(CT)))
    put(memory, "/night/loose.dcm", shipped(CT))
    put(memory, "/night/loose.png", b"no picture")
    found, count, refused = parcels(["memory://night"])
    assert count is None
    assert refused == []
    made = {parcel.name: parcel for parcel in found}
    names = [*(f"memory:///night/{name}" for name in ("a", "b", "c.zip")), "memory://night"]
    assert sorted(made) == names
    opened = {
        name: parcel.open(tmp_path / str(number))
        for number, (name, parcel) in enumerate(sorted(made.items()))
    }
    assert {name: len(one.studies) for name, one in opened.items()} == dict.fromkeys(names, 1)
    film = opened["memory:///night/a"]
    (instance,) = film.reading.instances
    assert instance.path.read_bytes() == shipped(FILM).read_bytes()
    assert instance.file == "memory:///night/a/series/film.dcm"
    assert [item.file for item in film.reading.refused] == ["memory:///night/a/note.txt"]
    (packed,) = opened["memory:///night/c.zip"].reading.instances
    assert packed.file == f"memory:///night/c.zip/{CT}"
    assert [item.code for item in opened["memory://night"].reading.refused] == ["not_dicom"]


def test_a_picture_is_named_as_at_home(memory: Any, tmp_path: Path) -> None:
    Image.linear_gradient("L").save(tmp_path / "film.png")
    put(memory, "/night/a/film.png", tmp_path / "film.png")
    ((parcel,), _, _) = parcels(["memory://night/a/film.png"])
    (study,) = parcel.open(tmp_path / "scratch").studies
    ((local,), _, _) = parcels([str(tmp_path / "film.png")])
    assert study.name == local.open(tmp_path).studies[0].name


def test_no_key_becomes_a_path(memory: Any, tmp_path: Path) -> None:
    for key in (
        "/night/a/../../etc/x",
        "/night/a/Roe^Richard/\x1b[2J.dcm",
        "/night/a/" + "y" * 900,
    ):
        memory.store[key] = fsspec.implementations.memory.MemoryFile(
            memory, key, shipped(CT).read_bytes()
        )
    scratch = tmp_path / "scratch"
    contents = PlacesParcel("x", ("memory://night/a",)).open(scratch)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(path.name for path in written) == ["000000", "000001", "000002"]
    assert all(path.is_relative_to(scratch) for path in written)
    assert all("\x1b" not in one.file for one in contents.reading.instances)


def test_a_parcel_can_be_opened_elsewhere(memory: Any, tmp_path: Path) -> None:
    put(memory, "/night/a/film.dcm", shipped(FILM))
    ((parcel,), _, _) = parcels(["memory://night"])
    again = pickle.loads(pickle.dumps(parcel))
    assert again.mark() == parcel.mark()
    assert len(again.open(tmp_path).studies) == 1
    assert "night" not in repr(again).replace(again.name, "")


def test_a_mark_changes_with_the_files(memory: Any) -> None:
    put(memory, "/night/a/1.dcm", b"one")
    put(memory, "/night/a/2.dcm", b"two")
    ((parcel,), _, _) = parcels(["memory://night"])
    marks = [parcel.mark(), parcel.mark()]
    assert marks[0] == marks[1] is not None
    put(memory, "/night/a/2.dcm", b"TWO")
    marks.append(parcel.mark())
    put(memory, "/night/a/3.dcm", b"three")
    marks.append(parcel.mark())
    memory.rm("/night/a/1.dcm")
    marks.append(parcel.mark())
    assert len(set(marks)) == 4
    memory.rm("/night/a", recursive=True)
    assert parcel.mark() is None


def test_the_same_bytes_elsewhere_have_another_mark(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy2(shipped(CT), tmp_path / name)
    (found, _, _) = parcels([f"file://{tmp_path}"])
    first, second = found
    assert first.mark() is not None
    assert first.mark() != second.mark()


@pytest.mark.parametrize(("limit", "value"), [("archive_bytes", 50_000), ("archive_members", 1)])
def test_a_parcel_beyond_the_limits_is_refused(
    limit: str, value: int, memory: Any, tmp_path: Path, set_limit: SetLimit
) -> None:
    put(memory, "/night/a/1.dcm", shipped(CT))
    put(memory, "/night/a/2.dcm", shipped(CT))
    set_limit(limit, value)
    with pytest.raises(TooLarge) as caught:
        PlacesParcel("night a", ("memory://night/a",)).open(tmp_path)
    assert caught.value.file == "night a"
    assert sum(path.stat().st_size for path in tmp_path.rglob("0*")) <= 60_000


def test_a_file_beyond_the_limit_is_refused_alone(
    memory: Any, tmp_path: Path, set_limit: SetLimit
) -> None:
    put(memory, "/night/a/1.dcm", b"x" * 100_000)
    put(memory, "/night/a/2.dcm", shipped(CT))
    set_limit("file_bytes", 50_000)
    contents = PlacesParcel("night a", ("memory://night/a",)).open(tmp_path)
    assert [(item.code, item.file) for item in contents.reading.refused] == [
        ("too_large", "memory:///night/a/1.dcm")
    ]
    assert len(contents.studies) == 1


def test_a_dicomdir_in_a_storage_is_no_failure(memory: Any, tmp_path: Path) -> None:
    put(memory, "/night/a/DICOMDIR", shipped("dicomdirtests/DICOMDIR"))
    put(memory, "/night/a/1.dcm", shipped(CT))
    reading = PlacesParcel("a", ("memory://night/a",)).open(tmp_path).reading
    assert len(reading.instances) == 1
    assert reading.failed == []


class Moody:
    """What a library for a storage may raise, with a key in it."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PermissionError("key AKIA-hunter2"), ServerError),
        (RuntimeError("key AKIA-hunter2"), ServerError),
        (FileNotFoundError("key AKIA-hunter2"), InputNotFound),
    ],
)
def test_what_a_storage_says_is_told_without_its_words(
    error: Exception, kind: type, memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(memory, "/night/a/1.dcm", shipped(CT))
    ((parcel,), _, _) = parcels(["memory://night"])
    monkeypatch.setattr(type(memory), "_open", Moody(error))
    with pytest.raises(kind) as caught:
        parcel.open(tmp_path)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__
    monkeypatch.setattr(type(memory), "ls", Moody(error))
    monkeypatch.setattr(type(memory), "find", Moody(error))
    assert parcel.mark() is None
    ((unlisted,), _, _) = parcels(["memory://night"])
    assert isinstance(unlisted, Unlisted)


def test_a_full_disk_is_told(memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(memory, "/night/a/1.dcm", shipped(CT))
    monkeypatch.setattr("medvlm.batch.landing.Landing._write", Moody(OSError(28, "no space")))
    with pytest.raises(TooLarge, match="disk is full"):
        PlacesParcel("a", ("memory://night/a",)).open(tmp_path)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s4://bucket/x", "no kind of storage"),
        ("ftp://sato:hunter2@host/x", "holds a log-in"),
        ("ftp://sato:hunter2/x@host/x", "holds a log-in"),
        ("zip://a::ftp://sato:hunter2@host/x", "chain"),
        ("dicomweb+ftp://host", "no address"),
        ("dicomweb+https://sato:hunter2@host", "holds a log-in"),
    ],
)
def test_what_cannot_be_an_input_is_refused_at_once(url: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        parcels([url])
    assert "hunter2" not in str(caught.value)


def test_a_storage_without_its_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    storage._check_scheme.cache_clear()
    monkeypatch.setattr(fsspec, "get_filesystem_class", Moody(ImportError("Install s3fs")))
    with pytest.raises(MissingExtra, match="Install s3fs"):
        parcels(["s3://bucket/night"])


def test_a_signature_in_a_web_address_is_not_shown() -> None:
    assert storage.shown("https://host/a.zip?sig=hunter2#x") == "https://host/a.zip"
    assert storage.shown("abfs://box@account/a.zip?sv=1&sig=hunter2") == "abfs://box@account/a.zip"
    assert storage.shown("s3://bucket/what?.dcm") == "s3://bucket/what?.dcm"


def test_what_is_no_log_in() -> None:
    assert not storage._holds_log_in("abfs", "box@account.dfs.core.windows.net/a")
    assert not storage._holds_log_in("http", "host:8080/a@b/c")
    assert storage._holds_log_in("ftp", "sato@host/a")
    assert storage._holds_log_in("abfs", "sato:hunter2@host/a")


# ---- together ----


def test_all_kinds_at_once_and_one_that_fails_ends_nothing(
    orthanc: Orthanc, memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "RETRIES", 1)
    orthanc.upload(shipped(FILM))
    put(memory, "/night/a/ct.dcm", shipped(CT))
    shutil.copy(shipped("MR_small.dcm"), tmp_path)
    (tmp_path / "night.csv").write_text("path\nMR_small.dcm\n")
    closed = f"dicomweb+http://127.0.0.1:{free_port()}/dicom-web"
    found, count, refused = parcels(
        [closed, "memory://nowhere", "memory://night", str(shipped(CT)), orthanc.url],
        manifest=str(tmp_path / "night.csv"),
    )
    assert (count, refused) == (None, [])
    opened, failed = [], []
    for number, parcel in enumerate(found):
        again = pickle.loads(pickle.dumps(parcel))
        try:
            opened += again.open(tmp_path / str(number)).studies
        except (ServerError, InputNotFound) as error:
            failed.append((again.name, error.code))
    assert sorted(str(study.modality) for study in opened) == ["CR", "CT", "CT", "MR"]
    assert sorted(failed) == [
        (closed.removeprefix("dicomweb+"), "server"),
        ("memory://nowhere", "not_found"),
    ]


def test_nothing_is_asked_for_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "ask", Moody(AssertionError("asked")))
    monkeypatch.setattr(storage, "_opened", Moody(AssertionError("opened")))
    parcels(["dicomweb+https://host/dicom-web", "memory://night"])


def test_a_link_in_circles_ends(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    shutil.copy(shipped(CT), tmp_path / "a")
    (tmp_path / "a" / "circle").symlink_to(tmp_path)
    assert PlacesParcel("a", (str(tmp_path / "a"),)).mark() is not None
