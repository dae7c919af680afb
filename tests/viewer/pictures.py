"""Synthetic images for the viewer: each with a header as the desk serves it, and known values."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

SLICES = 300
CINE_FRAMES = 6


def header(
    values: NDArray[Any],
    *,
    frames: int = 1,
    spacing: tuple[float, float] | None = None,
    windows: tuple[tuple[str, float, float, str], ...] = (),
    invert: bool = False,
    unit: str = "",
    **more: Any,
) -> dict[str, Any]:
    """What GET images/{id} answers."""
    names = ("label", "center", "width", "function")
    return {
        "rows": values.shape[0],
        "columns": values.shape[1],
        "frames": frames,
        "dtype": values.dtype.name,
        "samples": 3 if values.ndim == 3 else 1,
        "spacing_mm": list(spacing) if spacing else None,
        "pixel_aspect": spacing[0] / spacing[1] if spacing else 1.0,
        "windows": [dict(zip(names, one, strict=True)) for one in windows],
        "minimum": float(values.min()),
        "maximum": float(values.max()),
        "invert": invert,
        "unit": unit,
    } | more


def ramp(rows: int, columns: int) -> NDArray[np.uint16]:
    """Values that differ from pixel to pixel and use much of the 16 bits."""
    y, x = np.mgrid[0:rows, 0:columns]
    return ((x * 37 + y * 11) % 60000).astype(np.uint16)


def film(rows: int = 2500, columns: int = 2000) -> NDArray[np.uint16]:
    """Roughly the shape of a chest: to look at, and to drag windows on."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    u, v = x / columns - 0.5, y / rows - 0.5
    body = 2600 * np.exp(-((u / 0.42) ** 6) - (v / 0.55) ** 8)
    lungs = sum(
        1700 * np.exp(-(((u - side * 0.2) / 0.14) ** 4) - ((v + 0.02) / 0.3) ** 4)
        for side in (-1, 1)
    )
    spine = 700 * np.exp(-((u / 0.05) ** 2))
    heart = 900 * np.exp(-(((u - 0.08) / 0.15) ** 2) - ((v - 0.18) / 0.13) ** 2)
    ribs = 160 * np.cos(v * 70 + np.abs(u) * 25) * (lungs > 300)
    noise = np.random.default_rng(1).normal(0, 25, (rows, columns))
    return np.clip(body - lungs + spine + heart + ribs + noise + 300, 0, 4095).astype(np.uint16)


def slice_of(number: int) -> NDArray[np.int16]:
    """A CT slice in Hounsfield units; its top-left pixels hold its number."""
    x, y, noise = _grid()
    part = number / SLICES
    inside = (x / 210) ** 2 + (y / 160) ** 2 < 1
    lungs = ((np.abs(x) - 90) / 65) ** 2 + (y / 105) ** 2 < 0.4 + 0.6 * np.sin(np.pi * part)
    values = np.where(inside, np.where(lungs, -840, 45), -1000).astype(np.int16)
    values[x**2 + (y - 110) ** 2 < 26**2] = 420
    values += np.roll(noise, 7 * number)
    values[:4, :4] = number
    return values


@cache
def _grid() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int16]]:
    y, x = np.mgrid[0:512, 0:512].astype(np.float32) - 256
    noise = np.random.default_rng(0).integers(-18, 18, (512, 512)).astype(np.int16)
    return x, y, noise


def colour() -> NDArray[np.uint8]:
    y, x = np.mgrid[0:400, 0:600]
    return np.stack([x % 256, y % 256, (x + y) % 256], axis=-1).astype(np.uint8)


def pictures() -> dict[str, tuple[dict[str, Any], list[NDArray[Any]]]]:
    """Header and frames of every image but the slices, by its id."""
    whole = (("", 30000.0, 60001.0, "LINEAR"),)
    floats = (ramp(120, 90).astype(np.float32) / 7) - 3000
    mono1 = ramp(301, 299)
    made: dict[str, tuple[dict[str, Any], list[NDArray[Any]]]] = {
        "ramp": (header(ramp(300, 400), windows=whole), [ramp(300, 400)]),
        "tall": (header(ramp(3001, 257), windows=whole), [ramp(3001, 257)]),
        "wide": (header(ramp(200, 1999), windows=whole), [ramp(200, 1999)]),
        "oblong": (header(mono1, spacing=(0.4, 0.1), windows=whole, invert=True), [mono1]),
        "mono1": (header(ramp(300, 400), windows=whole, invert=True), [ramp(300, 400)]),
        "colour": (header(colour()), [colour()]),
        "float": (header(floats, unit="SUV"), [floats]),
        "sigmoid": (
            header(ramp(300, 400), windows=(("S", 20000.0, 9000.0, "SIGMOID"),)),
            [ramp(300, 400)],
        ),
        "exact": (
            header(ramp(300, 400), windows=(("E", 20000.0, 9000.0, "LINEAR_EXACT"),)),
            [ramp(300, 400)],
        ),
    }
    chest = film()
    windows = (("NORMAL", 1800.0, 3200.0, "LINEAR"), ("HARDER", 1700.0, 1800.0, "LINEAR"))
    placed = {"directions": ["L", "F"], "at_detector": True}
    made["film"] = (header(chest, spacing=(0.15, 0.15), windows=windows, **placed), [chest])
    earlier = (chest[::2, ::2] // 4).astype(np.uint16)
    before = (("", 450.0, 800.0, "LINEAR"),)
    made["film-before"] = (header(earlier, spacing=(0.3, 0.3), windows=before), [earlier])
    cine = [np.full((64, 80), 40 * frame, np.uint8) for frame in range(CINE_FRAMES)]
    shape = header(np.concatenate(cine), frames=CINE_FRAMES) | {"rows": 64}
    made["cine"] = (shape, list(cine))
    return made


def slice_header() -> dict[str, Any]:
    windows = (("MEDIASTINUM", 40.0, 400.0, "LINEAR"), ("LUNG", -600.0, 1500.0, "LINEAR"))
    values = slice_of(0)
    stated = header(values, spacing=(0.7, 0.7), windows=windows, unit="HU")
    return stated | {"minimum": -1024.0, "maximum": 500.0}
