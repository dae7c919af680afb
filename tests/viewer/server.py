"""The test page as a Streamlit app, with routes that serve synthetic pixels as the desk does."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from streamlit.starlette import App

from tests.viewer.pictures import SLICES, pictures, slice_header, slice_of

PICTURES = pictures()
# As the desk has them, prepared on disk.
PREPARED = [slice_of(number).tobytes() for number in range(SLICES)]
SLICE_HEADER = slice_header()
DELAY_S = float(os.environ.get("VIEWER_TEST_DELAY", "0"))
COUNTS: dict[str, int] = {}
_LOCK = threading.Lock()


def _refused(request: Request) -> Response | None:
    with _LOCK:
        COUNTS[request.url.path] = COUNTS.get(request.url.path, 0) + 1
    if request.headers.get("authorization") != "Bearer secret":
        return Response(status_code=401)
    name = request.path_params["image"]
    return None if name.startswith("ct-") or name in PICTURES else Response(status_code=404)


def headers(request: Request) -> Response:
    refused = _refused(request)
    if refused is not None:
        return refused
    name = request.path_params["image"]
    return JSONResponse(SLICE_HEADER if name.startswith("ct-") else PICTURES[name][0])


def frames(request: Request) -> Response:
    refused = _refused(request)
    if refused is not None:
        return refused
    time.sleep(DELAY_S)
    name, frame = request.path_params["image"], request.path_params["frame"]
    if name.startswith("ct-"):
        content = PREPARED[int(name[3:])]
    else:
        content = PICTURES[name][1][frame].tobytes()
    return Response(content, media_type="application/octet-stream")


def counts(_: Request) -> Response:
    return JSONResponse(COUNTS)


app = App(
    Path(__file__).with_name("page.py"),
    routes=[
        Route("/desk/images/{image}", headers),
        Route("/desk/images/{image}/frames/{frame:int}", frames),
        Route("/desk/counts", counts),
    ],
)
