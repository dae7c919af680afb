"""What a person may write into a report: plain text that reads as it is stored."""

from __future__ import annotations

import unicodedata

from medvlm.errors import ReviewError

LONGEST_SENTENCE = 1000
LONGEST_FIELD = 10_000

# They turn the direction of writing: a text would not be read as it is stored.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def one_line(text: str) -> str:
    """A sentence as it is kept. Raises ReviewError for one that is empty, long or no plain line."""
    if not text.strip():
        raise ReviewError("The sentence is empty.", remedy="Write something, or reject it.")
    return _plain(text.strip(), LONGEST_SENTENCE)


def some_lines(text: str) -> str:
    """A field as it is kept: plain lines, or none."""
    lines = text.replace("\r\n", "\n").replace("\t", " ").strip()
    return _plain(lines, LONGEST_FIELD, but="\n")


def _plain(text: str, longest: int, but: str = "") -> str:
    if len(text) > longest:
        raise ReviewError(
            f"The text has {len(text)} characters.", remedy=f"Keep it below {longest + 1}."
        )
    # Half a surrogate pair cannot be stored as UTF-8.
    if any(
        (unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") and one not in but)
        or one in _TURNING
        for one in text
    ):
        raise ReviewError(
            "The text holds control characters.", remedy="Write it as plain text, on one line."
        )
    return text
