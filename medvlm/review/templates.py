"""What a report of a kind of study begins with (`configs/templates.yaml`)."""

from __future__ import annotations

from functools import cache
from typing import Self

from pydantic import Field, model_validator

from medvlm.config.base import Config
from medvlm.resources import resource_dir
from medvlm.review.texts import LONGEST_FIELD

FILE = "templates.yaml"


class Template(Config):
    """What the fields of a report begin with.

    `modalities`, `body_parts`: of the studies that it is for, none for all; a body part fits where
    the study's contains it.
    """

    name: str = Field(min_length=1, max_length=100)
    modalities: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    indication: str = Field(default="", max_length=LONGEST_FIELD)
    comparison: str = Field(default="", max_length=LONGEST_FIELD)

    def fits(self, modality: str | None, body_part: str | None) -> bool:
        """Whether it is for such a study; what a study does not tell stands in no template's way.

        A picture tells neither.
        """
        kind, part = (modality or "").upper(), (body_part or "").upper()
        return (not kind or not self.modalities or kind in self.modalities) and (
            not part or not self.body_parts or any(one in part for one in self.body_parts)
        )


class Templates(Config):
    """Contents of the file; names are unique."""

    templates: tuple[Template, ...]

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        names = [one.name for one in self.templates]
        if len(set(names)) < len(names):
            raise ValueError("two templates have one name")
        return self


def templates_for(modality: str | None, body_part: str | None) -> list[Template]:
    """The templates for a kind of study, in the order of the file."""
    return [one for one in _templates() if one.fits(modality, body_part)]


@cache
def _templates() -> tuple[Template, ...]:
    return Templates.from_yaml(resource_dir("configs") / FILE).templates
