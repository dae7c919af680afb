"""Reports in tables, structured reports and FHIR; what is broken is named and stops nothing."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.findings import FINDINGS
from medvlm.reports.labels import label_report
from medvlm.reports.read import Beside, read_structured, read_text
from medvlm.reports.report import Report
from tests.dicoms import ramp, save, synthetic
from tests.reports import (
    OTHER_STUDY,
    STUDY,
    accession,
    attached,
    content,
    diagnostic_report,
    file_bytes,
    structured,
    table,
)


def codes(beside: Beside) -> list[str]:
    return [problem.code for problem in beside.problems]


def only(beside: Beside) -> Report:
    assert codes(beside) == []
    (report,) = beside.reports
    return report


# ---- tables ----


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_tables_of_all_kinds(delimiter: str, encoding: str) -> None:
    text = 'FINDINGS: "Naïve" effusion, small; 50 | no mass.\nIMPRESSION:\nEffusion.'
    data = table(
        [(STUDY, text), (OTHER_STUDY, "No edema.")], delimiter=delimiter, encoding=encoding
    )
    beside = read_text(data, "a.csv", "file 1")
    assert codes(beside) == []
    first, second = beside.reports
    assert first.sections == (
        ("findings", '"Naïve" effusion, small; 50 | no mass.'),
        ("impression", "Effusion."),
    )
    assert (first.study_instance_uid, second.study_instance_uid) == (STUDY, OTHER_STUDY)
    assert first.source == "file 1 line 4"  # where its last line stands


@pytest.mark.parametrize(
    ("header", "row"),
    [
        (("Accession Number", "Report Text"), ("A-1", "No edema.")),
        (("ACCESSION", "report"), ("A-1", "No edema.")),
        (("StudyInstanceUID", "accession-number", "TEXT"), ("", "A-1", "No edema.")),
        (("accession_number", "findings", "impression"), ("A-1", "No edema.", "")),
    ],
)
def test_names_of_columns(header: tuple[str, ...], row: tuple[str, ...]) -> None:
    report = only(read_text(table([row], header), "a.csv", "f"))
    assert (report.study_instance_uid, report.accession_number) == (None, "A-1")
    assert report.text == "No edema."


def test_further_columns_date_the_report_and_are_identifiers() -> None:
    header = ("study_instance_uid", "text", "patient_id", "patient_name", "dob", "date", "status")
    row = (
        STUDY,
        "No edema.",
        "P-77",
        "Quibble, Zebediah",
        "1962-03-17",
        "2020-02-01",
        "preliminary",
    )
    report = only(read_text(table([row], header), "a.csv", "f"))
    assert (report.patient_id, report.issued) == ("P-77", "2020-02-01T00:00:00")
    assert not report.final
    assert {"quibble", "zebediah", "p77", "19620317"} <= set(report.known)
    assert "Quibble" not in repr(report)
    assert "P-77" not in repr(report)


def test_what_is_wrong_with_a_row_harms_only_itself() -> None:
    rows = [
        ("", "No edema."),
        ("no uid", "No edema."),
        (STUDY, "  "),
        (STUDY, "INDICATION: cough"),
        (STUDY,),
        (STUDY, "No edema.", "more"),
        (STUDY, "No effusion."),
    ]
    beside = read_text(table(rows), "a.csv", "f")
    assert codes(beside) == ["no_study", "no_study", "empty", "empty", "bad_row", "bad_row"]
    assert [report.text for report in beside.reports] == ["No effusion."]
    assert [problem.source for problem in beside.problems][:2] == ["f line 2", "f line 3"]


def test_other_tables() -> None:
    assert codes(read_text(table([("1", "2")], ("a", "b")), "a.csv", "f")) == ["unknown_table"]
    assert codes(read_text(b"", "a.csv", "f")) == ["empty"]
    assert codes(read_text(table([]), "a.csv", "f")) == ["empty"]


def test_boxes() -> None:
    header = ("sop_instance_uid", "finding", "x", "y", "width", "height")
    rows = [
        ("1.2.3", "Lung Opacity", "1", "2", "3", "4.5"),
        ("1.2.3", "fracture", "1", "2", "3", "4"),
        ("1.2.3", "Mass", "1", "2", "0", "4"),
        ("1.2.3", "Mass", "one", "2", "3", "4"),
        ("1.2.3", "Mass", "nan", "2", "3", "4"),
    ]
    beside = read_text(table(rows, header), "boxes.csv", "f")
    (box,) = beside.boxes
    assert (box.finding, box.x, box.y, box.width, box.height) == ("Lung_Opacity", 1, 2, 3, 4.5)
    assert codes(beside) == ["bad_box"] * 4
    named = table([("a.dcm", "Mass", "1", "2", "3", "4")], ("file", *header[1:]))
    assert read_text(named, "boxes.csv", "f").boxes[0].file == "a.dcm"


# ---- structured reports ----


def test_a_structured_report_keeps_order_and_sections() -> None:
    ds = structured(
        content("TEXT", "History", "Cough for\nthree days."),
        content(
            "CONTAINER", "Findings", "",
            content("TEXT", "Finding", "Small left effusion."),
            content("CODE", "Finding"),
            content("CONTAINER", "Lungs", "", content("TEXT", "Observation", "No consolidation.")),
        ),
        content("CONTAINER", "Impressions", "", content("TEXT", "Impression", "Effusion.")),
    )  # fmt: skip
    report = only(read_structured(file_bytes(ds), "f"))
    assert report.sections == (
        ("history", "Cough for\nthree days."),
        ("findings", "Small left effusion."),
        ("findings", "No consolidation."),
        ("impression", "Effusion."),
    )
    assert (report.study_instance_uid, report.accession_number) == (STUDY, "ACC-1")
    assert (report.patient_id, report.issued) == ("ID-1", "2020-03-01T10:11:12")
    assert report.final
    assert {"doe", "jane"} <= set(report.known)


def test_a_structured_report_of_one_text_is_split_like_any() -> None:
    body = "Findings:\nNo effusion.\nImpression:\nNormal."
    report = only(read_structured(file_bytes(structured(content("TEXT", "Report", body))), "f"))
    assert [name for name, _ in report.sections] == ["findings", "impression"]


def test_a_structured_report_belongs_to_the_study_that_is_its_evidence() -> None:
    evidence = content("TEXT", "x")
    evidence.StudyInstanceUID = OTHER_STUDY
    ds = structured(
        content("TEXT", "Findings", "Clear lungs."),
        CurrentRequestedProcedureEvidenceSequence=[evidence],
        CompletionFlag="PARTIAL",
    )
    report = only(read_structured(file_bytes(ds), "f"))
    assert report.study_instance_uid == OTHER_STUDY
    assert not report.final


def test_dicom_files_that_are_no_report() -> None:
    empty = structured(content("TEXT", "History", "Cough."))
    assert codes(read_structured(file_bytes(empty), "f")) == ["empty"]
    film = synthetic(ramp())
    assert codes(read_structured(file_bytes(film), "f")) == ["no_report"]
    assert codes(read_structured(b"text", "f")) == ["not_dicom"]
    deep = content("TEXT", "Finding", "Effusion.")
    for _ in range(40):
        deep = content("CONTAINER", "Findings", "", deep)
    assert codes(read_structured(file_bytes(structured(deep)), "f")) == ["too_deep"]
    cut = file_bytes(structured(content("TEXT", "Findings", "Effusion. " * 50)))[:-100]
    assert codes(read_structured(cut, "f")) == ["truncated"]


# ---- FHIR ----


def fhir(*contents: Any, name: str = "a.json") -> Beside:
    text = "\n".join(json.dumps(one) for one in contents)
    return read_text(text.encode(), name, "f")


def test_a_report_of_r4_by_its_contained_study() -> None:
    report = only(fhir(diagnostic_report(issued="2020-02-03T04:05:06+01:00")))
    assert report.sections == (("impression", "Small effusion."),)
    assert (report.study_instance_uid, report.issued) == (STUDY, "2020-02-03T04:05:06")


def test_a_report_of_r5_with_its_text_attached() -> None:
    resource = diagnostic_report(
        study=[{"identifier": {"value": f"urn:oid:{STUDY}"}}],
        presentedForm=[attached("FINDINGS: No mass.\nIMPRESSION: Small effusion.")],
        identifier=[accession("ACC-9")],
    )
    del resource["imagingStudy"], resource["contained"]
    report = only(fhir(resource))
    # The conclusion stands in the text already.
    assert report.sections == (("findings", "No mass."), ("impression", "Small effusion."))
    assert (report.study_instance_uid, report.accession_number) == (STUDY, "ACC-9")


def test_a_conclusion_is_added_to_an_attached_text_that_lacks_it() -> None:
    report = only(fhir(diagnostic_report(presentedForm=[attached("No mass.")])))
    assert report.sections == (("findings", "No mass."), ("impression", "Small effusion."))


def test_html_is_read_as_its_words() -> None:
    page = "<html><h1>Findings</h1><p>No <b>mass</b> &amp; no edema.</p></html>"
    report = only(fhir(diagnostic_report(presentedForm=[attached(page, "text/html")])))
    assert report.sections[0] == ("findings", "No mass & no edema.")


def test_a_bundle_with_everything_in_resources_of_its_own() -> None:
    entries = [
        {
            "fullUrl": "urn:uuid:1",
            "resource": {
                "resourceType": "ImagingStudy",
                "id": "s",
                "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{STUDY}"}],
            },
        },
        {
            "resource": {
                "resourceType": "Patient",
                "id": "p",
                "identifier": [{"value": "MRN-55"}],
                "name": [{"family": "Quibble", "given": ["Zebediah"]}],
                "birthDate": "1962-03-17",
            }
        },
        {
            "resource": {
                "resourceType": "ServiceRequest",
                "id": "r",
                "identifier": [accession("ACC-3")],
            }
        },
        {"resource": {"resourceType": "Observation", "id": "o", "valueString": "No mass."}},
        {
            "resource": diagnostic_report(
                contained=[],
                imagingStudy=[{"reference": "urn:uuid:1"}],
                subject={"reference": "Patient/p", "display": "Zeb Quibble"},
                basedOn=[{"reference": "ServiceRequest/r/_history/2"}],
                result=[{"reference": "http://host/fhir/Observation/o"}],
                resultsInterpreter=[{"display": "Dr. Hortense Tiddlemarsh"}],
                conclusion="",
            )
        },
    ]
    report = only(fhir({"resourceType": "Bundle", "entry": entries}))
    assert (report.study_instance_uid, report.accession_number) == (STUDY, "ACC-3")
    assert report.patient_id == "MRN-55"
    assert report.sections == (("findings", "No mass."),)
    assert {"quibble", "zebediah", "mrn55", "19620317", "tiddlemarsh"} <= set(report.known)


def test_ndjson_and_what_is_wrong_with_a_line() -> None:
    lines = [
        json.dumps(diagnostic_report()),
        "{broken",
        json.dumps(diagnostic_report(status="entered-in-error")),
        json.dumps(diagnostic_report(presentedForm=[{"data": "%%%"}])),
        json.dumps(diagnostic_report(contained=[], conclusion="No mass.")),
        json.dumps(diagnostic_report(conclusion=" ")),
        json.dumps(
            diagnostic_report(identifier=[{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}])
        ),
        json.dumps({"resourceType": "Patient", "id": "p"}),
        "",
    ]
    beside = read_text("\n".join(lines).encode(), "a.ndjson", "f")
    assert len(beside.reports) == 1
    assert sorted(codes(beside)) == [
        "bad_attachment", "bad_json", "empty", "no_study", "several_studies", "status",
    ]  # fmt: skip
    assert codes(fhir({"a": 1})) == ["unknown_json"]
    assert codes(fhir(3)) == ["unknown_json"]
    assert codes(read_text(b"[" * 100_000, "a.json", "f")) in (["unreadable"], ["bad_json"])


def test_a_preliminary_report_is_none_that_is_final() -> None:
    assert not only(fhir(diagnostic_report(status="preliminary"))).final
    assert only(fhir(diagnostic_report(status="amended"))).final


KEYS = (  # that mean something
    "resourceType entry resource identifier value contained conclusion imagingStudy presentedForm "
    "data status subject text sentences"
)
_json = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                KEYS.split(),
            ),
            inner | st.sampled_from(["DiagnosticReport", "Bundle", "urn:oid:1.2"]),
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(_json)
def test_any_json_ends_in_reports_or_problems(value: Any) -> None:
    fhir(value)


@given(st.binary(max_size=200), st.sampled_from(["a.csv", "a.json", "a.ndjson"]))
def test_any_bytes_end_in_reports_or_problems(data: bytes, name: str) -> None:
    beside = read_text(data, name, "f")
    assert beside.reports == []


def test_labels_of_a_report_are_the_same_whatever_file_it_came_in(tmp_path: Any) -> None:
    text = "FINDINGS: Small left effusion. No pneumothorax.\nIMPRESSION: Possible pneumonia."
    wanted = label_report(text)
    assert {name for name in FINDINGS if wanted[name]} >= {"Effusion", "Pneumothorax", "Pneumonia"}
    path = save(structured(content("TEXT", "Report", text)), tmp_path / "r.dcm")
    for report in (
        only(read_text(table([(STUDY, text)]), "a.csv", "f")),
        only(read_structured(path.read_bytes(), "f")),
        only(fhir(diagnostic_report(presentedForm=[attached(text)], conclusion=""))),
    ):
        assert label_report("\n".join(f"{n}: {body}" for n, body in report.sections)) == wanted


def test_a_table_row_that_was_withdrawn_is_no_report() -> None:
    header = ("study_instance_uid", "text", "status")
    rows = [(STUDY, "Effusion.", status) for status in ("Cancelled", "entered-in-error", "final")]
    beside = read_text(table(rows, header), "a.csv", "a")
    assert [problem.code for problem in beside.problems] == ["status", "status"]
    assert len(beside.reports) == 1


def test_the_line_that_tells_excel_the_delimiter() -> None:
    data = b"sep=;\r\n" + table([(STUDY, "Effusion, small.")], delimiter=";")
    (report,) = read_text(data, "a.csv", "a").reports
    assert report.text == "Effusion, small."


@pytest.mark.parametrize("second", [b"B,No mass.", b'B,"No mass."'])
def test_a_quote_left_open_makes_no_report_of_two(second: bytes) -> None:
    rows = b'accession_number,text\nZ,Effusion.\nA,"Effusion.\n' + second + b"\n"
    beside = read_text(rows, "a.csv", "a")
    assert [report.accession_number for report in beside.reports] == ["Z"]
    assert [problem.code for problem in beside.problems] == ["unreadable"]


def test_a_table_with_bare_carriage_returns() -> None:
    (report,) = read_text(b"accession_number,text\rA,Effusion.\r", "a.csv", "a").reports
    assert report.text == "Effusion."
