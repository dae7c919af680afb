"""Tables of words and phrases, written as text."""

from __future__ import annotations

Phrase = tuple[str, ...]


def word_set(lines: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(lines.split())


def phrase_list(lines: str) -> list[Phrase]:
    """The phrases of a text, which commas separate, each as its words."""
    return [tuple(part.split()) for part in " ".join(lines.split()).split(",") if part.strip()]
