"""The viewer's routes: only what a token is for, without telling what else there is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from medvlm.desk.csp import content_security_policy
from medvlm.desk.header import ImageHeader
from medvlm.desk.intake import take_in
from medvlm.desk.token import Tokens
from medvlm.desk.web import LONGEST_BODY, Guard, pixel_routes
from medvlm.review.store import Store
from medvlm.review.worklist import image_path, images
from tests.desk import somebody
from tests.dicoms import save, synthetic

pytest_plugins = ["tests.desk"]

GREY = np.arange(20, dtype=np.uint16).reshape(4, 5)
Get = Callable[..., Response]


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


@pytest.fixture
def client(store: Store, tokens: Tokens) -> Iterator[TestClient]:
    async def body(request: Request) -> Response:
        return Response(str(len(await request.body())))

    guard = Middleware(Guard, policy=content_security_policy())
    routes = [
        *pixel_routes(lambda: store, tokens),
        Route("/other", body, methods=["POST"]),
        Route("/_stcore/upload_file/a/b", body, methods=["PUT"]),
    ]
    with TestClient(Starlette(routes=routes, middleware=[guard])) as opened:
        yield opened


@pytest.fixture
def study(store: Store, tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Takes a film in; gives (study, image)."""

    def made(**elements: object) -> tuple[str, str]:
        path = save(synthetic(GREY, **elements), tmp_path / "film.dcm")
        taken = take_in(store, [path], somebody(store))
        return taken.added[0], images(store, taken.added[0])[0].id

    return made


def bearing(tokens: Tokens, *studies: str, minutes: float = 15) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens.make('sato', studies, minutes)}"}


def test_header_and_frame(
    client: TestClient, tokens: Tokens, study: Callable[..., tuple[str, str]]
) -> None:
    own, image = study()
    header = client.get(f"/desk/images/{image}", headers=bearing(tokens, own))
    assert ImageHeader.model_validate(header.json()).columns == 5
    frame = client.get(f"/desk/images/{image}/frames/0", headers=bearing(tokens, own))
    assert frame.content == GREY.astype("<i2").tobytes()
    assert frame.headers["medvlm-dtype"] == "int16"
    assert frame.headers["content-encoding"] == "identity"
    assert frame.headers["vary"] == "Authorization"
    kept = frame.headers["cache-control"]
    assert kept.startswith("private, max-age=")
    assert kept.endswith("immutable")
    again = {**bearing(tokens, own), "If-None-Match": frame.headers["etag"]}
    answer = client.get(f"/desk/images/{image}/frames/0", headers=again)
    assert (answer.status_code, answer.content) == (304, b"")


def test_no_token_no_pixels(
    client: TestClient,
    tokens: Tokens,
    study: Callable[..., tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own, image = study()
    good = bearing(tokens, own)["Authorization"]
    url = f"/desk/images/{image}/frames/0"
    for wrong in ("", "Bearer", "Bearer x", good.replace("Bearer", "Basic"), good[:-2]):
        assert client.get(url, headers={"Authorization": wrong}).status_code == 401
    assert client.get(url).headers["www-authenticate"] == "Bearer"
    # Neither the browser's copy nor a question for it helps.
    assert client.get(url, headers={"If-None-Match": f'"{image}-0"'}).status_code == 401
    assert client.get(f"{url}?token={good}").status_code == 401
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 17 * 60)
    assert client.get(url, headers={"Authorization": good}).status_code == 401


def test_another_study_looks_like_none(
    client: TestClient, tokens: Tokens, study: Callable[..., tuple[str, str]]
) -> None:
    own, image = study()
    other, foreign = study(PatientID="ID-2")
    headers = bearing(tokens, own)
    answers = [
        client.get(f"/desk/images/{one}{rest}", headers=headers)
        for one in (foreign, "0" * 32, "x", "..%5cx", "A" * 32)
        for rest in ("", "/frames/0", "/frames/99")
    ]
    assert {(one.status_code, one.content) for one in answers} == {
        (403, b'{"code":"not_granted","message":""}')
    }
    both = bearing(tokens, own, other)
    assert client.get(f"/desk/images/{foreign}", headers=both).status_code == 200
    assert client.get(f"/desk/images/{image}", headers=both).status_code == 200


@pytest.mark.parametrize("frame", ["1", "-1", "x", "1e3", "٣", "9" * 400, "0.0"])
def test_a_frame_that_is_not_there(
    client: TestClient, tokens: Tokens, study: Callable[..., tuple[str, str]], frame: str
) -> None:
    own, image = study()
    answer = client.get(f"/desk/images/{image}/frames/{frame}", headers=bearing(tokens, own))
    assert answer.status_code == 404


def test_a_file_that_cannot_be_decoded(
    client: TestClient, tokens: Tokens, store: Store, study: Callable[..., tuple[str, str]]
) -> None:
    own, image = study()
    _, path = image_path(store, image)
    path.write_bytes(path.read_bytes()[:-4])
    answer = client.get(f"/desk/images/{image}", headers=bearing(tokens, own))
    assert answer.status_code == 422
    assert answer.json()["code"] == "truncated_pixels"
    assert str(path) not in answer.text
    path.unlink()
    gone = client.get(f"/desk/images/{image}", headers=bearing(tokens, own))
    assert gone.status_code in (404, 422)


def test_every_answer_is_guarded(client: TestClient) -> None:
    for answer in (client.get("/desk/images/x"), client.get("/nowhere")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe-eval" not in policy.replace("wasm-unsafe-eval", "")
        scripts = next(one for one in policy.split("; ") if one.startswith("script-src"))
        assert "'unsafe-inline'" not in scripts
        assert "'sha256-" in scripts


def test_long_bodies_only_where_uploads_go(client: TestClient) -> None:
    long = b"x" * (LONGEST_BODY + 1)

    def pieces() -> Iterator[bytes]:
        for _ in range(3):
            yield long[: LONGEST_BODY // 2]

    assert client.post("/other", content=b"x").text == "1"
    assert client.post("/other", content=long).status_code == 413
    with pytest.raises(ClientDisconnect):
        client.post("/other", content=pieces())
    assert client.put("/_stcore/upload_file/a/b", content=long).text == str(len(long))


def test_a_token_is_no_part_of_what_is_told(
    client: TestClient, tokens: Tokens, study: Callable[..., tuple[str, str]]
) -> None:
    own, image = study()
    headers = bearing(tokens, own)
    text = json.dumps(dict(client.get(f"/desk/images/{image}", headers=headers).headers))
    assert headers["Authorization"].split()[1] not in text
