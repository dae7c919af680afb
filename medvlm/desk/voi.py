"""The windows that a file offers, for the viewer; a VOI table becomes the window nearest to it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from medvlm.image.lut import Table
from medvlm.image.window import Window

_LONGEST_LABEL = 64
_LN_3 = float(np.log(3.0))


class FileWindow(BaseModel):
    """A window in the values' own unit (PS3.3 C.11.2.1).

    `label`: the file's words for it, to be shown as plain text; "" where it has none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    label: str = ""
    center: float
    width: float
    function: Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"] = "LINEAR"

    @classmethod
    def of(cls, window: Window) -> FileWindow:
        """The same as the image layer has it."""
        return cls(
            label=_label(window.explanation),
            center=window.center,
            width=window.width,
            function=window.function,
        )


def table_window(table: Table) -> FileWindow | None:
    """The linear or sigmoid window nearest to a VOI table; None for one that does not rise.

    Both go through the inputs where the table passes a quarter, half and three quarters of its
    range; the one with the smaller mean square error is taken.
    """
    entries = table.entries
    low, high = float(entries[0]), float(entries[-1])
    if high <= low:
        return None
    level = np.maximum.accumulate((entries - low) / (high - low))
    inputs = table.first + np.arange(len(entries), dtype=np.float64)
    quarter, center, upper = np.interp((0.25, 0.5, 0.75), level, inputs).tolist()
    rise = max(upper - quarter, 1.0)
    label = _label(table.explanation)
    candidates = [
        Window(center, 2.0 * rise, "LINEAR_EXACT"),
        Window(center, 2.0 * rise / _LN_3, "SIGMOID"),
    ]
    best = min(candidates, key=lambda one: float(np.mean((one(inputs) - level) ** 2)))
    return FileWindow.of(best).model_copy(update={"label": label})


def _label(words: str) -> str:
    return "".join(char for char in words if char.isprintable())[:_LONGEST_LABEL]
