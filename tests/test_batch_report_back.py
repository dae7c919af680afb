"""From a PACS to drafts, and the drafts back to the PACS as preliminary reports."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage, ComprehensiveSRStorage, generate_uid

from medvlm.batch import web
from medvlm.batch.dicomweb import Server, StudyOnServer, studies
from medvlm.batch.parcel import StudyParcel
from medvlm.batch.report_back import SENT, send_back, to_report
from medvlm.dicom.read import read_inputs
from medvlm.dicom.study import Study, group_studies
from medvlm.draft.compose import draft_study
from medvlm.errors import ExportError, InputError, ServerError
from medvlm.export.sr_content import Kind
from medvlm.model.checkpoint import Checkpoint, load_checkpoint
from medvlm.records import Draft
from tests.dicoms import ramp, shipped, synthetic
from tests.exports import complaints, needs_dciodvfy
from tests.orthanc import PASSWORD, Orthanc
from tests.test_batch_dicomweb import listing, reply, stand_in

pytest_plugins = ["tests.orthanc"]

FILM = "RG1_J2KR.dcm"
OTHER = listing("1.2.9")
Drafted = tuple[Path, Study, Draft]


@pytest.fixture
def checkpoint(tiny: Path) -> Checkpoint:
    return load_checkpoint()


@pytest.fixture
def drafted(checkpoint: Checkpoint, tmp_path: Path) -> Callable[..., Drafted]:
    """Fetches and drafts a parcel as a batch does: folder of results, study, draft."""

    def draft(parcel: StudyOnServer | StudyParcel, out: str = "out") -> Drafted:
        scratch = tmp_path / f"scratch-{out}" / parcel.name.replace("/", "_")
        (study,) = parcel.open(scratch).studies
        result = draft_study(checkpoint, study)
        folder = tmp_path / out / study.name
        folder.mkdir(parents=True)
        (folder / "draft.json").write_text(result.draft.model_dump_json(indent=2))
        return folder, study, result.draft

    return draft


def reports(orthanc: Orthanc, study: str) -> list[Dataset]:
    return [ds for ds in orthanc.instances(study).values() if ds.Modality == "SR"]


@pytest.mark.parametrize("kind", ["basic", "comprehensive"])
def test_from_the_pacs_to_a_draft_and_back(
    kind: Kind, orthanc: Orthanc, drafted: Callable[..., Drafted], tmp_path: Path
) -> None:
    orthanc.upload(shipped(FILM))
    (parcel,) = studies(orthanc.url)
    mark = parcel.mark()
    folder, study, draft = drafted(parcel)
    assert draft.findings
    assert send_back(folder, study, parcel.server_url, kind)

    listed = orthanc.qido(f"studies/{study.study_instance_uid}/series?Modality=SR")
    assert len(listed) == 1
    (report,) = reports(orthanc, study.name)
    flags = (report.PreliminaryFlag, report.CompletionFlag, report.VerificationFlag)
    assert flags == ("PRELIMINARY", "PARTIAL", "UNVERIFIED")
    classes = {"basic": BasicTextSRStorage, "comprehensive": ComprehensiveSRStorage}
    assert report.SOPClassUID == classes[kind]
    source = dcmread(shipped(FILM), stop_before_pixels=True)
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "AccessionNumber"):
        assert report[keyword].value == source[keyword].value
    said = report.to_json()
    assert all(finding.text in said for finding in draft.findings)
    assert draft.model.weights_sha256 in said

    # A second send adds nothing, not even where the first was forgotten or drafted anew elsewhere.
    count = orthanc.count()
    assert not send_back(folder, study, parcel.server_url, kind)
    (folder / SENT).unlink()
    assert not send_back(folder, study, parcel.server_url, kind)
    again, study, _ = drafted(parcel, "elsewhere")
    os.utime(again / "draft.json", (0, 0))
    assert not send_back(again, study, parcel.server_url, kind)
    assert orthanc.count() == count
    # Nor does it make the study a new one.
    assert parcel.mark() == mark


@needs_dciodvfy
@pytest.mark.parametrize("kind", ["basic", "comprehensive"])
@pytest.mark.parametrize("name", [FILM, "CT_small.dcm"])
def test_the_report_in_the_pacs_is_valid(
    name: str, kind: Kind, orthanc: Orthanc, drafted: Callable[..., Drafted], tmp_path: Path
) -> None:
    orthanc.upload(shipped(name))
    (parcel,) = studies(orthanc.url)
    folder, study, draft = drafted(parcel)
    assert send_back(folder, study, orthanc.address, kind) == draft.input_check.accepted
    found = reports(orthanc, study.name)
    assert len(found) == draft.input_check.accepted
    for report in found:
        assert complaints(report, tmp_path) == []


def test_a_batch_of_good_and_bad_studies(orthanc: Orthanc, drafted: Callable[..., Drafted]) -> None:
    good = synthetic(ramp(), StudyDate="20260102")
    ct = dcmread(shipped("CT_small.dcm"))
    mixed = generate_uid()
    orthanc.upload(shipped(FILM), good, ct)
    orthanc.upload(synthetic(ramp(), StudyInstanceUID=mixed))
    lying = {"Rows": 60000, "Columns": 60000, "SOPInstanceUID": generate_uid()}
    orthanc.upload(synthetic(ramp(16, 16), StudyInstanceUID=mixed, **lying))
    sent = {}
    for parcel in studies(orthanc.url):
        folder, study, draft = drafted(parcel)
        sent[study.name] = send_back(folder, study, parcel.server_url)
        assert sent[study.name] == draft.input_check.accepted
        assert len(reports(orthanc, study.name)) == sent[study.name]
    assert len(sent) == 4
    assert sent[mixed]
    assert sent[good.StudyInstanceUID]
    assert not sent[ct.StudyInstanceUID]  # no chest film


def test_what_was_sent_is_remembered_by_server_and_without_the_log_in(
    orthanc: Orthanc, drafted: Callable[..., Drafted]
) -> None:
    orthanc.upload(synthetic(ramp(), PatientID="PAT-77", PatientName="Roe^Richard"))
    (parcel,) = studies(orthanc.url)
    folder, study, _ = drafted(parcel)
    send_back(folder, study, f"{orthanc.url}?PatientID=PAT-77", "basic")
    send_back(folder, study, orthanc.address, "comprehensive")
    written = (folder / SENT).read_text()
    uids = {str(ds.SOPInstanceUID) for ds in reports(orthanc, study.name)}
    assert {server: set(sent) for server, sent in json.loads(written).items()} == {
        orthanc.address: uids
    }
    assert len(uids) == 2
    assert [word for word in (PASSWORD, "PAT-77", "Roe") if word in written] == []
    assert [path.name for path in folder.iterdir() if "partial" in path.name] == []


def test_another_draft_is_another_report_of_the_same_series(
    orthanc: Orthanc, drafted: Callable[..., Drafted]
) -> None:
    orthanc.upload(synthetic(ramp()))
    (parcel,) = studies(orthanc.url)
    folder, study, draft = drafted(parcel)
    assert send_back(folder, study, orthanc.address)
    newer = draft.model_copy(update={"impression": "Another reading."})
    (folder / "draft.json").write_text(newer.model_dump_json())
    assert send_back(folder, study, orthanc.address)
    found = reports(orthanc, study.name)
    assert len(found) == 2
    assert len({ds.SeriesInstanceUID for ds in found}) == 1
    # How long it took is no other content.
    timed = newer.model_copy(update={"timings_s": {"look": 7.0}})
    (folder / "draft.json").write_text(timed.model_dump_json())
    assert not send_back(folder, study, orthanc.address)


def test_a_report_is_dated_when_the_draft_was_written(
    orthanc: Orthanc, drafted: Callable[..., Drafted]
) -> None:
    orthanc.upload(synthetic(ramp(), StudyDate="20200101", TimezoneOffsetFromUTC="+0900"))
    (parcel,) = studies(orthanc.url)
    folder, study, _ = drafted(parcel)
    os.utime(folder / "draft.json", (1_767_225_600, 1_767_225_600))  # 2026-01-01, 0:00 UTC
    assert send_back(folder, study, orthanc.address)
    (report,) = reports(orthanc, study.name)
    assert (report.ContentDate, report.ContentTime) == ("20260101", "090000")
    assert report.StudyDate == "20200101"


def test_a_report_that_was_not_taken_is_tried_again(
    orthanc: Orthanc, drafted: Callable[..., Drafted], monkeypatch: pytest.MonkeyPatch
) -> None:
    orthanc.upload(synthetic(ramp()))
    (parcel,) = studies(orthanc.url)
    folder, study, _ = drafted(parcel)
    before = (folder / "draft.json").read_bytes()
    monkeypatch.setenv(web.PASSWORD, "wrong")
    with pytest.raises(ServerError, match="log-in"):
        send_back(folder, study, orthanc.address)
    assert [path.name for path in folder.iterdir()] == ["draft.json"]
    assert (folder / "draft.json").read_bytes() == before
    monkeypatch.setenv(web.PASSWORD, PASSWORD)
    assert send_back(folder, study, orthanc.address)


def answer_of(tag: str, **values: object) -> bytes:
    told = {key.strip("_"): {"vr": "US", "Value": [value]} for key, value in values.items()}
    return json.dumps({tag: {"vr": "SQ", "Value": [told]}}).encode()


def test_a_server_that_refuses_the_report_is_told(log_in: None) -> None:
    refused = answer_of("00081198", _00081155="1.2.3", _00081197=0xA700)
    duplicate = answer_of("00081198", _00081155="1.2.3", _00081197=0x0111)
    other = answer_of("00081199", _00081155="1.2.4")
    taken = answer_of("00081199", _00081155="1.2.3")
    for status, body, fails in [
        (409, refused, "A700"),
        (202, refused, "A700"),
        (409, b"", "does not take"),
        (200, other, "does not take"),
        (400, b"", "does not do it"),
        (409, duplicate, None),
        (200, taken, None),
        (200, b"<xml/>", "does not take"),
        (202, b"", "does not take"),
    ]:

        def answer(handler: BaseHTTPRequestHandler, s: int = status, b: bytes = body) -> None:
            # It ignores the filter: another image of the study is listed.
            reply(handler, s, b) if handler.command == "POST" else reply(handler, 200, OTHER)

        with stand_in(answer) as address:
            if fails is None:
                Server(address).store(b"file", "1.2", "1.2.3")
            else:
                with pytest.raises(ServerError, match=fails):
                    Server(address).store(b"file", "1.2", "1.2.3")


def test_an_answer_that_names_nothing_is_asked_about(log_in: None) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        body = b"<xml/>" if handler.command == "POST" else listing("1.2.9", "1.2.3")
        reply(handler, 200, body)

    with stand_in(answer) as address:
        Server(address).store(b"file", "1.2", "1.2.3")
        assert Server(address).has("1.2", "1.2.3")
        assert not Server(address).has("1.2", "1.2.4")


def test_only_what_belongs_together_is_sent(
    drafted: Callable[..., Drafted], tmp_path: Path, log_in: None
) -> None:
    (film,) = group_studies(read_inputs(shipped(FILM)))
    (other,) = group_studies(read_inputs(shipped("CT_small.dcm")))
    folder, _, draft = drafted(StudyParcel(film))
    with pytest.raises(ExportError, match="another study"):
        send_back(folder, other, "http://127.0.0.1:9")
    (folder / "draft.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        send_back(folder, film, "http://127.0.0.1:9")
    assert to_report(draft, film) == to_report(draft, film)


def test_a_picture_has_nothing_to_send(drafted: Callable[..., Drafted], tmp_path: Path) -> None:
    from PIL import Image

    Image.linear_gradient("L").save(tmp_path / "film.png")
    (study,) = group_studies(read_inputs(tmp_path / "film.png"))
    folder, study, _ = drafted(StudyParcel(study))
    assert not send_back(folder, study, "http://127.0.0.1:9")
