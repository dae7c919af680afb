"""Every error medvlm raises on purpose, as one tree.

MedVLMError
├── InputError            something the caller handed in cannot be used
│   ├── InputNotFound     not_found
│   ├── NotDicom          not_dicom
│   ├── NoPixels          no_pixels
│   ├── TruncatedPixels   truncated_pixels
│   ├── Undecodable       undecodable
│   ├── UnsafeArchive     unsafe_archive
│   ├── TooLarge          too_large
│   ├── TooDeep           too_deep
│   ├── PriorRefused      prior_refused
│   ├── RefusedByPolicy   refused_by_policy
│   └── ServerError       server
├── ConfigError           config
├── DataSetError          data_set
├── DataCardError         data_card
├── CheckpointError       checkpoint
│   ├── BaseModelMissing  base_model_missing
│   └── PromotionRefused  promotion_refused
├── TrainingError         training
├── ReviewError           review
│   ├── NotAllowed        not_allowed
│   ├── StudyLocked       study_locked
│   ├── Stale             stale
│   ├── NotReady          not_ready
│   ├── AlreadySigned     already_signed
│   ├── WrongPin          wrong_pin
│   └── StoreError        store
├── ExportError           export
└── UsageError            usage (the command line exits 2)
    └── MissingExtra      missing_extra

A message says what is wrong, `file` which file it is about, `remedy` what to do about it.
"""

from __future__ import annotations


class MedVLMError(Exception):
    """Root of the tree.

    Args:
        message: what is wrong, one sentence for people.
        file: the file it is about, as the caller named it.
        remedy: what the caller can do, one sentence.
        code: a stable word for programs; left out, the class's own.
    """

    code: str = "error"

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        remedy: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.remedy = remedy
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        text = f"{self.file}: {self.message}" if self.file else self.message
        if not self.remedy:
            return text
        end = "" if text.endswith((".", "!", "?")) else "."
        return f"{text}{end} {self.remedy}"


class InputError(MedVLMError):
    """Something the caller handed in cannot be used; the other inputs are unharmed."""

    code = "input"


class InputNotFound(InputError):
    """The path does not exist or cannot be read."""

    code = "not_found"


class NotDicom(InputError):
    """Neither DICOM nor a picture this program reads."""

    code = "not_dicom"


class NoPixels(InputError):
    """DICOM without pixel data (a report, a directory, a presentation state)."""

    code = "no_pixels"


class TruncatedPixels(InputError):
    """The pixel data end too early."""

    code = "truncated_pixels"


class Undecodable(InputError):
    """The pixel data are there but no decoder makes an image of them."""

    code = "undecodable"


class UnsafeArchive(InputError):
    """A zip archive that points outside itself or is built to exhaust the machine."""

    code = "unsafe_archive"


class TooLarge(InputError):
    """A file, frame or archive beyond the size limits."""

    code = "too_large"


class TooDeep(InputError):
    """Folders or archives nested too deeply."""

    code = "too_deep"


class PriorRefused(InputError):
    """What was given as the prior study is another patient's, or no earlier study."""

    code = "prior_refused"


class RefusedByPolicy(InputError):
    """It may hold what identifies a patient where nothing here can find or remove it."""

    code = "refused_by_policy"


class ServerError(InputError):
    """A server or a storage does not answer, refuses, or answers what nobody can use."""

    code = "server"


class ConfigError(MedVLMError):
    """A configuration value is unknown, missing or contradicts another."""

    code = "config"


class DataSetError(MedVLMError):
    """A data set is missing or is not laid out as its card says."""

    code = "data_set"


class DataCardError(MedVLMError):
    """A data card is missing or incomplete."""

    code = "data_card"


class CheckpointError(MedVLMError):
    """A checkpoint is missing, damaged or does not fit the program."""

    code = "checkpoint"


class BaseModelMissing(CheckpointError):
    """The base language model is not installed."""

    code = "base_model_missing"


class PromotionRefused(CheckpointError):
    """A fine-tuned checkpoint failed a gate, or was changed since it was evaluated."""

    code = "promotion_refused"


class TrainingError(MedVLMError):
    """Training came to a point from which it cannot go on."""

    code = "training"


class ReviewError(MedVLMError):
    """The desk cannot do what was asked; nothing was changed."""

    code = "review"


class NotAllowed(ReviewError):
    """The person's role does not allow it."""

    code = "not_allowed"


class StudyLocked(ReviewError):
    """Somebody else reviews the study."""

    code = "study_locked"


class Stale(ReviewError):
    """The review was changed since it was last looked at."""

    code = "stale"


class NotReady(ReviewError):
    """The report has problems that must be settled before it is signed."""

    code = "not_ready"


class AlreadySigned(ReviewError):
    """A signed report is amended only by an addendum."""

    code = "already_signed"


class WrongPin(ReviewError):
    """The PIN is wrong, or was wrong too often."""

    code = "wrong_pin"


class StoreError(ReviewError):
    """The database or the folder of files cannot be used."""

    code = "store"


class ExportError(MedVLMError):
    """The report cannot be written in the form asked for."""

    code = "export"


class UsageError(MedVLMError):
    """The command was called wrongly; the command line exits 2."""

    code = "usage"


class MissingExtra(UsageError):
    """What was asked for needs an optional package that is not installed."""

    code = "missing_extra"
