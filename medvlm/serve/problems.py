"""Refusals over HTTP: problem details (RFC 9457), or errors in the OpenAI form."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from medvlm.errors import (
    InputError,
    InputNotFound,
    MedVLMError,
    StoreError,
    TooLarge,
    UsageError,
)

MEDIA_TYPE = "application/problem+json"
CLIENT_GONE = 499  # nobody reads the answer; for the figures


class Refusal(Exception):
    """An answer other than was hoped for.

    Args:
        status: HTTP's.
        code: a stable word for programs.
        message: what is wrong, one sentence for people.
        remedy: what to do about it.
        param: the parameter that is wrong, for the OpenAI form.
        headers: of the answer.
        more: further members of the problem.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        remedy: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(code)
        self.status, self.code, self.message = status, code, message
        self.remedy, self.param = remedy, param
        self.headers, self.more = dict(headers or {}), dict(more or {})


class RefusedFile(BaseModel):
    """A file of an upload that gave no image. `file`: as the caller named it, with the path inside
    its archive."""

    file: str
    code: str
    message: str
    remedy: str | None = None


class Problem(BaseModel):
    """Why there is no other answer (RFC 9457). `code` is for programs, `detail` for people."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    remedy: str | None = None
    refused: list[RefusedFile] | None = Field(
        default=None, description="The files of an upload that held no image."
    )


# From any route: no token, a web page's request, an error of our own, loading or ending.
ANYWHERE = (401, 403, 500, 503)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """How OpenAPI tells of answers that are problems: those of any route, and these."""
    schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    return {
        status: {"description": _title(status), "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in (*ANYWHERE, *statuses)
    }


def openai_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The same of errors in the OpenAI form."""
    return {
        status: {"description": _title(status), "model": OpenAIErrorAnswer}
        for status in (*ANYWHERE, *statuses)
    }


class OpenAIError(BaseModel):
    """The inside of an error in the OpenAI form."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class OpenAIErrorAnswer(BaseModel):
    """An error in the OpenAI form."""

    error: OpenAIError


_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}


def refusal_of(error: MedVLMError) -> Refusal:
    """An error made on purpose, as a refusal; files are named by no more than the error's words."""
    status = 500
    if isinstance(error, InputNotFound):
        status = 404
    elif isinstance(error, TooLarge):
        status = 413
    elif isinstance(error, UsageError):
        status = 400
    elif isinstance(error, InputError):
        status = 422
    elif isinstance(error, StoreError):
        status = 507
    return Refusal(status, error.code, error.message, remedy=error.remedy)


def as_problem(refusal: Refusal) -> JSONResponse:
    """The refusal as problem details."""
    problem = Problem(
        title=_title(refusal.status),
        status=refusal.status,
        detail=refusal.message,
        code=refusal.code,
        remedy=refusal.remedy,
        **refusal.more,
    )
    return JSONResponse(
        problem.model_dump(mode="json", exclude_none=True),
        refusal.status,
        headers=refusal.headers,
        media_type=MEDIA_TYPE,
    )


def as_openai_error(refusal: Refusal) -> JSONResponse:
    """The refusal in the OpenAI form; the remedy follows the message."""
    kind = "invalid_request_error" if refusal.status < 500 else "server_error"
    words = refusal.message
    if refusal.remedy:
        words = f"{words}{'' if words.endswith('.') else '.'} {refusal.remedy}"
    error = OpenAIError(
        message=words,
        type=_TYPES.get(refusal.status, kind),
        param=refusal.param,
        code=refusal.code,
    )
    content = OpenAIErrorAnswer(error=error).model_dump(mode="json")
    return JSONResponse(content, refusal.status, headers=refusal.headers)


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Client Closed Request" if status == CLIENT_GONE else "Error"
