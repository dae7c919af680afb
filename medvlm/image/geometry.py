"""Boxes, and the way from source pixels to the model's square grid and back.

Coordinates everywhere: x to the right (columns), y down (rows), origin at the top-left corner of
the top-left pixel, unit one pixel. A pixel's centre therefore lies at +0.5, and resizing is a pure
scaling. Nothing is rounded on the way: what goes to the grid comes back to the same source pixels.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Box:
    """An upright rectangle in source or grid pixels; `x`, `y` is its top-left corner."""

    x: float
    y: float
    width: float
    height: float

    @classmethod
    def from_fractions(
        cls,
        x: float,
        y: float,
        width: float,
        height: float,
        image_width: float,
        image_height: float,
    ) -> Box:
        """Box in pixels from one given as fractions of the image's width and height."""
        return cls(x * image_width, y * image_height, width * image_width, height * image_height)

    @classmethod
    def from_corners(cls, left: float, top: float, right: float, bottom: float) -> Box:
        """Box between two corners; empty, not negative, where they are the wrong way round."""
        return cls(left, top, max(0.0, right - left), max(0.0, bottom - top))

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) of the middle."""
        return self.x + self.width / 2, self.y + self.height / 2

    @property
    def area(self) -> float:
        """Square pixels; 0 for an empty box."""
        return max(0.0, self.width) * max(0.0, self.height)

    def fractions(
        self, image_width: float, image_height: float
    ) -> tuple[float, float, float, float]:
        """(x, y, width, height) as fractions of the image's size; inverse of `from_fractions`."""
        return (
            self.x / image_width,
            self.y / image_height,
            self.width / image_width,
            self.height / image_height,
        )

    def intersection(self, other: Box) -> Box:
        """The common part; a box of area 0 where the two do not meet."""
        return Box.from_corners(
            max(self.x, other.x),
            max(self.y, other.y),
            min(self.right, other.right),
            min(self.bottom, other.bottom),
        )

    def iou(self, other: Box) -> float:
        """Intersection over union, 0..1; 0 where both are empty."""
        common = self.intersection(other).area
        union = self.area + other.area - common
        # Far from the origin edges are rounded: a sliver may seem to share more than its area.
        return min(1.0, common / union) if union > 0 else 0.0

    def clip(self, width: float, height: float) -> Box:
        """The part inside an image of `width` x `height`; empty and on its border if outside."""
        left, right = (min(max(value, 0.0), width) for value in (self.x, self.right))
        top, bottom = (min(max(value, 0.0), height) for value in (self.y, self.bottom))
        return Box.from_corners(left, top, right, bottom)

    def contains(self, x: float, y: float) -> bool:
        """Whether the point lies inside; the left and top edges belong to the box."""
        return self.x <= x < self.right and self.y <= y < self.bottom


@dataclass(frozen=True, slots=True)
class GridTransform:
    """Maps source pixels to the pixels of a square grid: grid = source * scale + offset, per axis.

    The two scales differ slightly because the content's size on the grid is a whole number of
    pixels; each is exact for its axis.
    """

    source_width: int
    source_height: int
    size: int
    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float

    def to_grid(self, box: Box) -> Box:
        """A box in source pixels, in grid pixels."""
        return Box(
            box.x * self.scale_x + self.offset_x,
            box.y * self.scale_y + self.offset_y,
            box.width * self.scale_x,
            box.height * self.scale_y,
        )

    def point_to_grid(self, point: tuple[float, float]) -> tuple[float, float]:
        """A point (x, y) in source pixels, in grid pixels."""
        return (
            point[0] * self.scale_x + self.offset_x,
            point[1] * self.scale_y + self.offset_y,
        )

    def to_source(self, box: Box) -> Box:
        """A box in grid pixels, in source pixels; the inverse of `to_grid`, not clipped."""
        return Box(
            (box.x - self.offset_x) / self.scale_x,
            (box.y - self.offset_y) / self.scale_y,
            box.width / self.scale_x,
            box.height / self.scale_y,
        )

    def point_to_source(self, point: tuple[float, float]) -> tuple[float, float]:
        """A point (x, y) in grid pixels, in source pixels; the inverse of `point_to_grid`."""
        return (
            (point[0] - self.offset_x) / self.scale_x,
            (point[1] - self.offset_y) / self.scale_y,
        )

    @property
    def source_size(self) -> tuple[int, int]:
        """(width, height) of the source in pixels."""
        return self.source_width, self.source_height

    def content_box(self) -> Box:
        """Where the image lies on the grid, in grid pixels; the rest is padding."""
        return self.to_grid(Box(0.0, 0.0, float(self.source_width), float(self.source_height)))


def letterbox(width: int, height: int, size: int) -> GridTransform:
    """Fit an image of `width` x `height` into a `size` x `size` grid, centred, aspect kept.

    The content takes a whole number of grid pixels (at least one) and starts on one.

    Raises:
        ValueError: a size below 1.
    """
    if min(width, height, size) < 1:
        raise ValueError(f"sizes must be at least 1, got {width} x {height} on {size}")
    content_width, content_height = content_size(width, height, size)
    return GridTransform(
        source_width=width,
        source_height=height,
        size=size,
        scale_x=content_width / width,
        scale_y=content_height / height,
        offset_x=float((size - content_width) // 2),
        offset_y=float((size - content_height) // 2),
    )


def content_size(width: int, height: int, size: int) -> tuple[int, int]:
    """(width, height) in whole grid pixels of an image fitted into `size` x `size`."""
    scale = size / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))
