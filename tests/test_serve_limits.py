"""What the service bounds, refuses and keeps, with a stand-in for the model."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event, Semaphore, Thread

import httpx2 as httpx
import numpy as np
import openai
import pytest

from medvlm.config.serve import ServeConfig
from medvlm.errors import CheckpointError
from medvlm.records import Draft
from medvlm.serve.metrics import Metrics
from medvlm.serve.reader import Reader
from medvlm.serve.service import Service
from medvlm.serve.store import Store
from medvlm.serve.tokens import Tokens
from tests.dicoms import ramp, save, synthetic
from tests.serving import (
    TOKEN,
    Held,
    Running,
    data_uri,
    png,
    question,
    running,
)

DICOM = "application/dicom"
NAME = "Planted^Quentin"


@pytest.fixture
def film(tmp_path: Path) -> bytes:
    """A chest film whose header names a patient."""
    made = synthetic(ramp(), PatientName=NAME, PatientID="MRN-90125", StudyInstanceUID="1.2.3.4.5")
    return save(made, tmp_path / "film.dcm").read_bytes()


def drafted(service: Running, uid: str, seconds: float = 60) -> httpx.Response:
    return service.client.post(f"/v1/studies/{uid}/draft", params={"wait": seconds})


def test_bodies_are_bounded(tmp_path: Path) -> None:
    with running(tmp_path / "store", Held(open=True), upload_mb=1, chat_mb=1) as made:
        service = made.ready()
        long = b"x" * ((1 << 20) + 1)
        declared = service.client.post("/v1/studies", files={"files": ("a", long, DICOM)})
        assert (declared.status_code, declared.json()["code"]) == (413, "too_large")

        def pieces() -> Iterator[bytes]:
            yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
            for _ in range(24):
                yield b"x" * (1 << 16)

        form = {"Content-Type": "multipart/form-data; boundary=x"}
        undeclared = service.client.post("/v1/studies", content=pieces(), headers=form)
        assert undeclared.status_code == 413
        with pytest.raises(openai.APIStatusError) as refused:
            service.openai().chat.completions.create(
                model="stand-in", messages=question("Why?", data_uri(long))
            )
        assert (refused.value.status_code, refused.value.code) == (413, "too_large")
        assert service.client.get("/health/ready").status_code == 200


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("multipart/form-data", b"x", 400),
        ("multipart/form-data; boundary=x", b"no such form", 400),
        ("multipart/form-data; boundary=x", b"--x\r\nbroken\r\n\r\n--x--", 400),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\nvalue\r\n--x--\r\n',
            400,
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\ncut off',
            400,
        ),
        ("application/json", b"{}", 415),
        ("", b"", 415),
    ],
)
def test_malformed_uploads(tmp_path: Path, kind: str, body: bytes, status: int) -> None:
    with running(tmp_path / "store", Held(open=True)) as made:
        service = made.ready()
        answer = service.client.post("/v1/studies", content=body, headers={"Content-Type": kind})
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        chat = service.client.post(
            "/v1/chat/completions", content=body, headers={"Content-Type": kind}
        )
        assert chat.status_code in (400, 415)
        assert chat.json()["error"]["type"] == "invalid_request_error"


PICTURE = data_uri(png(np.zeros((8, 8), dtype=np.uint8)))


def test_a_full_queue_sends_away(tmp_path: Path) -> None:
    model = Held()
    with running(tmp_path / "store", model, queue=3) as made:
        service = made.ready()
        client = service.openai()

        def ask(text: str) -> str | None:
            return (
                client.chat.completions.create(model="stand-in", messages=question(text, PICTURE))
                .choices[0]
                .message.content
            )

        with ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(ask, text) for text in ("ab", "cd", "ef")]
            for _ in range(200):
                if service.metric("medvlm_queue_length", kind="question") == 3:
                    break
                time.sleep(0.02)
            with pytest.raises(openai.RateLimitError) as full:
                ask("one too many")
            assert full.value.code == "queue_full"
            assert int(full.value.response.headers["retry-after"]) >= 1
            assert service.client.get("/health/ready").status_code == 200
            model.go.set()
            assert [one.result() for one in waiting] == ["ba", "dc", "fe"]
        assert ask("gh") == "hg"
        assert service.metric("medvlm_queue_length", kind="question") == 0


def test_drafts_wait_in_a_bounded_queue(tmp_path: Path) -> None:
    model = Held()
    with running(tmp_path / "store", model, queue=1) as made:
        service = made.ready()
        films = []
        for value in (1, 2, 3):
            ds = synthetic(np.full((20, 20), value, dtype=np.uint16))
            films.append(("a", save(ds, tmp_path / "a.dcm").read_bytes(), DICOM))
        uids = [service.upload(one)["studies"][0]["uid"] for one in films]
        first = drafted(service, uids[0], 0)
        assert first.status_code == 202
        assert first.headers["location"] == f"/v1/studies/{uids[0]}/draft"
        assert int(first.headers["retry-after"]) >= 1
        model.began.wait(10)
        assert service.client.get(first.headers["location"]).json()["state"] == "running"
        assert drafted(service, uids[1], 0).json() == {"uid": uids[1], "state": "waiting"}
        full = drafted(service, uids[2], 0)
        assert (full.status_code, full.json()["code"]) == (429, "too_many_drafts")
        assert drafted(service, uids[0], 0.2).status_code == 202  # the same one, in no queue
        # One that is removed before its turn is not made.
        assert service.client.delete(f"/v1/studies/{uids[1]}").status_code == 204
        model.go.set()
        assert drafted(service, uids[0]).status_code == 200
        assert drafted(service, uids[2]).status_code == 200
        assert model.drafts == 2


class Broken(Held):
    """Cannot draft at first."""

    def draft(self, study: object) -> Draft:
        if self.drafts == 0:
            self.drafts += 1
            raise RuntimeError(NAME)
        return super().draft(study)  # type: ignore[arg-type]


def test_a_failed_draft_is_told_and_made_on_demand(
    tmp_path: Path, film: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path / "store", Broken(open=True)) as made:
        service = made.ready()
        service.upload(("a", film, DICOM))
        failed = drafted(service, "1.2.3.4.5")
        assert (failed.status_code, failed.json()["code"]) == (500, "internal")
        again = service.client.get("/v1/studies/1.2.3.4.5/draft")
        assert again.json() == failed.json()
        assert service.client.get("/v1/studies/1.2.3.4.5").json()["draft"] == "failed"
        assert drafted(service, "1.2.3.4.5").status_code == 200
    assert "RuntimeError at " in caplog.text
    assert "Planted" not in caplog.text


def full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_no_draft_running(
    tmp_path: Path, film: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Held()
    with running(tmp_path / "store", model) as made:
        service = made.ready()
        service.upload(("a", film, DICOM))
        assert drafted(service, "1.2.3.4.5", 0).status_code == 202
        model.began.wait(10)
        with monkeypatch.context() as context:
            context.setattr("medvlm.serve.store.write_whole", full)
            model.go.set()
            failed = service.client.get("/v1/studies/1.2.3.4.5/draft", params={"wait": 30})
            assert (failed.status_code, failed.json()["code"]) == (507, "store")
            assert service.client.get("/v1/studies/1.2.3.4.5").json()["draft"] == "failed"
            assert drafted(service, "1.2.3.4.5").status_code == 507
            upload = service.client.post("/v1/studies", files={"files": ("a", film, DICOM)})
            assert (upload.status_code, upload.json()["code"]) == (507, "store")
        assert drafted(service, "1.2.3.4.5").status_code == 200


def test_a_draft_that_ended_the_service_is_made_on_demand_only(tmp_path: Path, film: bytes) -> None:
    with running(tmp_path / "store", Held(open=True)) as made:
        made.ready().upload(("a", film, DICOM))
    store = Store(tmp_path / "store")
    store.want_draft("1.2.3.4.5", begun=True)
    store.close()
    model = Held(open=True)
    with running(tmp_path / "store", model) as made:
        service = made.ready()
        died = service.client.get("/v1/studies/1.2.3.4.5/draft", params={"wait": 5})
        assert (died.status_code, died.json()["code"]) == (500, "died")
        assert model.drafts == 0
        assert drafted(service, "1.2.3.4.5").status_code == 200


def test_the_service_answers_while_the_disk_is_busy(tmp_path: Path, film: bytes) -> None:
    with running(tmp_path / "store", Held(open=True)) as made:
        service = made.ready()
        service.upload(("a", film, DICOM))
        with ThreadPoolExecutor(2) as pool:
            with service.service.store._writing:  # as while a study is written
                asking = pool.submit(drafted, service, "1.2.3.4.5", 10)
                time.sleep(0.2)
                waiting = pool.submit(
                    httpx.get,
                    f"{service.url}/v1/studies/1.2.3.4.5/draft",
                    headers={"Authorization": f"Bearer {TOKEN}"},
                )
                assert waiting.result(5).status_code == 202
                assert service.client.get("/health/live").status_code == 200
            assert asking.result(30).status_code == 200


def test_an_upload_that_drips_ends(tmp_path: Path) -> None:
    with running(tmp_path / "store", Held(open=True), upload_seconds=0.5) as made:
        service = made.ready()
        with socket.create_connection(("127.0.0.1", int(service.url.rsplit(":", 1)[1]))) as slow:
            slow.sendall(
                b"POST /v1/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n"
                b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n--x\r\n"
            )
            slow.settimeout(0.1)
            answer = b""
            for _ in range(100):
                slow.sendall(b"a")
                with suppress(TimeoutError):
                    answer = slow.recv(100)
                    break
            assert answer.startswith(b"HTTP/1.1 408")
        assert [one.name for one in (tmp_path / "store").iterdir()] == [".lock"]


def test_a_client_that_went_away_is_not_worked_for(tmp_path: Path) -> None:
    model = Held()
    with running(tmp_path / "store", model) as made:
        service = made.ready()

        def ask(text: str, timeout: float) -> None:
            service.openai(timeout=timeout).chat.completions.create(
                model="stand-in", messages=question(text, PICTURE)
            )

        first = Thread(target=ask, args=("first", 30))
        first.start()
        model.began.wait(10)
        with pytest.raises(openai.APITimeoutError):
            ask("gone", 0.3)
        for _ in range(200):
            if service.metric("medvlm_requests_total", status="499") == 1:
                break
            time.sleep(0.02)
        assert service.metric("medvlm_queue_length", kind="question") == 1
        model.go.set()
        first.join(30)
        ask("last", 30)
        assert model.batches == [["first"], ["last"]]


def test_an_image_counts_until_it_is_decoded(tmp_path: Path) -> None:
    going, opened = Semaphore(0), Event()

    def load() -> int:
        going.release()
        opened.wait(60)
        return 1

    async def check(service: Service) -> None:
        async def ask() -> None:
            async with service.decoded(load):
                pass

        asked = [asyncio.ensure_future(ask()) for _ in range(2 * service.config.batch)]
        for _ in asked:
            await asyncio.to_thread(going.acquire)
        assert service.decoding.locked()
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        assert service.decoding.locked()
        opened.set()
        async with asyncio.timeout(60), service.decoded(lambda: 2) as two:
            assert two == 2

    store = Store(tmp_path / "store")
    asyncio.run(check(Service(ServeConfig(batch=2), store, Tokens({}), lambda _: Held())))
    store.close()


def test_a_request_has_a_time_limit(tmp_path: Path) -> None:
    model = Held()
    with running(tmp_path / "store", model, request_seconds=0.5) as made:
        service = made.ready()
        with pytest.raises(openai.InternalServerError) as late:
            service.openai().chat.completions.create(
                model="stand-in", messages=question("Why?", PICTURE)
            )
        assert (late.value.status_code, late.value.code) == (504, "too_late")
        assert service.metric("medvlm_queue_length", kind="question") == 0
        # Who begins to send and does not go on is not waited for, either.
        with socket.create_connection(("127.0.0.1", int(service.url.rsplit(":", 1)[1]))) as slow:
            slow.sendall(
                b"POST /v1/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n"
                b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n--x"
            )
            slow.settimeout(10)
            assert slow.recv(100).startswith(b"HTTP/1.1 408")
        model.go.set()


def test_ending_finishes_what_is_in_hand(tmp_path: Path) -> None:
    model = Held()
    with running(tmp_path / "store", model) as made:
        service = made.ready()
        answers: list[str | None] = []

        def ask() -> None:
            answer = service.openai().chat.completions.create(
                model="stand-in", messages=question("abc", PICTURE)
            )
            answers.append(answer.choices[0].message.content)

        asking = Thread(target=ask)
        asking.start()
        model.began.wait(10)
        service.service.drain()
        refused = service.client.get("/v1/studies/1.2.3")
        assert (refused.status_code, refused.json()["code"]) == (503, "stopping")
        assert service.client.get("/health/ready").json() == {"status": "stopping"}
        assert service.client.get("/health/live").status_code == 200
        service.server.end()
        model.go.set()
        asking.join(30)
        assert answers == ["cba"]


def test_a_restart_keeps_studies_drafts_and_wishes(tmp_path: Path, film: bytes) -> None:
    other = save(synthetic(ramp(), StudyInstanceUID="1.2.9"), tmp_path / "b.dcm").read_bytes()
    third = save(synthetic(ramp(30, 30), StudyInstanceUID="1.2.8"), tmp_path / "c.dcm").read_bytes()
    model = Held(open=True)
    with running(tmp_path / "store", model) as made:
        service = made.ready()
        service.upload(("a", film, DICOM), ("b", other, DICOM), ("c", third, DICOM))
        draft = drafted(service, "1.2.3.4.5").content
        model.go.clear()
        model.began.clear()
        assert drafted(service, "1.2.9", 0).status_code == 202
        assert drafted(service, "1.2.8", 0).status_code == 202
        model.began.wait(10)
        service.service.drain()
        model.go.set()
    assert model.drafts == 2  # the one that was running is finished, the other not begun
    model = Held(open=True)
    with running(tmp_path / "store", model) as made:
        service = made.ready()
        assert service.client.get("/v1/studies/1.2.3.4.5/draft").content == draft
        assert service.client.get("/v1/studies/1.2.9/draft").status_code == 200
        resumed = service.client.get("/v1/studies/1.2.8/draft", params={"wait": 30})
        assert resumed.status_code == 200
        assert model.drafts == 1
    newer = Held(open=True)
    newer.fingerprint = "another checkpoint"  # type: ignore[misc]
    with running(tmp_path / "store", newer) as made:
        service = made.ready()
        assert service.client.get("/v1/studies/1.2.3.4.5/draft").status_code == 404
        assert drafted(service, "1.2.3.4.5").status_code == 200
        assert newer.drafts == 1


def test_without_tokens_only_this_machine(tmp_path: Path) -> None:
    with running(tmp_path / "store", Held(open=True), Tokens({})) as made:
        service = made.ready()
        open_client = service.http()
        assert open_client.get("/v1/models").status_code == 200
        assert open_client.get("/metrics").status_code == 200
        # Neither a page in a browser nor a name that was made to point here.
        page = open_client.post("/v1/studies", headers={"Origin": "https://evil.example"})
        assert (page.status_code, page.json()["code"]) == (403, "no_browsers")
        for host in ("evil.example", "127.0.0.1.evil.example:80", "", "localhost:a"):
            pointed = open_client.get("/v1/models", headers={"Host": host})
            assert pointed.status_code == 403
        for host in ("localhost:1", "127.0.0.2:8600", "[::1]:8600"):
            assert open_client.get("/v1/models", headers={"Host": host}).status_code == 200
        assert open_client.get("/v1/models/").status_code == 404  # not sent elsewhere


def test_before_the_model_is_loaded(tmp_path: Path, film: bytes) -> None:
    held = Held()

    def load(_: Metrics) -> Reader:
        held.began.set()
        assert held.go.wait(30)
        return held

    with running(tmp_path / "store", load) as made:
        held.began.wait(10)
        for _ in range(100):
            if made.server.started:
                break
            time.sleep(0.02)
        assert made.client.get("/health/ready").status_code == 503
        assert made.client.get("/health/live").status_code == 200
        made.upload(("a", film, DICOM))
        with pytest.raises(openai.InternalServerError) as early:
            made.openai().models.list()
        assert (early.value.status_code, early.value.code) == (503, "loading")
        assert drafted(made, "1.2.3.4.5").status_code == 503
        held.go.set()
        assert drafted(made.ready(), "1.2.3.4.5").status_code == 200


def test_a_model_that_cannot_be_loaded_ends_the_service(tmp_path: Path) -> None:
    def load(_: Metrics) -> Reader:
        raise CheckpointError("damaged")

    with running(tmp_path / "store", load) as made:
        for _ in range(200):
            if made.service.turns.failed is not None:
                break
            time.sleep(0.02)
        assert isinstance(made.service.turns.failed, CheckpointError)
        assert made.server.should_exit
