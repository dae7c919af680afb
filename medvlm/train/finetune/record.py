"""`evaluation.json`: what a fine-tuned checkpoint was before and after, on which patients.

It lies in the candidate's folder and is what promotion judges. It holds counts, figures and hashes,
and nothing about a single patient.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

EVALUATION = "evaluation.json"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Figure(_Strict):
    """One figure before and after, with 95 % intervals by patient; None where it is undefined.

    `change` is after minus before on the same patients, its interval from the same resamples.
    """

    before: float | None
    after: float | None
    change: float | None
    change_ci: tuple[float, float] | None


class FindingFigures(_Strict):
    """One finding's AUROC; `denied`: negatives that a report names; `enough`: it is in the mean."""

    positives: int
    negatives: int
    denied: int
    enough: bool
    auroc: Figure


class Part(_Strict):
    """Both checkpoints on one group of films.

    `enough`: there are enough patients to tell. `macro_auroc`: over the findings with enough
    positives and negatives; `mentioned_auroc`: the same among films whose report mentions the
    finding; `language_auroc`: of the language model's own yes and no. `ece`, `brier`, `log_loss`:
    over all known (film, finding) pairs. `stated_f1`: of the findings that a draft would state as
    present. But for `mentioned_auroc`, what a report does not mention counts as absent.
    """

    name: str
    patients: int
    films: int
    enough: bool
    macro_auroc: Figure
    mentioned_auroc: Figure
    language_auroc: Figure
    ece: Figure
    brier: Figure
    log_loss: Figure
    stated_f1: Figure
    findings: dict[str, FindingFigures] = Field(default_factory=dict)


class Identity(_Strict):
    """A checkpoint; `config_sha256` is that of its config.yaml."""

    name: str
    version: str
    weights_sha256: str
    config_sha256: str


class SiteData(_Strict):
    """What was learned from: counts and hashes.

    `data_sha256`: of the prepared set; `split_sha256`: of which patient is on which side; `key_id`:
    names the key of the pseudonyms, without which the split of two runs cannot be compared.
    """

    data_sha256: str
    split_sha256: str
    key_id: str
    patients: dict[Annotated[str, Field(pattern="^(training|tuning|validation)$")], int]
    films: dict[str, int]
    labels: dict[str, dict[str, int]]
    boxes: int
    sentences: int


class Evaluation(_Strict):
    """The whole record; an empty `retention` means that forgetting was not measured.

    `warnings`: what the figures do not show, for whoever promotes.
    """

    schema_version: Literal["1.0"] = "1.0"
    base: Identity
    candidate: Identity
    site: SiteData
    blend: dict[str, float]
    min_patients: int
    min_positives: int
    validation: Part
    subgroups: tuple[Part, ...]
    retention: tuple[Part, ...]
    retention_subgroups: tuple[Part, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float
