"""What every engine takes and gives: parcels in, outcomes out."""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from medvlm.batch.outcome import Outcome
from medvlm.batch.parcel import Parcel
from medvlm.batch.prepare import Sending
from medvlm.batch.results import ResultFolder
from medvlm.config.policy import NO_POLICY, PolicyConfig

if TYPE_CHECKING:
    from medvlm.model.checkpoint import Checkpoint

DEVICE = "MEDVLM_DEVICE"


@dataclass(frozen=True)
class Settings:
    """How a run drafts. Can be pickled.

    Attributes:
        checkpoint: its name or folder; None as `load_ready` takes it.
        llm_path: the language model's folder or file.
        total: how many parcels there are, where that is known.
        workers: how many model processes; None: as many as fit.
        device: "auto", "cpu", "cuda" or "cuda:N".
        send: where drafts go as preliminary reports; None: nowhere.
        run: names this run.
    """

    out: Path
    checkpoint: str | None = None
    llm_path: Path | None = None
    policy: PolicyConfig = NO_POLICY
    retry_failed: bool = False
    total: int | None = None
    workers: int | None = None
    device: str = "auto"
    send: Sending | None = None
    run: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def results(self) -> ResultFolder:
        """Where the run writes."""
        return ResultFolder(self.out, self.run)

    def load(self) -> Checkpoint:
        """The checkpoint under the site's policy, in this process. Raises MedVLMError."""
        from medvlm.draft.policy import under_policy
        from medvlm.model.runtime.load import load_ready

        return under_policy(load_ready(self.checkpoint, self.llm_path), self.policy)


class Engine(Protocol):
    """Runs `medvlm.batch.drafting` somewhere."""

    def run(self, parcels: Iterator[Parcel], settings: Settings) -> Generator[list[Outcome]]:
        """The outcomes of each parcel, in any order, as they come; parcels are taken lazily.

        Closed early, it ends what it started.

        Raises MedVLMError if the model cannot be loaded or nothing more can be written.
        """
