"""How `medvlm serve` is set up: where it listens, what it keeps, how much it takes at once.

Read from a YAML file; `configs/serve.yaml` shows every key. Options of the command come first.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated

from pydantic import Field

from medvlm.config.base import Config

_Seconds = Annotated[float, Field(gt=0, le=24 * 3600)]
_Megabytes = Annotated[int, Field(gt=0, le=1 << 20)]


class ServeConfig(Config):
    """Contents of the service's file; each key may be left out.

    Attributes:
        host, port: where it listens.
        store: the folder of the studies; left out, `serve` in the user's data folder.
        tokens: a file of names and sha256 of tokens (`medvlm serve token`); left out, and without
            MEDVLM_SERVE_TOKENS, only this machine is served.
        open_metrics: whether /metrics needs no token.
        queue: so many questions are in hand at once, and as many drafts may wait; more are told to
            come back.
        batch: so many questions are answered together at most.
        gather_ms: for so long the first question of a batch waits for others.
        draft_patience_seconds: so long a draft waits at most while there are questions.
        request_seconds: after so long a request ends without an answer.
        upload_seconds: so long an upload may take to arrive.
        upload_mb: the longest upload; chat_mb: the longest body of a question.
        seen_mb: memory for what was seen of images, so that a second question is quicker.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8600
    store: Path | None = None
    tokens: Path | None = None
    open_metrics: bool = False
    queue: Annotated[int, Field(gt=0, le=10_000)] = 64
    batch: Annotated[int, Field(gt=0, le=256)] = 16
    gather_ms: Annotated[float, Field(ge=0, le=1000)] = 5
    draft_patience_seconds: Annotated[float, Field(ge=0, le=3600)] = 10
    request_seconds: _Seconds = 120
    upload_seconds: _Seconds = 1800
    upload_mb: _Megabytes = 2048
    chat_mb: _Megabytes = 32
    seen_mb: Annotated[int, Field(ge=0, le=1 << 20)] = 512


def is_loopback(host: str) -> bool:
    """Whether a name or an address, in brackets or not, means this machine and no other."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
