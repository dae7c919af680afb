"""A report as a FHIR DiagnosticReport."""

import base64
import json
from datetime import timedelta, timezone
from typing import Any

import pytest

from medvlm.errors import ExportError
from medvlm.export.fhir import Release, to_fhir, validate
from medvlm.reports.fhir import Pool, report_of
from medvlm.review.records import Addendum, Patient
from tests.exports import SIGNED_AT, amended, film, preliminary, report, said, study

RELEASES: tuple[Release, ...] = ("R4B", "R5")


def contained(resource: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [one for one in resource.get("contained", ()) if one["resourceType"] == kind]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("make", "status", "of_findings"),
    [
        (preliminary, "preliminary", "preliminary"),
        (report, "final", "final"),
        (amended, "amended", "final"),
    ],
)
def test_the_status_is_that_of_the_report(
    make: Any, status: str, of_findings: str, release: Release
) -> None:
    made = to_fhir(make(film()), release=release)
    assert made["status"] == status
    assert {one["status"] for one in contained(made, "Observation")} == {of_findings}
    assert ("issued" in made) == ("performer" in made) == (status != "preliminary")
    assert "extension" not in json.dumps(made)


@pytest.mark.parametrize("release", RELEASES)
def test_findings_are_observations_whose_value_is_their_presence(release: Release) -> None:
    one = report(
        sentences=(
            said("Small left pleural effusion.", probability=0.873),
            said("No pneumothorax.", "Pneumothorax", polarity="absent", origin="human"),
            said("Possible nodule.", "Nodule", polarity="uncertain", origin="edited"),
        )
    )
    made = to_fhir(one, release=release)
    observations = contained(made, "Observation")
    values = {
        one["code"]["coding"][0]["display"]: one["valueCodeableConcept"]["coding"][0]["code"]
        for one in observations
    }
    assert values == {
        "Pleural effusion": "52101004",
        "Pneumothorax": "272519000",
        "Nodule": "373068000",
    }
    assert [r["reference"] for r in made["result"]] == [f"#{one['id']}" for one in observations]
    assert observations[0]["note"] == [{"text": "Small left pleural effusion."}]
    assert observations[0]["component"][1]["valueQuantity"]["value"] == 0.873
    # What a person wrote was not measured by the software.
    assert [("device" in one) for one in observations] == [True, False, True]
    (device,) = contained(made, "Device")
    assert device["serialNumber"] == "b" * 64
    assert device["version"][0]["value"] == "0.2.2"
    assert any("reviewed by Jane Doe" in note["text"] for note in device["note"])


def test_the_patient_is_named_only_where_the_study_does() -> None:
    assert "subject" not in to_fhir(report())
    named = to_fhir(report(study=study(patient=Patient(name="Doe^Jane"))))
    assert named["subject"] == {"type": "Patient", "display": "Doe, Jane"}
    known = Patient(name="Doe^Jane", patient_id="ID-1", issuer="Hospital")
    assert to_fhir(report(study=study(patient=known)))["subject"] == {
        "type": "Patient",
        "display": "Doe, Jane",
        "identifier": {"value": "ID-1", "assigner": {"display": "Hospital"}},
    }


def test_times_have_a_zone_or_are_dates() -> None:
    made = to_fhir(amended(), zone=timezone(timedelta(hours=9)))
    assert made["issued"] == "2026-05-04T14:20:00+09:00"
    assert made["effectiveDateTime"] == "2026-05-04"
    assert "effectiveDateTime" not in to_fhir(report(study=study(taken="")))


def test_who_reads_only_the_conclusion_sees_the_addendum() -> None:
    made = to_fhir(amended())
    assert made["conclusion"].startswith("Small left pleural effusion.\nADDENDUM by John Roe")
    assert "Discussed with the ward" in made["conclusion"]
    assert [one["display"] for one in made["resultsInterpreter"]] == ["Jane Doe", "John Roe"]


def test_text_and_pdf_go_along() -> None:
    forms = to_fhir(report(), pdf=b"%PDF-")["presentedForm"]
    kinds = [one["contentType"] for one in forms]
    assert kinds == ["text/plain; charset=utf-8", "application/pdf"]
    assert base64.b64decode(forms[1]["data"]) == b"%PDF-"
    assert b"reviewed by Jane Doe" in base64.b64decode(forms[0]["data"])


def test_versions_of_a_report_share_an_identifier_and_not_an_id() -> None:
    first, second = to_fhir(report()), to_fhir(amended())
    assert first["identifier"] == second["identifier"]
    assert first["id"] != second["id"]
    assert to_fhir(amended()) == second


@pytest.mark.parametrize("release", RELEASES)
def test_our_reader_of_reports_reads_it(release: Release) -> None:
    ds = film()
    made = to_fhir(report(ds, study=study(ds, accession_number="A-1")), release=release)
    read = report_of(made, Pool([made]), "f")
    told = dict(read.sections)
    assert told["findings"] == "Small left pleural effusion.\nNo pneumothorax."
    assert told["impression"] == "Small left pleural effusion."
    assert (read.study_instance_uid, read.accession_number) == (ds.StudyInstanceUID, "A-1")
    assert read.patient_id == ds.PatientID
    assert read.final
    draft = to_fhir(preliminary(ds), release=release)
    assert not report_of(draft, Pool([draft]), "f").final


def test_text_is_data() -> None:
    hostile = "<script>&\x00\x1b\u202e 肋骨"
    addendum = Addendum(
        text=hostile, signed_by=hostile, signed_at=SIGNED_AT, attestation="locally attested"
    )
    one = amended(
        sentences=(said(hostile, hostile),),
        impression=hostile,
        signed_by=hostile,
        addenda=(addendum,),
        study=study(patient=Patient(name=hostile, patient_id=hostile, issuer=hostile)),
    )
    told = json.dumps(to_fhir(one), ensure_ascii=False)
    assert "<script>& 肋骨" in told
    assert not [mark for mark in ("\\u0000", "\\u001b", "\u202e") if mark in told]


# fhir.resources takes any word where FHIR has a value set.
@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("DiagnosticReport", "status", "signed"),
        ("DiagnosticReport", "category", [{"coding": [{"system": "http://x", "code": "RAD"}]}]),
        ("DiagnosticReport", "code", {"coding": [{"system": "http://x", "code": "1"}]}),
        ("Observation", "status", "done"),
        (
            "Observation",
            "valueCodeableConcept",
            {"coding": [{"system": "http://snomed.info/sct", "code": "1"}]},
        ),
        ("Observation", "code", {"coding": [{"system": "http://x", "code": "1"}]}),
        ("Device", "status", "alive"),
        ("Device", "deviceName", [{"name": "x", "type": "nick-name"}]),
    ],
)
def test_a_code_that_is_in_no_value_set_is_refused(kind: str, field: str, value: Any) -> None:
    made = to_fhir(report())
    validate(made)
    one = made if kind == "DiagnosticReport" else contained(made, kind)[0]
    one[field] = value
    with pytest.raises(ExportError, match=kind):
        validate(made)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("DiagnosticReport", "issued", "yesterday"),
        ("DiagnosticReport", "wibble", 1),
        ("Observation", "code", "Effusion"),
        ("Device", "resourceType", "Toaster"),
    ],
)
def test_a_structure_that_is_not_fhirs_is_refused(kind: str, field: str, value: Any) -> None:
    made = to_fhir(report())
    one = made if kind == "DiagnosticReport" else contained(made, kind)[0]
    one[field] = value
    with pytest.raises(ExportError) as caught:
        validate(made)
    assert "yesterday" not in str(caught.value)
