"""The application: routes, who may call them, errors, OpenAPI."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from medvlm import __version__
from medvlm.errors import MedVLMError
from medvlm.serve import completions, health, studies
from medvlm.serve.chat import ChatRequest
from medvlm.serve.problems import Problem, Refusal, RefusedFile, refusal_of
from medvlm.serve.service import Service, service_of
from medvlm.serve.web import Guard, be_discreet, refuse

_DESCRIPTION = """Draft reports of medical images, and answers to questions about them.

Research use only: drafts are preliminary, and a radiologist reads, corrects and signs. Regions are
in an image's own pixels, x to the right, y down, from the top-left corner of the top-left pixel.
"""
_bearer = HTTPBearer(auto_error=False, description="Made with `medvlm serve token`.")


def make_application(service: Service) -> FastAPI:
    """The service as an ASGI application; its model is loaded when it starts."""
    be_discreet()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.turns.start()
        try:
            yield
        finally:
            service.drain()
            await run_in_threadpool(service.turns.stop)
            service.store.close()

    # The usual pages of documentation load scripts from elsewhere.
    app = FastAPI(
        title="medvlm",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirection would repeat what the client calls this host
    )
    app.state.service = service
    guarded = [Depends(_authorised), Depends(_open)]
    app.include_router(studies.router, dependencies=guarded)
    app.include_router(completions.router, dependencies=guarded)
    app.include_router(health.health)
    watched = [] if service.config.open_metrics else [Depends(_authorised)]
    app.include_router(health.figures, dependencies=watched)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    for kind in (Refusal, MedVLMError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _refused)
    app.add_middleware(Guard, service=service)
    return app


async def _authorised(
    request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> None:
    tokens = service_of(request).tokens
    if not tokens:
        return
    name = tokens.whose(request.headers.get("authorization"))
    if name is None:
        raise Refusal(
            401,
            "no_token",
            "There is no token, or it is no good.",
            remedy="Send `Authorization: Bearer TOKEN`.",
            headers={"WWW-Authenticate": "Bearer"},
        )
    request.scope["medvlm.token"] = name


async def _open(request: Request) -> None:
    service_of(request).require_open()


async def _refused(request: Request, error: Exception) -> Response:
    """Every error in the form that is spoken at its route."""
    match error:
        case Refusal():
            refusal = error
        case MedVLMError():
            refusal = refusal_of(error)
        case RequestValidationError():
            first = error.errors()[0]
            param = ".".join(map(str, first["loc"][1:]))
            refusal = Refusal(400, "invalid_value", f"{param}: {first['msg']}", param=param)
        case HTTPException():
            codes = {404: "not_found", 405: "method_not_allowed", 400: "bad_request"}
            code = codes.get(error.status_code, "error")
            refusal = Refusal(error.status_code, code, str(error.detail), headers=error.headers)
        case _:
            raise error
    return refuse(request.url.path, refusal)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The schema, with what the routes refer to by name."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
        )
        schemas = schema["components"]["schemas"]
        for kind in (Problem, RefusedFile, ChatRequest):
            own = kind.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(own.pop("$defs", {}))
            schemas[kind.__name__] = own
        for name in [one for one in schemas if one.endswith("ValidationError")]:
            del schemas[name]
        for path in schema["paths"].values():
            for operation in path.values():
                # Ours are 400, and problems.
                wrong = operation["responses"].get("422", {}).get("content", {})
                if "ValidationError" in str(wrong.get("application/json", {})):
                    del operation["responses"]["422"]
        app.openapi_schema = schema
    return app.openapi_schema
