"""Stored pixels of many files as a stream: bounded memory, decoders in processes of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medvlm.dicom.decode import decode_frame
from medvlm.dicom.instance import Instance
from medvlm.dicom.workers import where_safe
from medvlm.errors import InputError, NotDicom

BYTES_AT_ONCE, MOST_AT_ONCE = 4 << 20, 16


def stored_frames(
    instances: Sequence[Instance], frame: int = 0
) -> Iterator[NDArray[Any] | InputError]:
    """Stored values [rows, columns(, 3)] of one frame of each instance, in order, as they come.

    An InputError stands in the place of what does not decode.
    """
    jobs = [(replace(instance, keep=()), frame) for instance in instances]
    yield from where_safe(_stored, jobs, lambda job: job[0].needs_worker, chunk(instances))


def chunk(instances: Sequence[Instance]) -> int:
    """How many frames to decode at once: a few megabytes, so that no process waits for its next."""
    largest = max((one.rows * one.columns * one.samples * 2 for one in instances), default=1)
    return max(1, min(MOST_AT_ONCE, BYTES_AT_ONCE // largest))


def _stored(job: tuple[Instance, int]) -> NDArray[np.generic]:
    instance, frame = job
    opened = instance.open()
    if not isinstance(opened, Dataset):
        raise NotDicom("A picture has no stored values.", file=instance.file)
    return decode_frame(opened, frame, file=instance.file)
