"""What a person, a model or a header wrote, made fit for a form; names and dates for people."""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo

# Line breaks of all kinds; the rest of the control characters says nothing on paper.
_BREAKS = re.compile(r"\r\n|[\n\r\v\f\x85\u2028\u2029]")
_CONTROLS = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f"
    "\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff"  # hide or turn letters
    "\ud800-\udfff\ufffe\uffff]"  # no characters at all
)
_DATE = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})(?:([0-9]{2})([0-9]{2}))?")
_SEXES = {"M": "male", "F": "female"}


def plain(text: str | None) -> str:
    """On one line, without control characters."""
    return " ".join(paragraphs(text))


def paragraphs(text: str | None) -> list[str]:
    """The lines that say something, without control characters; tabs become spaces."""
    lines = _BREAKS.split(text or "")
    cleaned = (_CONTROLS.sub("", line.replace("\t", " ")).strip() for line in lines)
    return [line for line in cleaned if line]


def block(text: str | None) -> str:
    """Several lines as one text."""
    return "\n".join(paragraphs(text))


def cut(text: str, most: int) -> str:
    """Words that fit into this many bytes of UTF-8.

    DICOM counts characters; programs that count bytes are left nothing to object to.
    """
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore").strip()


def person_name(name: str | None) -> str:
    """A name as it stands in a report.

    A DICOM name's parts are put in order: "Yamada^Tarou=山田^太郎" becomes "山田 太郎 (Yamada,
    Tarou)"; any other text stays as it is.
    """
    if "^" not in (name or "") and "=" not in (name or ""):
        return plain(name)
    groups = [[plain(part) for part in group.split("^")] for group in (name or "").split("=")]
    latin, written, spoken = ([*groups, [""], [""]][place] for place in range(3))
    alphabetic = ", ".join(filter(None, (latin[0], " ".join(filter(None, latin[1:3])))))
    ideographic = " ".join(filter(None, written[:3]))
    reading = alphabetic or " ".join(filter(None, spoken[:3]))
    return f"{ideographic} ({reading})" if ideographic and reading else ideographic or reading


def date_of(value: str | None) -> str:
    """YYYYMMDD or YYYYMMDDHHMMSS as 2026-05-04 or 2026-05-04 13:02; "" for anything else."""
    found = _DATE.match(value or "")
    if not found:
        return ""
    year, month, day, hour, minute = found.groups()
    return f"{year}-{month}-{day}" + (f" {hour}:{minute}" if hour else "")


def moment(time: datetime, zone: tzinfo = UTC) -> str:
    """2026-05-04 13:02 JST."""
    return time.astimezone(zone).strftime("%Y-%m-%d %H:%M %Z")


def sex_of(value: str | None) -> str:
    return _SEXES.get(value or "", "")
