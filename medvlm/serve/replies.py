"""Answers in the form of OpenAI's chat completions, whole or in pieces."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, Literal
from uuid import uuid4

from pydantic import BaseModel

from medvlm.draft.answers import Answered
from medvlm.records import Answer
from medvlm.serve.chat import ChatRequest


class ServedAnswer(Answer):
    """The answer as `medvlm ask --json` gives it.

    ``unread_messages``: those of the request of which nothing was read, counted from 0.
    """

    unread_messages: list[int]


class AnswerMessage(BaseModel):
    """The answer's words."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """The one answer; `length`: it was still being written when it had to stop."""

    index: Literal[0] = 0
    message: AnswerMessage
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


class Usage(BaseModel):
    """Tokens that the language model read, the visual ones included, and that its answer has.

    Both are 0 where it was not asked: what the heads know, they answer alone.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(BaseModel):
    """An answer in the form of OpenAI's chat completions; `medvlm` has the whole of it."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    medvlm: ServedAnswer


def completion(asked: ChatRequest, answered: Answered) -> ChatCompletion:
    """An answer in OpenAI's form."""
    read, wrote = answered.prompt_tokens, answered.completion_tokens
    record = answered.answer.model_dump()
    return ChatCompletion(
        id=f"chatcmpl-{uuid4().hex}",
        created=int(time.time()),
        model=asked.model,
        choices=[
            Choice(
                message=AnswerMessage(content=answered.answer.answer),
                finish_reason="length" if answered.cut else "stop",
            )
        ],
        usage=Usage(prompt_tokens=read, completion_tokens=wrote, total_tokens=read + wrote),
        medvlm=ServedAnswer(**record, unread_messages=asked.unread),
    )


def pieces(asked: ChatRequest, whole: ChatCompletion) -> Iterator[bytes]:
    """The answer as server-sent events. It is made at once, so its words are one piece."""
    with_usage = asked.stream_options is not None and bool(asked.stream_options.include_usage)
    base = {
        "id": whole.id,
        "object": "chat.completion.chunk",
        "created": whole.created,
        "model": whole.model,
    }

    def piece(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return _event(
            {**base, "choices": [choice], **({"usage": None} if with_usage else {}), **more}
        )

    yield piece({"role": "assistant", "content": ""})
    yield piece({"content": whole.choices[0].message.content})
    record = whole.medvlm.model_dump(mode="json")
    yield piece({}, whole.choices[0].finish_reason, medvlm=record)
    if with_usage:
        yield _event({**base, "choices": [], "usage": whole.usage.model_dump()})
    yield b"data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(content, allow_nan=False).encode() + b"\n\n"
