"""What an enhanced multi-frame object says about one of its frames, or about all of them.

Where a classic file has one value for the whole image (a spacing, a window, a rescale slope), an
enhanced one has functional groups: a sequence of macros per frame, and one shared by all frames.
"""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medvlm.dicom.decode import header_value

PER_FRAME = "PerFrameFunctionalGroupsSequence"
SHARED = "SharedFunctionalGroupsSequence"


def functional_group(ds: Dataset, frame: int, keyword: str) -> Dataset:
    """The first item of the functional group macro `keyword` that holds for this frame.

    The frame's own groups come first, then the shared ones, then a macro at the top level. A data
    set without functional groups is itself the answer, since its elements stand there. Broken
    sequences count as absent.

    Args:
        ds: any data set.
        frame: counts from 0.
        keyword: of the macro's sequence, such as "PixelMeasuresSequence".

    Returns:
        the item; an empty data set where an enhanced object states nothing.
    """
    groups = [_item(ds, PER_FRAME, frame), _item(ds, SHARED), ds]
    for group in groups:
        if found := _item(group, keyword):
            return found
    enhanced = any(isinstance(header_value(ds, name), Sequence) for name in (PER_FRAME, SHARED))
    return Dataset() if enhanced else ds


def stating(ds: Dataset, frame: int, keyword: str, *elements: str) -> Dataset:
    """The functional group where it has one of the elements, else the data set itself.

    For elements that some enhanced objects keep at the top level all the same, such as the rescale
    slope of a multi-frame secondary capture.
    """
    group = functional_group(ds, frame, keyword)
    return group if any(header_value(group, name) is not None for name in elements) else ds


def _item(ds: Dataset, keyword: str, index: int = 0) -> Dataset:
    """One item of a sequence; an empty data set where there is no such item."""
    value = header_value(ds, keyword)
    if not isinstance(value, Sequence) or not 0 <= index < len(value):
        return Dataset()
    return value[index]
