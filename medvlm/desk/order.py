"""The order in which a study's images are looked through: series by series, slice by slice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from medvlm.dicom.instance import Instance

_SAME_DIRECTION = 1e-3  # of direction cosines
_SAME_PLACE_MM = 1e-2


def stacks(instances: Sequence[Instance]) -> list[list[Instance]]:
    """The images by series and size, in the order in which they were found; each in its order.

    Images without a series are stacks of their own.
    """
    series: dict[object, list[Instance]] = defaultdict(list)
    for number, instance in enumerate(instances):
        uid = instance.series_instance_uid
        series[number if uid is None else (uid, instance.rows, instance.columns)].append(instance)
    return [_ordered(one) for one in series.values()]


def _ordered(series: list[Instance]) -> list[Instance]:
    """Parallel slices at places of their own by place, all else by instance number."""
    numbered = sorted(
        series, key=lambda one: (one.instance_number is None, one.instance_number or 0)
    )
    places = _places(numbered)
    if places is None:
        return numbered
    # The way round that the numbers go, where they tell.
    rising = float(np.corrcoef(places, np.arange(len(places)))[0, 1]) >= 0
    order = np.argsort(places if rising else -places, kind="stable")
    return [numbered[index] for index in order]


def _places(series: list[Instance]) -> np.ndarray | None:
    """How far each slice lies along the normal (mm); None where that does not put them in order."""
    if len(series) < 2 or any(one.position_mm is None or one.orientation is None for one in series):
        return None
    directions = np.array([one.orientation for one in series], dtype=float)
    if np.abs(directions - directions[0]).max() > _SAME_DIRECTION:
        return None
    normal = np.cross(directions[0][:3], directions[0][3:])
    places: np.ndarray = np.array([one.position_mm for one in series], dtype=float) @ normal
    if np.diff(np.sort(places)).min() < _SAME_PLACE_MM:
        return None  # several times or echoes at one place: their numbers tell the order
    return places
