"""How much of the machine one input may take. Every limit is tried before anything is unpacked.

A limit that is too tight for a site is widened by an environment variable of its name, such as
`MEDVLM_LIMIT_DECODE_SECONDS=120`.
"""

from __future__ import annotations

import functools
import os
from typing import Self

from pydantic import Field, ValidationError

from medvlm.config import Config
from medvlm.errors import ConfigError

PREFIX = "MEDVLM_LIMIT_"


class Limits(Config):
    """Bytes, seconds and counts.

    `expansion_ratio` and `expansion_from_bytes` work together: what expands further than the ratio
    is refused only if it is large too. A 300-frame CT is large and expands threefold; a blank film
    expands a thousandfold and is small.
    """

    file_bytes: int = Field(2 << 30, gt=0)
    frame_pixels: int = Field(200_000_000, gt=0)  # the largest detectors have about 30 million
    expansion_from_bytes: int = Field(64 << 20, gt=0)
    expansion_ratio: int = Field(200, gt=0)
    inflated_bytes: int = Field(2 << 30, gt=0)
    elements: int = Field(1_000_000, gt=0)  # of a header; an enhanced image has up to 100,000
    frames: int = Field(200_000, gt=0)  # the largest slides have about 100,000
    sequence_depth: int = Field(64, gt=0)
    folder_depth: int = Field(32, gt=0)
    archive_depth: int = Field(3, gt=0)  # an archive in an archive in an archive
    archive_members: int = Field(100_000, gt=0)
    archive_bytes: int = Field(16 << 30, gt=0)
    # Deflate reaches about 1000 to 1; medical images about 3 to 1, blank ones more.
    archive_ratio: int = Field(100, gt=0)
    archive_ratio_from_bytes: int = Field(32 << 20, gt=0)
    decode_bytes: int = Field(3 << 30, gt=0)
    decode_seconds: float = Field(60, gt=0)

    @classmethod
    def from_environment(cls) -> Self:
        """The limits, each overridden by its variable. Raises ConfigError for a wrong value."""
        given = {
            name.removeprefix(PREFIX).lower(): value
            for name, value in os.environ.items()
            if name.startswith(PREFIX)
        }
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            names = ", ".join(PREFIX + str(item["loc"][0]).upper() for item in error.errors())
            raise ConfigError(
                f"{names}: not a limit, or not a number above 0",
                remedy="correct or unset it",
            ) from error


@functools.cache
def limits() -> Limits:
    """The limits in force, read once from the environment."""
    return Limits.from_environment()
