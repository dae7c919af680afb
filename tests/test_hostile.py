"""Hostile input ends in a refusal: soon, in little memory, and without harm to anything else.

The files are real and go through the real command. Processor time is judged strictly, the clock
with patience: it also counts what else the machine is doing.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from openjpeg.utils import encode_array
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from medvlm.dicom.limits import limits
from medvlm.dicom.read import read_inputs
from medvlm.dicom.study import group_studies
from medvlm.dicom.workers import end_resting, in_workers
from medvlm.errors import InputError
from tests import codestreams, hostile
from tests.conftest import ROOT, SetLimit
from tests.dicoms import save, shipped, synthetic
from tests.hostile import before_pixels, compressed, deep, element, film, with_value, zipped

MOST_SECONDS, MOST_MEGABYTES = 5, 500
PATIENCE = 60  # seconds; a hang is longer
EIGHT = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
ROWS = (0x0028, 0x0010)


@dataclass
class Run:
    """What a command said, and what it and its workers took."""

    code: int
    out: str
    err: str
    seconds: float
    megabytes: float

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run(*arguments: str | Path, **environment: str) -> Run:
    """`python -m ...`, its memory and that of its workers looked at every 10 ms."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    peak, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            try:
                own = psutil.Process(process.pid)
                family = (own, *own.children(recursive=True))
                peak.append(sum(one.memory_info().rss for one in family))
            except psutil.Error:  # one has just ended
                continue

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        ended.set()
        watching.join()
        process.kill()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(process.returncode, out.decode(), err.decode(), seconds, max(peak) / 2**20)


def j2k_bomb(rows: int, columns: int, **how: Any) -> bytes:
    return compressed(hostile.j2k_bomb(), JPEG2000, rows, columns, **how)


def disguised_j2k_bomb() -> bytes:
    """In the boxes of a JP2 file, behind one that holds a harmless codestream."""
    boxes = hostile.in_jp2(hostile.j2k_bomb(), decoy=hostile.j2k_bomb(1, 64))
    return compressed(boxes, JPEG2000, 512, 512)


def many_elements(count: int) -> bytes:
    """A film with so many empty private elements."""
    few = 0xFF00  # elements of one group
    elements = (
        element(0x0041 + 2 * (number // few), 0x0100 + number % few, b"LO", b"")
        for number in range(count)
    )
    return before_pixels(film(), b"".join(elements))


def long_number() -> bytes:
    """A decimal string of a million values: each becomes an object of a hundred bytes."""
    number = struct.pack("<HHI", 0x0054, 0x1300, 4 << 20) + b"1\\" * (2 << 20)
    return before_pixels(film(syntax=ImplicitVRLittleEndian), number)


def tiny_frames(count: int, **said: Any) -> bytes:
    """Frames of one pixel each."""
    pixel = np.zeros((1, 1), np.uint8)
    return film(pixel, NumberOfFrames=count, PixelData=bytes(count), Modality="CT", **said)


# What a file is called: how it is made, and the reason for which it must be refused.
NAMED: dict[str, tuple[Callable[[], bytes], str]] = {
    "j2k_bomb.dcm": (lambda: j2k_bomb(8192, 8192), "too_large"),
    "j2k_bomb_that_lies.dcm": (lambda: j2k_bomb(512, 512), "too_large"),
    "deep_undefined.dcm": (lambda: deep(5000, explicit=True, defined=False), "too_deep"),
    "deep_defined.dcm": (lambda: deep(5000, explicit=True, defined=True), "too_deep"),
    "bomb.zip": (lambda: zipped({"a.dcm": bytes(128 << 20)}), "unsafe_archive"),
}
OTHERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "j2k_bomb_in_jp2.dcm": (disguised_j2k_bomb, "too_large"),
    "htj2k_bomb.dcm": (
        lambda: compressed(hostile.tiled(codestreams.ZEROS, 8), HTJ2K, 512, 512),
        "too_large",
    ),
    "jpeg_bomb.dcm": (
        lambda: compressed(hostile.jpeg_bomb(), JPEGBaseline8Bit, 512, 512, **EIGHT),
        "too_large",
    ),
    "jpeg_ls_bomb.dcm": (
        lambda: compressed(hostile.jpeg_ls_bomb(), JPEGLSLossless, 512, 512, **EIGHT),
        "too_large",
    ),
    "jpeg_four_times_too_large.dcm": (
        lambda: compressed(hostile.j2k_bomb(1, 128), JPEG2000, 16, 16),
        "undecodable",
    ),
    "deep_implicit.dcm": (lambda: deep(5000, explicit=False, defined=False), "too_deep"),
    "deep_implicit_defined.dcm": (lambda: deep(5000, explicit=False, defined=True), "too_deep"),
    "deep_in_unknown.dcm": (
        lambda: before_pixels(
            film(),
            element(0x0041, 0x10, b"UN", hostile.nested(5000, explicit=False, defined=True)[8:]),
        ),
        "too_deep",
    ),
    "deflate_bomb.dcm": (lambda: hostile.deflate_bomb(100), "too_large"),
    "deflate_bomb_after_long_meta.dcm": (
        lambda: hostile.deflate_bomb(100, meta_padding=5000),
        "too_large",
    ),
    "bomb.png": (lambda: hostile.png_bomb(5000, 5000), "too_large"),
    "huge.png": (lambda: hostile.png_bomb(60000, 60000, packed=1000), "too_large"),
    "comment.png": (lambda: hostile.png_with_text(200), "undecodable"),
    "bomb.jpg": (hostile.jpeg_bomb, "too_large"),
    "overlapping.zip": (lambda: hostile.overlapping_zip(20 << 20, 500), "unsafe_archive"),
    "crowded.zip": (lambda: hostile.crowded_zip(700_000), "unsafe_archive"),
    "lying.zip": (lambda: hostile.lying_zip(32 << 20, 1000), "not_dicom"),
    "lying_bzip2.zip": (
        lambda: hostile.lying_zip(32 << 20, 1000, zipfile.ZIP_BZIP2),
        "undecodable",
    ),
    "lying_lzma.zip": (lambda: hostile.lying_zip(32 << 20, 1000, zipfile.ZIP_LZMA), "undecodable"),
    "many_elements.dcm": (lambda: many_elements(1_100_000), "too_large"),
    "long_number.dcm": (long_number, "too_large"),
    "frames_without_end.dcm": (lambda: tiny_frames(1_000_000), "too_large"),
    "frames_claimed.dcm": (lambda: film(NumberOfFrames=2**31 - 1), "too_large"),
    "frames_negative.dcm": (lambda: film(NumberOfFrames=-5), "undecodable"),
    "rows_none.dcm": (lambda: film(Rows=0), "undecodable"),
    "rows_huge.dcm": (lambda: film(Rows=65535, Columns=65535), "too_large"),
    "rows_negative.dcm": (
        lambda: with_value(film(), *ROWS, element(*ROWS, b"SS", struct.pack("<h", -5))),
        "undecodable",
    ),
    "rows_beyond_16_bits.dcm": (
        lambda: with_value(film(), *ROWS, element(*ROWS, b"UL", struct.pack("<I", 2**32 - 1))),
        "too_large",
    ),
    "rows_as_text.dcm": (
        lambda: with_value(film(), *ROWS, element(*ROWS, b"DS", b"1e300 ")),
        "too_large",
    ),
    "rows_three.dcm": (
        lambda: with_value(film(), *ROWS, element(*ROWS, b"US", struct.pack("<3H", 5, 6, 7))),
        "undecodable",
    ),
    "bits_none.dcm": (lambda: film(BitsAllocated=0), "undecodable"),
    "bits_7.dcm": (lambda: film(BitsAllocated=7), "undecodable"),
    "bits_64.dcm": (lambda: film(BitsAllocated=64), "truncated_pixels"),
    "samples.dcm": (lambda: film(SamplesPerPixel=65535), "truncated_pixels"),
    "length_to_the_end.dcm": (
        lambda: before_pixels(film(), element(0x0041, 0x10, b"UN", b"abc", 0xFFFFFFFE)),
        "truncated_pixels",
    ),
}


ALL = {**NAMED, **OTHERS}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of them, a pipe and a good film."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, (make, _) in ALL.items():
        (folder / name).write_bytes(make())
    os.mkfifo(folder / "pipe")
    (folder / "good.dcm").write_bytes(film(StudyInstanceUID="1.2.3"))
    return folder


@pytest.mark.parametrize(
    "name", [*NAMED, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)
def test_a_hostile_file_is_refused_in_5_seconds_and_500_megabytes(
    name: str, files: Path, tmp_path: Path
) -> None:
    said = run("medvlm", "inspect", files / name, "--json", TMPDIR=str(tmp_path))
    assert [one["code"] for one in said.json["refused"]] == [ALL[name][1]]
    assert said.json["refused"][0]["message"].endswith(".")
    assert (said.json["studies"], said.code) == ([], 1)
    assert "Traceback" not in said.err
    assert said.seconds < MOST_SECONDS
    assert said.megabytes < MOST_MEGABYTES
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("how", ["inspect", "draft"])
def test_all_of_them_together_leave_a_good_film_alone(how: str, files: Path) -> None:
    """The draft's way decodes nothing while it reads: what got that far fails when it is loaded."""
    if how == "inspect":
        said = run("medvlm", "inspect", files, "--json")
        codes = {}
        for one in said.json["refused"]:
            file = Path(one["file"])
            codes[file.parent.name if file.parent.suffix == ".zip" else file.name] = one["code"]
        expected = {name: code for name, (_, code) in ALL.items()}
        assert codes == {**expected, "pipe": "not_dicom"}
        assert [one["study_instance_uid"] for one in said.json["studies"]] == ["1.2.3"]
    else:
        said = run("tests.hostile", files)
        read = said.json
        assert len(read["refused"]) + len(read["images"]) == len(ALL) + 2
        assert read["images"].count("loaded") == 1
    assert said.code == 0
    assert "Traceback" not in said.err
    assert said.megabytes < MOST_MEGABYTES


@pytest.mark.parametrize("given", ["pipe", "folder", "/dev/zero"])
def test_what_is_no_file_is_not_opened(given: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "folder" / "pipe")
    said = run("medvlm", "inspect", tmp_path / given, "--json")
    assert [one["code"] for one in said.json["refused"]] == ["not_dicom"]
    assert said.seconds < MOST_SECONDS


def test_an_archive_of_archives_has_one_limit(tmp_path: Path) -> None:
    """Each of a hundred unpacks to less than the least that is judged; together they are judged."""
    inner = zipped({"zeros.dcm": bytes(30 << 20)})
    path = tmp_path / "outer.zip"
    path.write_bytes(zipped({f"{number}.zip": inner for number in range(100)}))
    folder = tmp_path / "unpacked"
    folder.mkdir()
    said = run("medvlm", "inspect", path, "--json", TMPDIR=str(folder))
    codes = [one["code"] for one in said.json["refused"]]
    assert len(codes) == 100
    assert codes.count("unsafe_archive") >= 99
    assert said.seconds < MOST_SECONDS
    assert not list(folder.iterdir())


def test_archives_of_many_files_share_the_limit_of_files(
    tmp_path: Path, set_limit: SetLimit
) -> None:
    set_limit("archive_members", 10)
    inner = zipped({f"{number}.txt": b"" for number in range(8)})
    path = tmp_path / "outer.zip"
    path.write_bytes(zipped({"1.zip": inner, "2.zip": inner}))
    codes = [refused.code for refused in read_inputs(path).refused]
    assert sorted(codes) == ["not_dicom"] * 8 + ["unsafe_archive"]


def test_files_too_large_are_never_read(tmp_path: Path) -> None:
    """Sparse: 3 GiB that take no room on the disk."""
    header = bytearray(bytes(128) + b"DICM" + film()[132:-600])
    for name, start in (("a.dcm", bytes(header)), ("DICOMDIR", bytes(header)), ("b.png", b"")):
        path = tmp_path / name
        path.write_bytes(start or hostile.png_bomb(8, 8))
        os.truncate(path, 3 << 30)
        said = run("medvlm", "inspect", path, "--json")
        assert [one["code"] for one in said.json["refused"]] == ["too_large"]
        assert (said.seconds, said.megabytes) < (MOST_SECONDS, MOST_MEGABYTES)


def test_a_disc_index_nested_without_end(tmp_path: Path) -> None:
    index = shipped("MR_small.dcm").parent / "dicomdirtests" / "DICOMDIR"
    data = index.read_bytes()
    start = data.index(struct.pack("<HH", 0x0004, 0x1220))
    (tmp_path / "DICOMDIR").write_bytes(
        data[:start] + hostile.nested(5000, explicit=True, defined=False)
    )
    said = run("medvlm", "inspect", tmp_path / "DICOMDIR", "--json")
    assert [one["code"] for one in said.json["refused"]] == ["too_deep"]


def test_a_uid_that_is_a_path_names_no_folder(tmp_path: Path) -> None:
    uids = [b"../../../etc/cron.d", b"/etc/passwd", b"1.2.3\\..\\..\\evil", b"..", b"1.2.3/4"]
    for number, uid in enumerate(uids):
        evil = element(0x0020, 0x000D, b"UI", uid + b"\0" * (len(uid) % 2))
        (tmp_path / f"{number}.dcm").write_bytes(with_value(film(), 0x0020, 0x000D, evil))
    studies = group_studies(read_inputs(tmp_path))
    assert len({study.name for study in studies}) == len(uids)
    for study in studies:
        assert study.study_instance_uid is None
        assert study.name.removeprefix("study-").isalnum()


@pytest.mark.slow
def test_a_draft_of_such_a_study_stays_in_its_folder(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b" / "out"
    evil = element(0x0020, 0x000D, b"UI", b"../../evil")
    (tmp_path / "film.dcm").write_bytes(with_value(film(), 0x0020, 0x000D, evil))
    said = run("medvlm", "draft", tmp_path / "film.dcm", "--out", inner)
    assert said.code == 0, said.err
    (draft,) = tmp_path.rglob("draft.json")
    assert draft.parent.parent == inner
    assert not list(tmp_path.rglob("*evil*"))


def ct_frame(number: int) -> np.ndarray:
    """A body with noise, as a scanner gives it: it compresses about twofold."""
    rows, columns = np.mgrid[:512, :512]
    body = ((columns - 256) / 230) ** 2 + ((rows - 256) / 180) ** 2 < 1
    noise = np.random.default_rng(number).normal(0, 25, (512, 512))
    tissue = np.where(body, 1000 + 40 * np.sin(columns / 30 + number), 0)
    return (tissue + noise).clip(0, 4095).astype(np.uint16)


def ct_of_300_frames(path: Path, syntax: str) -> Path:
    """512 x 512 x 300; its frames repeat, to be made quickly."""
    one = synthetic(ct_frame(0), Modality="CT", BitsStored=12, HighBit=11)
    if syntax == JPEG2000Lossless:
        encoded = [
            encode_array(ct_frame(number), bits_stored=12, photometric_interpretation=2)
            for number in range(3)
        ]
    else:
        one.compress(RLELossless, generate_instance_uid=False)
        encoded = [get_frame(one.PixelData, 0, number_of_frames=1)]
    one.NumberOfFrames = 300
    one.PixelData = encapsulate([encoded[number % len(encoded)] for number in range(300)])
    one["PixelData"].VR = "OB"
    one.file_meta.TransferSyntaxUID = syntax
    return save(one, path)


@pytest.mark.parametrize(
    "syntax", [RLELossless, pytest.param(JPEG2000Lossless, marks=pytest.mark.slow)]
)
def test_a_real_ct_of_300_frames_passes(syntax: str, tmp_path: Path) -> None:
    path = ct_of_300_frames(tmp_path / "ct.dcm", syntax)
    said = run("medvlm", "inspect", path, "--json")
    assert said.json["refused"] == []
    assert said.megabytes < MOST_MEGABYTES
    said = run("tests.hostile", path)
    assert said.json["images"] == ["loaded"]


@pytest.mark.parametrize(
    ("job", "code", "word"),
    [
        ("crash", "undecodable", "crash"),
        ("hang", "undecodable", "longer"),
        ("hog", "too_large", "memory"),
    ],
)
def test_one_bad_job_leaves_the_others_alone(
    job: str, code: str, word: str, set_limit: SetLimit
) -> None:
    set_limit("decode_seconds", 3 if job == "hang" else 20)
    set_limit("decode_bytes", 256 << 20)
    jobs = ["a", "b", job, "c", job, "d", "e"]
    started = time.monotonic()
    results = list(in_workers(getattr(hostile, job), jobs))
    assert time.monotonic() - started < 60
    for given, result in zip(jobs, results, strict=True):
        if given == job:
            assert isinstance(result, InputError)
            assert result.code == code
            assert word in result.message
        else:
            assert result == given


@pytest.mark.parametrize("chunk", [1, 3])
def test_jobs_handed_over_together_fail_one_by_one(chunk: int, set_limit: SetLimit) -> None:
    set_limit("decode_seconds", 20)
    jobs = ["a", "crash", "b", "c"]
    results = list(in_workers(hostile.crash, jobs, chunk))
    assert [one if isinstance(one, str) else one.code for one in results] == [
        "a",
        "undecodable",
        "b",
        "c",
    ]


def test_a_job_does_not_pay_for_the_one_before(set_limit: SetLimit) -> None:
    """Neither for what that broke in the process they shared, nor for the memory it kept."""
    end_resting()
    for job in ("first", "second"):
        assert list(in_workers(hostile.stumble, [job])) == [job]
    set_limit("decode_bytes", 1000 << 20)
    assert [list(in_workers(hostile.leak, [size])) for size in (500, 600)] == [[500], [600]]
    (result,) = in_workers(hostile.leak, [1200])
    assert isinstance(result, InputError)
    assert result.code == "too_large"


def test_workers_are_used_again_and_replaced_when_they_died() -> None:
    end_resting()
    (first,) = in_workers(process_of, [None])
    assert list(in_workers(process_of, [None])) == [first]
    psutil.Process(first).kill()
    (second,) = in_workers(process_of, [None])
    assert isinstance(second, int)
    assert second != first


def process_of(_: None) -> int:
    return os.getpid()


def test_words_of_a_header_are_text_and_nothing_else(tmp_path: Path) -> None:
    data = film(Modality="X" * 14, StudyInstanceUID="1.2.3")
    (tmp_path / "a.dcm").write_bytes(data.replace(b"X" * 14, b"\x1b[2J[red]CT[/]"))
    for form in ([], ["--json"]):
        said = run("medvlm", "inspect", tmp_path, *form)
        assert said.code == 0
        assert "\x1b" not in said.out + said.err
        assert "[red]CT[/]" in said.out


def test_nothing_said_names_a_patient(tmp_path: Path) -> None:
    """Whatever is wrong with a file, and wherever it fails."""
    whole = film(PatientName="Planted^Name", PatientID="PLANTED-ID")
    bombs = {
        "cut.dcm": whole[:-100],
        "cut_header.dcm": whole[: whole.rindex(hostile.PIXELS) - 40],
        "bad_rows.dcm": with_value(whole, *ROWS, element(*ROWS, b"LO", b"Planted^Name")),
        "bad_frames.dcm": before_pixels(whole, b"PLANTED-IDPlanted^Name"),
        "no_pixels.dcm": whole[: whole.rindex(hostile.PIXELS)],
        "j2k.dcm": j2k_bomb(512, 512, PatientName="Planted^Name", PatientID="PLANTED-ID"),
        "good.dcm": whole,
    }
    for name, data in bombs.items():
        (tmp_path / name).write_bytes(data)
    for command in (("medvlm", "inspect"), ("tests.hostile",)):
        said = run(*command, tmp_path)
        assert "planted" not in (said.out + said.err).lower()


def test_limits_hold_for_what_they_are_meant_to(tmp_path: Path, set_limit: SetLimit) -> None:
    """A site that raises a limit gets its large image."""
    (tmp_path / "frames.dcm").write_bytes(tiny_frames(50))
    set_limit("frames", 49)
    assert [one.code for one in read_inputs(tmp_path).refused] == ["too_large"]
    set_limit("frames", 50)
    assert len(read_inputs(tmp_path, decode=True).instances) == 1
    assert limits().frames == 50
