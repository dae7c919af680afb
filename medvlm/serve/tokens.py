"""Who may use the service: bearer tokens, of which a file holds only the sha256.

A line of the file is `NAME sha256`; empty lines and those that begin with # are left out. The
environment holds the tokens themselves. All of them may do the same.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from medvlm.errors import ConfigError, UsageError

VARIABLE = "MEDVLM_SERVE_TOKENS"
SHORTEST = 20
_LONGEST = 512
_LINE = re.compile(r"([A-Za-z0-9._-]{1,64})\s+([0-9a-f]{64})")


class Tokens:
    """The tokens that are good, by the name of whom they were made for. `hashes`: in hex."""

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes = dict(hashes)

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def whose(self, header: str | None) -> str | None:
        """The name of the token in an `Authorization` header; None for one that is no good.

        How long it takes says nothing about how much of a token was right.
        """
        kind, _, token = (header or "").partition(" ")
        token = token.strip()
        if kind.casefold() != "bearer" or not token or len(token) > _LONGEST:
            return None
        given, found = _hash(token), None
        for name, known in self._hashes.items():
            if hmac.compare_digest(known, given):
                found = name
        return found


def read_tokens(path: Path | None) -> Tokens:
    """The tokens of a file and of the environment.

    Raises ConfigError for a file that cannot be read or holds anything else, for a token that can
    be guessed, and if there is none where some were meant to be: nobody's token is not everybody's.
    """
    hashes = dict(_from_file(path)) if path is not None else {}
    for number, token in enumerate(re.split(r"[\s,]+", os.environ.get(VARIABLE, "").strip()), 1):
        if not token:
            continue
        if len(token) < SHORTEST:
            raise ConfigError(
                f"{VARIABLE}: token {number} has fewer than {SHORTEST} characters",
                remedy="make one with `medvlm serve token`",
            )
        hashes[f"environment-{number}"] = _hash(token)
    if not hashes and (path is not None or VARIABLE in os.environ):
        raise ConfigError(
            "there is no token where tokens were asked for",
            file=str(path or VARIABLE),
            remedy="make one with `medvlm serve token`, or leave out the file and the variable: "
            "then this machine alone is served",
        )
    return Tokens(hashes)


def add_token(path: Path, name: str) -> str:
    """Makes a token for `name`, adds its sha256 to the file and returns it: nothing else keeps it.

    Raises UsageError if the name will not do or is taken, or the file cannot be written.
    """
    if _LINE.fullmatch(f"{name} {'0' * 64}") is None:
        raise UsageError(
            f"{name!r} will not do as a name", remedy="take letters, digits, points and hyphens"
        )
    if path.exists() and name in _from_file(path):
        raise UsageError(
            f"{name} has a token", remedy="remove its line from the file, or choose another name"
        )
    token = secrets.token_urlsafe(32)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "a", encoding="ascii") as file:
            # A line that somebody wrote by hand may lack its end.
            start = "" if path.read_bytes()[-1:] in (b"", b"\n") else "\n"
            file.write(f"{start}{name} {_hash(token)}\n")
    except OSError as error:
        raise UsageError(
            f"the token cannot be written into {path}", remedy="choose another file"
        ) from error
    return token


def _from_file(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "the tokens cannot be read", file=str(path), remedy="make one with `medvlm serve token`"
        ) from error
    hashes: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None or match[1] in hashes:
            raise ConfigError(
                f"line {number} is not a new name and a sha256",
                file=str(path),
                remedy="make lines with `medvlm serve token`",
            )
        hashes[match[1]] = match[2]
    return hashes


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
