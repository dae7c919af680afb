"""A hospital's folder, read, checked and prepared: real film, made-up patients and reports."""

from __future__ import annotations

import csv
import json
import shutil
import warnings
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from rich.console import Console

from medvlm.data.cards import require_card
from medvlm.data.prepare import picture_of, plan, prepare, summarise
from medvlm.data.sets import load_set, split_sha256
from medvlm.data.site import Site, read_site
from medvlm.data.site_summary import SiteSummary, summary_tables
from medvlm.dicom.read import read_instance
from medvlm.errors import DataSetError, UsageError
from medvlm.findings import FINDINGS
from medvlm.image.load import load_image
from medvlm.resources import sample_film
from tests.dicoms import ramp, save, shipped
from tests.reports import content, diagnostic_report, structured, table
from tests.test_reports_corrections import review, sentence

SECRET = b"a secret of the tests"
NORMAL = (
    "FINDINGS: Heart size is normal. No consolidation or effusion. IMPRESSION: No pneumothorax."
)
Film = Callable[..., Dataset]


def uid(number: int, kind: int = 1) -> str:
    return f"1.2.826.0.1.99.{kind}.{number}"


@pytest.fixture(scope="module")
def real_film() -> Dataset:
    """The radiograph of pydicom-data (CR, PA, MONOCHROME1), uncompressed, every eighth pixel."""
    ds = pydicom.dcmread(sample_film())
    ds.decompress(generate_instance_uid=False)
    pixels = ds.pixel_array[::8, ::8]
    ds.Rows, ds.Columns = pixels.shape
    ds.PixelData = pixels.tobytes()
    return ds


@pytest.fixture
def film(real_film: Dataset, tmp_path: Path) -> Film:
    """Writes a film of study `number` of an invented patient into the folder `in`."""
    (tmp_path / "in").mkdir()
    made = [0]

    def write(number: int, patient: int | None = None, **elements: Any) -> Dataset:
        made[0] += 1
        patient = number if patient is None else patient
        ds = real_film.__deepcopy__({})
        ds.StudyInstanceUID, ds.SeriesInstanceUID = uid(number), uid(made[0], 2)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid(made[0], 3)
        ds.PatientID, ds.AccessionNumber = f"PAT-{patient:05}", f"ACC-{number:05}"
        ds.PatientName = f"Quibble{chr(97 + patient % 26)}thwaite^Zebediah"
        ds.PatientBirthDate, ds.PatientAge = f"19{30 + patient:02}0317", ""
        ds.StudyDate = "20200301"
        ds.ReferringPhysicianName, ds.InstitutionName = "Crumpetworth^Ebenezer", "Mudford Infirmary"
        pixels = np.frombuffer(ds.PixelData, np.uint16).copy()
        pixels[:8] = made[0]
        ds.PixelData = pixels.tobytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # values that break rules of the standard, on purpose
            for keyword, value in elements.items():
                setattr(ds, keyword, value)
        save(ds, tmp_path / "in" / f"film-{made[0]:03}.dcm")
        return ds

    return write


def put(tmp_path: Path, name: str, data: bytes | str) -> None:
    (tmp_path / "in" / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def reports(tmp_path: Path, *texts: tuple[int, str]) -> None:
    put(tmp_path, "reports.csv", table([(uid(number), text) for number, text in texts]))


def codes(site: Site) -> dict[str, int]:
    return summarise(site, salt=SECRET).problems


def prepared(tmp_path: Path, name: str = "out", **options: Any) -> SiteSummary:
    return prepare(read_site(tmp_path / "in"), tmp_path / name, salt=SECRET, **options)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


# ---- the whole way ----


def test_a_prepared_set_reads_as_a_set_with_a_card(film: Film, tmp_path: Path) -> None:
    for number in range(6):
        film(number, patient=number // 2)
    texts = ["Small left effusion. No pneumothorax.", "Possible pneumonia.", NORMAL]
    reports(tmp_path, *((number, texts[number % 3]) for number in range(6)))
    summary = prepared(tmp_path)
    data = load_set(tmp_path / "out")
    assert data.kind == "site"
    assert len(data.films) == summary.total("films") == 6
    by_effusion = {film_.findings[FINDINGS.index("Effusion")]: film_ for film_ in data.films}
    known = by_effusion[1.0]
    named = dict(zip(FINDINGS, known.findings, strict=True))
    assert (named["Effusion"], named["Pneumothorax"]) == (1, 0)
    assert np.isnan(named["Mass"])
    unsure = next(one for one in data.films if np.isnan(one.findings[2]))
    assert np.isnan(unsure.findings).all()  # uncertain is not known
    normal = by_effusion[0.0]
    assert normal.normal
    assert not known.normal
    assert known.attributes[0] == 0  # PA
    assert known.age_years in (89, 90)
    groups = {side: {f.group for f in data.films if f.validation is side} for side in (True, False)}
    assert groups[True]
    assert groups[False]
    assert not groups[True] & groups[False]
    card = require_card("site", tmp_path / "out")
    assert (card.images, card.patients, card.url) == (6, 3, None)
    assert card.labels["Effusion"] == 2
    assert summary == SiteSummary.model_validate_json((tmp_path / "out/summary.json").read_text())
    assert summary.problems == summary.refused == summary.dropped == {}
    counts = summary.labels["Pneumonia"]
    assert (counts.present, counts.uncertain, counts.absent, counts.not_mentioned) == (0, 2, 0, 4)


def test_nothing_that_identifies_is_in_a_prepared_set(film: Film, tmp_path: Path) -> None:
    for number in range(3):
        film(number, PatientComments="Grumblecastle")
    header = ("accession_number", "text", "reader_name")
    lines = [
        (
            f"ACC-0000{number}",
            "HISTORY: Ms Snodgrass of Netherwallop.\n"
            f"FINDINGS: Mr. Quibble{'abc'[number]}thwaite (PAT-0000{number}, born "
            f"03/17/193{number}) has a left effusion. No pneumothorax, as told to Dr. Ebenezer "
            "Crumpetworth of Mudford Infirmary at 10:42.\n"
            f"No mass since May 4, 2019 (ACC-0000{number}); "
            "call 555-123-4567. Effusion as seen by Tiddlemarsh.\nSigned by: Vanderplonk",
            "Tiddlemarsh, Hortense",
        )
        for number in range(3)
    ]
    put(tmp_path, "Quibble-reports.csv", table(lines, header))
    summary = prepared(tmp_path)
    assert summary.redacted.keys() >= {"NAME", "ID", "DATE", "TIME", "PHONE", "PLACE"}
    secrets = [
        *(
            "quibble",
            "thwaite",
            "zebediah",
            "pat-0",
            "acc-0",
            "1930",
            "1931",
            "03/17",
            "555",
            "2019",
        ),
        *("crumpet", "ebenezer", "mudford", "tiddlemarsh", "hortense", "vanderplonk", "snodgrass"),
        *("netherwallop", "grumblecastle", "10:42", "20200301", "1.2.826", "film-0", "may 4"),
    ]
    for path in (tmp_path / "out").rglob("*"):
        content_ = path.read_bytes().lower() if path.is_file() else b""
        for secret in secrets:
            assert secret.encode() not in content_, (path.name, secret)
            assert secret not in path.name.lower()
    first, *_ = (tmp_path / "out/reports.jsonl").read_text().splitlines()
    said = [one["text"] for one in json.loads(first)["sentences"]]
    assert said == [
        "Mr. [NAME] ([ID], born [DATE]) has a left effusion.",
        "No pneumothorax, as told to Dr. [NAME] of [PLACE] at [TIME].",
        "No mass since [DATE] ([ID]); call [PHONE].",
        "Effusion as seen by [NAME].",
    ]


def test_pictures_are_what_the_loader_renders_and_nothing_else(film: Film, tmp_path: Path) -> None:
    film(1)
    reports(tmp_path, (1, NORMAL))
    prepared(tmp_path)
    (path,) = (tmp_path / "out" / "images").iterdir()
    rendered = load_image(read_instance(tmp_path / "in" / "film-001.dcm")).pixels
    with Image.open(path) as picture:
        assert picture.mode == "L"
        assert picture.info == {}
        assert np.array_equal(np.asarray(picture), np.round(rendered * 255))


def test_large_pictures_are_made_smaller() -> None:
    assert picture_of(ramp(500, 2048).astype(np.float32) / 2048).size == (1024, 250)
    assert picture_of(np.zeros((3000, 2), np.float32)).size == (1, 1024)


def test_the_same_input_and_secret_give_the_same_set(film: Film, tmp_path: Path) -> None:
    for number in range(4):
        film(number)
    reports(tmp_path, *((number, NORMAL) for number in range(4)))
    first, again = prepared(tmp_path), prepared(tmp_path, "again")
    assert first == again
    other = prepare(read_site(tmp_path / "in"), tmp_path / "other", salt=b"another secret of tests")
    assert other.key_id != first.key_id
    assert other.data_sha256 != first.data_sha256
    names = [{path.name for path in (tmp_path / n / "images").iterdir()} for n in ("out", "other")]
    assert not names[0] & names[1]


def test_a_dry_run_counts_the_same_and_writes_nothing(film: Film, tmp_path: Path) -> None:
    for number in range(3):
        film(number)
    reports(tmp_path, (0, NORMAL), (1, "Effusion."))
    before = sorted(tmp_path.rglob("*"))
    dry = summarise(read_site(tmp_path / "in"), salt=SECRET)
    assert sorted(tmp_path.rglob("*")) == before
    wet = prepared(tmp_path)
    assert (dry.dry, wet.dry) == (True, False)
    assert dry.data_sha256 is None
    same = {"dry": True, "data_sha256": None}
    assert wet.model_copy(update=same) == dry
    assert dry.problems == {"study_without_report": 1}
    console = Console(width=160, file=StringIO())
    with console.capture() as captured:
        console.print(summary_tables(dry))
    shown = captured.get()
    for words in ("reports matched", "Effusion", "study without report", "positives, training"):
        assert words in shown


# ---- split ----


def test_a_patient_is_on_one_side_and_stays_there(film: Film, tmp_path: Path) -> None:
    for number in range(40):
        film(number, patient=number // 2)
    reports(tmp_path, *((number, NORMAL) for number in range(40)))
    site = read_site(tmp_path / "in")
    sides = plan(site, salt=SECRET).sides
    assert len(sides) == 20
    assert 1 <= sum(side == "validation" for side in sides.values()) <= 8
    for path in sorted((tmp_path / "in").glob("film-03*")):
        path.unlink()
    fewer = plan(read_site(tmp_path / "in"), salt=SECRET).sides
    assert fewer.items() <= sides.items()


def test_both_sides_have_a_patient(film: Film, tmp_path: Path) -> None:
    for number in range(2):
        film(number)
    reports(tmp_path, (0, NORMAL), (1, NORMAL))
    site = read_site(tmp_path / "in")
    for number in range(20):
        sides = plan(site, salt=f"secret of the tests {number}").sides
        assert sorted(sides.values()) == ["training", "validation"]


@pytest.mark.parametrize(
    "other",
    [
        {"IssuerOfPatientID": "elsewhere"},  # one ID, whoever issued it
        {"PatientID": "NEW-77"},  # one name and birth date
    ],
)
def test_files_that_may_be_of_one_patient_are_on_one_side(
    film: Film, tmp_path: Path, other: dict[str, str]
) -> None:
    film(1, patient=7)
    film(2, patient=7, **other)
    film(3, patient=8)
    reports(tmp_path, *((number, NORMAL) for number in (1, 2, 3)))
    assert len(plan(read_site(tmp_path / "in"), salt=SECRET).sides) == 2


def test_a_film_filed_under_two_patients_makes_them_one(film: Film, tmp_path: Path) -> None:
    first = film(1)
    film(2, PixelData=first.PixelData)
    film(2)
    film(3)
    reports(tmp_path, *((number, NORMAL) for number in (1, 2, 3)))
    site = read_site(tmp_path / "in")
    assert codes(site) == {"duplicate_image": 1}
    made = plan(site, salt=SECRET)
    assert len(made.sides) == 2
    assert sum(len(item.films) for item in made.studies) == 3


def test_names_and_films_of_nobody_join_no_patients(film: Film, tmp_path: Path) -> None:
    for number in range(4):
        film(number, PatientName="Anonymous^Patient", PatientBirthDate="19000101")
    for number in range(4, 8):
        film(number, PatientID="unknown", PatientName="", PatientBirthDate="")
    for number in range(4):  # a second film of each, all of them alike
        black = film(number)
        black.PixelData = bytes(len(black.PixelData))
        save(black, tmp_path / "in" / f"film-{9 + number:03}.dcm")
    reports(tmp_path, *((number, NORMAL) for number in range(8)))
    site = read_site(tmp_path / "in")
    assert len({study.patient for study in site.studies}) == 8
    assert codes(site) == {"duplicate_image": 3}


def test_a_split_that_was_changed_is_refused(film: Film, tmp_path: Path) -> None:
    for number in range(2):
        film(number)
    reports(tmp_path, (0, NORMAL), (1, NORMAL))
    summary = prepared(tmp_path)
    stored = json.loads((tmp_path / "out/split.json").read_text())
    assert stored["sha256"] == summary.split_sha256 == split_sha256(stored["patients"])
    stored["patients"] = dict.fromkeys(stored["patients"], "training")
    (tmp_path / "out/split.json").write_text(json.dumps(stored))
    with pytest.raises(DataSetError, match="not the one that was written"):
        load_set(tmp_path / "out")


# ---- matching ----


def test_reports_find_their_study_in_every_format(film: Film, tmp_path: Path) -> None:
    for number in range(4):
        film(number)
    reports(tmp_path, (0, "Effusion."))
    header = ("accession_number", "text")
    put(tmp_path, "more.tsv", table([("ACC-00001", "Edema.")], header, delimiter="\t"))
    ds = structured(
        content("TEXT", "Findings", "Mass."),
        StudyInstanceUID="1.9.9",  # a study of its own; the accession number is the images'
        AccessionNumber="ACC-00002",
        PatientID="PAT-00002",
    )
    save(ds, tmp_path / "in" / "sr.dcm")
    resource = diagnostic_report(conclusion="Hiatal hernia.")
    resource["contained"][0]["identifier"][0]["value"] = f"urn:oid:{uid(3)}"
    put(tmp_path, "fhir.json", json.dumps(resource))
    site = read_site(tmp_path / "in")
    assert codes(site) == {}
    summary = summarise(site, salt=SECRET)
    assert summary.found["reports_matched"] == 4
    present = {name for name, counts in summary.labels.items() if counts.present}
    assert present == {"Effusion", "Edema", "Mass", "Hernia"}


def test_a_report_is_never_matched_where_two_studies_could_be_meant(
    film: Film, tmp_path: Path
) -> None:
    film(1)
    film(2)
    header = ("study_instance_uid", "accession_number", "text")
    lines = [
        # Its UID is of a study that is not here, whose accession number a film shares.
        (uid(7), "ACC-00001", NORMAL),
        # UID and accession number are of two studies.
        (uid(1), "ACC-00002", "FINDINGS: Effusion."),
    ]
    put(tmp_path, "reports.csv", table(lines, header))
    found = codes(read_site(tmp_path / "in"))
    assert (found["unmatched_report"], found["ambiguous_report"]) == (1, 1)
    assert found["study_without_report"] == 2


def test_a_structured_report_filed_as_a_study_of_its_own_finds_its_images(
    film: Film, tmp_path: Path
) -> None:
    ds = film(1)
    numbers = {"AccessionNumber": ds.AccessionNumber, "PatientID": ds.PatientID}
    text = content("TEXT", "Findings", "Small effusion.")
    save(structured(text, StudyInstanceUID=uid(7), **numbers), tmp_path / "in" / "sr.dcm")
    (study,) = read_site(tmp_path / "in").studies
    assert study.report is not None


def test_a_name_that_only_a_folder_has_is_in_no_text(film: Film, tmp_path: Path) -> None:
    film(1, PatientName="", PatientID="")
    folder = tmp_path / "in" / "Snodgrassia_Vanderplonk"
    folder.mkdir()
    shutil.move(tmp_path / "in" / "film-001.dcm", folder / "film.dcm")
    reports(tmp_path, (1, "FINDINGS: Snodgrassia has an effusion, Vanderplonk has no mass."))
    prepared(tmp_path)
    written = (tmp_path / "out/reports.jsonl").read_text().lower()
    assert "snodgrass" not in written
    assert "vanderplonk" not in written
    assert "[name] has an effusion" in written
    assert "snodgrass" not in repr(read_site(tmp_path / "in")).lower()


def test_reports_that_cannot_be_used_are_told_apart(film: Film, tmp_path: Path) -> None:
    for number in range(5):
        film(number)
    film(5, AccessionNumber="ACC-00004")
    header = ("study_instance_uid", "accession_number", "text", "patient_id")
    lines = [
        (uid(0), "", NORMAL, "PAT-00000"),
        (uid(77), "", NORMAL, ""),
        (uid(1), "", NORMAL, "PAT-00002"),
        (uid(2), "", "Kein Erguss und das Herz ist nicht vergrößert.", ""),
        ("", "ACC-00004", NORMAL, ""),
        (uid(3), "", "", ""),
    ]
    put(tmp_path, "reports.csv", table(lines, header))
    put(tmp_path, "notes.md", "no image")
    put(tmp_path, "broken.dcm", b"\0" * 128 + b"DICM broken")
    found = codes(read_site(tmp_path / "in"))
    assert found.pop("not_dicom") == 1
    assert len(found) == 6 + 1  # and whatever the broken file is called
    assert found.items() >= {
        "unmatched_report": 1, "other_patient": 1, "not_english": 1, "ambiguous_report": 1,
        "empty": 1, "study_without_report": 5,
    }.items()  # fmt: skip


def test_of_several_reports_the_final_and_newest_counts(film: Film, tmp_path: Path) -> None:
    for number in range(5):
        film(number)
    header = ("study_instance_uid", "text", "date", "status")
    lines = [
        (uid(0), "Effusion.", "2020-01-01", "final"),
        (uid(0), "No effusion.", "2020-01-02", "final"),
        (uid(1), "Effusion.", "2020-01-01", "final"),
        (uid(1), "No effusion.", "2020-01-02", "preliminary"),
        (uid(2), "Effusion.", "", ""),
        (uid(2), "effusion. ", "", ""),
        (uid(3), "Effusion.", "", ""),
        (uid(3), "No effusion.", "", ""),
        (uid(4), "Effusion.", "2020-01-01", ""),
        (uid(4), "No effusion.", "", ""),
    ]
    put(tmp_path, "reports.csv", table(lines, header))
    site = read_site(tmp_path / "in")
    texts = {study.study_instance_uid: study.report and study.report.text for study in site.studies}
    assert texts == {
        uid(0): "No effusion.",
        uid(1): "Effusion.",
        uid(2): "Effusion.",
        uid(3): None,
        uid(4): None,
    }
    assert codes(site) == {
        "conflicting_reports": 4,
        "duplicate_report": 1,
        "replaced_report": 2,
        "study_without_report": 2,
    }


def test_a_study_of_several_patients_is_left_out(film: Film, tmp_path: Path) -> None:
    film(1, patient=1)
    film(1, patient=2)
    film(2)
    film(3, StudyInstanceUID="")
    reports(tmp_path, (1, NORMAL), (2, NORMAL))
    site = read_site(tmp_path / "in")
    assert [study.study_instance_uid for study in site.studies] == [uid(2)]
    assert codes(site) == {"several_patients": 2, "no_study": 1, "unmatched_report": 1}


# ---- refusals ----


def test_what_the_gate_and_the_policy_refuse(film: Film, tmp_path: Path) -> None:
    film(0)
    film(0, ViewPosition="LL")
    film(1, BurnedInAnnotation="YES")
    film(2, BodyPartExamined="KNEE")
    film(3, SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Modality="CR")
    blank = film(4)
    blank.PixelData = bytes(len(blank.PixelData))
    save(blank, tmp_path / "in" / "film-006.dcm")
    shutil.copy(shipped("CT_small.dcm"), tmp_path / "in" / "ct.dcm")
    Image.new("L", (200, 200)).save(tmp_path / "in" / "picture.png")
    reports(tmp_path, *((number, NORMAL) for number in range(5)))
    summary = prepared(tmp_path)
    assert summary.refused == {
        "blank": 1,
        "burned_in_annotation": 1,
        "secondary_capture": 1,
        "wrong_body_part": 1,
        "wrong_modality": 1,
        "wrong_view": 1,
    }
    assert summary.total("films") == 1
    assert summary.problems == {"picture": 1, "study_without_report": 1}
    assert all(detail.source.startswith("file 0") for detail in summary.details)


def test_a_set_is_not_written_over_anything(film: Film, tmp_path: Path) -> None:
    film(0)
    reports(tmp_path, (0, NORMAL))
    (tmp_path / "out").mkdir()
    prepared(tmp_path)  # an empty folder is fine
    with pytest.raises(DataSetError, match="is not empty"):
        prepared(tmp_path)
    film(1, BodyPartExamined="KNEE")
    (tmp_path / "in" / "film-001.dcm").unlink()
    reports(tmp_path, (1, NORMAL))
    with pytest.raises(DataSetError, match="no film"):
        prepared(tmp_path, "none")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_a_secret_and_at_least_one_image_are_needed(film: Film, tmp_path: Path) -> None:
    reports(tmp_path, (0, NORMAL))
    with pytest.raises(DataSetError, match="holds no image"):
        read_site(tmp_path / "in")
    film(0)
    site = read_site(tmp_path / "in")
    with pytest.raises(UsageError, match="shorter than 16 bytes"):
        prepare(site, tmp_path / "out", salt=b"short")
    with pytest.raises(DataSetError):
        read_site(tmp_path / "not there")


def test_results_inside_the_folder_and_archives(film: Film, tmp_path: Path) -> None:
    film(0)
    reports(tmp_path, (0, NORMAL))
    inside = tmp_path / "in" / "prepared"
    prepare(read_site(tmp_path / "in"), inside, salt=SECRET)
    assert read_site(tmp_path / "in", but=inside).files == 2
    archive = shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path / "in", ".")
    site = read_site(archive, but=inside)
    assert site.studies[0].report is not None


# ---- boxes, reviews, sentences ----


def test_boxes_become_fractions_and_win_over_the_report(film: Film, tmp_path: Path) -> None:
    ds = film(0)
    film(1)
    header = ("sop_instance_uid", "file", "finding", "x", "y", "width", "height")
    half = (str(ds.Columns / 4), str(ds.Rows / 2), str(ds.Columns / 2), str(ds.Rows))
    lines = [
        (ds.SOPInstanceUID, "", "Effusion", *half),  # cut at the lower edge
        ("", "film-002.dcm", "Lung Opacity", "0", "0", "10", "10"),
        (ds.SOPInstanceUID, "", "Mass", "5000", "0", "10", "10"),
        ("9.9.9", "", "Mass", "0", "0", "10", "10"),
    ]
    put(tmp_path, "boxes.csv", table(lines, header))
    reports(tmp_path, (0, NORMAL))
    summary = prepared(tmp_path)
    assert summary.problems == {"box_against_report": 1, "box_outside": 1, "unmatched_box": 1}
    data = load_set(tmp_path / "out")
    boxes = dict(box for one in data.films for box in one.boxes)
    assert boxes["Effusion"] == (0.25, 0.5, 0.5, 0.5)
    assert set(boxes) == {"Effusion", "Lung_Opacity"}
    assert summary.labels["Effusion"].present == summary.labels["Lung_Opacity"].present == 1
    assert {row["source"] for row in rows(tmp_path / "out/boxes.csv")} == {"site"}


def test_the_reviewer_has_the_last_word(film: Film, tmp_path: Path) -> None:
    ds = film(0)
    film(1)
    region = {"sop_instance_uid": ds.SOPInstanceUID, "x": 0, "y": 0, "width": 23, "height": 61}
    sentences = [
        sentence(action="rejected", reason="not there"),
        sentence(
            finding="Nodule",
            text="Nodule, as Quibbleathwaite feared.",
            action="added",
            regions=[region],
        ),
        sentence(finding="Edema", action="rejected", reason="other"),
        sentence(finding="Mass", action="rejected", reason="wrong place"),
    ]
    mine = review(*sentences, study_instance_uid=uid(0))
    older = review(sentence(), study_instance_uid=uid(0), signed_at="2024-01-01T00:00:00Z")
    lost = review(sentence(), study_instance_uid=uid(9))
    put(tmp_path, "reviews.jsonl", "\n".join(map(json.dumps, (mine, older, lost))))
    text = "Left effusion. Edema. No pneumothorax. Mass."
    reports(tmp_path, (0, text), (1, text))
    header = ("sop_instance_uid", "finding", "x", "y", "width", "height")
    boxes = [
        (ds.SOPInstanceUID, name, "0", "0", "9", "9") for name in ("Effusion", "Mass", "Hernia")
    ]
    put(tmp_path, "boxes.csv", table(boxes, header))
    summary = prepared(tmp_path)
    assert summary.problems == {"replaced_review": 1, "unmatched_review": 1}
    by_labels = {row["labels"]: row for row in rows(tmp_path / "out/labels.csv")}
    assert set(by_labels) == {"Effusion|Mass|Edema", "Mass|Nodule|Hernia"}
    reviewed = by_labels["Mass|Nodule|Hernia"]
    assert (reviewed["Effusion"], reviewed["Edema"], reviewed["Pneumothorax"]) == (
        "absent", "", "absent",
    )  # fmt: skip
    kept = {(row["label"], row["source"]) for row in rows(tmp_path / "out/boxes.csv")}
    assert kept == {("Nodule", "added"), ("Hernia", "site")}
    lines = list(map(json.loads, (tmp_path / "out/reports.jsonl").read_text().splitlines()))
    (own,) = (line for line in lines if line["images"] == [reviewed["image"]])
    said = [(one["section"], one["text"]) for one in own["sentences"]]
    assert ("review", "Nodule, as [NAME] feared.") in said
    assert ("findings", "No pneumothorax.") in said
    assert ("findings", "Left effusion.") not in said
    assert ("findings", "Edema.") not in said
    assert summary.dropped == {"contradicts_review": 2}


def test_a_sentence_that_redaction_changes_is_left_out_and_its_label_stays(
    film: Film, tmp_path: Path
) -> None:
    film(0, PatientName="Mass^Edna")
    film(1, PatientName="Normal^Norman")
    reports(tmp_path, (0, "There is no mass. Edna has an effusion."), (1, "Heart size is normal."))
    summary = prepared(tmp_path)
    assert summary.dropped == {"changed_by_redaction": 2}
    assert summary.labels["Mass"].absent == 1
    assert summary.labels["Cardiomegaly"].absent == 1
    assert summary.total("sentences") == 1


@pytest.mark.parametrize(
    ("elements", "age", "sex"),
    [
        ({"PatientAge": "045Y", "PatientSex": "m"}, "45", "M"),
        ({"PatientAge": "097Y", "PatientSex": "O"}, "90", ""),
        ({"PatientAge": "018M", "PatientSex": ""}, "1", ""),
        ({"PatientAge": "", "PatientBirthDate": "19600302"}, "59", "F"),
        ({"PatientAge": "old", "PatientBirthDate": ""}, "", "F"),
    ],
)
def test_age_and_sex(
    film: Film, tmp_path: Path, elements: dict[str, str], age: str, sex: str
) -> None:
    film(0, **{"PatientSex": "F", **elements})
    reports(tmp_path, (0, NORMAL))
    prepared(tmp_path)
    (row,) = rows(tmp_path / "out/labels.csv")
    assert (row["age_years"], row["sex"], row["view_position"]) == (age, sex, "PA")
    assert row["labels"] == "No Finding"
