"""The routes that tell how the service is: for orchestrators and for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from medvlm.serve.metrics import CONTENT_TYPE
from medvlm.serve.problems import problems
from medvlm.serve.service import service_of

health = APIRouter(tags=["health"])
figures = APIRouter(tags=["health"])


class Health(BaseModel):
    """`live`, or how far the service is: `loading`, `ready`, `stopping`, `failed`."""

    status: str


@health.get("/health/live")
async def live() -> Health:
    """Whether the process answers."""
    return Health(status="live")


@health.get("/health/ready", response_model=Health, responses={503: {"model": Health}})
async def ready(request: Request) -> Response:
    """Whether the model is loaded and work is taken."""
    state = service_of(request).state
    return JSONResponse(Health(status=state).model_dump(), 200 if state == "ready" else 503)


@figures.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems()},
)
async def metrics(request: Request) -> Response:
    """The service's figures, for Prometheus."""
    return Response(service_of(request).metrics.text(), headers={"content-type": CONTENT_TYPE})
