"""Bearer tokens for the viewer: who may fetch the pixels of which studies, and until when.

A token travels in the header `Authorization: Bearer ...`, never in a URL. It is signed with a
secret that the server process makes when it starts, so that a restart ends all of them; the page
makes a new one with every run.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass

# Tokens made within the same minute are equal: the viewer is not told of a change where none is.
STEP_S = 60
MOST_CHARACTERS = 8192


@dataclass(frozen=True)
class Grant:
    """What a token allows. `expires`: seconds since the epoch."""

    person_id: str
    studies: frozenset[str]
    expires: int


class Tokens:
    """Makes and reads tokens. `secret`: at least 32 bytes; left out, new ones."""

    def __init__(self, secret: bytes | None = None) -> None:
        self._secret = secret or secrets.token_bytes(32)
        if len(self._secret) < 32:
            raise ValueError("the secret is shorter than 32 bytes")

    def make(self, person_id: str, studies: Iterable[str], minutes: float) -> str:
        """A token for a person and some studies that holds for at least so many minutes."""
        expires = (int(time.time() + 60 * minutes) // STEP_S + 1) * STEP_S
        said = {"person": person_id, "studies": sorted(set(studies)), "expires": expires}
        body = _encoded(json.dumps(said, separators=(",", ":")).encode())
        return f"{body}.{_encoded(self._signature(body))}"

    def read(self, token: str) -> Grant | None:
        """What the token allows; None for one that is forged, damaged or too old."""
        body, _, signature = token.partition(".")
        if len(token) > MOST_CHARACTERS or not token.isascii():
            return None
        if not hmac.compare_digest(_encoded(self._signature(body)), signature):
            return None
        try:
            said = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        except (binascii.Error, ValueError):
            return None
        grant = Grant(said["person"], frozenset(said["studies"]), said["expires"])
        return grant if time.time() < grant.expires else None

    def _signature(self, body: str) -> bytes:
        return hmac.new(self._secret, body.encode(), hashlib.sha256).digest()


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


# One for the process: the page's script makes what the server's routes read.
TOKENS = Tokens()
