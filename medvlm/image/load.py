"""An image ready for the model, with the facts that travel beside its pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medvlm.dicom.decode import decode_frame
from medvlm.dicom.instance import Instance
from medvlm.dicom.workers import where_safe
from medvlm.errors import InputError
from medvlm.image.geometry import GridTransform, content_size, letterbox
from medvlm.image.intensity import model_view
from medvlm.image.pixels import render_picture

# Of white: JPEG shifts the colours of grey pixels by some hundredths.
COLOUR_NOISE = 0.12


@dataclass(frozen=True)
class ImageInput:
    """One frame as a radiologist would see it, and where it comes from.

    Attributes:
        pixels: float32 [H, W], 0 black .. 1 white, source pixels.
        file: the name shown to people.
        spacing: (row, column) in mm, the distance between neighbouring rows and columns.
        frame: counts from 0.
        coloured: share of the pixels that are not grey, 0..1.
        age_years: of the patient, at the examination.
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
    laterality: str | None = None
    burned_in_annotation: str | None = None
    conversion_type: str | None = None
    coloured: float = 0.0
    spacing: tuple[float, float] | None = None
    age_years: float | None = field(default=None, repr=False)

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
    (image,) = load_images([instance], frame)
    if isinstance(image, InputError):
        raise image
    return image


def load_images(instances: Sequence[Instance], frame: int = 0) -> Iterator[ImageInput | InputError]:
    """The same frame of many instances, in order, as they come; an error stands in its place.

    Compressed files are decoded in worker processes, a few ahead of what is taken.
    """
    jobs = [(replace(instance, keep=()), frame) for instance in instances]
    loaded = where_safe(_pixels, jobs, lambda job: job[0].needs_worker)
    for instance, result in zip(instances, loaded, strict=True):
        image: ImageInput | InputError
        try:
            image = result if isinstance(result, InputError) else _image(instance, frame, *result)
        except InputError as error:  # it vanished before its digest was taken
            image = error
        if isinstance(image, InputError):
            image.file = instance.file
        yield image


def _image(
    instance: Instance, frame: int, pixels: NDArray[np.float32], coloured: float
) -> ImageInput:
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
        laterality=instance.laterality,
        burned_in_annotation=instance.burned_in_annotation,
        conversion_type=instance.conversion_type,
        coloured=coloured,
        spacing=instance.pixel_spacing_mm,
        age_years=instance.age_years,
    )


def _pixels(job: tuple[Instance, int]) -> tuple[NDArray[np.float32], float]:
    """The grey image, and the share of its pixels that are not grey."""
    instance, frame = job
    opened = instance.open()
    if isinstance(opened, Image.Image):
        return render_picture(opened), coloured_share(np.asarray(opened.convert("RGB")))
    grey = model_view(opened, frame)
    if instance.samples != 3:
        return grey, 0.0
    return grey, coloured_share(decode_frame(opened, frame))


def coloured_share(colours: NDArray[np.integer]) -> float:
    """Share of the pixels [H, W, 3] whose channels differ by more than noise does.

    White is all bits of the integers set.
    """
    white = 2.0 ** (8 * colours.dtype.itemsize) - 1
    spread = colours.max(axis=2).astype(np.float32) - colours.min(axis=2)
    return float((spread > COLOUR_NOISE * white).mean())
