"""Where a picture that the model sees lies in the frames of its study.

A picture is a square grid made of a whole film, of a tile of it, or of planes of a volume. Whatever
is found on the grid goes back to source pixels through its `Place`, and to no other frame's.
"""

from __future__ import annotations

from dataclasses import dataclass

from medvlm.image.geometry import Box, GridTransform
from medvlm.image.load import ImageInput
from medvlm.image.polygon import Polygon
from medvlm.records import Region


@dataclass(frozen=True)
class Place:
    """The frame that a picture's grid shows, and the way back to its pixels.

    Attributes:
        transform: source pixels of the frame <-> grid pixels.
        extent: the part of the frame that the grid shows, in source pixels.
        frame: counts from 0.
    """

    transform: GridTransform
    extent: Box
    sop_instance_uid: str | None = None
    frame: int = 0

    @classmethod
    def of_image(cls, image: ImageInput, transform: GridTransform) -> Place:
        """Of a picture that shows a whole image."""
        extent = Box(0.0, 0.0, float(image.width), float(image.height))
        return cls(transform, extent, image.sop_instance_uid, image.frame)

    def to_source(self, box: Box) -> Box:
        """A box in grid pixels, in source pixels, cut to what the grid shows."""
        return self.transform.to_source(box).intersection(self.extent)

    def to_grid(self, box: Box) -> Box:
        """A box in source pixels, in grid pixels, cut to what the grid shows."""
        return self.transform.to_grid(box.intersection(self.extent))

    def region(self, box: Box, outline: Polygon | None = None) -> Region | None:
        """A box in grid pixels as a region of its frame; None if it is under a pixel in it.

        `outline`: of what lies in the box, in grid pixels.
        """
        own = self.to_source(box)
        if min(own.width, own.height) < 1:
            return None
        polygon = None
        if outline is not None:
            drawn = outline.moved(self.transform.point_to_source)
            inside = drawn.clip(self.transform.source_width, self.transform.source_height)
            polygon = [(round(x, 2), round(y, 2)) for x, y in inside.points] if inside else None
        return Region(
            sop_instance_uid=self.sop_instance_uid,
            frame=self.frame,
            x=round(own.x, 2),
            y=round(own.y, 2),
            width=round(own.width, 2),
            height=round(own.height, 2),
            polygon=polygon,
        )

    def shows(self, region: Region) -> bool:
        """Whether the region lies on this frame and meets what the grid shows of it."""
        box = Box(region.x, region.y, region.width, region.height)
        same = (region.sop_instance_uid, region.frame) == (self.sop_instance_uid, self.frame)
        return same and box.intersection(self.extent).area > 0
