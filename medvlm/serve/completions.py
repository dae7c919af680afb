"""The routes in the OpenAI form: questions about an image, and the one model there is."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from medvlm.dicom.study import Study
from medvlm.draft.answers import Answered, Asked
from medvlm.errors import MedVLMError
from medvlm.image.load import ImageInput
from medvlm.serve.chat import ChatRequest
from medvlm.serve.images import load, source_of
from medvlm.serve.problems import Refusal, openai_errors, refusal_of
from medvlm.serve.reader import Reader
from medvlm.serve.replies import ChatCompletion, completion, pieces
from medvlm.serve.service import Service, service_of, unless_gone

router = APIRouter(tags=["questions"])

_EXAMPLE = {
    "model": "medvlm-cxr-lite",
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is in this region?"},
                {"type": "image_url", "image_url": {"url": "medvlm://study/1.2.3.4?frame=0"}},
            ],
        }
    ],
    "medvlm": {"region": {"x": 1050, "y": 1000, "width": 500, "height": 500}},
}


class Model(BaseModel):
    """The checkpoint that answers."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "medvlm"


class Models(BaseModel):
    """All models: there is one."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletion,
    responses={
        200: {
            "description": "The answer; with `stream`, in pieces that end with `[DONE]`.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **openai_errors(400, 404, 408, 413, 415, 422, 429, 504, 507),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": f"#/components/schemas/{ChatRequest.__name__}"},
                    "example": _EXAMPLE,
                }
            },
        }
    },
)
async def complete(request: Request) -> Response:
    """Answers a question about an image.

    The question is the text of the last message, the image the last that a user's message carries;
    system messages and earlier turns are not read and listed as `unread_messages`. The image_url is
    a `data:` URI (PNG, JPEG, DICOM) or `medvlm://study/{uid}?instance=SOPInstanceUID&frame=0` of an
    uploaded study; nothing is fetched from other machines.
    """
    service = service_of(request)
    reader = service.reader
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refusal(415, "unsupported_media_type", "A question is application/json.")
    with service.inside("question"):
        try:
            async with asyncio.timeout(service.config.request_seconds):
                asked = ChatRequest.parse(await request.body())
                answered = await unless_gone(request, _answer(service, reader, asked))
        except TimeoutError:
            raise Refusal(
                504, "too_late", "There was no answer in time.", remedy="Ask again later."
            ) from None
    service.metrics.tokens.labels("prompt").inc(answered.prompt_tokens)
    service.metrics.tokens.labels("completion").inc(answered.completion_tokens)
    whole = completion(asked, answered)
    if asked.stream:
        return Response(b"".join(pieces(asked, whole)), media_type="text/event-stream")
    return JSONResponse(whole.model_dump(mode="json"))


@router.get("/v1/models", response_model=Models, responses=openai_errors())
async def models(request: Request) -> Any:
    """The model that answers."""
    return Models(data=[Model(id=service_of(request).reader.name)])


@router.get("/v1/models/{model}", response_model=Model, responses=openai_errors(404))
async def model(request: Request, model: str) -> Any:
    """The model, if it is called so."""
    _require(model, service_of(request).reader)
    return Model(id=model)


async def _answer(service: Service, reader: Reader, asked: ChatRequest) -> Answered:
    _require(asked.model, reader)
    question, source, region = asked.question, source_of(asked.image), asked.medvlm.drawn()

    def decode() -> tuple[ImageInput, Study | None]:
        with service.metrics.timed("decode"):
            return load(source, service.store, reader)

    try:
        async with service.decoded(decode) as (image, study):
            about = Asked(image, question, region, study)
            return await asyncio.wrap_future(service.turns.ask(about))
    except MedVLMError as error:
        refusal = refusal_of(error)
        refusal.param = "messages"
        raise refusal from None


def _require(name: str, reader: Reader) -> None:
    if name != reader.name:
        raise Refusal(
            404,
            "model_not_found",
            "There is no such model.",
            remedy="GET /v1/models names the one there is.",
            param="model",
        )
