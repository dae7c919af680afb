"""Watched folders: complete studies, once, over restarts, whatever else lies there."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from medvlm.desk import watch
from medvlm.desk.watch import Watcher
from medvlm.errors import StoreError
from medvlm.review.store import Store
from medvlm.review.worklist import Filter, worklist
from tests.dicoms import save, synthetic

pytest_plugins = ["tests.desk"]

GREY = np.arange(20, dtype=np.uint16).reshape(4, 5)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "incoming"
    made.mkdir()
    return made


@pytest.fixture
def watcher(store: Store, folder: Path, clock: Clock) -> Watcher:
    return Watcher(store, folder, stable_s=10, clock=clock)


def sizes(store: Store) -> list[int]:
    return sorted(row.images for row in worklist(store, Filter()).rows)


def slice_of(study: str, number: int) -> Dataset:
    ds = synthetic(GREY + number, InstanceNumber=number)
    ds.StudyInstanceUID = ds.SeriesInstanceUID = study
    return ds


def test_a_file_is_taken_when_it_has_stayed(
    store: Store, folder: Path, watcher: Watcher, clock: Clock
) -> None:
    path = folder / "film"
    whole = save(synthetic(GREY), folder.parent / "film.dcm").read_bytes()
    path.write_bytes(whole[:400])
    watcher.poll()
    clock.now += 9
    path.write_bytes(whole)
    assert watcher.poll() == []
    clock.now += 9
    assert watcher.poll() == []
    clock.now += 1
    assert len(watcher.poll()[0].added) == 1
    assert path.exists()
    clock.now += 100
    assert watcher.poll() == []
    assert sizes(store) == [1]


def test_a_study_is_taken_when_all_of_it_has_stayed(
    store: Store, folder: Path, watcher: Watcher, clock: Clock
) -> None:
    slow, quick = generate_uid(), generate_uid()
    save(slice_of(quick, 1), folder / "q.dcm")
    for number in range(5):
        (folder / f"{number}").mkdir()
        save(slice_of(slow, number), folder / f"{number}" / "slice")
        watcher.poll()
        clock.now += 6
    assert sizes(store) == [1]
    clock.now += 10
    watcher.poll()
    assert sizes(store) == [1, 5]


def test_a_restart_takes_nothing_twice(
    store: Store, folder: Path, watcher: Watcher, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(synthetic(GREY), folder / "Doe^Jane.dcm")
    watcher.poll()
    clock.now += 10
    watcher.poll()
    memory = next(store.files.glob(".watched-*.json"))
    assert "Doe" not in memory.name + memory.read_text()

    def never(*_: object) -> None:
        raise AssertionError("it was read again")

    with monkeypatch.context() as patch:
        patch.setattr(watch, "take_in", never)
        again = Watcher(store, folder, stable_s=10, clock=clock)
        again.poll()
        clock.now += 10
        assert again.poll() == []
    memory.write_text("damaged")  # then the files themselves tell
    again = Watcher(store, folder, stable_s=10, clock=clock)
    again.poll()
    clock.now += 10
    assert [len(one.known) for one in again.poll()] == [1]
    assert sizes(store) == [1]


def test_a_file_that_changes_later_is_looked_at_again(
    store: Store, folder: Path, watcher: Watcher, clock: Clock
) -> None:
    path = folder / "film"
    path.write_bytes(b"not yet")
    watcher.poll()
    clock.now += 10
    assert [one.code for one in watcher.poll()[0].refused] == ["not_dicom"]
    save(synthetic(GREY), path)
    watcher.poll()
    clock.now += 10
    assert len(watcher.poll()[0].added) == 1


def test_what_is_left_alone(store: Store, folder: Path, watcher: Watcher, clock: Clock) -> None:
    elsewhere = save(synthetic(GREY), folder.parent / "elsewhere.dcm")
    for name in (".hidden", "film.dcm.part", "film.tmp", "film.partial"):
        (folder / name).write_bytes(elsewhere.read_bytes())
    (folder / "link").symlink_to(elsewhere)
    (folder / "links").symlink_to(folder.parent)
    os.mkfifo(folder / "pipe")
    watcher.poll()
    clock.now += 10
    assert watcher.poll() == []


def test_the_desks_own_files_are_left_alone(store: Store, clock: Clock) -> None:
    save(synthetic(GREY), store.files / "film.dcm")
    watcher = Watcher(store, store.files.parent, stable_s=0, clock=clock)
    (store.files.parent / "notes").write_text("-")
    for intake in watcher.poll():
        assert intake.added == []
    assert sizes(store) == []


def test_one_bad_study_does_not_stop_the_others(
    store: Store, folder: Path, watcher: Watcher, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        save(synthetic(GREY + number), folder / f"{number}.dcm")
    take = watch.take_in

    def sometimes(store: Store, paths: object, by: object) -> object:
        given = list(paths)  # type: ignore[call-overload]
        if given[0].name == "1.dcm":
            raise RuntimeError("Doe^Jane")
        return take(store, given, by)  # type: ignore[arg-type]

    monkeypatch.setattr(watch, "take_in", sometimes)
    watcher.poll()
    clock.now += 10
    watcher.poll()
    assert sizes(store) == [1, 1]


def test_a_desk_that_cannot_is_tried_again(
    store: Store, folder: Path, watcher: Watcher, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(synthetic(GREY), folder / "film.dcm")
    watcher.poll()
    clock.now += 10

    def full(*_: object) -> None:
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(watch, "take_in", full)
        with pytest.raises(StoreError):
            watcher.poll()
    assert len(watcher.poll()[0].added) == 1


def test_a_folder_that_goes_away_and_comes_back(
    store: Store, folder: Path, watcher: Watcher, clock: Clock
) -> None:
    folder.rmdir()
    assert watcher.poll() == []
    folder.mkdir()
    save(synthetic(GREY), folder / "film.dcm")
    watcher.poll()
    clock.now += 10
    assert len(watcher.poll()) == 1
