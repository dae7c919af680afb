"""Puts a series' planes in order: regular volumes, and in words what stood in their way.

Nothing is guessed and nothing silently repaired: planes are sorted by position, and each problem
says what was done about it: accepted, split, resampled or refused.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID

from medvlm.dicom.decode import header_value
from medvlm.dicom.grid import STRAY_MM, Grid, fit_grid
from medvlm.dicom.instance import Instance
from medvlm.dicom.planes import Plane, planes_of
from medvlm.dicom.stack import Action, Assembly, Problem, Stack, count
from medvlm.dicom.workers import in_worker
from medvlm.errors import InputError

ANGLE_TOLERANCE = 1e-3  # of direction cosines, about 0.06 degrees; of pixel spacings, mm
SAME_PLACE_MM = 0.01
FARTHEST_MM = 1e5  # from the origin of patient coordinates
_NO_SLICES: tuple[tuple[str, str, Callable[[Instance], bool]], ...] = (
    ("localizer", "localizer", lambda one: "LOCALIZER" in map(str.upper, one.image_type)),
    (
        "secondary_capture",
        "secondary capture",
        lambda one: "SecondaryCapture" in UID(one.sop_class_uid or "").keyword,
    ),
)
# What makes of the same stored values another image.
_MEANING = (
    *("Rows", "Columns", "BitsStored", "PixelRepresentation", "PhotometricInterpretation"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence", "Units"),
)


def assemble(instances: Sequence[Instance]) -> Assembly:
    """The volumes that the images of one series make.

    Raises nothing for bad content: what does not fit is a problem with the action "refused".
    """
    work = _Work()
    planes: list[Plane] = []
    for instance in work.only_slices(work.without_copies(instances)):
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
        self.digests: dict[Path, str] = {}

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
            # The same pixels in another header, as archives correct it, are no other image.
            contents: dict[Hashable, Instance] = {}
            for instance in same:
                shown = self._digest(instance), instance.position_mm, instance.orientation
                contents.setdefault(shown, instance)
            kept += contents.values()
            copies += len(same) - len(contents)
            colliding += len(contents) if len(contents) > 1 else 0
        if copies:
            self.say("duplicate_file", f"{count(copies, 'copy', 'copies')} left out.", "accepted")
        if colliding:
            self.collides = True
            message = f"{colliding} files of other content share a SOP Instance UID."
            self.say("uid_collision", message, "refused")
        return kept

    def only_slices(self, instances: list[Instance]) -> list[Instance]:
        """Without localizers, and without pictures of screens that were filed among the slices."""
        for code, word, is_one in _NO_SLICES:
            left = [one for one in instances if not is_one(one)]
            if lost := len(instances) - len(left):
                self.say(code, f"{count(lost, word)} kept out of the volume.", "split")
            instances = left
        return instances

    def groups(self, planes: list[Plane]) -> list[list[Plane]]:
        """Planes of one size, direction and pixel spacing; none where any lacks its place."""
        lost = sum(not _has_a_place(one) for one in planes)
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
            ordered = tuple(place[0] for place in places)
            if separate := _apart(ordered):
                self._say_apart(len(separate))
                return [stack for part in separate for stack in self._regular([part])]
            return self._regular([ordered])
        parts = self._by_acquisition(planes, places, normal)
        if parts and _same_places(parts, places, normal):
            return self._regular(
                [tuple(sorted(part, key=lambda one: _along(one, normal))) for part in parts]
            )
        if repeats := _in_blocks(places):
            return self._regular(repeats)
        if parts:
            self._say_apart(len(parts))
            # Each part has every place once: it is not split again.
            return [stack for part in parts for stack in self.stacks(part)]
        distinct = self._without_equals(places)
        if repeats := _in_blocks(distinct):
            return self._regular(repeats)
        several = count(sum(len(place) > 1 for place in distinct), "place")
        message = f"Slices of other content share {several}, and nothing tells them apart."
        self.say("duplicate_position", message, "refused")
        return []

    def _say_apart(self, acquisitions: int) -> None:
        message = f"Slices of {acquisitions} acquisitions that cover different places."
        self.say("mixed_acquisition", message, "split")

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

    def _without_equals(self, places: list[list[Plane]]) -> list[list[Plane]]:
        """The places, of equal planes at one place only the first."""
        distinct: list[list[Plane]] = []
        for place in places:
            by_content: dict[str, Plane] = {}
            for plane in place:
                by_content.setdefault(self._pixels(plane) if len(place) > 1 else "", plane)
            distinct.append(list(by_content.values()))
        if copies := sum(map(len, places)) - sum(map(len, distinct)):
            message = f"{count(copies, 'slice')} at the place of an equal one, left out."
            self.say("duplicate_position", message, "accepted")
        return distinct

    def _pixels(self, plane: Plane) -> str:
        """What tells the pixels of two planes apart."""
        return f"{self._digest(plane.instance)}:{plane.frame}:{plane.left}:{plane.top}"

    def _digest(self, instance: Instance) -> str:
        """Of an image's pixels and what gives them their meaning, not of the rest of its file."""
        if instance.path not in self.digests:
            try:
                digest = in_worker(_pixel_digest, replace(instance, keep=()))
            except InputError:
                digest = instance.file
            self.digests[instance.path] = digest
        return self.digests[instance.path]

    def _regular(self, volumes: list[tuple[Plane, ...]]) -> list[Stack]:
        """Stacks of sorted planes on regular grids; those that were refused are left out."""
        stacks = []
        shared = _in_one_place(volumes)
        if len(shared) > 1:
            message = f"The slices were taken in {len(shared)} places beside each other."
            self.say("mixed_acquisition", message, "split")
        for group in shared:
            if len(group[0]) < 2:
                continue
            grid = _grid(group[0])
            if isinstance(grid, Problem):
                self.problems.append(grid)
                continue
            self.problems += grid.problems
            stacks.append(
                Stack(
                    volumes=tuple(group),
                    steps=tuple(grid.steps.tolist()),
                    depth=int(grid.steps[-1] + 1e-6) + 1,
                    distance=grid.distance,
                    slant=tuple(grid.slant.tolist()),
                    is_straight=grid.is_straight,
                )
            )
        return stacks


def _apart(planes: tuple[Plane, ...]) -> list[tuple[Plane, ...]]:
    """Planes that make no volume together, in parts by acquisition that each make one."""
    if len(planes) < 4 or not isinstance(_grid(planes), Problem):
        return []
    for field in range(max(len(plane.acquisition) for plane in planes)):
        parts = [tuple(part) for part in _split(planes, partial(_values, (field,)))]
        whole = all(len(part) > 1 and not isinstance(_grid(part), Problem) for part in parts)
        if len(parts) > 1 and whole:
            return parts
    return []


def _grid(planes: Sequence[Plane]) -> Grid | Problem:
    return fit_grid(np.array([plane.position for plane in planes]), planes[0].normal)


def _in_blocks(places: list[list[Plane]]) -> list[tuple[Plane, ...]]:
    """Repeated places as volumes one after another, where the instance numbers prove the order.

    Either each volume's numbers come before all of the next one's, or each place's do. Anything
    else, and numbers given twice, is no proof: the result is empty.
    """
    if len({len(place) for place in places}) > 1:
        return []
    volumes = list(zip(*(sorted(place, key=_number) for place in places), strict=True))
    if len({_number(plane) for volume in volumes for plane in volume}) < sum(map(len, volumes)):
        return []
    return volumes if _follow(volumes) or _follow(places) or len(volumes) == 1 else []


def _follow(blocks: Iterable[Sequence[Plane]]) -> bool:
    """Whether the blocks' instance numbers do not interleave."""
    ends = sorted((min(map(_number, block)), max(map(_number, block))) for block in blocks)
    return all(a[1] < b[0] for a, b in pairwise(ends))


def _in_one_place(volumes: list[tuple[Plane, ...]]) -> list[list[tuple[Plane, ...]]]:
    """The volumes, those together whose planes lie at the same positions."""
    groups: list[tuple[NDArray[np.float64], list[tuple[Plane, ...]]]] = []
    for volume in volumes:
        positions = np.array([plane.position for plane in volume])
        for first, group in groups:
            if np.abs(positions - first).max() <= STRAY_MM:
                group.append(volume)
                break
        else:
            groups.append((positions, [volume]))
    return [group for _, group in groups]


def _split(planes: Iterable[Plane], fact: Callable[[Plane], Hashable]) -> list[list[Plane]]:
    parts: dict[Hashable, list[Plane]] = defaultdict(list)
    for plane in planes:
        parts[fact(plane)].append(plane)
    return list(parts.values())


def _alike(
    planes: Iterable[Plane], fact: Callable[[Plane], tuple[float, ...] | None]
) -> list[list[Plane]]:
    """Planes whose numbers differ by no more than the tolerance from their group's first."""
    left = list(planes)
    values = np.array([fact(plane) for plane in left], dtype=float)
    groups = []
    while left:
        alike = np.abs(values - values[0]).max(axis=1) <= ANGLE_TOLERANCE
        groups.append([plane for plane, is_one in zip(left, alike, strict=True) if is_one])
        left = [plane for plane, is_one in zip(left, alike, strict=True) if not is_one]
        values = values[~alike]
    return groups


def _has_a_place(plane: Plane) -> bool:
    """Whether the plane says where it lies, and nothing that cannot be."""
    position, spacing = plane.position, plane.spacing
    if position is None or spacing is None or not _is_orientation(plane.orientation):
        return False
    return max(map(abs, position)) < FARTHEST_MM and min(spacing) > 0


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


def _pixel_digest(instance: Instance) -> str:
    opened = instance.open()
    if not isinstance(opened, Dataset):
        return instance.sha256
    digest = hashlib.sha256(opened.get("PixelData") or b"")
    for keyword in _MEANING:
        digest.update(f"{keyword}={header_value(opened, keyword)}\n".encode())
    return digest.hexdigest()
