"""Windows: from values of any unit to 0..1, as PS3.3 C.11.2.1 defines it, or by a robust range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from medvlm.dicom.decode import header_value
from medvlm.dicom.functional_groups import stating
from medvlm.errors import UsageError
from medvlm.image.lut import Table, lookup_table

FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
ROBUST_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True, slots=True)
class Window:
    """The part of the value range to show, in the values' own unit.

    Attributes:
        center, width: as in the file. LINEAR takes the width as a count of whole values, so that
            it is at least 1; LINEAR_EXACT and SIGMOID take any width above 0.
        function: LINEAR, LINEAR_EXACT or SIGMOID.
        explanation: the file's words for it, such as "LUNG".

    Raises:
        ValueError: a width or function that is none.
    """

    center: float
    width: float
    function: str = "LINEAR"
    explanation: str = ""

    def __post_init__(self) -> None:
        least = 1.0 if self.function == "LINEAR" else 1e-9
        if self.function not in FUNCTIONS:
            raise ValueError(f"{self.function} is no window function ({', '.join(FUNCTIONS)})")
        if not (np.isfinite(self.center) and np.isfinite(self.width) and self.width >= least):
            raise ValueError(f"no window: center {self.center}, width {self.width}")

    def __call__(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """The values in 0..1, same shape; NaN stays NaN."""
        center, width = self.center, self.width
        if self.function == "SIGMOID":
            exponent = np.clip(-4.0 * (values - center) / width, -700.0, 700.0)
            return 1.0 / (1.0 + np.exp(exponent))
        if self.function == "LINEAR":
            center, width = center - 0.5, width - 1.0
            if width == 0:
                return np.where(np.isnan(values), values, values > center)
        return np.clip((values - center) / width + 0.5, 0.0, 1.0)


def file_windows(ds: Dataset, frame: int = 0) -> list[Window]:
    """The windows that the file offers for this frame, in its order; senseless ones are left out.

    An unknown function counts as LINEAR, as the standard has it for an absent one.
    """
    holder = stating(ds, frame, "FrameVOILUTSequence", "WindowCenter")
    centers, widths = (_numbers(holder, f"Window{name}") for name in ("Center", "Width"))
    function = str(header_value(holder, "VOILUTFunction") or "").strip().upper()
    words = header_value(holder, "WindowCenterWidthExplanation")
    explanations = [words] if isinstance(words, str) else list(words or ())
    windows = []
    for number, (center, width) in enumerate(zip(centers, widths, strict=False)):
        explanation = str(explanations[number]).strip() if number < len(explanations) else ""
        try:
            known = function if function in FUNCTIONS else "LINEAR"
            windows.append(Window(center, width, known, explanation))
        except ValueError:
            continue
    return windows


def voi_tables(
    ds: Dataset, frame: int = 0, *, signed: bool = False, little_endian: bool = True
) -> list[Table]:
    """The VOI lookup tables that the file offers for this frame, in its order."""
    holder = stating(ds, frame, "FrameVOILUTSequence", "VOILUTSequence")
    items = header_value(holder, "VOILUTSequence") or []
    items = [item for item in items if isinstance(item, Dataset)]
    tables = (lookup_table(item, signed=signed, little_endian=little_endian) for item in items)
    return [table for table in tables if table is not None]


def choose(
    windows: list[Window], tables: list[Table], choice: Window | int | str | None
) -> Window | Table | None:
    """What of the file's offers to show a frame with.

    Args:
        choice: None for the first table, else the first window; a number for that window, counted
            from 0; words for the first window or table whose explanation contains them; a window
            of one's own.

    Returns:
        None only where the file offers nothing and nothing was asked for.

    Raises:
        UsageError: the file has no such window.
    """
    if choice is None:
        return (*tables, *windows, None)[0]
    if isinstance(choice, Window):
        return choice
    if isinstance(choice, int):
        if 0 <= choice < len(windows):
            return windows[choice]
        raise UsageError(f"There is no window {choice}: the image has {len(windows)}.")
    offers: list[Window | Table] = [*windows, *tables]
    for offer in offers:
        if choice.casefold() in offer.explanation.casefold():
            return offer
    raise UsageError("No window of the image is explained by the words asked for.")


def robust_range(
    values: NDArray[np.floating],
    valid: NDArray[np.bool_] | None = None,
    percentiles: tuple[float, float] = ROBUST_PERCENTILES,
) -> NDArray[np.floating]:
    """Values over the range between two percentiles of the valid ones; a flat image is black."""
    chosen = values[np.isfinite(values) if valid is None else valid & np.isfinite(values)]
    if chosen.size == 0:
        return np.zeros_like(values)
    low, high = np.percentile(chosen, percentiles)
    if high <= low:
        low, high = float(chosen.min()), float(chosen.max())
    if high <= low:
        return np.zeros_like(values)
    return np.clip(np.nan_to_num((values - low) / (high - low)), 0.0, 1.0)


def _numbers(ds: Dataset, keyword: str) -> list[float]:
    value = header_value(ds, keyword)
    if value is None:
        return []
    several = value if isinstance(value, MultiValue | list | tuple) else [value]
    try:
        return [float("nan") if number in (None, "") else float(number) for number in several]
    except (TypeError, ValueError):
        return []
