"""The picture of a draft: the film with its regions drawn on it, and a legend below."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from medvlm.records import Region

# Okabe and Ito's colours, which colour-blind readers can tell apart, without the black.
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")
_HEAT = (255, 64, 0)
_HEAT_SHARE = 0.55  # of the highest heat: the film must still be seen under it
_SMALLEST_SIDE = 640  # a smaller film is enlarged, so that its labels can be read
_Box = tuple[float, float, float, float]  # left, top, right, bottom in picture pixels
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_overlay(
    pixels: NDArray[np.floating],
    regions: Sequence[tuple[str, Region]],
    title: str | None = None,
    notes: Mapping[str, str] | None = None,
    heat: NDArray[np.floating] | None = None,
) -> Image.Image:
    """Draw labelled regions on a film.

    ``pixels`` is [H, W] in 0..1; each region comes with its label, in the source pixels of that
    film. Returns an RGB picture: the film at the top left (enlarged by a whole factor if its longer
    side is under 640 pixels), below it ``title``, if any, and the legend, with ``notes`` in the
    place of the labels that have one. One colour per label; the same label has the same colour.
    ``heat`` [H, W] in 0..1 is laid over the film in red, the more the higher.

    Raises ValueError if ``pixels`` is not a two-dimensional array with something in it.
    """
    if pixels.ndim != 2 or pixels.size == 0:
        raise ValueError(f"pixels must be [H, W] and not empty, got shape {pixels.shape}")
    scale = max(1, -(-_SMALLEST_SIDE // max(pixels.shape)))
    grey = np.rint(np.clip(np.nan_to_num(pixels), 0, 1) * 255).astype(np.uint8)
    film = Image.fromarray(_heated(grey, heat).repeat(scale, axis=0).repeat(scale, axis=1))

    labels = list(dict.fromkeys(label for label, _ in regions))
    colours = {label: _COLOURS[i % len(_COLOURS)] for i, label in enumerate(labels)}
    longer = max(film.size)
    font = ImageFont.load_default(size=max(14, longer // 50))
    line = max(2, longer // 350)

    draw = ImageDraw.Draw(film)
    for label, region in regions:
        left, top = region.x * scale, region.y * scale
        right, bottom = left + region.width * scale, top + region.height * scale
        draw.rectangle((left, top, right - 1, bottom - 1), outline=colours[label], width=line)
        if region.polygon:
            outline = [(x * scale, y * scale) for x, y in region.polygon]
            draw.line([*outline, outline[0]], fill=colours[label], width=line)
    # The labels come last, so that no box crosses them.
    taken: list[_Box] = []
    for label, region in regions:
        taken.append(
            _draw_label(draw, film.size, label, region, scale, colours[label], font, taken)
        )
    given = notes or {}
    legend = [(given.get(label, label), colour) for label, colour in colours.items()]
    return _with_legend(film, legend, font, title)


def _heated(grey: NDArray[np.uint8], heat: NDArray[np.floating] | None) -> NDArray[np.uint8]:
    """[H, W, 3]"""
    film = np.stack([grey] * 3, axis=-1)
    if heat is None:
        return film
    share = (_HEAT_SHARE * np.clip(heat, 0, 1)).astype(np.float32)[..., None]
    return np.rint(film * (1 - share) + np.array(_HEAT, np.float32) * share).astype(np.uint8)


def beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in one row, from the left, aligned at the top."""
    if len(pictures) == 1:
        return pictures[0]
    width = sum(picture.width for picture in pictures)
    out = Image.new("RGB", (width, max(picture.height for picture in pictures)), "black")
    left = 0
    for picture in pictures:
        out.paste(picture, (left, 0))
        left += picture.width
    return out


def _draw_label(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    label: str,
    region: Region,
    scale: int,
    colour: str,
    font: _Font,
    taken: list[_Box],
) -> _Box:
    """Write ``label`` above the region, or where there is room for it; returns where it stands."""
    _, _, width, height = draw.textbbox((0, 0), label, font=font)
    pad = max(2.0, height / 6)
    width, height = width + 2 * pad, height + 2 * pad
    left = min(max(0.0, region.x * scale), max(0.0, size[0] - width))
    top = min(max(0.0, region.y * scale - height), max(0.0, size[1] - height))
    box = (left, top, left + width, top + height)
    while any(_overlap(box, other) for other in taken) and box[3] + height <= size[1]:
        box = (left, box[1] + height, left + width, box[3] + height)
    draw.rectangle(box, fill=colour)
    draw.text((box[0] + pad, box[1] + pad), label, fill="black", font=font)
    return box


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _with_legend(
    film: Image.Image, legend: Sequence[tuple[str, str]], font: _Font, title: str | None
) -> Image.Image:
    if not legend and not title:
        return film
    measure = ImageDraw.Draw(film)
    height = measure.textbbox((0, 0), "Ag", font=font)[3]
    row, gap = round(height * 1.6), height

    def fits(text: str) -> bool:
        return measure.textlength(text, font=font) <= film.width - 3 * gap

    titles = _lines(title, fits) if title else []
    # Place the entries in rows no wider than the film.
    entries: list[tuple[str, str | None, float, float]] = []
    first = gap / 2 + row * len(titles)
    x, y = float(gap), first
    for label, colour in legend:
        for i, line in enumerate(_lines(label, fits)):
            width = 2 * gap + measure.textlength(line, font=font)
            if entries and (i or x + width > film.width):
                x, y = float(gap), y + row
            entries.append((line, None if i else colour, x, y))
            x += width + gap
    bottom = y + row if entries else first
    picture = Image.new("RGB", (film.width, round(film.height + bottom)), "black")
    picture.paste(film)
    draw = ImageDraw.Draw(picture)
    for i, line in enumerate(titles):
        draw.text((gap, film.height + gap / 2 + i * row), line, fill="white", font=font)
    for line, mark, x, y in entries:
        top = film.height + y
        if mark:
            draw.rectangle((x, top, x + height, top + height), fill=mark)
        draw.text((x + 1.6 * gap, top), line, fill="white", font=font)
    return picture


def _lines(text: str, fits: Callable[[str], bool]) -> list[str]:
    """The text, broken between words where it does not fit."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and fits(longer := f"{lines[-1]} {word}"):
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
