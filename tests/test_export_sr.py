"""A report as a DICOM structured report."""

import warnings
from datetime import timedelta, timezone
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from medvlm.errors import ExportError
from medvlm.export.sr import sr_bytes, to_sr
from medvlm.export.sr_content import Kind
from medvlm.reports.structured import structured_report
from medvlm.review.records import Patient, Report
from tests.exports import (
    SIGNED_AT,
    amended,
    complaints,
    film,
    header,
    needs_dciodvfy,
    preliminary,
    region,
    report,
    row_of,
    said,
    study,
)

KINDS: tuple[Kind, ...] = ("basic", "comprehensive")
JAPANESE = {
    "SpecificCharacterSet": "ISO_IR 192",
    "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう",
}


def items(ds: Dataset) -> list[Dataset]:
    """All content items, parents before children."""
    found = []
    for item in ds.get("ContentSequence", ()):
        found += [item, *items(item)]
    return found


def of_type(ds: Dataset, kind: str) -> list[Dataset]:
    return [item for item in items(ds) if item.ValueType == kind]


def meaning(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


def bend(ds: Dataset, values: dict[str, str]) -> None:
    """Sets values that break DICOM's rules, as files in the wild do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword, value in values.items():
            setattr(ds, keyword, value)


def read_back(ds: Dataset) -> Dataset:
    return dcmread(BytesIO(sr_bytes(ds)))


# ---- valid ----


@needs_dciodvfy
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [report, amended, preliminary])
@pytest.mark.parametrize(
    "name",
    ["RG1_J2KR.dcm", "CT_small.dcm", "MR_small.dcm", "emri_small.dcm", "examples_ybr_color.dcm"],
)
def test_dciodvfy_has_no_error_with_reports_of_real_images(
    name: str, make: Any, kind: Kind, tmp_path: Path
) -> None:
    ds = header(name)
    assert complaints(to_sr(make(ds), [ds], kind), tmp_path) == []


@needs_dciodvfy
@pytest.mark.parametrize("kind", KINDS)
def test_dciodvfy_has_no_error_with_hard_cases(kind: Kind, tmp_path: Path) -> None:
    ds = film(**JAPANESE, PatientAge="066Y", IssuerOfPatientID="病院")
    bend(ds, {"StudyDescription": "胸" * 80})
    hostile = "<b>&\\^=\x00\x1b$B" + "長" * 2000
    one = amended(
        ds,
        signed_by="佐藤 花子",
        indication=hostile,
        comparison="",
        impression="1.\n2.",
        sentences=(
            said(hostile, "肋骨骨折" * 40, origin="human", regions=(region(ds), region(ds, x=0))),
            said("?", "Edema", polarity="uncertain", origin="edited", probability=1 / 3),
        ),
    )
    assert complaints(to_sr(one, [ds], kind, organisation="大学" * 60), tmp_path) == []
    nothing = preliminary(ds, sentences=(), impression="", indication="", model=None)
    assert complaints(to_sr(nothing, [ds], kind), tmp_path) == []


@needs_dciodvfy
@pytest.mark.parametrize("kind", KINDS)
def test_dciodvfy_has_no_error_where_the_source_breaks_the_rules(
    kind: Kind, tmp_path: Path
) -> None:
    ds = film(PatientIdentityRemoved="YES")  # without saying how
    bad = {
        "PatientBirthDate": "1960/02/03",
        "PatientSex": "X",
        "PatientAge": "66",
        "StudyDate": "05.04.26",
        "StudyTime": "25:61",
        "StudyID": "a study's number that is too long",
        "AccessionNumber": "12345678901234567",
        "StudyDescription": "x" * 70,
        "TimezoneOffsetFromUTC": "+9",
    }
    bend(ds, bad)
    made = to_sr(report(ds), [ds], kind)
    assert complaints(made, tmp_path) == []
    # An identifier that was cut would be another one.
    assert made.AccessionNumber == made.StudyID == ""


@pytest.mark.parametrize("kind", KINDS)
def test_highdicom_reads_it(kind: Kind) -> None:
    sr = pytest.importorskip("highdicom.sr")
    ds = film()
    made = read_back(to_sr(report(ds), [ds], kind))
    if kind == "comprehensive":
        read = sr.ComprehensiveSR.from_dataset(made)
        assert read.get_evidence() == [
            (ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID, ds.SOPClassUID)
        ]
    content = sr.ContentSequence.from_sequence(made.ContentSequence)
    assert len(content.get_nodes()) >= 4


@pytest.mark.parametrize("kind", KINDS)
def test_our_reader_of_reports_reads_it(kind: Kind) -> None:
    ds = film()
    read = structured_report(sr_bytes(to_sr(amended(ds), [ds], kind)), "f")
    told = {name: body for name, body in read.sections if name in ("findings", "impression")}
    assert [body for name, body in read.sections if name == "findings"] == [
        "Small left pleural effusion.",
        "No pneumothorax.",
    ]
    assert told["impression"] == "Small left pleural effusion."
    assert any("Discussed" in body for name, body in read.sections if name == "addendum")
    assert read.study_instance_uid == ds.StudyInstanceUID
    assert read.final
    assert not structured_report(sr_bytes(to_sr(preliminary(ds), [ds], kind)), "f").final


# ---- status ----


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_signed_report_is_complete_verified_and_final(kind: Kind) -> None:
    ds = film()
    signed = to_sr(report(ds), [ds], kind, organisation="A hospital")
    assert (signed.CompletionFlag, signed.VerificationFlag) == ("COMPLETE", "VERIFIED")
    assert signed.PreliminaryFlag == "FINAL"
    (verifier,) = signed.VerifyingObserverSequence
    assert verifier.VerifyingObserverName == "Jane Doe"
    assert verifier.VerifyingOrganization == "A hospital"
    assert verifier.VerificationDateTime == "20260504041200+0000"
    draft = to_sr(preliminary(ds), [ds], kind)
    assert (draft.CompletionFlag, draft.VerificationFlag) == ("PARTIAL", "UNVERIFIED")
    assert draft.PreliminaryFlag == "PRELIMINARY"
    assert "VerifyingObserverSequence" not in draft
    # A viewer may not show the flags: a draft's first words are that nobody reviewed it.
    headings = [[meaning(item) for item in of_type(ds, "CONTAINER")] for ds in (signed, draft)]
    assert headings[0][-1] == headings[1][0] == "Attestation"


@pytest.mark.parametrize("kind", KINDS)
def test_an_addendum_names_its_signer_and_the_version_before_it(kind: Kind) -> None:
    ds = film()
    first, second = to_sr(report(ds), [ds], kind), to_sr(amended(ds), [ds], kind)
    assert "PredecessorDocumentsSequence" not in first
    (before,) = second.PredecessorDocumentsSequence
    assert before.StudyInstanceUID == first.StudyInstanceUID
    (series,) = before.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == first.SeriesInstanceUID == second.SeriesInstanceUID
    (instance,) = series.ReferencedSOPSequence
    assert instance.ReferencedSOPInstanceUID == first.SOPInstanceUID != second.SOPInstanceUID
    assert instance.ReferencedSOPClassUID == first.SOPClassUID
    names = [one.VerifyingObserverName for one in second.VerifyingObserverSequence]
    assert names == ["Jane Doe", "John Roe"]
    assert (second.ContentDate, second.ContentTime) == ("20260504", "052000")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [report, amended, preliminary])
def test_exporting_twice_gives_the_same_object(make: Any, kind: Kind) -> None:
    ds = film()
    first, second = (sr_bytes(to_sr(make(ds), [ds], kind)) for _ in range(2))
    assert first == second


def test_each_version_kind_and_draft_is_an_object_of_its_own() -> None:
    ds = film()
    drafts = [preliminary(ds), preliminary(ds, impression="Another.")]
    made = [to_sr(one, [ds], k) for one in (report(ds), amended(ds), *drafts) for k in KINDS]
    assert len({one.SOPInstanceUID for one in made}) == len(made)
    locked = preliminary(ds, study=study(ds, priority="urgent", version=7))
    assert to_sr(locked, [ds]).SOPInstanceUID == to_sr(drafts[0], [ds]).SOPInstanceUID


# ---- patient, study, software ----


def test_patient_and_study_are_those_of_the_images() -> None:
    ds = film(**JAPANESE, PatientBirthDate="19600203", PatientSex="M", StudyDate="20260504")
    made = read_back(to_sr(report(ds, signed_by="佐藤 花子"), [ds]))
    assert made.SpecificCharacterSet == "ISO_IR 192"
    assert str(made.PatientName) == JAPANESE["PatientName"]
    assert made.PatientName.ideographic == "山田^太郎"
    for keyword in ("PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyInstanceUID"):
        assert made[keyword].value == ds[keyword].value
    assert made.SeriesInstanceUID != ds.SeriesInstanceUID
    assert str(made.VerifyingObserverSequence[0].VerifyingObserverName) == "佐藤 花子"


def test_names_and_words_have_the_length_that_dicom_allows() -> None:
    ds = film()
    bend(ds, {"PatientName": "長" * 80 + "=" + "名" * 80, "InstitutionName": "院" * 80})
    made = to_sr(report(ds, signed_by="x" * 80 + "\\y"), [ds])
    assert [len(group) for group in str(made.PatientName).split("=")] == [64, 64]
    (verifier,) = made.VerifyingObserverSequence
    assert str(verifier.VerifyingObserverName) == "x" * 64
    assert verifier.VerifyingOrganization == "院" * 21  # 63 bytes


def test_a_name_in_another_character_set_is_carried_over_as_it_reads() -> None:
    ds = header("RG1_J2KR.dcm")
    ds.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    ds.PatientName = "Yamada^Tarou=山田^太郎"
    with BytesIO() as file:
        ds.save_as(file)
        source = dcmread(BytesIO(file.getvalue()), force=True)
    assert str(read_back(to_sr(report(source), [source])).PatientName) == "Yamada^Tarou=山田^太郎"


def test_the_software_is_named_with_its_weights() -> None:
    ds = film()
    made = to_sr(report(ds), [ds], "comprehensive")
    (equipment,) = made.ContributingEquipmentSequence
    assert equipment.ManufacturerModelName == "medvlm-cxr-lite"
    assert equipment.SoftwareVersions == "0.2.2"
    assert equipment.DeviceSerialNumber == "b" * 64
    assert "reviewed by Jane Doe" in equipment.ContributionDescription
    told = {meaning(item): item for item in made.ContentSequence}
    assert told["Device Observer Name"].TextValue == "medvlm-cxr-lite 0.2.2"
    assert told["Device Observer Serial Number"].TextValue == "b" * 64
    assert told["Person Observer Name"].PersonName == "Jane Doe"
    assert "ContributingEquipmentSequence" not in to_sr(report(ds, model=None), [ds])


def test_times_are_in_the_zone_of_the_images_or_of_the_caller() -> None:
    ds, zone = film(), timezone(timedelta(hours=9))
    made = to_sr(report(ds), [ds], zone=zone)
    assert (made.ContentDate, made.ContentTime) == ("20260504", "131200")
    assert made.VerifyingObserverSequence[0].VerificationDateTime == "20260504131200+0900"
    ds.TimezoneOffsetFromUTC = "-0330"
    assert to_sr(report(ds), [ds], zone=zone).ContentTime == "004200"
    assert SIGNED_AT.hour == 4


# ---- content ----


def test_a_finding_is_the_name_and_its_polarity_the_value() -> None:
    ds = film()
    made = to_sr(report(ds), [ds], "comprehensive")
    coded = {meaning(item): item.ConceptCodeSequence[0] for item in of_type(made, "CODE")}
    assert coded["Pleural effusion"].CodeMeaning == "Present"
    assert coded["Pneumothorax"].CodeMeaning == "Absent"
    (sure, unsure) = of_type(made, "NUM")
    assert meaning(sure) == "Probability that the finding is present"
    (measured,) = sure.MeasuredValueSequence
    assert float(measured.NumericValue) == 0.873
    assert measured.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    assert float(unsure.MeasuredValueSequence[0].NumericValue) == 0.02


def test_basic_text_has_no_codes_numbers_or_coordinates_of_findings() -> None:
    ds = film()
    made = to_sr(report(ds), [ds])
    assert {item.ValueType for item in items(made)} <= {
        *("CONTAINER", "TEXT", "CODE", "IMAGE", "PNAME", "UIDREF")
    }
    (image,) = of_type(made, "IMAGE")
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == ds.SOPInstanceUID


def coordinates(ds: Dataset, image: Dataset, **values: Any) -> list[tuple[float, float]]:
    one = report(image, sentences=(said("There.", regions=(region(image, **values),)),))
    (item,) = of_type(to_sr(one, [image], "comprehensive"), "SCOORD")
    assert item.GraphicType == "POLYLINE"
    (target,) = item.ContentSequence
    assert target.RelationshipType == "SELECTED FROM"
    assert target.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID
    pairs = np.array(item.GraphicData, float).reshape(-1, 2)
    return [(x, y) for x, y in pairs.tolist()]


def test_a_region_is_a_closed_outline_of_columns_and_rows() -> None:
    ds = film()
    assert coordinates(ds, ds) == [
        *((3.25, 4.5), (23.25, 4.5), (23.25, 14.5), (3.25, 14.5)),
        (3.25, 4.5),
    ]
    triangle = [(10.0, 20.0), (30.5, 20.0), (30.5, 40.25)]
    assert coordinates(ds, ds, polygon=triangle) == [*triangle, triangle[0]]
    assert coordinates(ds, ds, polygon=[*triangle, triangle[0]]) == [*triangle, triangle[0]]


def test_the_whole_image_goes_from_0_to_its_columns_and_rows() -> None:
    # PS3.3 C.18.6: the last pixel's corner is Columns\\Rows. What stands a hair over is drawn in.
    ds = film()
    assert coordinates(ds, ds, x=-0.25, y=0, width=80.5, height=60) == [
        *((0, 0), (80, 0), (80, 60), (0, 60)),
        (0, 0),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_counted_from_one_in_dicom(kind: Kind) -> None:
    ds = header("emri_small.dcm")
    assert int(ds.NumberOfFrames) == 10
    one = report(ds, sentences=(said("There.", regions=(region(ds, frame=9),)),))
    (image,) = of_type(to_sr(one, [ds], kind), "IMAGE")
    assert image.ReferencedSOPSequence[0].ReferencedFrameNumber == 10
    ds = film()
    (image,) = of_type(to_sr(report(ds), [ds], kind), "IMAGE")
    assert "ReferencedFrameNumber" not in image.ReferencedSOPSequence[0]


def test_a_region_is_on_its_own_image_of_several() -> None:
    first = film()
    second = film(StudyInstanceUID=first.StudyInstanceUID)
    one = report(first, second, sentences=(said("There.", regions=(region(second),)),))
    made = to_sr(one, [second, first], "comprehensive")
    (image,) = of_type(made, "IMAGE")
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == second.SOPInstanceUID
    (evidence,) = made.CurrentRequestedProcedureEvidenceSequence
    uids = {s.SeriesInstanceUID for s in evidence.ReferencedSeriesSequence}
    assert uids == {first.SeriesInstanceUID, second.SeriesInstanceUID}


# ---- refused ----


def refused(one: Report, headers: list[Dataset], words: str) -> None:
    for kind in KINDS:
        with pytest.raises(ExportError, match=words) as caught:
            to_sr(one, headers, kind)
        assert "Jane" not in str(caught.value)


def test_headers_of_others_are_refused() -> None:
    ds = film()
    one = report(ds)
    refused(one, [], "needs the headers")
    refused(one, [film()], "another study")
    stranger = film(StudyInstanceUID=ds.StudyInstanceUID)
    refused(one, [ds, stranger], "none of the report's")
    twin = film(StudyInstanceUID=ds.StudyInstanceUID, SOPInstanceUID=ds.SOPInstanceUID)
    twin.PatientID = "ID-2"
    refused(one, [twin], "another patient")
    del twin.SOPInstanceUID
    refused(one, [twin], "lacks a UID")
    second = film(StudyInstanceUID=ds.StudyInstanceUID, PatientID="ID-2")
    nobody = study(ds, patient=Patient())
    refused(report(ds, second, study=nobody), [ds, second], "several patients")


def test_regions_that_are_nowhere_are_refused() -> None:
    ds = film()
    second = film(StudyInstanceUID=ds.StudyInstanceUID)

    def with_region(place: Any) -> Report:
        images = (row_of(ds), row_of(second, 2))
        return report(ds, images=images, sentences=(said("There.", regions=(place,)),))

    refused(with_region(region(second)), [ds], "header was not given")
    refused(with_region(region()), [ds, second], "header was not given")  # which of the two?
    stranger = region(sop_instance_uid=str(generate_uid()))
    refused(with_region(stranger), [ds, second], "header was not given")
    for values, words in (
        ({"frame": 1}, "frame"),
        ({"x": 70.0}, "outside"),
        ({"y": -2.0}, "outside"),
        ({"polygon": [(1.0, 1.0), (2.0, 2.0), (1.0, 99.0)]}, "outside"),
    ):
        one = with_region(region(ds, **values))
        with pytest.raises(ExportError, match=words):
            to_sr(one, [ds], "comprehensive")
