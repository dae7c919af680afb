"""What a draft was made from, as one sha256: a draft whose key is the same is not made again."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from medvlm import __version__
from medvlm.dicom.prior import Prior
from medvlm.dicom.study import Study

if TYPE_CHECKING:
    from medvlm.model.checkpoint import Checkpoint


def run_key(checkpoint: Checkpoint) -> str:
    """What all drafts of a run share: medvlm's version, the checkpoint with its weights' sha256 and
    prompt version, the site's policy, and how the model is run.
    """
    parts = [__version__, checkpoint.config.model_dump_json(), checkpoint.policy.model_dump_json()]
    return _digest([*parts, checkpoint.runtime])


def draft_key(run: str, study: Study, prior: Prior | None) -> str:
    """The run's key and the content of the study's files, and of its prior's.

    Raises InputNotFound, TooLarge if a file cannot be read.
    """
    parts = [run, *sorted(instance.sha256 for instance in study.instances)]
    if prior is not None:
        parts += ["prior", *sorted(instance.sha256 for instance in prior.study.instances)]
    return _digest(parts)


def parcel_key(run: str, mark: str) -> str:
    """The run's key and a parcel's mark, or its name where it has none."""
    return _digest([run, mark])


def name_mark(name: str) -> str:
    """A short name made from one that may hold what nobody should read."""
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:16]


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()
