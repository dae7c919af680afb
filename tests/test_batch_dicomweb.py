"""Studies from a real PACS, and from servers that misbehave."""

from __future__ import annotations

import json
import logging
import pickle
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import BasicTextSRStorage, generate_uid

from medvlm.batch import dicomweb, web
from medvlm.batch.dicomweb import Server, StudyOnServer, studies
from medvlm.batch.multipart import parts
from medvlm.errors import ConfigError, InputNotFound, NoPixels, ServerError, TooLarge, UsageError
from tests.conftest import SetLimit
from tests.dicoms import ramp, shipped, synthetic
from tests.hostile import film as film_bytes
from tests.orthanc import PASSWORD, Orthanc, free_port, running_orthanc

pytest_plugins = ["tests.orthanc"]

FILM, CT = "RG1_J2KR.dcm", "CT_small.dcm"
FILMS = [film_bytes(SOPInstanceUID=f"1.2.3.{last}") for last in (4, 5)]


def uid_of(name: str) -> str:
    return str(dcmread(shipped(name), stop_before_pixels=True).StudyInstanceUID)


def told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


# ---- a real PACS ----


def test_a_study_comes_as_it_lies_there(orthanc: Orthanc, tmp_path: Path) -> None:
    orthanc.upload(shipped(FILM), shipped(CT))
    found = {parcel.name: parcel for parcel in studies(orthanc.url)}
    assert set(found) == {uid_of(FILM), uid_of(CT)}
    parcel = pickle.loads(pickle.dumps(found[uid_of(FILM)]))  # it is opened elsewhere
    contents = parcel.open(tmp_path)
    (study,) = contents.studies
    assert study.study_instance_uid == uid_of(FILM)
    (instance,) = study.instances
    assert instance.path.read_bytes() == shipped(FILM).read_bytes()  # the key is of the bytes
    assert instance.path.is_relative_to(tmp_path)
    assert instance.file == f"{uid_of(FILM)}/000000"
    assert contents.reading.refused == []
    assert parcel.server_url == orthanc.address


def test_many_instances_come_one_to_a_file(orthanc: Orthanc, tmp_path: Path) -> None:
    study, series = generate_uid(), [generate_uid(), generate_uid()]
    sent = [
        synthetic(ramp(), StudyInstanceUID=study, SeriesInstanceUID=series[n % 2], InstanceNumber=n)
        for n in range(7)
    ]
    orthanc.upload(*sent)
    (parcel,) = studies(orthanc.url)
    (made,) = parcel.open(tmp_path).studies
    assert [one.sop_instance_uid for one in made.instances] == [ds.SOPInstanceUID for ds in sent]


def test_a_hostile_instance_harms_only_itself(orthanc: Orthanc, tmp_path: Path) -> None:
    """Its header says 60,000 rows that its 512 bytes of pixels cannot be."""
    study = generate_uid()
    orthanc.upload(synthetic(ramp(), StudyInstanceUID=study))
    orthanc.upload(synthetic(ramp(16, 16), StudyInstanceUID=study, Rows=60000, Columns=60000))
    (parcel,) = studies(orthanc.url)
    contents = parcel.open(tmp_path)
    assert [len(one.instances) for one in contents.studies] == [1]
    (refused,) = contents.reading.refused
    assert refused.code == "too_large"
    assert refused.file.startswith(f"{study}/")


def test_every_page_is_asked_for(orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = [synthetic(ramp(16, 16), PatientID=f"ID-{number}") for number in range(11)]
    orthanc.upload(*sent)
    for page in (2, 5, 11, 200):
        monkeypatch.setattr(dicomweb, "PAGE", page)
        found = [parcel.study for parcel in studies(orthanc.url)]
        assert sorted(found) == sorted(ds.StudyInstanceUID for ds in sent)


def test_filters_are_the_servers(orthanc: Orthanc) -> None:
    old = synthetic(ramp(16, 16), StudyDate="20200101")
    new = synthetic(ramp(16, 16), StudyDate="20260115")
    ct = synthetic(ramp(16, 16), StudyDate="20260116", Modality="CT")
    orthanc.upload(old, new, ct)

    def found(query: str) -> set[str]:
        return {parcel.study for parcel in studies(f"{orthanc.url}?{query}")}

    assert found("StudyDate=20260101-20260131") == {new.StudyInstanceUID, ct.StudyInstanceUID}
    assert found("StudyDate=20260101-20260131&ModalitiesInStudy=CR") == {new.StudyInstanceUID}
    assert found("00080020=20200101") == {old.StudyInstanceUID}
    assert found("PatientID=NOBODY") == set()


def test_a_mark_changes_with_the_images_only(orthanc: Orthanc) -> None:
    first = synthetic(ramp())
    orthanc.upload(first)
    (parcel,) = studies(orthanc.url)
    mark = parcel.mark()
    assert mark is not None
    assert parcel.mark() == mark
    ids = {"StudyInstanceUID": first.StudyInstanceUID, "SeriesInstanceUID": generate_uid()}
    report = synthetic(ramp(16, 16), **ids, SOPClassUID=BasicTextSRStorage, Modality="SR")
    report.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    del report.PixelData
    orthanc.upload(report)
    assert parcel.mark() == mark
    orthanc.upload(synthetic(ramp(), **ids))
    assert parcel.mark() not in (None, mark)
    assert StudyOnServer(parcel.server, generate_uid()).mark() is None


def test_a_report_in_the_study_is_left_there(orthanc: Orthanc, tmp_path: Path) -> None:
    image = synthetic(ramp())
    ids = {"StudyInstanceUID": image.StudyInstanceUID, "SeriesInstanceUID": generate_uid()}
    report = synthetic(ramp(16, 16), **ids, SOPClassUID=BasicTextSRStorage, Modality="SR")
    report.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    del report.PixelData
    orthanc.upload(image, report)
    (parcel,) = studies(orthanc.url)
    contents = parcel.open(tmp_path)
    assert len(contents.reading.instances) == 1
    assert contents.reading.refused == []
    lone = synthetic(ramp(16, 16), SOPClassUID=BasicTextSRStorage, Modality="SR")
    lone.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    del lone.PixelData
    orthanc.upload(lone)
    with pytest.raises(NoPixels):
        StudyOnServer(parcel.server, lone.StudyInstanceUID).open(tmp_path / "lone")


def test_a_wrong_password_is_told_without_it(
    orthanc: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orthanc.upload(shipped(CT))
    (parcel,) = studies(orthanc.url)
    monkeypatch.setenv(web.PASSWORD, "wrong-guess")
    for fail in (lambda: list(studies(orthanc.url)), lambda: parcel.open(tmp_path)):
        with pytest.raises(ServerError, match="log-in") as caught:
            fail()
        assert web.PASSWORD in str(caught.value.remedy)
        assert "wrong-guess" not in told(caught.value)
        assert PASSWORD not in told(caught.value)
    assert parcel.mark() is None
    monkeypatch.setenv(web.TOKEN, "secret-token")
    with pytest.raises(ServerError, match="log-in") as caught:
        list(studies(orthanc.url))
    assert "secret-token" not in told(caught.value)


def test_a_study_that_is_gone_is_told(orthanc: Orthanc, tmp_path: Path) -> None:
    orthanc.upload(shipped(CT))
    (parcel,) = studies(orthanc.url)
    orthanc.clear()
    with pytest.raises(InputNotFound, match="any more"):
        parcel.open(tmp_path)


def test_a_study_beyond_the_limit_is_refused(
    orthanc: Orthanc, tmp_path: Path, set_limit: SetLimit
) -> None:
    orthanc.upload(shipped(FILM))
    (parcel,) = studies(orthanc.url)
    set_limit("archive_bytes", 10_000)
    with pytest.raises(TooLarge) as caught:
        parcel.open(tmp_path / "a")
    assert caught.value.file == uid_of(FILM)
    set_limit("archive_bytes", 1 << 30)
    set_limit("file_bytes", 10_000)
    (refused,) = parcel.open(tmp_path / "b").reading.refused
    assert (refused.code, refused.file) == ("too_large", f"{uid_of(FILM)}/000000")


def test_a_server_that_went_away_is_told(
    log_in: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "RETRIES", 2)
    monkeypatch.setattr(dicomweb, "PAGE", 1)
    with running_orthanc() as orthanc:
        orthanc.upload(*(synthetic(ramp(16, 16)) for _ in range(3)))
        found = studies(orthanc.url)
        parcel = next(found)
        orthanc.stop()
        with pytest.raises(ServerError, match="cannot be reached"):
            list(found)
        with pytest.raises(ServerError, match="cannot be reached") as caught:
            parcel.open(tmp_path)
        assert caught.value.remedy
        assert caught.value.file == orthanc.address


def test_a_patient_in_a_filter_is_never_told(
    orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(web, "RETRIES", 1)
    closed = f"dicomweb+http://127.0.0.1:{free_port()}/dicom-web"
    with caplog.at_level(logging.DEBUG):
        assert list(studies(f"{orthanc.url}?PatientID=PAT-77")) == []
        with pytest.raises(ServerError) as caught:
            list(studies(f"{closed}?PatientID=PAT-77"))
        assert "PAT-77" not in str(caught.value)
        assert caught.value.__suppress_context__
    assert "PAT-77" not in caplog.text


# ---- addresses ----


@pytest.mark.parametrize("url", ["dicomweb+ftp://host/x", "dicomweb+https://", "dicomweb+x", ""])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="no address"):
        studies(url)


def test_a_log_in_in_the_address_is_refused() -> None:
    url = "dicomweb+https://sato:hunter2@host/dicom-web"
    with pytest.raises(UsageError, match="log-in") as caught:
        studies(url)
    assert "hunter2" not in told(caught.value)
    assert web.TOKEN in str(caught.value.remedy)


@pytest.mark.parametrize("query", ["Sex=hunter2", "limit=3", "PatientNam=hunter2", "=hunter2"])
def test_an_unknown_filter_is_refused_by_its_name(query: str) -> None:
    with pytest.raises(UsageError, match="filter") as caught:
        studies(f"dicomweb+https://host/dicom-web?{query}")
    assert "hunter2" not in str(caught.value)


def test_an_address_is_shown_without_its_query() -> None:
    server = Server.of("dicomweb+https://Host:8443/dicom-web/?PatientID=12")
    assert server.address == "https://host:8443/dicom-web"
    assert Server.of(server.address) == server
    assert Server.of("https://[::1]:8042/x").address == "https://[::1]:8042/x"


# ---- servers that misbehave ----

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def stand_in(answer: Answer) -> Iterator[str]:
    """The address of a server that answers every GET and POST as told."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            answer(self)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        web._session.cache_clear()
        server.shutdown()
        thread.join()
        server.server_close()


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def listing(*uids: str) -> bytes:
    image = {"00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.1"]}}
    return json.dumps(
        [
            {
                "0020000D": {"vr": "UI", "Value": ["1.2"]},
                "0020000E": {"vr": "UI", "Value": ["1.2.3"]},
                "00080018": {"vr": "UI", "Value": [uid]},
                **image,
            }
            for uid in uids
        ]
    ).encode()


def of_film(*, boundary: str = "b", cut: int | None = None, files: int = 1) -> bytes:
    return of_files(*FILMS[:files], boundary=boundary)[:cut]


def of_files(*files: bytes, boundary: str = "b") -> bytes:
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(head + file + b"\r\n" for file in files) + f"--{boundary}--\r\n".encode()


def test_a_busy_server_is_asked_again(log_in: None) -> None:
    asked: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        if len(asked) < 4:
            reply(handler, (503, 429, 503)[len(asked) - 1])
        else:
            reply(handler, 200, listing("1.2.3.4") if "offset=0" in handler.path else b"[]")

    with stand_in(answer) as address:
        assert [parcel.study for parcel in studies(f"dicomweb+{address}")] == ["1.2"]
    assert len(asked) == 5


def test_but_not_for_ever(log_in: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "RETRIES", 3)
    asked: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        reply(handler, 503, Retry_After="0")

    with stand_in(answer) as address, pytest.raises(ServerError, match="busy"):
        list(studies(f"dicomweb+{address}"))
    assert len(asked) == 4


def test_the_log_in_follows_to_no_other_address(log_in: None) -> None:
    reached: list[str | None] = []

    def other(handler: BaseHTTPRequestHandler) -> None:
        reached.append(handler.headers["Authorization"])
        reply(handler, 200, b"[]")

    with stand_in(other) as elsewhere:

        def answer(handler: BaseHTTPRequestHandler) -> None:
            assert (handler.headers["Authorization"] or "").startswith("Basic ")
            reply(handler, 302, Location=f"{elsewhere}{handler.path}")

        with stand_in(answer) as address, pytest.raises(ServerError, match="elsewhere"):
            list(studies(f"dicomweb+{address}"))
    assert reached == []


def test_without_a_log_in_none_is_sent(
    log_in: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(web.USER)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login sato password hunter2\n")
    monkeypatch.setenv("NETRC", str(netrc))
    sent: list[str | None] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        sent.append(handler.headers["Authorization"])
        reply(handler, 204)

    with stand_in(answer) as address:
        assert list(studies(f"dicomweb+{address}")) == []
        monkeypatch.setenv(web.TOKEN, "of-the-site")
        assert list(studies(f"dicomweb+{address}")) == []
    assert sent == [None, "Bearer of-the-site"]


def test_a_server_that_knows_no_offset_is_asked_twice(log_in: None) -> None:
    with stand_in(lambda handler: reply(handler, 200, listing("1.2.3.4"))) as address:
        assert len(list(studies(f"dicomweb+{address}"))) == 1


def test_pages_that_say_the_same_in_another_order_end(log_in: None) -> None:
    pages = [listing("1.2.3.4", "1.2.3.5"), listing("1.2.3.5", "1.2.3.4")] * 50

    with stand_in(lambda handler: reply(handler, 200, pages.pop())) as address:
        assert len(Server(address).instances("1.2")) == 2
    assert len(pages) == 98


def test_a_token_that_cannot_be_sent_is_told_without_it(
    log_in: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str | None] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        sent.append(handler.headers["Authorization"])
        reply(handler, 204)

    with stand_in(answer) as address:
        monkeypatch.setenv(web.TOKEN, "hunter2\n")
        assert list(studies(f"dicomweb+{address}")) == []
        for wrong in ("hunter2\nx", "hunter2\u20ac"):
            monkeypatch.setenv(web.TOKEN, wrong)
            with pytest.raises(ConfigError, match=web.TOKEN) as caught:
                list(studies(f"dicomweb+{address}"))
            assert "hunter2" not in told(caught.value)
    assert sent == ["Bearer hunter2"]


@pytest.mark.parametrize("body", [b"<html>", b'{"a": 1}', b"[1]", b"\xff"])
def test_an_answer_that_is_no_dicom_json_is_told(log_in: None, body: bytes) -> None:
    with (
        stand_in(lambda handler: reply(handler, 200, body)) as address,
        pytest.raises(ServerError, match="no DICOM JSON"),
    ):
        list(studies(f"dicomweb+{address}"))


def test_an_address_without_the_service_is_told(log_in: None) -> None:
    with (
        stand_in(lambda handler: reply(handler, 404)) as address,
        pytest.raises(ServerError, match="no DICOMweb service"),
    ):
        list(studies(f"dicomweb+{address}"))


def test_a_uid_that_leads_elsewhere_is_never_asked_for(log_in: None, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="no valid UID"):
        StudyOnServer(Server("http://127.0.0.1:9"), "../../system").open(tmp_path)


class Torn:
    """A server that lists two images and sends them as told, one answer after another."""

    def __init__(self, *bodies: bytes, length: int | None = None) -> None:
        self.bodies, self.length, self.asked = list(bodies), length, 0

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        if "/series/" not in handler.path:
            whole = "offset=0" in handler.path
            reply(handler, 200, listing("1.2.3.4", "1.2.3.5") if whole else b"[]")
            return
        self.asked += 1
        body = self.bodies.pop(0) if len(self.bodies) > 1 else self.bodies[0]
        kind = 'multipart/related; type="application/dicom"; boundary=b'
        length = str(self.length or len(body))
        reply(handler, 200, body, Content_Type=kind, Content_Length=length)


@pytest.mark.parametrize(
    "torn",
    [
        Torn(of_film(files=2, cut=-8)),  # no end
        Torn(of_film(files=2, cut=700)),  # inside the second file
        Torn(of_film(files=2, cut=30)),
        Torn(b""),
        Torn(of_film(files=2), length=99_999),  # the connection breaks off
        Torn(of_film(files=1)),  # one image is missing
        Torn(of_files(FILMS[0], FILMS[0])),  # one comes twice instead
    ],
)
def test_what_is_not_whole_is_never_drafted(log_in: None, tmp_path: Path, torn: Torn) -> None:
    with stand_in(torn) as address, pytest.raises(web.Interrupted):
        StudyOnServer(Server(address), "1.2").open(tmp_path)
    assert torn.asked == dicomweb.TRIES
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_transfer_that_broke_off_is_tried_again(log_in: None, tmp_path: Path) -> None:
    torn = Torn(of_film(files=2, cut=700), of_film(files=2))
    with stand_in(torn) as address:
        contents = StudyOnServer(Server(address), "1.2").open(tmp_path)
    assert [one.path.read_bytes() for one in contents.reading.instances] == FILMS


# ---- parts ----


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_parts_whatever_the_pieces(size: int) -> None:
    bodies = [b"\r\n--", b"", b"a\r\n--boundar\r\n\r\nb", bytes(range(256)) * 3]
    message = b"preamble\r\n"
    for number, body in enumerate(bodies):
        head = b"Content-Type: application/dicom\r\n" if number % 2 else b""
        message += b"--boundary\r\n" + head + b"\r\n" + body + b"\r\n"
    message += b"--boundary--\r\nepilogue"
    pieces = iter([message[at : at + size] for at in range(0, len(message), size)])
    kind = 'multipart/related; boundary="boundary"; type="application/dicom"'
    assert [b"".join(part) for part in parts(pieces, kind, "server")] == bodies
    assert next(pieces, None) is None


def test_a_part_that_was_not_read_is_passed_over() -> None:
    message = b"--b\r\n\r\n" + b"x" * 5000 + b"\r\n--b\r\n\r\ny\r\n--b--"
    pieces = iter([message[at : at + 100] for at in range(0, len(message), 100)])
    found = parts(pieces, "multipart/related; boundary=b", "server")
    next(found)
    assert b"".join(next(found)) == b"y"


def test_headers_without_end_are_refused() -> None:
    endless = iter([b"--b\r\n", *([b"x" * 1000] * 1000)])
    with pytest.raises(web.Interrupted):
        list(parts(endless, "multipart/related; boundary=b", "server"))


def test_an_answer_that_is_one_file_is_one_part() -> None:
    found = parts(iter([b"a", b"b"]), "application/dicom", "server")
    assert [b"".join(part) for part in found] == [b"ab"]
