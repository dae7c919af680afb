"""Lines of text for a page: which font has a character, where a line may break. Needs reportlab.

Latin letters and symbols are in PDF's standard fonts. Japanese, Korean and Chinese are in fonts
that the reader's program brings along (CID fonts), so that none has to be shipped.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import groupby
from typing import Any

from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.platypus import Flowable

from medvlm.export.words import paragraphs

MISSING = "\u25a1"  # □, for a character that no font has
_LATIN = ("Helvetica", "Helvetica-Bold")
# The first whose character set has it; Japanese before all, as its kanji look right in Japan.
_ASIAN = (
    ("HeiseiKakuGo-W5", "cp932"),
    ("HYGothic-Medium", "cp949"),
    ("STSong-Light", "gb2312"),
    ("MSung-Light", "big5"),
)
# By Japanese rules, beside marks that close (or open) by their Unicode category.
_SMALL_KANA = frozenset("ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶ")
_CLOSING = frozenset({"Pe", "Pf", "Po", "Lm"})
_OPENING = frozenset({"Ps", "Pi", "Sc"})


@dataclass(frozen=True)
class Style:
    """Sizes in points; `after`: the room below the last line."""

    size: float = 10
    leading: float = 14
    bold: bool = False
    grey: float = 0.0
    after: float = 0


@lru_cache(8192)
def font_of(character: str, bold: bool = False) -> str | None:
    """The name of the font to draw a character with, None where none has it."""
    latin = _LATIN[bold]
    font: Any = pdfmetrics.getFont(latin)
    try:
        drawn = pdfmetrics.unicode2T1(character, [font, *font.substitutionFonts])
        # The third of them has dingbats, and one for every character that it does not know.
        if all(one.fontName in (latin, "Symbol") for one, _ in drawn):
            return latin
    except (UnicodeError, IndexError, KeyError):
        pass
    for name, charset in _ASIAN:
        try:
            character.encode(charset)
        except UnicodeError:
            continue
        return _registered(name)
    return None


def width_of(text: str, style: Style) -> float:
    return sum(
        pdfmetrics.stringWidth(part, font, style.size) for font, part in _runs(text, style.bold)
    )


def wrap(text: str, style: Style, width: float) -> list[str]:
    """The text in lines of at most this width (except for a single wide character).

    A line breaks at a space or beside an Asian character, by the Japanese rules of what may not
    begin or end one; a word longer than the line is broken anywhere.
    """
    lines, line = [], ""
    for unit in _units(text):
        if width_of((line + unit).rstrip(), style) <= width or not unit.strip():
            line += unit
            continue
        if line.strip():
            lines.append(line.rstrip())
            line = ""
        while width_of(unit.rstrip(), style) > width and len(unit) > 1:
            cut = _fitting(unit, style, width)
            lines.append(unit[:cut])
            unit = unit[cut:]
        line = unit.lstrip(" ")
    return [*lines, line.rstrip()] if line.strip() or not lines else lines


class Text(Flowable):
    """Text in lines, which may go on over a page's end."""

    def __init__(self, text: str | Sequence[str], style: Style) -> None:
        super().__init__()
        given = paragraphs(text) if isinstance(text, str) else list(text)
        # A character without a font is shown to be missing; the plain text form has it.
        self._given = ["".join(c if font_of(c) else MISSING for c in line) for line in given]
        self._style = style
        self._lines: list[str] = []

    def wrap(self, available: float, _: float) -> tuple[float, float]:
        self._lines = [
            line for paragraph in self._given for line in wrap(paragraph, self._style, available)
        ]
        return available, self._tall()

    def split(self, available: float, height: float) -> list[Flowable]:
        self.wrap(available, height)
        fitting = int(height // self._style.leading)
        if not 0 < fitting < len(self._lines):
            return [self] if fitting else []
        first, rest = self._lines[:fitting], self._lines[fitting:]
        return [_Lines(first, replace(self._style, after=0)), _Lines(rest, self._style)]

    def getSpaceAfter(self) -> float:  # noqa: N802 (reportlab's name)
        return self._style.after

    def draw(self) -> None:
        canvas: Any = self.canv
        canvas.setFillGray(self._style.grey)
        y = self._tall() - self._style.size
        for line in self._lines:
            draw_line(canvas, 0, y, line, self._style)
            y -= self._style.leading

    def _tall(self) -> float:
        return len(self._lines) * self._style.leading


class _Lines(Text):
    """Lines that were wrapped already: the parts of a text that went over a page's end."""

    def __init__(self, lines: list[str], style: Style) -> None:
        super().__init__([], style)
        self._lines = lines

    def wrap(self, available: float, _: float) -> tuple[float, float]:
        return available, self._tall()


def draw_line(canvas: Any, x: float, y: float, line: str, style: Style) -> None:
    for font, part in _runs(line, style.bold):
        canvas.setFont(font, style.size)
        canvas.drawString(x, y, part)
        x += pdfmetrics.stringWidth(part, font, style.size)


def _runs(text: str, bold: bool) -> Iterator[tuple[str, str]]:
    fonted = ((font_of(c, bold), c) for c in text)
    known = ((font, c) if font else (font_of(MISSING), MISSING) for font, c in fonted)
    for font, group in groupby(known, key=lambda pair: pair[0]):
        yield str(font), "".join(c for _, c in group)


def _units(text: str) -> Iterator[str]:
    """The parts between which a line may break, with the spaces that follow them."""
    unit = ""
    for character in text:
        if unit and _may_break(unit[-1], character):
            yield unit
            unit = ""
        unit += character
    if unit:
        yield unit


def _may_break(before: str, after: str) -> bool:
    if " " in (before, after):
        return after != " "
    if unicodedata.category(before) in _OPENING or unicodedata.category(after) in _CLOSING:
        return False
    return after not in _SMALL_KANA and (_is_wide(before) or _is_wide(after))


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


def _fitting(unit: str, style: Style, width: float) -> int:
    """How many characters of a unit fit, at least one."""
    cut = 1
    while cut < len(unit) and width_of(unit[: cut + 1], style) <= width:
        cut += 1
    return cut


@cache
def _registered(name: str) -> str:
    pdfmetrics.registerFont(UnicodeCIDFont(name))
    return name
