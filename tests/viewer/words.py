"""The viewer's texts as `app/viewer/words.txt` has them: key, English, Japanese."""

from __future__ import annotations

from pathlib import Path

WORDS = Path(__file__).resolve().parents[2] / "app" / "viewer" / "words.txt"


def texts(language: str = "en") -> dict[str, str]:
    lines = [line.split("\t") for line in WORDS.read_text(encoding="utf-8").splitlines()]
    column = {"en": 1, "ja": 2}[language]
    return {line[0]: line[column] for line in lines}
