"""A running service: uvicorn in a thread on a free port, and clients that hold it to its schema."""

from __future__ import annotations

import base64
import hashlib
import io
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx2 as httpx
import numpy as np
import openai
from jsonschema import Draft202012Validator
from PIL import Image

from medvlm.config.serve import ServeConfig
from medvlm.dicom.study import Study
from medvlm.draft.answers import Answered, Asked, ImageKey
from medvlm.errors import MedVLMError
from medvlm.image.load import ImageInput
from medvlm.records import Answer, Draft, InputCheck, ModelRecord, Reason, StudyRecord
from medvlm.serve.metrics import Metrics
from medvlm.serve.reader import CheckpointReader, Reader
from medvlm.serve.run import Server
from medvlm.serve.store import Store
from medvlm.serve.tokens import Tokens

TOKEN = "a-token-of-the-tests-0123456789"
MODEL = ModelRecord(name="stand-in", version="0", weights_sha256="")
Load = Callable[[Metrics], Reader]


class Held:
    """A stand-in for the model, which answers when it is let go."""

    name, fingerprint = "stand-in", "stand-in"

    def __init__(self, *, open: bool = False) -> None:
        self.go, self.began = Event(), Event()
        self.batches: list[list[str]] = []
        self.drafts = 0
        if open:
            self.go.set()

    def known(self, key: ImageKey) -> ImageInput | None:
        return None

    def answer(self, asked: Sequence[Asked]) -> list[Answered | MedVLMError]:
        self.batches.append([one.question for one in asked])
        self.began.set()
        assert self.go.wait(30)
        return [Answered(said(one.question), 7, 3) for one in asked]

    def draft(self, study: Study) -> Draft:
        self.drafts += 1
        self.began.set()
        assert self.go.wait(30)
        refused = InputCheck(accepted=False, reasons=[Reason(code="no", message="No.")])
        return Draft(study=StudyRecord(), model=MODEL, input_check=refused)


def said(question: str) -> Answer:
    """An answer that repeats the question."""
    return Answer(
        question=question, answer=question[::-1], input_check=InputCheck(accepted=True), model=MODEL
    )


class Running:
    """A service that listens, and how to call it."""

    def __init__(self, server: Server, port: int) -> None:
        self.server, self.service = server, server.service
        self.url = f"http://127.0.0.1:{port}"
        self.schema: dict[str, Any] = {}
        self.clients = ExitStack()
        self.client = self.http({"Authorization": f"Bearer {TOKEN}"})

    def http(self, headers: dict[str, str] | None = None) -> httpx.Client:
        """A client; closed with the service."""
        hooks = {"response": [self.check]}
        client = httpx.Client(
            base_url=self.url, headers=headers or {}, timeout=60, event_hooks=hooks
        )
        return self.clients.enter_context(client)

    def openai(self, token: str = TOKEN, **options: Any) -> openai.OpenAI:
        """OpenAI's own client."""
        http = openai.DefaultHttpxClient(event_hooks={"response": [self.check]})
        client = openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=token, max_retries=0, http_client=http, **options
        )
        return self.clients.enter_context(client)

    def ready(self) -> Running:
        """Waits until the model is loaded."""
        for _ in range(600):
            if self.service.state == "ready" and self.server.started:
                break
            time.sleep(0.05)
        assert self.service.state == "ready"
        self.schema = httpx.get(f"{self.url}/openapi.json").json()
        return self

    def upload(self, *files: tuple[str, bytes, str]) -> dict[str, Any]:
        """Uploads (name, content, type) and gives what was found."""
        answer = self.client.post("/v1/studies", files=[("files", one) for one in files])
        assert answer.status_code == 201, answer.text
        content: dict[str, Any] = answer.json()
        return content

    def metric(self, name: str, **labels: str) -> float:
        """A figure of /metrics."""
        from prometheus_client.parser import text_string_to_metric_families

        text = self.client.get("/metrics").text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return 0.0

    def check(self, response: httpx.Response) -> None:
        """Holds a response to the service's own OpenAPI schema."""
        response.read()
        assert len(response.headers["x-request-id"]) == 32
        path = _template(self.schema, response.request.url.path)
        if path is None:
            return
        operation = self.schema["paths"][path].get(response.request.method.lower())
        if operation is None:
            assert response.status_code == 405
            return
        told = operation["responses"].get(str(response.status_code))
        assert told is not None, (path, response.status_code, response.text[:300])
        kind = response.headers.get("content-type", "").partition(";")[0]
        if not told.get("content"):
            assert not response.content
            return
        assert kind in told["content"], (path, response.status_code, kind)
        if kind.endswith("json"):
            schema = {**told["content"][kind]["schema"], "components": self.schema["components"]}
            Draft202012Validator(schema).validate(response.json())


def _template(schema: dict[str, Any], path: str) -> str | None:
    parts = path.split("/")
    for template in schema.get("paths", {}):
        wanted = template.split("/")
        if len(wanted) == len(parts) and all(
            a == b or a.startswith("{") for a, b in zip(wanted, parts, strict=True)
        ):
            return str(template)
    return None


@contextmanager
def running(
    store: Path, load: Load | Reader, tokens: Tokens | None = None, **config: Any
) -> Iterator[Running]:
    """A service on a free port; ended, with what it has in hand, afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    known = Tokens({"tests": hashlib.sha256(TOKEN.encode()).hexdigest()})
    loaded: Load = load if callable(load) else lambda _: load
    server = Server(
        ServeConfig(port=port, **config),
        Store(store),
        known if tokens is None else tokens,
        loaded,
    )
    thread = Thread(target=server.run)
    thread.start()
    made = Running(server, port)
    try:
        with made.clients:
            yield made
    finally:
        server.end()
        thread.join(60)
        assert not thread.is_alive()


def of_checkpoint(folder: Path) -> Load:
    """Loads the real model of a checkpoint."""
    from medvlm.model.checkpoint import load_checkpoint

    return lambda metrics: CheckpointReader(load_checkpoint(str(folder)), metrics, 256 << 20)


def png(pixels: np.ndarray) -> bytes:
    """Grey values [H, W], uint8, as a PNG."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG")
    return out.getvalue()


def data_uri(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def question(text: str, url: str) -> list[dict[str, Any]]:
    """A user's message with an image."""
    return [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": text},
                {"type": "image_url", "image_url": {"url": url}},
            ],
        }
    ]
