"""Puts a series' planes in order: regular volumes, and in words what stood in their way.

Nothing is guessed and nothing silently repaired: planes are sorted by position, and each problem
says what was done about it: accepted, split, resampled or refused.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medvlm.dicom.instance import Instance
from medvlm.dicom.planes import Plane, planes_of
from medvlm.dicom.stack import Action, Assembly, Problem, Stack, count
from medvlm.errors import InputError

ANGLE_TOLERANCE = 1e-3  # of direction cosines, about 0.06 degrees; of pixel spacings, mm
SAME_PLACE_MM = 0.01
SPACING_TOLERANCE = 0.05  # of the distance between planes
SLANT_TOLERANCE = 0.01  # of the way from the first plane to the last
# More than this and a volume would be made up rather than repaired.
MOST_MISSING_TOGETHER = 3
MOST_MISSING_SHARE = 0.25


def assemble(instances: Sequence[Instance]) -> Assembly:
    """The volumes that the images of one series make.

    Raises nothing for bad content: what does not fit is a problem with the action "refused".
    """
    work = _Work()
    planes: list[Plane] = []
    for instance in work.without_localizers(work.without_copies(instances)):
        try:
            planes += planes_of(instance)
        except InputError as error:
            work.say(error.code, f"An image is left out: {error.message}", "refused")
    stacks: list[Stack] = []
    if len(planes) > 1 and not work.collides:
        for group in work.groups(planes):
            stacks += work.stacks(group)
    stacks.sort(key=lambda stack: -stack.depth * len(stack.volumes))
    return Assembly(tuple(stacks), tuple(work.problems))


class _Work:
    """The problems met so far, and the steps that meet them."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.collides = False

    def say(self, code: str, message: str, action: Action) -> None:
        self.problems.append(Problem(code, message, action))

    def without_copies(self, instances: Sequence[Instance]) -> list[Instance]:
        by_uid: dict[str | None, list[Instance]] = defaultdict(list)
        for instance in instances:
            by_uid[instance.sop_instance_uid].append(instance)
        kept, copies, colliding = [], 0, 0
        for uid, same in by_uid.items():
            if uid is None or len(same) == 1:
                kept += same
                continue
            contents = {_digest(instance): instance for instance in reversed(same)}
            kept += reversed(contents.values())
            copies += len(same) - len(contents)
            colliding += len(contents) if len(contents) > 1 else 0
        if copies:
            self.say("duplicate_file", f"{count(copies, 'copy', 'copies')} left out.", "accepted")
        if colliding:
            self.collides = True
            message = f"{colliding} files of other content share a SOP Instance UID."
            self.say("uid_collision", message, "refused")
        return kept

    def without_localizers(self, instances: list[Instance]) -> list[Instance]:
        slices = [one for one in instances if "LOCALIZER" not in one.image_type]
        if lost := len(instances) - len(slices):
            message = f"{count(lost, 'localizer')} kept out of the volume."
            self.say("localizer", message, "split")
        return slices

    def groups(self, planes: list[Plane]) -> list[list[Plane]]:
        """Planes of one size, direction and pixel spacing; none where any lacks its place."""
        lost = sum(
            one.position is None or not _is_orientation(one.orientation) or one.spacing is None
            for one in planes
        )
        if lost:
            message = f"{count(lost, 'slice')} without position, orientation or pixel spacing."
            self.say("missing_position", message, "refused")
            return []
        groups = [planes]
        facts: tuple[tuple[str, str, Callable[[Plane], tuple[float, ...] | None]], ...] = (
            ("mixed_size", "size", lambda one: (one.rows, one.columns)),
            ("mixed_orientation", "direction", lambda one: one.orientation),
            ("mixed_spacing", "pixel spacing", lambda one: one.spacing),
        )
        for code, word, fact in facts:
            parts = [part for group in groups for part in _alike(group, fact)]
            if len(parts) > len(groups):
                message = f"The slices differ in {word}: {len(parts)} stacks of one {word} each."
                self.say(code, message, "split")
            groups = parts
        return groups

    def stacks(self, planes: list[Plane]) -> list[Stack]:
        """The volumes that parallel planes of one size make."""
        normal = planes[0].normal
        places = _places(planes, normal)
        if len(places) == len(planes):
            return self._regular([tuple(place[0] for place in places)])
        if parts := self._by_acquisition(planes, places, normal):
            if _same_places(parts, places, normal):
                return self._regular(
                    [tuple(sorted(part, key=lambda one: _along(one, normal))) for part in parts]
                )
            message = f"Slices of {len(parts)} acquisitions that cover different places."
            self.say("mixed_acquisition", message, "split")
            return [stack for part in parts for stack in self.stacks(part)]
        return self._regular(self._by_number(places))

    def _by_acquisition(
        self, planes: list[Plane], places: list[list[Plane]], normal: NDArray[np.float64]
    ) -> list[list[Plane]]:
        """Parts of other time or echo, no place twice in any; best if each has every place."""
        fields = range(max(len(plane.acquisition) for plane in planes))
        apart: list[list[Plane]] = []
        for chosen in (*combinations(fields, 1), *combinations(fields, 2)):
            parts = _split(sorted(planes, key=_number), partial(_values, chosen))
            if len(parts) < 2 or any(len(_places(part, normal)) < len(part) for part in parts):
                continue
            if _same_places(parts, places, normal):
                return parts
            # One slice in each part is no explanation, only a number given to every slice.
            if not apart and all(len(part) > 1 for part in parts):
                apart = parts
        return apart

    def _by_number(self, places: list[list[Plane]]) -> list[tuple[Plane, ...]]:
        """Repeated places as a series in time, in the order of instance numbers; or refused."""
        distinct: list[list[Plane]] = []
        copies = 0
        for place in places:
            seen: dict[str, Plane] = {}
            for plane in place:
                seen.setdefault(_pixels(plane) if len(place) > 1 else "", plane)
            copies += len(place) - len(seen)
            distinct.append(list(seen.values()))
        if copies:
            message = f"{count(copies, 'slice')} at the place of an equal one, left out."
            self.say("duplicate_position", message, "accepted")
        if len({len(place) for place in distinct}) > 1:
            lost = count(sum(len(place) > 1 for place in distinct), "place")
            message = f"Slices of different content share {lost}: which is right is not known."
            self.say("duplicate_position", message, "refused")
            return []
        return list(zip(*distinct, strict=True))

    def _regular(self, volumes: list[tuple[Plane, ...]]) -> list[Stack]:
        """Sorted planes on a regular grid: one stack, or none if they were refused."""
        if not volumes or len(volumes[0]) < 2:
            return []
        normal = volumes[0][0].normal
        positions = np.array([plane.position for plane in volumes[0]])
        along = positions @ normal
        grid = self._grid(along)
        if grid is None:
            return []
        steps, distance = grid
        across = positions - np.outer(along, normal)
        slant = (across[-1] - across[0]) / (along[-1] - along[0])
        strayed = across - across[0] - np.outer(along - along[0], slant)
        if np.abs(strayed).max() > max(0.05 * distance, 0.1):
            message = "The slices do not lie on one line: they were taken in several places."
            self.say("irregular_position", message, "refused")
            return []
        if np.linalg.norm(slant) <= SLANT_TOLERANCE:
            slant = np.zeros(3)
        else:
            angle = float(np.degrees(np.arctan(np.linalg.norm(slant))))
            message = f"The slices are sheared by {angle:.1f} degrees; they are straightened."
            self.say("gantry_tilt", message, "resampled")
        return [
            Stack(
                volumes=tuple(volumes),
                steps=tuple(steps.tolist()),
                depth=round(float(steps[-1])) + 1,
                distance=distance,
                slant=tuple((slant * distance).tolist()),
            )
        ]

    def _grid(self, along: NDArray[np.float64]) -> tuple[NDArray[np.float64], float] | None:
        """Each plane's place on the regular grid, and the grid's distance; None if refused."""
        gaps = np.diff(along)
        # The smallest gap is the distance of neighbours even where most slices are missing.
        if gaps.max() <= (1 + SPACING_TOLERANCE) * gaps.min():
            return np.arange(len(along), dtype=float), float((along[-1] - along[0]) / len(gaps))
        steps = gaps / gaps.min()
        whole = np.round(steps)
        missing = int(whole.sum()) - len(gaps)
        if np.abs(steps - whole).max() > SPACING_TOLERANCE * steps.max():
            distance = float(np.median(gaps))
            if gaps.max() > (MOST_MISSING_TOGETHER + 1) * distance:
                message = f"Slices lie {gaps.min():.2f} to {gaps.max():.2f} mm apart."
                self.say("irregular_spacing", message, "refused")
                return None
            message = (
                f"Slices lie {gaps.min():.2f} to {gaps.max():.2f} mm apart; the volume is "
                f"interpolated to {distance:.2f} mm."
            )
            self.say("irregular_spacing", message, "resampled")
            return (along - along[0]) / distance, distance
        many = missing > MOST_MISSING_SHARE * (whole.sum() + 1)
        if whole.max() - 1 > MOST_MISSING_TOGETHER or many:
            message = f"{count(missing, 'slice')} missing between the others: too many to fill in."
            self.say("missing_slice", message, "refused")
            return None
        message = f"{count(missing, 'slice')} missing between the others; filled by interpolation."
        self.say("missing_slice", message, "resampled")
        places = np.concatenate([[0.0], np.cumsum(whole)])
        return places, float((along[-1] - along[0]) / whole.sum())


def _split(planes: Iterable[Plane], fact: Callable[[Plane], Hashable]) -> list[list[Plane]]:
    parts: dict[Hashable, list[Plane]] = defaultdict(list)
    for plane in planes:
        parts[fact(plane)].append(plane)
    return list(parts.values())


def _alike(
    planes: Iterable[Plane], fact: Callable[[Plane], tuple[float, ...] | None]
) -> list[list[Plane]]:
    """Planes whose numbers differ by no more than the tolerance from their group's first."""
    groups: list[tuple[NDArray[np.float64], list[Plane]]] = []
    for plane in planes:
        own = np.array(fact(plane))
        for first, group in groups:
            if np.abs(own - first).max() <= ANGLE_TOLERANCE:
                group.append(plane)
                break
        else:
            groups.append((own, [plane]))
    return [group for _, group in groups]


def _is_orientation(orientation: tuple[float, ...] | None) -> bool:
    """Two perpendicular directions of unit length."""
    if orientation is None:
        return False
    row, column = np.array(orientation).reshape(2, 3)
    lengths = np.abs([np.linalg.norm(row) - 1, np.linalg.norm(column) - 1, row @ column])
    return bool(lengths.max() < 10 * ANGLE_TOLERANCE)


def _along(plane: Plane, normal: NDArray[np.float64]) -> float:
    return float(np.array(plane.position) @ normal)


def _number(plane: Plane) -> tuple[int, int]:
    return plane.instance.instance_number or 0, plane.frame


def _values(chosen: tuple[int, ...], plane: Plane) -> tuple[str | None, ...]:
    return tuple(plane.acquisition[i] if i < len(plane.acquisition) else None for i in chosen)


def _places(planes: Iterable[Plane], normal: NDArray[np.float64]) -> list[list[Plane]]:
    """Planes in order along the normal, those at one place together, by instance number."""
    places: list[list[Plane]] = []
    for plane in sorted(planes, key=lambda one: _along(one, normal)):
        here = _along(plane, normal)
        if places and here - _along(places[-1][0], normal) <= SAME_PLACE_MM:
            places[-1].append(plane)
        else:
            places.append([plane])
    return [sorted(place, key=_number) for place in places]


def _same_places(
    parts: Sequence[Sequence[Plane]], places: list[list[Plane]], normal: NDArray[np.float64]
) -> bool:
    """Whether every part has one plane at each of the places."""
    there = np.array([_along(place[0], normal) for place in places])
    for part in parts:
        here = np.sort([_along(plane, normal) for plane in part])
        if len(here) != len(there) or np.abs(here - there).max() > 2 * SAME_PLACE_MM:
            return False
    return True


def _digest(instance: Instance) -> str:
    try:
        return instance.sha256
    except InputError:
        return instance.file


def _pixels(plane: Plane) -> str:
    """What tells the stored pixels of two planes apart."""
    instance = plane.instance
    try:
        opened = instance.open()
        data = opened.get("PixelData") if isinstance(opened, Dataset) else None
    except InputError:
        data = None
    digest = hashlib.sha256(data or instance.file.encode("utf-8", "replace")).hexdigest()
    return f"{digest}:{plane.frame}:{plane.left}:{plane.top}"
