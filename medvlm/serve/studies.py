"""The routes of studies and their drafts."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future
from contextlib import AsyncExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from medvlm.dicom.study import Study
from medvlm.errors import StoreError
from medvlm.records import Draft
from medvlm.serve.drafts import State
from medvlm.serve.problems import Refusal, RefusedFile, problems
from medvlm.serve.service import Service, in_thread, service_of, unless_gone
from medvlm.serve.uploads import received, take

_POLL_SECONDS = 0.5
_RETRY_SECONDS = 2
_STATUS_OF_FAILURE = {"internal": 500, "died": 500, StoreError.code: 507}

router = APIRouter(tags=["studies"])


class StoredImage(BaseModel):
    """An image of a study. `frames`: how many; they are counted from 0."""

    sop_instance_uid: str | None
    rows: int
    columns: int
    frames: int


class StoredStudy(BaseModel):
    """A study that was uploaded.

    `uid` names it here: its StudyInstanceUID, with the patient's pseudonym where two patients share
    that, or a name of our own where it has none.
    """

    uid: str
    study_instance_uid: str | None
    modality: str | None
    body_part: str | None
    view: str | None
    series: int
    instances: int
    images: list[StoredImage]
    draft: State = Field(description="How far the study's draft is.")

    @classmethod
    def of(cls, study: Study, draft: State) -> StoredStudy:
        """The record of a study."""
        return cls(
            uid=study.name,
            study_instance_uid=study.study_instance_uid,
            modality=study.modality,
            body_part=study.body_part,
            view=study.view,
            series=len({one.series_instance_uid for one in study.instances}),
            instances=len(study.instances),
            images=[
                StoredImage(
                    sop_instance_uid=one.sop_instance_uid,
                    rows=one.rows,
                    columns=one.columns,
                    frames=one.frames,
                )
                for one in study.instances
            ],
            draft=draft,
        )


class UploadAnswer(BaseModel):
    """What an upload held."""

    studies: list[StoredStudy]
    refused: list[RefusedFile]


class DraftPending(BaseModel):
    """A draft that is not made yet."""

    uid: str
    state: State


_FILES = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["files"],
                "properties": {
                    "files": {
                        "type": "array",
                        "items": {"type": "string", "contentMediaType": "application/dicom"},
                        "description": "DICOM files, PNG, JPEG, or zip archives of them.",
                    }
                },
            }
        }
    },
}
Wait = Annotated[
    float, Query(ge=0, le=3600, description="Seconds to wait for the draft, as far as allowed.")
]


@router.post(
    "/v1/studies",
    status_code=201,
    response_model=UploadAnswer,
    responses=problems(400, 408, 413, 415, 422, 429, 507),
    openapi_extra={"requestBody": _FILES},
)
async def upload(request: Request) -> Response:
    """Takes studies in. The same file is kept once; images of a known study join it."""
    service = service_of(request)
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Refusal(
            415, "unsupported_media_type", "An upload is multipart/form-data with files in it."
        )
    with service.inside("upload"):
        async with AsyncExitStack() as stack:
            async with service.receiving:
                form = await stack.enter_async_context(
                    received(request, service.store, service.config.upload_seconds)
                )
            async with service.reading:
                with service.metrics.timed("receive"):
                    names, refused = await run_in_threadpool(take, service.store, form)
        if not names:
            told = [one.model_dump() for one in refused]
            raise Refusal(422, "no_image", "No file holds an image.", more={"refused": told})
        studies = await in_thread(lambda: [_stored(service, name) for name in names])
    answer = UploadAnswer(studies=studies, refused=refused)
    return JSONResponse(answer.model_dump(mode="json"), 201)


@router.get(
    "/v1/studies/{uid}",
    response_model=StoredStudy,
    responses=problems(404, 507),
)
async def study(request: Request, uid: str) -> Response:
    """A study that was uploaded."""
    service = service_of(request)
    stored = await in_thread(lambda: _stored(service, uid))
    return JSONResponse(stored.model_dump(mode="json"))


@router.delete("/v1/studies/{uid}", status_code=204, responses=problems(404, 507))
async def remove(request: Request, uid: str) -> Response:
    """Removes a study with its drafts."""
    service = service_of(request)

    def removed() -> None:
        try:
            service.store.remove(uid)
        finally:
            service.drafts.forget(uid)

    await in_thread(removed)
    return Response(status_code=204)


_DRAFT: dict[str, Any] = {
    "response_model": Draft,
    "responses": {
        202: {
            "model": DraftPending,
            "description": "It is being made: come back to `Location` after `Retry-After` seconds.",
        },
        **problems(400, 404, 422, 429, 507),
    },
}


@router.post("/v1/studies/{uid}/draft", **_DRAFT)
async def ask_for_draft(request: Request, uid: str, wait: Wait = 0) -> Response:
    """The study's draft, which is made if it is not there. One that failed is tried again."""
    service = service_of(request)
    reader = service.reader
    pending = await in_thread(lambda: service.drafts.ask(uid, reader))
    if pending is not None:
        await unless_gone(request, _patiently(service, pending, wait))
    return await in_thread(lambda: _draft(service, uid))


@router.get("/v1/studies/{uid}/draft", **_DRAFT)
async def draft(request: Request, uid: str, wait: Wait = 0) -> Response:
    """The study's draft, if it was asked for; nothing is begun."""
    service = service_of(request)
    pending = await in_thread(lambda: service.drafts.pending(uid))
    if pending is not None:
        await unless_gone(request, _patiently(service, pending, wait))
    return await in_thread(lambda: _draft(service, uid))


async def _patiently(service: Service, pending: Future[None], seconds: float) -> None:
    """Waits until the draft is there, the time is over or the service is about to end."""
    until = time.monotonic() + min(seconds, service.config.request_seconds)
    # Not awaited itself: whoever stops waiting does not end what others wait for, too.
    made = asyncio.wrap_future(pending)
    while not made.done() and not service.draining and (left := until - time.monotonic()) > 0:
        await asyncio.wait({made}, timeout=min(left, _POLL_SECONDS))


def _draft(service: Service, uid: str) -> Response:
    reader = service.reader
    content = service.drafts.content(uid, reader)
    if content is not None:
        return Response(content, media_type="application/json")
    state = service.drafts.state(uid, reader)
    if state in ("waiting", "running"):
        answer = DraftPending(uid=uid, state=state)
        headers = {"Location": f"/v1/studies/{uid}/draft", "Retry-After": str(_RETRY_SECONDS)}
        return JSONResponse(answer.model_dump(), 202, headers)
    failure = service.drafts.failure(uid, reader)
    if failure is None:
        raise Refusal(404, "no_draft", "No draft was asked for.", remedy="Ask for one with POST.")
    status = _STATUS_OF_FAILURE.get(failure.code, 422)
    raise Refusal(status, failure.code, failure.message, remedy=failure.remedy)


def _stored(service: Service, name: str) -> StoredStudy:
    state = service.drafts.state(name, service.turns.reader)
    return StoredStudy.of(service.store.study(name), state)
