"""What the model may see: one rule per modality that brings values of any unit to 0..1.

| modality | unit | rule |
|---|---|---|
| CT | HU | a window in HU, one of `CT_WINDOWS` |
| CT | other (a localizer, a perfusion map) | robust range |
| MR | any | 0.5th percentile black, 99.5th of the foreground white |
| PT | SUV by weight | 0 black, `SUV_WHITE` white |
| PT, NM | other (activity, counts) | 0 black, 99.5th percentile of the foreground white |
| CR, DX, MG, US and all others | | as the file says to show it: `render` |

A rule looks at one image or one volume as a whole and at nothing else, so the same values always
give the same result. Statistics leave out padding, NaN and infinity, which come out black.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medvlm.dicom.decode import header_value
from medvlm.errors import UsageError
from medvlm.image.pixels import LUMINANCE, Grey, modality_values, render
from medvlm.image.window import ROBUST_PERCENTILES, Window, robust_range

# Centers and widths in HU, as they stand in textbooks and on scanners.
CT_WINDOWS = {
    "lung": Window(-600, 1500),
    "mediastinum": Window(50, 350),
    "soft tissue": Window(40, 400),
    "bone": Window(400, 1800),
    "brain": Window(40, 80),
    "subdural": Window(80, 200),
    "stroke": Window(35, 30),
    "liver": Window(60, 160),
    "angiography": Window(300, 600),
}
CT_DEFAULT = "soft tissue"
# Of SUV by some form of weight; by body surface (SUVbsa) the same uptake gives other numbers.
SUV_PER_WEIGHT = frozenset({"SUVbw", "SUVlbm", "SUVibw"})
SUV_WHITE = 10.0
VALUES_MODALITIES = frozenset({"CT", "MR", "PT", "NM"})  # the others are shown as their file says
_BINS = 256
_NOT_HU = "Named windows are for CT in HU; the values of this image are something else."


def model_view(
    ds: Dataset,
    frame: int = 0,
    *,
    file: str | None = None,
    window: Window | str | None = None,
) -> Grey:
    """One frame by its modality's rule, float32 [rows, columns] in 0..1.

    Args:
        ds: a data set with pixel data.
        frame: counts from 0.
        file: named in errors.
        window: for CT in HU, a name in `CT_WINDOWS`; for any modality, a window in the unit of its
            values.

    Raises:
        NoPixels, TruncatedPixels, TooLarge, Undecodable;
        UsageError: a window of that name is not known, or the values are not in HU.
    """
    modality = str(header_value(ds, "Modality") or "")
    if modality not in VALUES_MODALITIES:
        if isinstance(window, str):
            raise UsageError(_NOT_HU)
        return render(ds, frame, file=file, window=window)
    values, unit = modality_values(ds, frame, file=file, padding=np.nan)
    return normalise(values, unit, modality, window=window)


def normalise(
    values: NDArray[np.floating],
    unit: str,
    modality: str,
    *,
    window: Window | str | None = None,
    valid: NDArray[np.bool_] | None = None,
) -> Grey:
    """Values of an image [H, W] or volume [D, H, W] by their modality's rule, 0..1, same shape.

    Values alone carry no window of their file's: where the rule asks for it, they are shown over
    their robust range; `model_view` does better.

    Args:
        values: as `modality_values` gives them; for a volume, of all its slices in one unit.
        unit: theirs.
        modality: DICOM's word for it, such as "CT".
        window: a name in `CT_WINDOWS` (CT in HU), or a window in `unit`; None for the rule's own.
        valid: False where a value is padding, same shape.

    Raises:
        UsageError: a window of that name is not known, or the values are not in HU.
    """
    numbers = values if values.dtype.kind == "f" else values.astype(np.float64)
    good = np.isfinite(numbers) if valid is None else valid & np.isfinite(numbers)
    grey = _by_rule(numbers, good, unit, modality, window)
    return np.where(good, grey, 0.0).astype(np.float32)


def _by_rule(
    values: NDArray[np.floating],
    good: NDArray[np.bool_],
    unit: str,
    modality: str,
    window: Window | str | None,
) -> NDArray[np.floating]:
    if unit == LUMINANCE:
        return np.clip(values, 0.0, 1.0)
    if isinstance(window, Window):
        return window(values)
    if modality == "CT" and unit == "HU":
        return _ct_window(window or CT_DEFAULT)(values)
    if window is not None:
        raise UsageError(_NOT_HU)
    if modality == "PT" and unit in SUV_PER_WEIGHT:
        return np.clip(values / SUV_WHITE, 0.0, 1.0)
    if modality in ("MR", "PT", "NM"):
        return _above_background(values, good, from_zero=modality != "MR")
    return robust_range(values, good)


def _ct_window(name: str) -> Window:
    try:
        return CT_WINDOWS[name]
    except KeyError:
        known = ", ".join(CT_WINDOWS)
        raise UsageError(f"There is no CT window {name!r}.", remedy=f"Known: {known}.") from None


def _above_background(
    values: NDArray[np.floating], good: NDArray[np.bool_], *, from_zero: bool
) -> NDArray[np.floating]:
    """Black at a low percentile of all (or at 0), white at a high one of the foreground alone.

    So the amount of air around the patient does not decide how bright the tissue is. Values that go
    below 0 (phase, field maps, some parameter maps) have no background at their lower end: both
    percentiles are then those of all values.
    """
    chosen = values[good]
    if chosen.size == 0:
        return np.zeros_like(values)
    low, high = np.percentile(chosen, ROBUST_PERCENTILES)
    if low >= 0:
        high = np.percentile(chosen[chosen >= background_threshold(chosen)], ROBUST_PERCENTILES[1])
        low = 0.0 if from_zero else low
    if high <= low:
        return robust_range(values, good)
    return np.clip((values - low) / (high - low), 0.0, 1.0)


def background_threshold(values: NDArray[np.floating]) -> float:
    """Otsu's threshold between background and foreground, of finite values [N], N at least 1.

    The histogram ends at the 99.5th percentile, so that a few bright values do not stretch it.
    """
    low, high = float(values.min()), float(np.percentile(values, ROBUST_PERCENTILES[1]))
    if high <= low:
        return low
    counts, edges = np.histogram(values, bins=_BINS, range=(low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts)[:-1], np.cumsum(counts[::-1])[::-1][1:]
    sums = np.cumsum(counts * centres)
    with np.errstate(invalid="ignore"):
        apart = (sums[:-1] / below) - (sums[-1] - sums[:-1]) / above
    between = np.nan_to_num(below * above * apart**2)
    return float(edges[1 + int(np.argmax(between))])
