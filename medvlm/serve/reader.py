"""What the model does for the service, behind an interface that a stand-in can have, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from medvlm.batch.key import run_key
from medvlm.dicom.study import Study
from medvlm.draft.answers import Answered, Asked, ImageKey, answer_many
from medvlm.draft.compose import draft_study
from medvlm.errors import MedVLMError, UsageError
from medvlm.image.load import ImageInput
from medvlm.model.checkpoint import Checkpoint
from medvlm.records import Draft
from medvlm.serve.seen import SeenLately

if TYPE_CHECKING:
    from medvlm.serve.metrics import Metrics


MOST_QUESTION_TOKENS = 512


class Reader(Protocol):
    """Answers questions and drafts studies. All but `known` is called by one thread."""

    @property
    def name(self) -> str:
        """The checkpoint's."""

    @property
    def fingerprint(self) -> str:
        """Changes with whatever changes a draft: program, checkpoint, policy."""

    def known(self, key: ImageKey) -> ImageInput | None:
        """An image that was asked about lately: it need not be decoded again."""

    def answer(self, asked: Sequence[Asked]) -> list[Answered | MedVLMError]:
        """Answers in order; an error stands where a question has none."""

    def draft(self, study: Study) -> Draft:
        """The study's draft. Raises InputError if none of its images can be decoded."""


class CheckpointReader:
    """A loaded checkpoint. `seen_bytes`: memory for what was seen of images."""

    def __init__(self, checkpoint: Checkpoint, metrics: Metrics, seen_bytes: int) -> None:
        self.checkpoint = checkpoint
        self._metrics = metrics
        self._seen = SeenLately(seen_bytes)

    @property
    def name(self) -> str:
        return self.checkpoint.config.name

    @property
    def fingerprint(self) -> str:
        return run_key(self.checkpoint)

    def known(self, key: ImageKey) -> ImageInput | None:
        seen = self._seen.get(key)
        return seen.image if seen is not None else None

    def answer(self, asked: Sequence[Asked]) -> list[Answered | MedVLMError]:
        for key in {one.key for one in asked}:
            self._metrics.images.labels("yes" if self.known(key) else "no").inc()
        short = [self._is_short(one.question) for one in asked]
        taken = [one for one, fits in zip(asked, short, strict=True) if fits]
        answers = iter(answer_many(self.checkpoint, taken, self._seen) if taken else [])
        self._metrics.seen_bytes.set(self._seen.bytes)
        return [next(answers) if fits else _too_long() for fits in short]

    def draft(self, study: Study) -> Draft:
        return draft_study(self.checkpoint, study).draft

    def _is_short(self, question: str) -> bool:
        return len(self.checkpoint.model.language.tokenize(question)) <= MOST_QUESTION_TOKENS


def _too_long() -> UsageError:
    return UsageError(
        f"the question has more than {MOST_QUESTION_TOKENS} tokens",
        remedy="ask in fewer words",
        code="question_too_long",
    )
