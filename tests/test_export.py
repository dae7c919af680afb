"""What every form of a report has in common: status, notices, clean text; text, JSON and files."""

import hashlib
import json
import subprocess
import sys
from datetime import timedelta, timezone
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from medvlm.errors import ExportError, MissingExtra
from medvlm.export import codes
from medvlm.export.as_json import report_schema, to_json
from medvlm.export.fhir import to_fhir
from medvlm.export.files import make_all, write_all
from medvlm.export.notice import checked, notices
from medvlm.export.pdf import KeyImage, to_pdf
from medvlm.export.sr import to_sr
from medvlm.export.text import to_text
from medvlm.export.words import date_of, paragraphs, person_name, plain
from medvlm.findings import FINDINGS
from medvlm.reports.sections import split_sections
from medvlm.review.records import Patient, Report
from medvlm.review.signing import canonical
from tests.exports import amended, film, picture, preliminary, report, said, study

JAPAN = timezone(timedelta(hours=9), "JST")


# ---- status ----


@pytest.mark.parametrize(
    "untrue",
    [
        report(signed_by=None),
        report(signed_by=" \x00"),
        report(signed_at=None),
        report(attestation=None),
        report(sha256=None),
        report(sha256="not stored"),
        report(version=0),
        amended(version=1),
        amended(addenda=()),
        amended(status="final"),
        preliminary(signed_by="Jane Doe"),
        amended(status="preliminary", signed_by=None, signed_at=None, attestation=None),
    ],
)
def test_no_form_is_made_of_a_report_whose_status_is_not_true(untrue: Report) -> None:
    with pytest.raises(ExportError, match="load it again"):
        checked(untrue)
    for make in (to_text, to_json, to_pdf, to_fhir):
        with pytest.raises(ExportError):
            make(untrue)  # type: ignore[operator]
    with pytest.raises(ExportError):
        to_sr(untrue, [film()])


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (report(), "Drafted by software (medvlm-cxr-lite 0.2.2), reviewed by Jane Doe."),
        (
            preliminary(),
            "Drafted by software (medvlm-cxr-lite 0.2.2), NOT reviewed: preliminary.",
        ),
        (report(model=None), "Written by hand, reviewed by Jane Doe."),
    ],
)
def test_every_form_says_who_wrote_it_and_who_answers_for_it(one: Report, words: str) -> None:
    assert words in notices(one)
    assert words in to_text(one)
    assert words in json.loads(to_json(one))["notices"]
    assert "Research use only" in to_text(one)


# ---- words ----


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "山田 太郎 (Yamada, Tarou)"),
        ("=山田^太郎=やまだ^たろう", "山田 太郎 (やまだ たろう)"),
        ("Doe^Jane^Q", "Doe, Jane Q"),
        ("Doe^", "Doe"),
        ("Jane Doe", "Jane Doe"),
        (None, ""),
    ],
)
def test_a_name_as_people_read_it(name: str | None, shown: str) -> None:
    assert person_name(name) == shown


def test_control_characters_go_and_line_breaks_stay_where_there_may_be_some() -> None:
    dirty = "one\x00\x1b[31m\r\ntwo\u202e\tthree\x85\u2028four\udfff\n\n"
    assert paragraphs(dirty) == ["one[31m", "two three", "four"]
    assert plain(dirty) == "one[31m two three four"


def test_dates() -> None:
    assert date_of("20260504") == "2026-05-04"
    assert date_of("20260504130259.5") == "2026-05-04 13:02"
    assert date_of("yesterday") == date_of("") == date_of(None) == ""


# ---- codes ----


def test_every_finding_has_a_code_of_its_own_that_fits_dicom() -> None:
    concepts = [codes.finding(name) for name in FINDINGS]
    assert len({concept[:2] for concept in concepts}) == len(FINDINGS)
    for concept in (*concepts, codes.finding("Rib fracture 肋骨骨折" * 9)):
        assert 0 < len(concept.value) <= 16
        assert 0 < len(concept.meaning) <= 64
        assert concept.scheme in codes.SYSTEMS
    assert codes.finding("Rib fracture").scheme == codes.PRIVATE
    assert codes.finding("Rib fracture") != codes.finding("Fracture of a rib")


def test_codes_agree_with_those_that_pydicom_carries() -> None:
    from pydicom.sr.codedict import codes as known

    assert codes.finding("Effusion").value == known.SCT.PleuralEffusion.value
    assert codes.finding("Pneumothorax").value == known.SCT.Pneumothorax.value
    assert codes.finding("Edema").value == known.SCT.PulmonaryEdema.value
    assert codes.finding("Nodule").value == known.SCT.Nodule.value
    assert codes.finding("Mass").value == known.SCT.Mass.value
    assert codes.finding("Infiltration").value == known.DCM.Infiltrate.value
    assert codes.finding("Lung_Opacity").value == known.DCM.Opacity.value
    assert codes.PRESENCE["present"].value == known.SCT.Present.value
    assert codes.PRESENCE["absent"].value == known.SCT.Absent.value
    assert codes.PRESENCE["uncertain"].value == known.SCT.Undetermined.value
    for ours, theirs in (
        (codes.FINDINGS_HEADING, known.LN.Findings),
        (codes.IMPRESSIONS, known.LN.Impressions),
        (codes.ADDENDUM, known.LN.Addendum),
        (codes.INDICATIONS, known.LN.IndicationsForProcedure),
        (codes.PRIOR_PROCEDURES, known.LN.PriorProcedureDescriptions),
        (codes.FINDING, known.DCM.Finding),
        (codes.IMPRESSION, known.DCM.Impression),
    ):
        assert (ours.value, ours.scheme, ours.meaning) == (
            theirs.value,
            theirs.scheme_designator,
            theirs.meaning,
        )


@pytest.mark.parametrize(
    ("values", "loinc"),
    [
        ({}, "30745-4"),
        ({"modality": "DX", "body_part": None, "description": "THORAX AP portable"}, "30746-2"),
        ({"modality": "CT"}, "24627-2"),
        ({"modality": "CT", "body_part": "HEAD"}, "18748-4"),
        ({"modality": "US"}, "18748-4"),
        ({"modality": None, "body_part": None}, "18748-4"),
    ],
)
def test_what_loinc_calls_a_study(values: dict[str, Any], loinc: str) -> None:
    assert codes.examination(study(**values)).value == loinc


# ---- text ----


def test_the_text_of_a_signed_report() -> None:
    patient = Patient(name="Doe^Jane", patient_id="ID-1", birth_date="19600203", sex="F")
    one = amended(study=study(patient=patient, accession_number="A-1"))
    assert to_text(one, zone=JAPAN) == (
        "AMENDED REPORT\n\n"
        "Patient: Doe, Jane\n"
        "Patient ID: ID-1\n"
        "Born: 1960-02-03\n"
        "Sex and age: female\n"
        "Examination: CHEST (CR)\n"
        "Taken: 2026-05-04 13:02\n"
        "Accession: A-1\n\n"
        "INDICATION:\nCough and fever.\n\n"
        "COMPARISON:\nNone.\n\n"
        "FINDINGS:\nSmall left pleural effusion.\nNo pneumothorax.\n\n"
        "IMPRESSION:\nSmall left pleural effusion.\n\n"
        "ADDENDUM 1:\nDiscussed with the ward at 14:10.\n"
        "Addendum signed by John Roe, 2026-05-04 14:20 JST (signed in through hospital log-in)\n\n"
        "Signed by: Jane Doe, 2026-05-04 13:12 JST (locally attested)\n"
        "Drafted by software (medvlm-cxr-lite 0.2.2), reviewed by Jane Doe.\n"
        "Research use only: drafts are made by software and are not a diagnosis.\n"
    )


def test_a_draft_as_text_warns_before_anything_else() -> None:
    lines = to_text(preliminary(sentences=(), impression="")).splitlines()
    assert lines[0] == "PRELIMINARY REPORT"
    assert "NOT reviewed" in lines[1]
    assert "None stated." in lines
    assert lines[-1] == "Signed by: nobody"


def test_the_text_is_read_back_by_the_reader_of_reports() -> None:
    found = dict(split_sections(to_text(report())))
    assert found["findings"] == "Small left pleural effusion.\nNo pneumothorax."
    assert found["impression"] == "Small left pleural effusion."
    assert found["indication"] == "Cough and fever."


# ---- JSON ----


def test_json_fits_its_schema_and_holds_what_was_signed() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    odd = report(sentences=(said("Effusion <b>\u202e & \x07 \ud83e\udec1"[:14]),))
    for one in (report(film()), amended(), preliminary(), odd):
        content = json.loads(to_json(one))
        jsonschema.validate(content, report_schema())
        del content["notices"]
        assert Report.model_validate_json(json.dumps(content)) == one
    content["status"] = "signed"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**content, "notices": []}, report_schema())


def test_the_signature_of_the_json_can_be_checked() -> None:
    one = report(film())
    signed = one.model_copy(update={"sha256": hashlib.sha256(canonical(one).encode()).hexdigest()})
    content = json.loads(to_json(signed))
    # As docs/export.md says.
    del content["notices"]
    told = content.pop("sha256")
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == told


def test_the_schema_in_the_package_is_that_of_the_code() -> None:
    stored = files("medvlm").joinpath("schemas/report.schema.json").read_text("utf-8")
    assert json.loads(stored) == report_schema()


# ---- files ----


def test_all_forms_are_written(tmp_path: Path) -> None:
    ds = film()
    folder = tmp_path / "new" / "folder"
    paths = write_all(report(ds), folder, headers=[ds], key_images=[KeyImage(picture(), "1")])
    assert {path.name for path in paths} == {path.name for path in folder.iterdir()}
    assert {path.name for path in paths} == {
        "report.txt",
        "report.json",
        "report.pdf",
        "report.basic.dcm",
        "report.comprehensive.dcm",
        "report.fhir.json",
    }
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in paths)
    before = {path: path.read_bytes() for path in paths}
    write_all(report(ds), folder, headers=[ds], key_images=[KeyImage(picture(), "1")])
    assert before == {path: path.read_bytes() for path in paths}


def test_a_form_that_cannot_be_made_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="headers"):
        write_all(report(film()), tmp_path)  # no headers for the structured report
    with pytest.raises(ExportError, match="key image"):
        write_all(report(), tmp_path, key_images=[KeyImage(b"no picture")])
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named_by_its_error_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ExportError, match="choose a folder") as caught:
        write_all(report(), tmp_path / "file" / "folder")
    assert str(tmp_path) not in str(caught.value)


def test_a_picture_has_every_form_but_dicom(tmp_path: Path) -> None:
    made = make_all(report())
    assert set(made.files) == {"report.txt", "report.json", "report.pdf", "report.fhir.json"}
    assert set(made.skipped) == {"report.basic.dcm", "report.comprehensive.dcm"}
    assert len(write_all(report(), tmp_path)) == 4
    with pytest.raises(ExportError, match="PDF, text, JSON or FHIR"):
        to_sr(report(), [film()])


# ---- packages ----


@pytest.mark.parametrize(
    ("missing", "make"), [("reportlab", to_pdf), ("fhir", to_fhir)], ids=["pdf", "fhir"]
)
def test_a_missing_package_is_told_with_its_remedy(
    missing: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("medvlm.export.pages", "medvlm.export.lettering"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtra, match=r"pip install 'medvlm\[app\]'"):
        make(report())


def test_exports_need_no_torch(root: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from tests.exports import film, report\n"
        "from medvlm.export.files import make_all\n"
        "ds = film(); print(len(make_all(report(ds), headers=[ds]).files))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "6", done.stderr
