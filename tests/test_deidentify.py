"""`medvlm deidentify`: nothing that identifies is left, anywhere, and what may stay is unharmed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from datetime import date, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pydicom.uid as uids
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import iter_pixels
from pydicom.sequence import Sequence

from medvlm.cli import main
from medvlm.cli.deidentify import KEY_VARIABLE
from medvlm.dicom.comments import without_comments
from medvlm.dicom.confidentiality import Cleaner, Key
from medvlm.dicom.decode import decode_frame
from medvlm.dicom.deidentify import COMMENTS, UNTOUCHED, deidentify, refuse_leftovers
from medvlm.dicom.identifiers import Identifiers
from medvlm.errors import InputError, RefusedByPolicy, TruncatedPixels
from tests.dicoms import ramp, save, shipped, synthetic
from tests.planted import NAME, PATIENT_ID, UID_ROOT, item, plant, secrets

KEY = Key(b"the key of the tests, 32 bytes !")


class Run:
    """What a command left: exit code, stdout, stderr."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    monkeypatch.setenv(KEY_VARIABLE, KEY.secret.decode())

    def call(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["medvlm", "deidentify", *map(str, arguments)])
        capfd.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return Run(code, captured.out, captured.err)

    return call


def copy_of(ds: Dataset, key: Key = KEY) -> Dataset:
    """The de-identified copy of a data set."""
    return pydicom.dcmread(BytesIO(deidentify(as_bytes(ds), key).data))


def as_bytes(ds: Dataset) -> bytes:
    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some data sets here break rules on purpose
        ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def film(**elements: object) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        return synthetic(ramp(), **elements)


def elements(ds: Dataset) -> Iterator[pydicom.DataElement]:
    return (element for element in ds.iterall())


def spellings(secret: str) -> list[bytes]:
    forms = {secret.lower(), "".join(char for char in secret.lower() if char.isalnum())}
    return [form.encode(code) for form in forms for code in ("utf-8", "utf-16-le", "utf-16-be")]


def assert_none(where: bytes, what: list[str]) -> None:
    lower = where.lower()
    found = [secret for secret in what if any(form in lower for form in spellings(secret))]
    assert not found


# --- nothing is left


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A folder with the planted file, a zip archive of it, and a broken file, all named badly."""
    folder = tmp_path / "Foldernova Quibblethwaite"
    folder.mkdir()
    path = plant(folder / "Quibblethwaite_Zebediah_Filenamely.dcm")
    with zipfile.ZipFile(folder / "Filenamely.zip", "w") as archive:
        archive.writestr(f"Zipmembera/{NAME} {PATIENT_ID}.dcm", path.read_bytes())
        archive.writestr("Zipmembera.txt", NAME)
    (folder / "Filenamely_broken.dcm").write_bytes(path.read_bytes()[:30_000])
    return folder


def test_no_planted_identifier_is_left_anywhere(
    run: Callable[..., Run], planted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    planted_words = secrets()
    assert len(planted_words) >= 85
    original = (planted / "Quibblethwaite_Zebediah_Filenamely.dcm").read_bytes()
    in_file = [w for w in planted_words if any(form in original.lower() for form in spellings(w))]
    assert len(in_file) == len(planted_words) - 3  # all but those in names of files
    caplog.set_level(logging.DEBUG)
    for arguments in ([], ["--json"]):
        result = run(planted, tmp_path / f"{NAME}-missing", "--out", tmp_path / "out", *arguments)
        assert result.code == 1
        assert_none((result.out + result.err).encode(), planted_words)
    report = json.loads(result.out)
    assert [len(report[part]) for part in ("copies", "refused", "failed")] == [2, 0, 3]
    assert {failed["code"] for failed in report["failed"]} == {
        "truncated_pixels",
        "not_dicom",
        "not_found",
    }
    assert_none(caplog.text.encode(), planted_words)
    written = sorted((tmp_path / "out").iterdir())
    assert len(written) == 2  # twice the same file, once from the archive, and the report
    for path in written:
        assert_none(path.name.encode(), planted_words)
        assert_none(path.read_bytes(), planted_words)
    digest = hashlib.sha256(original).hexdigest()
    names = [copy["input"] for copy in report["copies"]]
    assert all(name.startswith("file 000") and name.endswith(f"({digest[:12]})") for name in names)


def test_the_planted_copy_is_a_clean_image(planted: Path) -> None:
    original = planted / "Quibblethwaite_Zebediah_Filenamely.dcm"
    copied = deidentify(original.read_bytes(), KEY)
    ds = pydicom.dcmread(BytesIO(copied.data))
    assert ds.preamble == bytes(128)
    assert not any(element.tag.is_private for element in elements(ds))
    assert {element.tag.group for element in elements(ds)} <= {
        0x8,
        0x10,
        0x12,
        0x18,
        0x20,
        0x28,
    } | {
        0x32,
        0x40,
        0x7FE0,
    }
    assert np.array_equal(ds.pixel_array, pydicom.dcmread(shipped("CT_small.dcm")).pixel_array)
    assert len(ds.PixelData) == 128 * 128 * 2
    meta = {element.keyword for element in ds.file_meta}
    assert not meta & {"SourceApplicationEntityTitle", "PrivateInformation"}
    assert ds.PatientIdentityRemoved == "YES"
    assert ds.LongitudinalTemporalInformationModified == "MODIFIED"
    codes = [code.CodeValue for code in ds.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113107", "113108"]
    assert "BurnedInAnnotation" not in ds
    assert copied.pixels == UNTOUCHED
    assert copied.actions["removed"]["private"] >= 6
    assert (ds.PatientBirthDate, ds.AccessionNumber, ds.StudyID) == ("", "", "")
    assert ds.Modality == "CT"
    assert ds.PixelSpacing == pydicom.dcmread(shipped("CT_small.dcm")).PixelSpacing


@pytest.mark.parametrize(
    "name", ["Müller^Jürgen", "Yamada^Tarou=山田^太郎=やまだ^たろう", "O'Shaughnessy^Li"]
)
def test_names_in_other_alphabets_are_found_in_kept_texts(name: str) -> None:
    for text in (name, name.replace("^", " "), name.upper(), name.split("^")[0].split("=")[-1]):
        ds = film(SpecificCharacterSet="ISO_IR 192", PatientName=name, SoftwareVersions=text[:60])
        copied = copy_of(ds)
        assert "SoftwareVersions" not in copied
        assert copied.PatientName != name


def test_harmless_device_texts_stay() -> None:
    kept = {
        "Manufacturer": "Acme",
        "ManufacturerModelName": "Ray 3",
        "SoftwareVersions": ["1", "2"],
    }
    copied = copy_of(film(**kept, BodyPartExamined="CHEST", ViewPosition="PA"))
    assert all(getattr(copied, keyword) == value for keyword, value in kept.items())
    assert (copied.BodyPartExamined, copied.ViewPosition) == ("CHEST", "PA")


def test_codes_of_known_schemes_stay_and_local_ones_go() -> None:
    known = item(CodeValue="T-28000", CodingSchemeDesignator="SRT", CodeMeaning="Lung")
    local = item(CodeValue="X", CodingSchemeDesignator="99LOCAL", CodeMeaning="Bed of Jane")
    copied = copy_of(film(AnatomicRegionSequence=Sequence([known, local])))
    (code,) = [code for code in copied.AnatomicRegionSequence if "CodeMeaning" in code]
    assert code.CodeMeaning == "Lung"


# --- the safety net


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ReferringPhysicianName", "Crumpetworth^Ebenezer"),
        ("PatientComments", "Doe"),
        ("AccessionNumber", "A-998877"),
        ("StudyInstanceUID", f"{UID_ROOT}.1"),
        ("PatientName", "Doe^Jane"),
        ("InstitutionName", "Mudfordshire Infirmary"),
    ],
)
def test_what_cleaning_leaves_is_refused(
    monkeypatch: pytest.MonkeyPatch, keyword: str, value: str
) -> None:
    act = Cleaner._act

    def with_a_hole(self: Cleaner, ds: Dataset, numbers: tuple[int, int]) -> None:
        if ds[numbers].keyword != keyword:
            act(self, ds, numbers)

    monkeypatch.setattr(Cleaner, "_act", with_a_hole)
    if keyword == "PatientName":
        monkeypatch.setattr(Cleaner, "patient_name", value)
    with pytest.raises(RefusedByPolicy) as refusal:
        deidentify(as_bytes(film(**{keyword: value})), KEY)
    assert refusal.value.code == "identifier_left"
    assert value not in str(refusal.value)


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (0x00181310, "US", [int(word) for word in np.frombuffer(b"Crumpetworth", "<u2")]),
        (0x00282000, "OB", b"anything"),
        (0x00091001, "LO", "x"),
        (0x00200013, "IS", "998877"),
        (0x00080060, "CS", "DOE"),
        (0x00080008, "CS", ["ORIGINAL", "PRIMARY", "CRUMPETWORTH"]),
    ],
)
def test_the_finished_file_is_searched_on_its_own(tag: int, vr: str, value: object) -> None:
    ds = film(ReferringPhysicianName="Crumpetworth^E", PatientID="998877")
    identifiers = Identifiers(ds)
    clean = copy_of(ds)
    refuse_leftovers(as_bytes(clean), identifiers)
    clean.add_new(tag, vr, value)
    with pytest.raises(RefusedByPolicy):
        refuse_leftovers(as_bytes(clean), identifiers)


def test_a_name_hidden_in_numbers_is_refused() -> None:
    hidden = [int(word) for word in np.frombuffer(b"Crumpetworth", "<u2")]
    ds = film(ReferringPhysicianName="Crumpetworth^E", AcquisitionMatrix=hidden)
    with pytest.raises(RefusedByPolicy, match="bytes"):
        deidentify(as_bytes(ds), KEY)


@pytest.mark.parametrize(
    "patient", ["Gina^Mary", "Prima^Origi", "Lee^Ann", "ORI^TIF", "NONE^OTHER"]
)
def test_short_names_do_not_cost_the_image(patient: str) -> None:
    ds = film(PatientName=patient, ImageType=["ORIGINAL", "PRIMARY", "OTHER"], PatientID="123456")
    ds.ImagerPixelSpacing, ds.StudyDate, ds.StudyTime = (
        ["0.123456", "0.123456"],
        "20200102",
        "101010",
    )
    copied = copy_of(ds)
    assert list(copied.ImageType) == ["ORIGINAL", "PRIMARY", "OTHER"]
    assert copied.StudyTime == "101010"


# --- UIDs


def test_uids_agree_over_files_runs_and_references(
    run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = film(), film()
    second.StudyInstanceUID = first.StudyInstanceUID
    second.SeriesInstanceUID = first.SeriesInstanceUID
    reference = item(
        ReferencedSOPClassUID=first.SOPClassUID, ReferencedSOPInstanceUID=first.SOPInstanceUID
    )
    second.SourceImageSequence = Sequence([reference])
    second.ReferencedImageSequence = Sequence([reference])
    (tmp_path / "in").mkdir()
    save(first, tmp_path / "in" / "1.dcm")
    save(second, tmp_path / "in" / "2.dcm")
    contents = []
    for out in ("a", "b"):
        assert run(tmp_path / "in", "--out", tmp_path / out).code == 0
        contents.append({p.name: p.read_bytes() for p in (tmp_path / out).iterdir()})
    assert contents[0] == contents[1]  # byte by byte, the report too
    monkeypatch.setenv(KEY_VARIABLE, "another key of the tests, longer")
    assert run(tmp_path / "in", "--out", tmp_path / "c").code == 0
    assert not {p.name for p in (tmp_path / "c").glob("*.dcm")} & set(contents[0])

    one, two, other = copy_of(first), copy_of(second), copy_of(first, Key(b"another key" * 3))
    assert one.StudyInstanceUID == two.StudyInstanceUID != first.StudyInstanceUID
    assert one.SeriesInstanceUID == two.SeriesInstanceUID != one.StudyInstanceUID
    for sequence in (two.SourceImageSequence, two.ReferencedImageSequence):
        assert sequence[0].ReferencedSOPInstanceUID == one.SOPInstanceUID
        assert sequence[0].ReferencedSOPClassUID == first.SOPClassUID
    assert one.SOPInstanceUID == one.file_meta.MediaStorageSOPInstanceUID != two.SOPInstanceUID
    assert one.SOPClassUID == first.SOPClassUID
    assert one.PatientID == two.PatientID != other.PatientID
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        assert getattr(one, keyword) != getattr(other, keyword)
        assert getattr(one, keyword).startswith("2.25.")
        assert len(getattr(one, keyword)) <= 64


# --- dates and ages


def day(text: str) -> date:
    return datetime.strptime(text[:8], "%Y%m%d").date()


def test_intervals_between_dates_of_a_patient_stay() -> None:
    first = film(
        StudyDate="20040119", StudyTime="072730", AcquisitionDateTime="20040119072801.5+0100"
    )
    second = film(StudyDate="20040301", ContentDate="20040302", SeriesDate="2004.03.01")
    one, two = copy_of(first), copy_of(second)
    back = day("20040119") - day(one.StudyDate)
    assert 1 <= back.days <= 3650
    assert day(two.StudyDate) - day(one.StudyDate) == day("20040301") - day("20040119")
    assert day(two.ContentDate) == day("20040302") - back
    assert day(two.SeriesDate) == day(two.StudyDate)
    assert day(one.AcquisitionDateTime) == day(one.StudyDate)
    assert one.AcquisitionDateTime[8:] == "072801.5"
    assert one.StudyTime == "072730"
    stranger = copy_of(film(PatientID="another", StudyDate="20040119"))
    assert stranger.StudyDate != one.StudyDate


def test_a_wrong_vr_hides_no_date_and_no_name() -> None:
    ds = film(PatientID="1")
    wrong = (
        (0x00080020, "TM", "200401"),
        (0x00080021, "LO", "20040119"),
        (0x00104000, "UI", "Doe^Jane"),
        (0x00100010, "UT", "Doe^Jane"),
        (0x00101010, "LO", "Jane"),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for tag, vr, value in wrong:
            ds.add_new(tag, vr, value)
    copied = deidentify(as_bytes(ds), KEY).data
    assert_none(copied, ["20040119", "200401", "jane"])
    assert pydicom.dcmread(BytesIO(copied))["PatientName"].VR == "PN"


def test_dates_of_devices_and_of_birth_do_not_stay() -> None:
    ds = film(
        StudyDate="20040119",
        PatientBirthDate="19500601",
        DateOfLastCalibration="20031201",
        DateOfManufacture="20010101",
        LastMenstrualDate="20040101",
        ContentDate="200401",
    )
    copied = copy_of(ds)
    assert copied.PatientBirthDate == ""
    left = {"DateOfLastCalibration", "DateOfManufacture", "LastMenstrualDate", "ContentDate"}
    assert not left & {element.keyword for element in copied}
    assert copied.PatientAge == "053Y"


@pytest.mark.parametrize(
    ("given", "kept"), [("089Y", "089Y"), ("090Y", "090Y"), ("103Y", "090Y"), ("005M", "005M")]
)
def test_great_ages_are_all_one(given: str, kept: str) -> None:
    copied = copy_of(film(PatientAge=given, PatientSex="F", PatientWeight="70.5"))
    assert (copied.PatientAge, copied.PatientSex, copied.PatientWeight) == (kept, "F", 70.5)


@pytest.mark.parametrize(
    ("born", "seen", "age"),
    [
        ("19000101", "20040119", "090Y"),
        ("20031120", "20040119", "001M"),
        ("20050101", "20040119", None),
    ],
)
def test_the_age_is_told_from_the_birth_date(born: str, seen: str, age: str | None) -> None:
    assert copy_of(film(PatientBirthDate=born, StudyDate=seen)).get("PatientAge") == age


# --- pixels


@pytest.mark.parametrize(
    "name",
    [
        "OBXXXX1A.dcm",
        "OBXXXX1A_expb.dcm",
        "OBXXXX1A_rle_2frame.dcm",
        "JPGLosslessP14SV1_1s_1f_8b.dcm",
        "gdcm-US-ALOKA-16.dcm",
        "gdcm-US-ALOKA-16_big.dcm",
        "examples_ybr_color.dcm",
        "examples_palette.dcm",
    ],
)
def test_ultrasound_is_black_outside_its_regions(name: str) -> None:
    before = pydicom.dcmread(shipped(name))
    copied = deidentify(shipped(name).read_bytes(), KEY)
    after = pydicom.dcmread(BytesIO(copied.data))
    assert copied.pixels.startswith("blanked outside")
    assert after.file_meta.TransferSyntaxUID == uids.ExplicitVRLittleEndian
    assert after.BurnedInAnnotation == "NO"
    assert "113101" in [code.CodeValue for code in after.DeidentificationMethodCodeSequence]
    inside = np.zeros((before.Rows, before.Columns), bool)
    for region in before.SequenceOfUltrasoundRegions:
        if region.RegionSpatialFormat in (1, 2, 3, 4):
            columns = slice(region.RegionLocationMinX0, region.RegionLocationMaxX1 + 1)
            inside[region.RegionLocationMinY0 : region.RegionLocationMaxY1 + 1, columns] = True
    assert 0 < inside.mean() < 1
    shown = 0
    for old, new in zip(iter_pixels(before), iter_pixels(after), strict=True):
        assert np.array_equal(old[inside], new[inside])
        if after.PhotometricInterpretation == "PALETTE COLOR":
            new = apply_color_lut(new, after)
        # The darkest colour of a palette need not be black.
        assert new[~inside].max() <= (0 if after.SamplesPerPixel == 3 else new.min())
        shown += 1
    assert shown == int(before.get("NumberOfFrames") or 1)


def jpeg(pixels: np.ndarray, form: str = "JPEG") -> bytes:
    """A compressed frame with names wherever there is room: comments, EXIF, behind the end."""
    buffer = BytesIO()
    picture = Image.fromarray(pixels)
    if form == "JPEG":
        exif = Image.Exif()
        exif[0x010E] = f"Exif {NAME}"
        picture.save(buffer, form, comment=f"Comment {NAME}".encode(), exif=exif)
    else:
        picture.save(buffer, form, comment=f"Comment {NAME}", no_jp2=True, irreversible=False)
    data = buffer.getvalue() + f"behind {NAME}".encode()
    return data + b"\0" * (len(data) % 2)


@pytest.mark.parametrize(
    ("form", "syntax"), [("JPEG", uids.JPEGBaseline8Bit), ("JPEG2000", uids.JPEG2000Lossless)]
)
def test_comments_in_compressed_frames_are_blanked(form: str, syntax: uids.UID) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80), np.uint8)
    ds = synthetic(np.stack([pixels] * 2)[0], PatientName=NAME, NumberOfFrames=2)
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([jpeg(pixels, form), jpeg(pixels[::-1].copy(), form)])
    ds["PixelData"].is_undefined_length = True
    assert NAME.encode() in as_bytes(ds)
    copied = deidentify(as_bytes(ds), KEY)
    assert copied.pixels == COMMENTS
    assert_none(copied.data, ["Quibblethwaite", "Zebediah"])
    after = pydicom.dcmread(BytesIO(copied.data))
    assert after.file_meta.TransferSyntaxUID == syntax
    assert np.array_equal(after.pixel_array, ds.pixel_array)


def test_comments_in_jpeg_ls_and_in_tiles_of_jpeg_2000_are_blanked() -> None:
    ds = pydicom.dcmread(shipped("MR_small_jpeg_ls_lossless.dcm"))
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    text = b"Comment " + NAME.encode()
    segment = (len(text) + 2).to_bytes(2, "big") + text
    commented = frame[:2] + b"\xff\xfe" + segment + frame[2:]
    assert len(without_comments(commented)) == len(commented)
    assert NAME.encode() not in without_comments(commented)
    assert without_comments(frame) == frame
    ds = pydicom.dcmread(shipped("MR_small_jp2klossless.dcm"))
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    tile = frame.index(b"\xff\x90\x00\x0a")
    length = int.from_bytes(frame[tile + 6 : tile + 10], "big")
    comment = b"\xff\x64" + (len(text) + 4).to_bytes(2, "big") + b"\0\1" + text
    longer = (length + len(comment)).to_bytes(4, "big") if length else bytes(4)
    head, rest = frame[: tile + 6] + longer + frame[tile + 10 : tile + 12], frame[tile + 12 :]
    blanked = without_comments(head + comment + rest)
    assert NAME.encode() not in blanked
    assert blanked.endswith(rest)


@pytest.mark.parametrize("frame", [b"\xff\xd8\xff\xd8", b"\0\0\0\x0cjP  ", b"GIF89a", b""])
def test_streams_of_unknown_kinds_are_refused(frame: bytes) -> None:
    with pytest.raises((RefusedByPolicy, TruncatedPixels)):
        without_comments(frame)


@pytest.mark.parametrize("syntax", ["MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"])
def test_damaged_streams_end_in_a_typed_error(syntax: str) -> None:
    ds = pydicom.dcmread(shipped(syntax))
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    random = np.random.default_rng(1)
    for _ in range(300):
        damaged = bytearray(frame[: random.integers(2, len(frame))])
        for position in random.integers(2, min(200, len(damaged)) + 1, 3):
            damaged[position - 1] = random.integers(256)
        with contextlib.suppress(InputError):
            assert len(without_comments(bytes(damaged))) == len(damaged)


def test_bytes_behind_the_runs_of_rle_are_gone() -> None:
    ds = pydicom.dcmread(shipped("MR_small_RLE.dcm"))
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    ds.PixelData = encapsulate([frame + NAME.encode() + b"\0" * (len(NAME) % 2)])
    copied = deidentify(as_bytes(ds), KEY)
    assert_none(copied.data, ["Quibblethwaite"])
    after = pydicom.dcmread(BytesIO(copied.data))
    assert after.file_meta.TransferSyntaxUID == uids.RLELossless
    assert np.array_equal(
        after.pixel_array, pydicom.dcmread(shipped("MR_small_RLE.dcm")).pixel_array
    )


def test_a_decoder_that_panics_ends_in_a_typed_error() -> None:
    ds = pydicom.dcmread(shipped("MR_small_RLE.dcm"))
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    # The first segment's runs yield more than its half of the values.
    overlong = frame[:64] + b"\x81\0" * 40 + frame[64:]
    ds.PixelData = encapsulate([overlong])
    with pytest.raises(InputError):
        deidentify(as_bytes(ds), KEY)


# --- refusals


def with_elements(name: str, **changes: object) -> Dataset:
    ds = pydicom.dcmread(shipped(name))
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    return ds


REFUSED: dict[str, Callable[[], bytes]] = {
    "burned_in_annotation": lambda: as_bytes(film(BurnedInAnnotation="YES")),
    "secondary_capture": lambda: shipped("SC_rgb.dcm").read_bytes(),
    "converted_image": lambda: as_bytes(film(ConversionType="DF")),
    "unknown_kind": lambda: as_bytes(film(Modality="OT")),
    "overlay_in_pixels": lambda: as_bytes(overlaid()),
    "no_regions": lambda: shipped("US1_UNCR.dcm").read_bytes(),
    "regions_cover_all": lambda: as_bytes(all_covered()),
    "secondary_image": lambda: as_bytes(film(ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"])),
    "no_image": lambda: shipped("reportsi.dcm").read_bytes(),
    "index": lambda: shipped("dicomdirtests/DICOMDIR").read_bytes(),
    "picture": lambda: jpeg(np.zeros((8, 8), np.uint8)),
    "stream": lambda: as_bytes(video()),
}


def overlaid() -> Dataset:
    ds = film()
    ds.add_new(0x60000102, "US", 12)
    return ds


def all_covered() -> Dataset:
    ds = with_elements("OBXXXX1A.dcm")
    region = ds.SequenceOfUltrasoundRegions[0]
    region.RegionLocationMinX0 = region.RegionLocationMinY0 = 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = ds.Columns - 1, ds.Rows - 1
    return ds


def video() -> Dataset:
    ds = film()
    ds.file_meta.TransferSyntaxUID = uids.MPEG4HP41
    ds.PixelData = encapsulate([b"\0\0\0\1" * 100_000])
    ds["PixelData"].is_undefined_length = True
    return ds


def test_refusals_by_policy_are_no_failures(run: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number, make in enumerate(REFUSED.values()):
        (tmp_path / "in" / f"{number:02}").write_bytes(make())
    result = run(tmp_path / "in", "--out", tmp_path / "out")
    assert result.code == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [refused["code"] for refused in report["refused"]] == list(REFUSED)
    assert not report["copies"]
    assert not report["failed"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.json"]
    assert result.out.count("refused: file") == len(REFUSED)


@pytest.mark.parametrize(
    "ds",
    [
        film(ImageType=["DERIVED", "SECONDARY"]),
        with_elements("CT_small.dcm", ImageType=["DERIVED", "PRIMARY", "DOSE REPORT"]),
        with_elements("MR_small.dcm", BitsStored=8),
        synthetic(np.zeros((60, 60, 3), np.uint8)),
    ],
)
def test_pictures_of_screens_are_refused(ds: Dataset) -> None:
    with pytest.raises(RefusedByPolicy) as refusal:
        deidentify(as_bytes(ds), KEY)
    assert refusal.value.code == "secondary_image"


@pytest.mark.parametrize("signed", [0, 1])
def test_drawings_in_spare_bits_are_refused(signed: int) -> None:
    def drawn(value: int, *, width: int) -> Dataset:
        pixels = ramp(dtype=np.int16 if signed else np.uint16)
        pixels[50:60, 50 : 50 + width] += np.asarray(value, pixels.dtype)
        ds = synthetic(pixels, PixelRepresentation=signed)
        ds.BitsStored, ds.HighBit = 12, 11
        return ds

    assert copy_of(drawn(0, width=20)).Rows
    assert copy_of(drawn(0x4000, width=1)).Rows  # one value, such as a padding value
    with pytest.raises(RefusedByPolicy) as refusal:
        deidentify(as_bytes(drawn(0x4000, width=20)), KEY)
    assert refusal.value.code == "overlay_in_pixels"


# --- the command


def test_exit_codes(
    run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    shutil.copy(shipped("CT_small.dcm"), source / "a.dcm")
    out = tmp_path / "out"
    assert run(source, "--out", out).code == 0
    assert run(source, tmp_path / "missing", "--out", out).code == 1
    assert run(source, "--out", source).code == 2
    assert run("--out", out).code == 2
    blocked = run(source, "--out", source / "a.dcm")
    assert blocked.code == 2
    assert str(tmp_path) not in blocked.err
    (tmp_path / "short").write_text("short")
    for option in ("--key-file", "--new-key"):
        assert run(source, "--out", out, option, tmp_path / "short").code == 2
        assert run(source, "--out", out, option, out / "key").code == 2
    both = ("--key-file", tmp_path / "key", "--new-key", tmp_path / "key")
    assert run(source, "--out", out, *both).code == 2
    monkeypatch.setenv(KEY_VARIABLE, "short")
    assert run(source, "--out", out).code == 2


def test_keys(run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film_path, key = shipped("CT_small.dcm"), tmp_path / "key"
    monkeypatch.delenv(KEY_VARIABLE)
    for out in ("a", "b"):
        assert "No key" in run(film_path, "--out", tmp_path / out).err
    assert run(film_path, "--out", tmp_path / "c", "--new-key", key).code == 0
    assert key.stat().st_mode & 0o077 == 0
    assert "No key" not in run(film_path, "--out", tmp_path / "d", "--key-file", key).err
    names = {out: {p.name for p in (tmp_path / out).glob("*.dcm")} for out in "abcd"}
    assert names["a"] != names["b"] != names["c"] == names["d"]
    assert key.read_text().strip() not in (tmp_path / "c" / "report.json").read_text()


def test_results_inside_the_input_are_not_read_again(
    run: Callable[..., Run], tmp_path: Path
) -> None:
    shutil.copy(shipped("CT_small.dcm"), tmp_path / "a.dcm")
    for option in ("--new-key", "--key-file"):  # which lies there, too
        key = (option, tmp_path / "key")
        result = run(tmp_path, "--out", tmp_path / "out", "--json", *key)
        assert result.code == 0
        assert len(json.loads(result.out)["copies"]) == 1
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_a_zip_or_program_in_the_preamble_is_cleared(
    run: Callable[..., Run], tmp_path: Path
) -> None:
    for number, start in enumerate((b"PK\x03\x04", b"MZ", b"\x7fELF", b"\xff\xd8\xff")):
        data = shipped("CT_small.dcm").read_bytes()
        (tmp_path / f"{number}.dcm").write_bytes(start.ljust(128, b"x") + data[128:])
    assert run(tmp_path, "--out", tmp_path / "out").code == 0
    copies = list((tmp_path / "out").glob("*.dcm"))
    assert len(copies) == 4
    assert all(not any(path.read_bytes()[:128]) for path in copies)


def test_bytes_behind_the_data_set_do_not_stay(run: Callable[..., Run], tmp_path: Path) -> None:
    data = shipped("CT_small.dcm").read_bytes()
    for number, rest in enumerate((b"\xfe\xff\xe0\xe0\0\0\0\0" + NAME.encode(), NAME.encode() * 3)):
        (tmp_path / f"{number}.dcm").write_bytes(data + rest)
    result = run(tmp_path, "--out", tmp_path / "out", "--json")
    assert_none((result.out + result.err).encode(), ["Quibblethwaite"])
    for path in (tmp_path / "out").iterdir():
        assert_none(path.read_bytes(), ["Quibblethwaite"])


def fail(job: object) -> None:
    """In place of the work on one file; a worker process finds it by its name."""
    raise KeyError(NAME)


def test_an_unforeseen_error_names_nobody(
    run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(shipped("CT_small.dcm"), tmp_path / f"{NAME}.dcm")
    # The package's attribute of this name is the command.
    monkeypatch.setattr(sys.modules["medvlm.cli.deidentify"], "_copied", fail)
    result = run(tmp_path, "--out", tmp_path / "out", "--json")
    assert result.code == 1
    assert json.loads(result.out)["failed"][0]["code"] == "undecodable"
    assert_none((result.out + result.err).encode(), ["Quibblethwaite"])


# --- whole corpora


IDENTIFYING = (
    *("PatientName", "PatientID", "InstitutionName", "ReferringPhysicianName"),
    *("OperatorsName", "AccessionNumber", "StudyInstanceUID", "SOPInstanceUID"),
)


def pixels_of(ds: Dataset, frame: int) -> bytes | str:
    """The decoded frame, or why there is none."""
    try:
        return decode_frame(ds, frame).tobytes()
    except InputError as error:
        return str(error)


def test_every_real_file_ends_in_a_copy_or_a_typed_refusal(
    run: Callable[..., Run], tmp_path: Path
) -> None:
    folders = [shipped("CT_small.dcm").parent, shipped("RG1_J2KR.dcm").parent]
    result = run(*folders, "--out", tmp_path, "--json")
    assert result.code == 1  # some files are broken, some are no DICOM
    report = json.loads(result.out)
    given = {
        hashlib.sha256(path.read_bytes()).hexdigest()[:12]: path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file()
    }
    for copied in report["copies"]:
        original = given[copied["input"][-13:-1]]
        before, after = pydicom.dcmread(original), pydicom.dcmread(tmp_path / copied["output"])
        assert after.PatientIdentityRemoved == "YES"
        assert not any(element.tag.is_private for element in elements(after))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is wrong in the original
            named = {str(before.get(keyword) or "") for keyword in IDENTIFYING}
        assert_none(
            (tmp_path / copied["output"]).read_bytes(), [n for n in named if len(n.strip("^")) > 5]
        )
        if not copied["pixels"].startswith("blanked"):
            for frame in range(int(before.get("NumberOfFrames") or 1)):
                assert pixels_of(before, frame) == pixels_of(after, frame)
    codes = {failed["code"] for failed in report["failed"]}
    assert codes == {"not_dicom", "truncated_pixels", "undecodable"}
    assert len(report["copies"]) >= 75
    assert len(report["refused"]) >= 150
