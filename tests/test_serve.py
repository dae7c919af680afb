"""The service as other programs use it: real HTTP, OpenAI's own client, the tiny model."""

from __future__ import annotations

import json
import logging
import re
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import httpx2 as httpx
import numpy as np
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from medvlm.dicom.read import read_inputs
from medvlm.dicom.study import group_studies
from medvlm.draft.answer import answer_question
from medvlm.draft.compose import draft_study
from medvlm.image.geometry import Box
from medvlm.image.load import load_image
from medvlm.model.checkpoint import load_checkpoint
from medvlm.records import Draft
from tests.dicoms import ramp, save, shipped, synthetic
from tests.serving import (
    TOKEN,
    Running,
    data_uri,
    of_checkpoint,
    png,
    question,
    running,
)

DICOM = "application/dicom"
NAME = "Planted^Quentin"
PICTURE = png(np.zeros((30, 40), dtype=np.uint8))


@pytest.fixture
def film(tmp_path: Path) -> bytes:
    """A chest film whose header names a patient."""
    made = synthetic(ramp(), PatientName=NAME, PatientID="MRN-90125", StudyInstanceUID="1.2.3.4.5")
    return save(made, tmp_path / "film.dcm").read_bytes()


@pytest.fixture
def service(tiny: Path, tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path / "store", of_checkpoint(tiny), gather_ms=50) as made:
        yield made.ready()


def drafted(service: Running, uid: str, seconds: float = 60) -> httpx.Response:
    return service.client.post(f"/v1/studies/{uid}/draft", params={"wait": seconds})


def test_upload_to_draft(service: Running, film: bytes, tiny: Path, tmp_path: Path) -> None:
    held = service.upload((f"{NAME}.dcm", film, DICOM), ("notes.txt", b"text", "text/plain"))
    (study,) = held["studies"]
    assert study["uid"] == study["study_instance_uid"] == "1.2.3.4.5"
    assert (study["series"], study["instances"], study["draft"]) == (1, 1, "none")
    assert [one["code"] for one in held["refused"]] == ["not_dicom"]
    assert held["refused"][0]["file"] == "notes.txt"
    missing = service.client.get("/v1/studies/1.2.3.4.5/draft")
    assert (missing.status_code, missing.json()["code"]) == (404, "no_draft")

    answer = drafted(service, "1.2.3.4.5")
    assert answer.status_code == 200
    draft = Draft.model_validate_json(answer.content)
    (own,) = group_studies(read_inputs([tmp_path / "film.dcm"]))
    alone = draft_study(load_checkpoint(str(tiny)), own).draft
    untimed = {"timings_s": {}}
    assert draft.model_copy(update=untimed) == alone.model_copy(update=untimed)
    # The same again is not made again.
    assert drafted(service, "1.2.3.4.5").content == answer.content
    assert service.client.get("/v1/studies/1.2.3.4.5/draft").content == answer.content
    assert service.metric("medvlm_drafts_total", outcome="drafted") == 1
    assert service.client.get("/v1/studies/1.2.3.4.5").json()["draft"] == "ready"

    assert service.client.delete("/v1/studies/1.2.3.4.5").status_code == 204
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/draft"), ("POST", "/draft")):
        gone = service.client.request(method, f"/v1/studies/1.2.3.4.5{path}")
        assert (gone.status_code, gone.json()["code"]) == (404, "not_found")


def test_archives_pictures_and_broken_files(service: Running, film: bytes) -> None:
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("in/film.dcm", film)
        packed.writestr(f"in/{NAME}.png", png(np.zeros((30, 40), dtype=np.uint8)))
        packed.writestr("in/cut.dcm", film[:400])
    held = service.upload(
        ("all.zip", archive.getvalue(), "application/zip"),
        ("film.dcm", film, DICOM),
        ("", film, "application/octet-stream"),
    )
    names = {one["uid"]: one["instances"] for one in held["studies"]}
    assert names.pop("1.2.3.4.5") == 1  # the same file three times
    (picture,) = names
    assert picture.startswith("image-")
    assert [one["file"] for one in held["refused"]] == ["all.zip/in/cut.dcm"]

    none = service.client.post("/v1/studies", files={"files": ("a.dcm", film[:300], DICOM)})
    assert none.status_code == 422
    assert none.headers["content-type"] == "application/problem+json"
    assert none.json()["refused"][0]["file"] == "a.dcm"
    assert none.json()["status"] == 422


def test_a_real_radiograph(service: Running) -> None:
    data = shipped("RG1_J2KR.dcm").read_bytes()
    (study,) = service.upload(("film.dcm", data, DICOM))["studies"]
    assert (study["images"][0]["rows"], study["images"][0]["columns"]) == (1955, 1841)
    assert drafted(service, study["uid"]).status_code == 200


def test_openai_client(service: Running, film: bytes, tiny: Path, tmp_path: Path) -> None:
    client = service.openai()
    assert [one.id for one in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    service.upload(("film.dcm", film, DICOM))
    image = load_image(read_inputs([tmp_path / "film.dcm"]).instances[0])
    region = {"x": 10, "y": 20, "width": 60, "height": 50}
    for url in (
        data_uri(film, DICOM),
        "medvlm://study/1.2.3.4.5",
        f"medvlm://study/1.2.3.4.5?instance={image.sop_instance_uid}&frame=0",
    ):
        answer = client.chat.completions.create(
            model="tiny",
            messages=question("Is it pretty?", url),
            temperature=0,
            extra_body={"medvlm": {"region": region}},
        )
        alone = answer_question(
            load_checkpoint(str(tiny)), image, "Is it pretty?", Box(10, 20, 60, 50)
        )
        assert answer.choices[0].message.content == alone.answer
        record = dict(answer.medvlm)
        assert record.pop("unread_messages") == []
        assert record == alone.model_dump(mode="json")
        assert answer.usage is not None
        assert answer.usage.prompt_tokens > 10
        assert answer.usage.completion_tokens == 1
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + 1
    # The film was decoded and looked at once, however it was named.
    assert service.metric("medvlm_images_total", seen="no") == 1
    assert service.metric("medvlm_images_total", seen="yes") == 2
    known = client.chat.completions.create(
        model="tiny", messages=question("Is this a PA film?", data_uri(film, DICOM))
    )
    assert known.usage is not None
    assert known.usage.total_tokens == 0  # the heads answered


def test_streaming(service: Running) -> None:
    picture = data_uri(png(np.zeros((30, 40), dtype=np.uint8)))
    whole = service.openai().chat.completions.create(
        model="tiny", messages=question("Are there rib fractures?", picture)
    )
    pieces = list(
        service.openai().chat.completions.create(
            model="tiny",
            messages=question("Are there rib fractures?", picture),
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(one.choices[0].delta.content or "" for one in pieces if one.choices)
    assert text == whole.choices[0].message.content
    assert pieces[-2].choices[0].finish_reason == "stop"
    assert pieces[-2].medvlm["answer"] == text
    assert pieces[-1].usage == whole.usage
    raw = service.client.post(
        "/v1/chat/completions",
        json={
            "model": "tiny",
            "messages": question("Are there rib fractures?", picture),
            "stream": True,
        },
    )
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert raw.text.endswith("data: [DONE]\n\n")


def test_what_openai_refuses(service: Running, film: bytes) -> None:
    client = service.openai()
    picture = data_uri(png(np.zeros((30, 40), dtype=np.uint8)))

    def ask(text: str = "Why?", url: str = picture, **more: object) -> None:
        client.chat.completions.create(
            **{"model": "tiny", "messages": question(text, url), **more}  # type: ignore[arg-type]
        )

    with pytest.raises(openai.AuthenticationError):
        service.openai("wrong-token").models.list()
    with pytest.raises(openai.NotFoundError) as unknown:
        ask(model="gpt-4o")
    assert unknown.value.code == "model_not_found"
    for param, value in (("n", 2), ("temperature", 0.5), ("logprobs", True)):
        with pytest.raises(openai.BadRequestError) as refused:
            ask(**{param: value})
        assert refused.value.param == param
    wrong = [
        ("no_image", {"messages": [{"role": "user", "content": "Why?"}]}),
        ("no_question", {"text": "  "}),
        ("remote_image", {"url": "https://images.example/a.png"}),
        ("invalid_image_url", {"url": "data:image/png;base64,%%%"}),
        ("usage", {"extra_body": {"medvlm": {"region": dict.fromkeys("xy", 99) | BIG}}}),
    ]
    for code, more in wrong:
        with pytest.raises(openai.BadRequestError) as refused:
            ask(**more)  # type: ignore[arg-type]
        assert refused.value.code == code
    with pytest.raises(openai.NotFoundError):
        ask(url="medvlm://study/9.9.9")
    noise = np.random.default_rng(0).integers(0, 255, (30, 40)).astype(np.uint8)
    with pytest.raises(openai.UnprocessableEntityError):
        ask(url=data_uri(png(noise)[:600]))
    service.upload(("film.dcm", film, DICOM))
    with pytest.raises(openai.NotFoundError):
        ask(url="medvlm://study/1.2.3.4.5?frame=3")
    with pytest.raises(openai.NotFoundError):
        ask(url="medvlm://study/1.2.3.4.5?instance=9.9")


BIG = {"width": 5, "height": 5}


def test_an_image_must_be_named_where_there_are_several(
    service: Running, film: bytes, tmp_path: Path
) -> None:
    other = save(
        synthetic(ramp(50, 60), StudyInstanceUID="1.2.3.4.5", PatientID="MRN-90125"),
        tmp_path / "other.dcm",
    )
    service.upload(("film.dcm", film, DICOM), ("other.dcm", other.read_bytes(), DICOM))
    with pytest.raises(openai.BadRequestError, match="instance=SOPInstanceUID"):
        service.openai().chat.completions.create(
            model="tiny", messages=question("Why?", "medvlm://study/1.2.3.4.5")
        )


def test_a_question_of_too_many_tokens_is_refused(service: Running) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        service.openai().chat.completions.create(
            model="tiny", messages=question("\u2603\u00e9? " * 450, data_uri(PICTURE))
        )
    assert refused.value.code == "question_too_long"
    assert refused.value.param == "messages"


def test_concurrent_questions_form_batches(service: Running) -> None:
    numbers = np.random.default_rng(1)
    uris = [data_uri(png(numbers.integers(0, 255, (40, 40)).astype(np.uint8))) for _ in range(4)]
    texts = ("Are there rib fractures?", "Is it pretty?", "Is it old?", "What is broken?")
    jobs = [(text, uri) for text in texts for uri in uris]
    client = service.openai()

    def ask(job: tuple[str, str]) -> tuple[str | None, float | None]:
        answer = client.chat.completions.create(model="tiny", messages=question(*job))
        return answer.choices[0].message.content, answer.medvlm["probability"]

    alone = [ask(job) for job in jobs]
    batches = service.metric("medvlm_batch_size_count")
    assert batches == len(jobs)
    with ThreadPoolExecutor(len(jobs)) as pool:
        together = list(pool.map(ask, jobs))
    for (text, probability), (own, of_own) in zip(together, alone, strict=True):
        assert text == own
        assert probability == pytest.approx(of_own, abs=2e-4)
    more = service.metric("medvlm_batch_size_count") - batches
    assert more < len(jobs) / 2  # on average more than two at a time
    assert service.metric("medvlm_batch_size_sum") == 2 * len(jobs)


def test_figures_and_health(service: Running, film: bytes) -> None:
    service.upload((f"{NAME}.dcm", film, DICOM))
    drafted(service, "1.2.3.4.5")
    service.client.get("/v1/studies/1.2.3.4.5/nowhere")
    service.client.request("BREW", "/v1/studies/1.2.3.4.5")
    text = service.client.get("/metrics").text
    families = {one.name: one for one in text_string_to_metric_families(text)}
    routes = {one.labels["route"] for one in families["medvlm_requests"].samples}
    assert "/v1/studies/{uid}/draft" in routes
    assert routes <= {*service.schema["paths"], "/openapi.json", "other"}
    assert not re.search(r"1\.2\.3\.4\.5|Planted|MRN", text)
    assert families["medvlm_stage_seconds"].samples
    anonymous = service.http()
    assert anonymous.get("/health/live").json() == {"status": "live"}
    assert anonymous.get("/health/ready").json() == {"status": "ready"}
    assert anonymous.get("/metrics").status_code == 401
    for method, path in (
        ("POST", "/v1/studies"),
        ("GET", "/v1/studies/1.2.3.4.5"),
        ("DELETE", "/v1/studies/1.2.3.4.5"),
        ("POST", "/v1/studies/1.2.3.4.5/draft"),
        ("GET", "/v1/studies/1.2.3.4.5/draft"),
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models"),
    ):
        refused = anonymous.request(method, path)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert refused.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in service.client.options("/v1/models").headers
    assert service.client.get("/docs").status_code == 404


def test_logs_name_nobody(
    service: Running, film: bytes, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    service.upload((f"{NAME}.dcm", film, DICOM), (f"{NAME}.txt", b"x", DICOM))
    drafted(service, "1.2.3.4.5")
    service.client.get("/v1/studies/1.2.3.4.5", params={"name": NAME})
    service.client.get(f"/v1/studies/{NAME}")
    service.client.get(f"/{NAME}")
    service.client.post("/v1/studies", content=NAME.encode())
    for url in ("medvlm://study/1.2.3.4.5", f"medvlm://study/{NAME}", f"data:{NAME}"):
        service.client.post(
            "/v1/chat/completions",
            json={"model": "tiny", "messages": question(f"Is {NAME} ill?", url)},
        )
    for _ in range(100):  # a line is written when its answer was sent
        if sum(one.name.endswith("e.access") for one in caplog.records) == 9:
            break
        time.sleep(0.02)
    lines = [
        json.loads(one.getMessage()) for one in caplog.records if one.name.endswith("e.access")
    ]
    assert len(lines) == 9
    assert {one["token"] for one in lines} == {"tests", None}
    assert lines[1]["route"] == "/v1/studies/{uid}/draft"
    assert len({one["request_id"] for one in lines}) == 9
    # Libraries of the client's side may say what they send.
    theirs = ("httpx", "httpcore", "openai")
    records = [one for one in caplog.records if not one.name.startswith(theirs)]
    told = [(one.getMessage(), str(one.exc_text)) for one in records]
    for secret in ("Planted", "Quentin", "MRN-90125", "1.2.3.4.5", TOKEN, str(tmp_path)):
        assert not [one for one in told if secret in f"{one[0]}{one[1]}"], secret
    kept = [path for path in (tmp_path / "store").rglob("*") if "Planted" in path.name]
    assert kept == []
