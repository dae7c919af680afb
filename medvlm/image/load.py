"""An image ready for the model, with the facts that travel beside its pixels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medvlm.dicom.instance import Instance
from medvlm.dicom.workers import in_worker
from medvlm.errors import InputError
from medvlm.image.geometry import GridTransform, content_size, letterbox
from medvlm.image.pixels import render, render_picture


@dataclass(frozen=True)
class ImageInput:
    """One frame as a radiologist would see it, and where it comes from.

    Attributes:
        pixels: float32 [H, W], 0 black .. 1 white, source pixels.
        file: the name shown to people.
        spacing: (row, column) in mm, the distance between neighbouring rows and columns.
        frame: counts from 0.
    """

    pixels: NDArray[np.float32] = field(repr=False)
    file: str
    sha256: str
    is_dicom: bool
    sop_instance_uid: str | None = None
    frame: int = 0
    modality: str | None = None
    body_part: str | None = None
    view_position: str | None = None
    patient_orientation: tuple[str, ...] = ()
    presentation_intent: str | None = None
    spacing: tuple[float, float] | None = None

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    def grid(self, size: int) -> tuple[NDArray[np.float32], GridTransform]:
        """The image letterboxed to [size, size], and the way back to its own pixels."""
        return resize_grid(self.pixels, size)


def resize_grid(
    pixels: NDArray[np.float32], size: int
) -> tuple[NDArray[np.float32], GridTransform]:
    """Letterbox float32 [H, W] in 0..1 to [size, size], antialiased, padded with black.

    Training, inference and evaluation all come through here, so that the
    geometry is one.
    """
    height, width = pixels.shape
    transform = letterbox(width, height, size)
    content = content_size(width, height, size)
    source = Image.fromarray(np.ascontiguousarray(pixels, dtype=np.float32))
    resized = np.asarray(source.resize(content, Image.Resampling.BICUBIC))
    left, top = int(transform.offset_x), int(transform.offset_y)
    grid = np.zeros((size, size), dtype=np.float32)
    # Bicubic overshoots at sharp edges.
    grid[top : top + content[1], left : left + content[0]] = np.clip(resized, 0.0, 1.0)
    return grid, transform


def load_image(instance: Instance, frame: int = 0) -> ImageInput:
    """Decode and render one frame of an instance.

    Raises:
        InputError: the file is gone, or its pixels cannot be decoded; names the file.
    """
    job = replace(instance, keep=()), frame
    try:
        # Bytes that no decoder touches can do no harm, and are quicker read here.
        pixels = in_worker(_pixels, job) if instance.is_compressed else _pixels(job)
    except InputError as error:
        error.file = instance.file
        raise
    return ImageInput(
        pixels=pixels,
        file=instance.file,
        sha256=instance.sha256,
        is_dicom=instance.is_dicom,
        sop_instance_uid=instance.sop_instance_uid,
        frame=frame,
        modality=instance.modality,
        body_part=instance.body_part,
        view_position=instance.view_position,
        patient_orientation=instance.patient_orientation,
        presentation_intent=instance.presentation_intent,
        spacing=instance.pixel_spacing_mm,
    )


def _pixels(job: tuple[Instance, int]) -> NDArray[np.float32]:
    instance, frame = job
    opened = instance.open()
    return render_picture(opened) if isinstance(opened, Image.Image) else render(opened, frame)
