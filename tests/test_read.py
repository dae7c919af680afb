"""Reading: every file given becomes an instance or is refused for the right reason."""

from __future__ import annotations

import io
import logging
import os
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, generate_uid

from medvlm.config import GateConfig
from medvlm.dicom.facts import patient_pseudonym
from medvlm.dicom.limits import limits
from medvlm.dicom.read import Reading, read_inputs
from medvlm.dicom.study import group_studies
from medvlm.draft.admit import admit
from medvlm.errors import InputError, InputNotFound, Undecodable
from medvlm.image.load import load_image
from tests.conftest import SetLimit
from tests.dicoms import ramp, save, shipped, synthetic


def codes(reading: Reading) -> dict[str, str]:
    """Refused files by name."""
    return {Path(refused.file).name: refused.code for refused in reading.refused}


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def test_facts_of_a_real_chest_film() -> None:
    path = shipped("RG1_UNCR.dcm")
    reading = read_inputs(path)
    (film,) = reading.instances
    assert not reading.refused
    assert (film.file, film.is_dicom, film.frames) == (str(path), True, 1)
    assert (film.modality, film.body_part, film.view_position) == ("CR", "CHEST", "PA")
    assert (film.rows, film.columns, film.photometric) == (1955, 1841, "MONOCHROME1")
    assert film.patient_key is not None
    assert len(film.patient_key) == 12
    assert isinstance(film.open(), Dataset)
    image = load_image(film)
    assert (image.height, image.width) == (1955, 1841)
    assert image.sop_instance_uid == film.sop_instance_uid


def test_bad_inputs_each_say_why_and_harm_nobody(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("This is a letter, not an image. " * 20)
    (tmp_path / "empty.dcm").touch()
    whole = shipped("RG3_J2KR.dcm").read_bytes()
    (tmp_path / "cut_compressed.dcm").write_bytes(whole[: len(whole) // 2])
    whole = shipped("MR_small.dcm").read_bytes()
    (tmp_path / "cut_native.dcm").write_bytes(whole[: len(whole) * 2 // 3])
    shutil.copy(shipped("reportsi.dcm"), tmp_path / "report.dcm")
    no_pixels = synthetic(ramp())
    del no_pixels.PixelData
    save(no_pixels, tmp_path / "no_pixels.dcm")
    picture = png(ramp(dtype=np.uint8))
    (tmp_path / "cut.png").write_bytes(picture[: len(picture) - 60])
    (tmp_path / "good.png").write_bytes(picture)
    shutil.copy(shipped("CT_small.dcm"), tmp_path / "good.dcm")
    reading = read_inputs([tmp_path, tmp_path / "nowhere"], decode=True)
    assert codes(reading) == {
        "notes.txt": "not_dicom",
        "empty.dcm": "not_dicom",
        "cut_compressed.dcm": "truncated_pixels",
        "cut_native.dcm": "truncated_pixels",
        "report.dcm": "no_pixels",
        "no_pixels.dcm": "no_pixels",
        "cut.png": "truncated_pixels",
        "nowhere": "not_found",
    }
    assert sorted(Path(one.file).name for one in reading.instances) == ["good.dcm", "good.png"]
    assert all(refused.message.endswith(".") for refused in reading.refused)
    assert reading.failed == reading.refused


@pytest.mark.parametrize("name", ["RG3_J2KR.dcm", "MR_small.dcm", "MR_small_RLE.dcm"])
def test_a_file_cut_anywhere_is_refused_or_decodes(tmp_path: Path, name: str) -> None:
    whole = shipped(name).read_bytes()
    for part in range(0, 20):
        cut = tmp_path / f"{part}.dcm"
        cut.write_bytes(whole[: len(whole) * part // 20])
        reading = read_inputs(cut, decode=True)
        assert not reading.instances
        assert {refused.code for refused in reading.refused} <= {
            "truncated_pixels",
            "no_pixels",
            "not_dicom",
        }


def test_every_file_shipped_is_an_instance_or_refused() -> None:
    """Instances and refused files make up the files given, whatever is in them."""
    folder = shipped("MR_small.dcm").parent
    seen: list[tuple[int, int]] = []
    reading = read_inputs(folder, lambda done, total: seen.append((done, total)), decode=True)
    given = sum(path.is_file() for path in folder.rglob("*"))
    assert len(reading.instances) + len(reading.refused) == given
    assert seen == [(number, given) for number in range(1, given + 1)]
    assert any(refused.index for refused in reading.refused)
    assert not any("DICOMDIR" in refused.file for refused in reading.failed)


def test_a_file_reached_twice_is_read_once() -> None:
    path = shipped("CT_small.dcm")
    assert len(read_inputs([path, str(path), path.parent / "." / path.name]).instances) == 1


def test_files_without_preamble_or_meta_header(tmp_path: Path) -> None:
    ds = synthetic(ramp(), WindowCenter=100, WindowWidth=100)
    bare = io.BytesIO()
    pydicom.dcmwrite(bare, Dataset({e.tag: e for e in ds}), implicit_vr=False, little_endian=True)
    (tmp_path / "bare.dcm").write_bytes(bare.getvalue())
    save(ds, tmp_path / "whole.dcm")
    one, two = read_inputs(tmp_path).instances
    assert np.array_equal(load_image(one).pixels, load_image(two).pixels)


def test_pictures_are_studies_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "Jane Doe (1).png").write_bytes(png(ramp(dtype=np.uint8)))
    Image.fromarray(ramp(dtype=np.uint8)).save(tmp_path / "b.jpg")
    reading = read_inputs(tmp_path)
    assert [one.is_dicom for one in reading.instances] == [False, False]
    one, two = group_studies(reading)
    assert (one.study_instance_uid, one.patient, one.modality) == (None, None, None)
    assert one.name == f"Jane_Doe_1-{one.instances[0].sha256[:8]}"
    assert two.name == f"b-{two.instances[0].sha256[:8]}"
    assert load_image(two.instances[0]).pixels.shape == (160, 200)


def test_an_archive_stands_for_its_files(tmp_path: Path) -> None:
    path = zipped(
        tmp_path / "night.zip",
        {
            "a/film.dcm": shipped("CT_small.dcm").read_bytes(),
            "a/readme.txt": b"hello",
            "inner.zip": zipped(
                tmp_path / "inner.zip", {"b.png": png(ramp(dtype=np.uint8))}
            ).read_bytes(),
        },
    )
    reading = read_inputs(path)
    assert [one.file for one in reading.instances] == [
        f"{path}/a/film.dcm",
        f"{path}/inner.zip/b.png",
    ]
    assert codes(reading) == {"readme.txt": "not_dicom"}
    film, _ = reading.instances
    folder = film.path.parent
    del reading, _
    assert isinstance(film.open(), Dataset)  # the instance keeps its unpacked file alive
    del film
    assert not folder.exists()


@pytest.mark.parametrize(
    "name", ["../evil.dcm", "a/../../evil.dcm", "/etc/evil.dcm", "..\\evil.dcm", "C:\\evil.dcm"]
)
def test_an_archive_that_points_outside_itself(tmp_path: Path, name: str) -> None:
    film = shipped("CT_small.dcm").read_bytes()
    path = zipped(tmp_path / "slip.zip", {"good.dcm": film, name: film})
    reading = read_inputs(path)
    assert codes(reading) == {"slip.zip": "unsafe_archive"}
    assert not reading.instances
    assert not list(tmp_path.parent.rglob("evil.dcm"))


def test_an_archive_with_a_link(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.dcm")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert codes(read_inputs(tmp_path / "link.zip")) == {"link.zip": "unsafe_archive"}


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = zipped(tmp_path / "bomb.zip", {"zeros.dcm": bytes(64 << 20)})
    reading = read_inputs(path)
    assert codes(reading) == {"bomb.zip": "unsafe_archive"}


def test_archives_nested_too_deeply(tmp_path: Path) -> None:
    data = png(ramp(dtype=np.uint8))
    name = "a.png"
    for level in range(limits().archive_depth + 1):
        data = zipped(tmp_path / "z.zip", {name: data}).read_bytes()
        name = f"{level}.zip"
    assert set(codes(read_inputs(tmp_path / "z.zip")).values()) == {"too_deep"}


def test_damaged_and_encrypted_archives(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "whole.zip", {"a.dcm": os.urandom(5000)}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:2000])
    flipped = bytearray(whole)
    flipped[1000] ^= 255
    (tmp_path / "flipped.zip").write_bytes(flipped)
    locked = bytearray(whole)
    locked[6] |= 1
    locked[whole.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(locked)
    (tmp_path / "whole.zip").unlink()
    reading = read_inputs(tmp_path)
    assert {refused.code for refused in reading.refused} == {"undecodable"}
    assert len(reading.refused) == 3


def test_folders_nested_too_deeply_and_links_in_circles(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * (limits().folder_depth + 2))
    deep.mkdir(parents=True)
    shutil.copy(shipped("CT_small.dcm"), tmp_path / "top.dcm")
    (tmp_path / "loop").symlink_to(tmp_path)
    reading = read_inputs(tmp_path)
    assert len(reading.instances) == 1
    assert set(codes(reading).values()) == {"too_deep"}


def test_special_files_and_dangling_links(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone.dcm").symlink_to(tmp_path / "nowhere.dcm")
    assert codes(read_inputs(tmp_path)) == {"pipe": "not_dicom", "gone.dcm": "not_found"}


def test_sequences_nested_too_deeply(tmp_path: Path) -> None:
    opening = struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF)
    opening += struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    head = io.BytesIO()
    ds = Dataset()
    ds.file_meta = synthetic(ramp()).file_meta
    pydicom.dcmwrite(head, ds, enforce_file_format=True)
    (tmp_path / "deep.dcm").write_bytes(head.getvalue() + opening * 20000)
    assert codes(read_inputs(tmp_path)) == {"deep.dcm": "too_deep"}


def test_a_frame_that_claims_to_be_huge(tmp_path: Path) -> None:
    save(synthetic(ramp(), Rows=65535, Columns=65535), tmp_path / "huge.dcm")
    assert codes(read_inputs(tmp_path)) == {"huge.dcm": "too_large"}


def test_a_deflate_bomb(tmp_path: Path, set_limit: SetLimit) -> None:
    set_limit("inflated_bytes", 8 << 20)
    ds = synthetic(np.zeros((4096, 4096), dtype=np.uint16))
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = save(ds, tmp_path / "deflated.dcm")
    assert path.stat().st_size < 1 << 20
    assert codes(read_inputs(path)) == {"deflated.dcm": "too_large"}
    assert len(read_inputs(shipped("image_dfl.dcm"), decode=True).instances) == 1


def test_a_picture_with_too_many_pixels(tmp_path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    (tmp_path / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + pixels)
    assert codes(read_inputs(tmp_path)) == {"huge.png": "too_large"}


def test_a_dicomdir_stands_for_the_files_it_lists() -> None:
    folder = shipped("MR_small.dcm").parent / "dicomdirtests"
    reading = read_inputs(folder / "DICOMDIR")
    assert len(reading.instances) == 31
    assert not reading.refused


def test_a_dicomdir_that_points_outside_its_folder(tmp_path: Path) -> None:
    disc = tmp_path / "disc"
    disc.mkdir()
    shutil.copy(shipped("CT_small.dcm"), tmp_path / "SECRET")
    ds = pydicom.dcmread(shipped("MR_small.dcm").parent / "dicomdirtests" / "DICOMDIR")
    record = next(one for one in ds.DirectoryRecordSequence if "ReferencedFileID" in one)
    missing = Dataset()
    missing.update(record)
    record["ReferencedFileID"] = DataElement(
        "ReferencedFileID", "CS", ["..", "SECRET"], validation_mode=IGNORE
    )
    missing.ReferencedFileID = ["NOT", "HERE"]
    index = Dataset()
    index.file_meta, index.preamble = ds.file_meta, bytes(128)
    index.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    index.DirectoryRecordSequence = [record, missing]
    index.save_as(disc / "DICOMDIR", implicit_vr=False, little_endian=True)
    reading = read_inputs(disc / "DICOMDIR")
    assert not reading.instances
    assert codes(reading) == {"SECRET": "unsafe_archive", "HERE": "not_found"}


def test_two_patients_who_share_a_study_uid_are_kept_apart(tmp_path: Path) -> None:
    for number in (1, 2, 1):
        ds = synthetic(ramp(), PatientID=f"ID-{number}", StudyInstanceUID="1.2.3")
        save(ds, tmp_path / f"{ds.SOPInstanceUID}.dcm")
    studies = group_studies(read_inputs(tmp_path))
    assert {study.name for study in studies} == {
        f"1.2.3-{patient_pseudonym('ID-1')}",
        f"1.2.3-{patient_pseudonym('ID-2')}",
    }
    assert sorted(len(study.instances) for study in studies) == [1, 2]


def test_a_study_uid_that_is_a_path_names_no_folder(tmp_path: Path) -> None:
    ds = synthetic(ramp())
    ds.add_new("StudyInstanceUID", "LO", "../../etc")
    ds["StudyInstanceUID"].VR = "UI"
    save(ds, tmp_path / "a.dcm")
    (study,) = group_studies(read_inputs(tmp_path))
    assert study.study_instance_uid is None
    assert study.name.startswith("study-")
    assert "/" not in study.name
    assert ".." not in study.name


def test_the_facts_of_a_study(tmp_path: Path) -> None:
    for view in ("PA", "LL"):
        save(synthetic(ramp(), ViewPosition=view, StudyInstanceUID="1.2.3"), tmp_path / view)
    (study,) = group_studies(read_inputs(tmp_path))
    assert (study.name, study.modality, study.body_part) == ("1.2.3", "CR", "CHEST")
    assert study.view is None


def test_copies_of_an_image_are_drafted_once(tmp_path: Path) -> None:
    path = save(synthetic(ramp()), tmp_path / "a.dcm")
    shutil.copy(path, tmp_path / "b.dcm")
    reading = read_inputs(tmp_path)
    assert len(reading.instances) == 2
    (study,) = group_studies(reading)
    assert len(admit(study, GateConfig())[0]) == 1


def test_a_file_that_vanished_or_does_not_decode_is_refused_late(tmp_path: Path) -> None:
    save(synthetic(ramp()), tmp_path / "a.dcm")
    shutil.copy(shipped("JPEG-lossy.dcm"), tmp_path / "b.dcm")  # 12-bit JPEG: no decoder
    reading = read_inputs(tmp_path)
    assert len(reading.instances) == 2
    (tmp_path / "a.dcm").unlink()
    with pytest.raises(InputNotFound, match=r"a\.dcm"):
        load_image(reading.instances[0])
    with pytest.raises(Undecodable, match=r"b\.dcm"):
        load_image(reading.instances[1])


def test_a_draft_says_which_of_its_images_could_not_be_decoded(tmp_path: Path) -> None:
    uid = generate_uid()
    save(synthetic(ramp(), StudyInstanceUID=uid), tmp_path / "a.dcm")
    save(synthetic(ramp() + 1, StudyInstanceUID=uid), tmp_path / "b.dcm")
    (study,) = group_studies(read_inputs(tmp_path))
    (tmp_path / "b.dcm").unlink()
    images, checks, failed = admit(study, GateConfig())
    assert len(images) == len(failed) == 1
    assert [(check.accepted, check.reasons[0].code) for check in checks] == [(False, "not_found")]


def test_pseudonyms(monkeypatch: pytest.MonkeyPatch) -> None:
    one = patient_pseudonym("ID-1")
    assert one == patient_pseudonym(" ID-1 ")
    assert one != patient_pseudonym("ID-2")
    assert one != patient_pseudonym("ID-1", issuer="another hospital")
    assert patient_pseudonym("  ") is None
    monkeypatch.setenv("MEDVLM_PSEUDONYM_KEY", "secret")
    assert patient_pseudonym("ID-1") != one


def test_identity_does_not_leave_through_facts_errors_or_logs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ds = synthetic(ramp(), PatientName="Planted^Name", PatientID="PLANTED-ID")
    save(ds, tmp_path / "a.dcm")
    data = (tmp_path / "a.dcm").read_bytes().replace(b"160", b"XYZ")
    (tmp_path / "b.dcm").write_bytes(data.replace(b"PLANTED-ID", b"PLANTED\xff\xfe!"))
    with caplog.at_level(logging.DEBUG):
        reading = read_inputs(tmp_path, decode=True)
        said = repr(reading) + repr(group_studies(reading)) + caplog.text
    assert "planted" not in said.lower()


def test_names_are_fit_for_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "a\x1b[31m.txt").write_text("no image")
    os.close(os.open(os.fsencode(tmp_path) + b"/b\xff.txt", os.O_CREAT))
    for refused in read_inputs(tmp_path).refused:
        assert refused.file.isprintable()
        refused.file.encode()


def test_reading_imports_no_torch() -> None:
    code = "import medvlm.dicom.inspect, medvlm.image.gate, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_random_damage_never_raises(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("MR_small.dcm", "SC_rgb_rle.dcm", "SC_rgb_small_odd.dcm", "reportsi.dcm"):
        whole = np.frombuffer(shipped(name).read_bytes(), dtype=np.uint8)
        for attempt in range(25):
            broken = whole.copy()
            spots = rng.integers(0, min(len(broken), 2000), 8)
            broken[spots] = rng.integers(0, 256, 8)
            (tmp_path / f"{attempt}-{name}").write_bytes(broken.tobytes())
    reading = read_inputs(tmp_path, decode=True)
    assert len(reading.instances) + len(reading.refused) == 100
    for instance in reading.instances:
        with suppress(InputError):
            image = load_image(instance)
            assert np.isfinite(image.pixels).all()
            assert 0 <= image.pixels.min() <= image.pixels.max() <= 1
    assert issubclass(InputNotFound, InputError)


def test_odd_names_in_an_archive_leave_the_others_alone(tmp_path: Path) -> None:
    film = save(synthetic(ramp()), tmp_path / "film.dcm").read_bytes()
    path = tmp_path / "odd.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in (".", "\0", "film.dcm"):
            archive.writestr(zipfile.ZipInfo(name), film)
    reading = read_inputs(path)
    assert "film.dcm" in {Path(one.file).name for one in reading.instances}


def test_a_link_to_itself_is_refused_alone(tmp_path: Path) -> None:
    save(synthetic(ramp()), tmp_path / "film.dcm")
    (tmp_path / "x").symlink_to(tmp_path / "x")
    reading = read_inputs(tmp_path)
    assert len(reading.instances) == 1
    assert codes(reading) == {"x": "not_found"}


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_nothing_in_it_is_said(kind: str, tmp_path: Path) -> None:
    given = tmp_path / "empty"
    if kind == "folder":
        given.mkdir()
    else:
        zipped(given, {})
    assert list(codes(read_inputs(given)).values()) == ["no_pixels"]


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_file_without_pixels_never_quotes_its_header(tmp_path: Path) -> None:
    ds = synthetic(ramp(), SOPClassUID="1.2.3.JANE.DOE")
    del ds.PixelData
    reading = read_inputs(save(ds, tmp_path / "a.dcm"))
    assert [one.code for one in reading.refused] == ["no_pixels"]
    assert "JANE" not in reading.refused[0].message


def test_results_inside_the_input_are_no_input(tmp_path: Path) -> None:
    save(synthetic(ramp()), tmp_path / "film.dcm")
    out = tmp_path / "out" / "study"
    out.mkdir(parents=True)
    (out / "overlay.png").write_bytes(png(ramp(dtype=np.uint8)))
    assert len(read_inputs(tmp_path).instances) == 2
    assert len(read_inputs(tmp_path, but=tmp_path / "out").instances) == 1
    assert len(read_inputs(out, but=tmp_path / "out").instances) == 1  # asked for by name
