"""The viewer's tokens: whose, for which studies, until when; and none that was tampered with."""

from __future__ import annotations

import base64
import json
import time

import pytest

from medvlm.desk.token import Tokens

A, B = "a" * 32, "b" * 32


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(b"s" * 32)


def test_a_token_says_who_may_see_which_studies_and_until_when(tokens: Tokens) -> None:
    grant = tokens.read(tokens.make("佐藤", [B, A, A], minutes=15))
    assert grant is not None
    assert (grant.person_id, grant.studies) == ("佐藤", {A, B})
    assert 15 * 60 <= grant.expires - time.time() <= 16 * 60


def test_a_token_ends(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tokens.make("sato", [A], minutes=1)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 59)
    assert tokens.read(token) is not None
    monkeypatch.setattr(time, "time", lambda: now + 121)
    assert tokens.read(token) is None


def test_tokens_of_one_minute_are_equal(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    """The viewer is not told of a change where there is none."""
    monkeypatch.setattr(time, "time", lambda: 1_000_020.0)
    first = tokens.make("sato", [A, B], minutes=15)
    monkeypatch.setattr(time, "time", lambda: 1_000_030.0)
    assert tokens.make("sato", [B, A], minutes=15) == first


def test_a_token_that_was_changed_is_none(tokens: Tokens) -> None:
    token = tokens.make("sato", [A], minutes=15)
    body, _, signature = token.partition(".")
    said = json.loads(base64.urlsafe_b64decode(body + "=="))
    more = json.dumps({**said, "studies": [A, B]}, separators=(",", ":")).encode()
    forged = base64.urlsafe_b64encode(more).decode().rstrip("=")
    for wrong in (
        f"{forged}.{signature}",
        f"{body}.{signature[:-1]}A" if signature[-1] != "A" else f"{body}.{signature[:-1]}B",
        body,
        f"{body}.",
        f".{signature}",
        "",
        ".",
        "é.é",
        token * 200,
    ):
        assert tokens.read(wrong) is None


def test_another_process_made_it(tokens: Tokens) -> None:
    assert Tokens().read(tokens.make("sato", [A], minutes=15)) is None


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Tokens(b"secret")
