"""What the drafting process asks of a model, and the real model behind it.

torch is imported when the first draft is made, and only in that process.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from medvlm.config.policy import site_policy
from medvlm.dicom.instance import Instance
from medvlm.dicom.prior import Prior
from medvlm.dicom.study import Study
from medvlm.records import Answer, Draft, Region

if TYPE_CHECKING:
    from medvlm.image.polygon import Drawn
    from medvlm.model.checkpoint import Checkpoint

Tell = Callable[[float], None]  # takes the progress, 0..1

_NEEDED = ("torch", "torchvision", "timm", "transformers", "peft")


def model_available() -> bool:
    """Whether a model can be loaded here. Imports nothing."""
    return all(_is_there(name) for name in _NEEDED)


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


class Drafter(Protocol):
    """Drafts studies and answers questions; a stand-in for tests has the same two functions."""

    def draft(self, study: Study, prior: Prior | None, tell: Tell) -> Draft:
        """Raises MedVLMError."""

    def answer(
        self,
        image: Instance,
        frame: int,
        question: str,
        region: Region | None,
        study: Study,
        prior: Prior | None,
    ) -> Answer:
        """Raises MedVLMError."""


class ModelDrafter:
    """The checkpoint in use, under the site's policy; loaded for the first job."""

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """Raises CheckpointError, ConfigError."""
        from medvlm.draft.policy import under_policy
        from medvlm.model.runtime.load import load_ready

        return under_policy(load_ready(), site_policy())

    def draft(self, study: Study, prior: Prior | None, tell: Tell) -> Draft:
        """As `medvlm draft` does."""
        from medvlm.draft.compose import draft_study

        checkpoint = self.checkpoint
        tell(0.3)
        return draft_study(checkpoint, study, prior).draft

    def answer(
        self,
        image: Instance,
        frame: int,
        question: str,
        region: Region | None,
        study: Study,
        prior: Prior | None,
    ) -> Answer:
        """As `medvlm ask` does."""
        from medvlm.draft.answer import answer_question
        from medvlm.image.load import load_image

        checkpoint = self.checkpoint
        return answer_question(
            checkpoint, load_image(image, frame), question, _drawn(region), study=study, prior=prior
        )


def _drawn(region: Region | None) -> Drawn | None:
    from medvlm.image.geometry import Box
    from medvlm.image.polygon import Polygon

    if region is None:
        return None
    if region.polygon:
        return Polygon(tuple(region.polygon))
    return Box(region.x, region.y, region.width, region.height)
