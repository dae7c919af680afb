"""The desk's own HTTP: pixels for the viewer behind a bearer token, and what all answers carry.

`GET /desk/images/{image}` is an `ImageHeader`, `GET /desk/images/{image}/frames/{frame}` one
frame's values. 401: no token, or one that is no good any more; 403: not among the studies that the
token is for, whether or not it exists; 404: the image of such a study has no such frame; 422: it
cannot be decoded.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from medvlm.desk.pixels import frame_in, header_in, is_id
from medvlm.desk.token import Grant, Tokens
from medvlm.errors import InputNotFound, MedVLMError, ReviewError, StoreError
from medvlm.review.records import ImageRow
from medvlm.review.store import Store
from medvlm.review.worklist import image_path

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LONGEST_BODY = 1 << 20  # of what is no upload; Streamlit itself bounds uploads
_UPLOADS = "/_stcore/upload_file"
_MOST_KNOWN = 20_000  # images whose row and path are remembered: they never change

Read = Callable[[ImageRow, Path], Response]


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(code)
        self.status, self.code, self.message = status, code, message


def pixel_routes(open_desk: Callable[[], Store], tokens: Tokens) -> list[Route]:
    """The viewer's routes. `open_desk` is called when the first image is asked for."""

    @lru_cache(maxsize=_MOST_KNOWN)
    def known(image_id: str) -> tuple[ImageRow, Path]:
        return image_path(open_desk(), image_id)

    def found(image_id: str, grant: Grant) -> tuple[ImageRow, Path]:
        try:
            row, path = known(image_id) if is_id(image_id) else (None, None)
        except StoreError:
            raise
        except ReviewError:
            row = path = None
        # One answer to all that is not for the bearer: it does not tell what exists.
        if row is None or path is None or row.study_id not in grant.studies:
            raise Refused(403, "not_granted")
        return row, path

    async def answer(request: Request, tag: str, read: Read) -> Response:
        try:
            grant = _grant(request, tokens)
            row, path = await run_in_threadpool(found, request.path_params["image"], grant)
            response = Response(status_code=304)
            if request.headers.get("if-none-match") != tag:
                response = await run_in_threadpool(read, row, path)
        except Refused as refused:
            return _refusal(refused)
        except InputNotFound as error:
            return _refusal(Refused(404, error.code, error.message))
        except StoreError as error:
            return _refusal(Refused(503, error.code, error.message))
        except MedVLMError as error:
            return _refusal(Refused(422, error.code, error.message))
        left = max(0, grant.expires - int(time.time()))
        response.headers["ETag"] = tag
        response.headers["Cache-Control"] = f"private, max-age={left}, immutable"
        response.headers["Vary"] = "Authorization"
        # Compressing noise costs more time than it saves on the way.
        response.headers["Content-Encoding"] = "identity"
        return response

    async def header(request: Request) -> Response:
        def read(row: ImageRow, path: Path) -> Response:
            return Response(header_in(row, path).model_dump_json(), media_type="application/json")

        return await answer(request, f'"{request.path_params["image"]}"', read)

    async def frame(request: Request) -> Response:
        asked = request.path_params["frame"]
        # Longer numbers than any frame's are not worth the conversion.
        number = int(asked) if asked.isascii() and asked.isdecimal() and len(asked) < 9 else -1

        def read(row: ImageRow, path: Path) -> Response:
            data, dtype = frame_in(row, path, number)
            return Response(
                data, media_type="application/octet-stream", headers={"Medvlm-Dtype": dtype}
            )

        return await answer(request, f'"{request.path_params["image"]}-{number}"', read)

    return [
        Route("/desk/images/{image}", header, methods=["GET"]),
        Route("/desk/images/{image}/frames/{frame}", frame, methods=["GET"]),
    ]


def _grant(request: Request, tokens: Tokens) -> Grant:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    grant = tokens.read(token.strip()) if kind.casefold() == "bearer" else None
    if grant is None:
        raise Refused(401, "no_token")
    return grant


def _refusal(refused: Refused) -> Response:
    response = JSONResponse({"code": refused.code, "message": refused.message}, refused.status)
    response.headers["Cache-Control"] = "no-store"
    if refused.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


class Guard:
    """Headers on every answer, and no body longer than one that is no upload can be."""

    def __init__(self, app: ASGIApp, policy: str) -> None:
        self.app = app
        self.headers = [
            (b"content-security-policy", policy.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"x-frame-options", b"SAMEORIGIN"),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"cross-origin-resource-policy", b"same-origin"),
            (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        ours = {name for name, _ in self.headers}

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [one for one in message.get("headers", []) if one[0].lower() not in ours]
                message = {**message, "headers": [*kept, *self.headers]}
            await send(message)

        if _UPLOADS in scope["path"]:
            await self.app(scope, receive, guarded)
            return
        declared = next((v for name, v in scope["headers"] if name == b"content-length"), b"0")
        if not declared.isdigit() or int(declared) > LONGEST_BODY:
            await Response(status_code=413)(scope, receive, guarded)
            return
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message: dict[str, Any] = dict(await receive())
            taken += len(message.get("body", b""))
            # Whoever sends more than declared, or without declaring, is hung up on.
            return {"type": "http.disconnect"} if taken > LONGEST_BODY else message

        await self.app(scope, bounded, guarded)
