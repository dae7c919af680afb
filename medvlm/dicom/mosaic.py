"""Siemens mosaics: the slices of a volume as tiles of one picture.

The header's position is the mosaic's own corner; where the slices lie follows from the number of
tiles, the distance between slices, and the direction in which they are stacked, which only the
private CSA header says. What its layout is was worked out and published by the authors of NiBabel
and dcm2niix.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from struct import error as StructError
from struct import unpack_from

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medvlm.dicom.decode import header_value, typed_errors
from medvlm.dicom.instance import Instance
from medvlm.errors import Undecodable

_TILES = (0x0019, "SIEMENS MR HEADER", 0x0A)
_CSA_IMAGE = (0x0029, "SIEMENS CSA HEADER", 0x10)

Tile = tuple[int, int, tuple[int, int], NDArray[np.float64]]


def is_mosaic(instance: Instance) -> bool:
    """Whether the image is a mosaic of slices that says where it lies."""
    return (
        "MOSAIC" in instance.image_type
        and instance.frames == 1
        and None not in (instance.position_mm, instance.orientation, instance.pixel_spacing_mm)
    )


def mosaic_tiles(instance: Instance, ds: Dataset) -> Iterator[Tile]:
    """Each tile: left and top in pixels, its (rows, columns), and its position in mm.

    Raises:
        Undecodable: the private elements that say how many tiles there are do not.
    """
    with typed_errors(instance.file):
        csa = _csa(_private(ds, *_CSA_IMAGE))
        stated_count = _private(ds, *_TILES) or (csa.get("NumberOfImagesInMosaic") or ["0"])[0]
        count = int(str(stated_count))
        if not 0 < count <= 4096:
            raise Undecodable(
                "The mosaic does not say how many slices it holds.", file=instance.file
            )
        across = math.ceil(math.sqrt(count))
        size = instance.rows // across, instance.columns // across
        if instance.rows % across or instance.columns % across:
            raise Undecodable("The mosaic's tiles do not fill it.", file=instance.file)
        stated_distance = header_value(ds, "SpacingBetweenSlices")
        distance = abs(float(stated_distance or header_value(ds, "SliceThickness") or 0))
        row, column = np.array(instance.orientation).reshape(2, 3)
        normal = np.cross(row, column)
        stated = csa.get("SliceNormalVector") or []
        if len(stated) != 3 or not distance:
            raise Undecodable(
                "The mosaic does not say how its slices follow each other.", file=instance.file
            )
        if float(np.dot(np.array(stated, dtype=float), normal)) < 0:
            normal = -normal
        between_rows, between_columns = instance.pixel_spacing_mm or (1.0, 1.0)
        first = (
            np.array(instance.position_mm)
            + row * between_columns * (instance.columns - size[1]) / 2
            + column * between_rows * (instance.rows - size[0]) / 2
        )
        for number in range(count):
            left, top = number % across * size[1], number // across * size[0]
            yield left, top, size, first + number * distance * normal


def _private(ds: Dataset, group: int, creator: str, element: int) -> object:
    try:
        return ds.private_block(group, creator)[element].value
    except KeyError:
        return None


def _csa(data: object) -> dict[str, list[str]]:
    """The values of a CSA header ("SV10") by name; empty for anything else."""
    out: dict[str, list[str]] = {}
    if not isinstance(data, bytes) or not data.startswith(b"SV10"):
        return out
    try:
        (tags,) = unpack_from("<I", data, 8)
        at = 16
        for _ in range(min(tags, 1000)):
            name, items = data[at : at + 64].split(b"\0")[0], unpack_from("<i", data, at + 76)[0]
            at += 84
            values = []
            for _ in range(min(max(items, 0), 1000)):
                (length,) = unpack_from("<i", data, at + 4)
                at += 16
                if not 0 <= length <= len(data):
                    return out
                values.append(data[at : at + length].split(b"\0")[0].strip().decode("latin-1"))
                at += -(-length // 4) * 4
            out[name.decode("latin-1")] = [value for value in values if value]
    except StructError:
        pass
    return out
