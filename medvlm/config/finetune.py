"""Configuration of fine-tuning at a site, and of what a checkpoint must show to be promoted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from medvlm.config.base import Config

Share = Annotated[float, Field(ge=0, le=1)]


class FinetunePhase(Config):
    """At most so many epochs, of at most so many `films` (None: all); 0 leaves the phase out."""

    epochs: int = Field(ge=0)
    learning_rate: float = Field(gt=0)
    films: int | None = Field(None, ge=1)


class FinetuneConfig(Config):
    """How a checkpoint is adapted to a site's studies.

    `heads`: the findings' classifiers over the frozen encoders. `text`: connector, probe and LoRA.
    `views`: versions of each film that are learned from, the film itself and random variants.
    `most_turns`: questions on a film in one step of `text`, beside the site's own sentences; 0 for
    all. `judged_films`: tuning films of the site, and of the retention sets, that `text` is judged
    by after an epoch.
    `encoder_stages`: how many of the first encoder's last stages are trained along with its heads.
    `rehearsal`: share of the samples that come from the retention sets' training patients;
    `retention_films`: how many validation films of each retention set are scored at most.
    `blends`: how far to go from the base's weights to the tuned ones; which of them is kept is
    chosen on tuning patients. `tuning`: share of the training patients kept aside for that choice
    and for calibration. `silence`: how often a finding that a report does not mention is taught as
    absent, else it is unknown. `patients_per_word`: a sentence of the site is only taught if each
    of its words is used in the reports of as many patients. `min_patients`, `min_positives`: fewer
    are too few to tell.
    """

    heads: FinetunePhase = FinetunePhase(epochs=40, learning_rate=1e-4)
    text: FinetunePhase = FinetunePhase(epochs=3, learning_rate=2e-4)
    batch_size: int = Field(8, ge=1)
    views: int = Field(2, ge=1)
    encoder_stages: int = Field(0, ge=0, le=5)
    rehearsal: Annotated[float, Field(ge=0, lt=1)] = 0.5
    retention_films: int = Field(200, ge=1)
    most_turns: int = Field(0, ge=0)
    judged_films: int = Field(40, ge=1)
    blends: tuple[Share, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    tuning: Annotated[float, Field(gt=0, lt=1)] = 0.25
    silence: Share = 0.1
    patients_per_word: int = Field(3, ge=1)
    min_patients: int = Field(10, ge=2)
    min_positives: int = Field(5, ge=1)
    weight_decay: float = Field(0.01, ge=0)
    seed: int = 0
    device: Literal["cpu", "cuda"] = "cpu"


class PromotionGates(Config):
    """What the stored evaluation must show; null switches a condition off.

    All but the first look at the site's validation patients unless they say otherwise; drops and
    gains are of AUROC, after minus before.

    Attributes:
        min_patients: validation patients.
        min_macro_auroc: mean over the findings with enough positives.
        min_gain: of the macro AUROC.
        max_likely_loss: how far the lower end of the gain's 95 % interval may lie under 0.
        max_finding_drop: of any finding with enough positives.
        max_subgroup_drop: of the macro AUROC of any subgroup (age, sex, view) that is large enough.
        max_retention_drop: of the macro AUROC on any retention set.
        max_retention_loss: rise of the log loss on any retention set, nats a label.
        max_ece: expected calibration error.
        retention_required: refuse where forgetting was not measured, instead of warning.
    """

    min_patients: int | None = Field(10, ge=1)
    min_macro_auroc: Share | None = 0.6
    min_gain: float | None = 0.0
    max_likely_loss: Share | None = 0.05
    max_finding_drop: Share | None = 0.1
    max_subgroup_drop: Share | None = 0.05
    max_retention_drop: Share | None = 0.03
    max_retention_loss: float | None = 0.1
    max_ece: Share | None = 0.15
    retention_required: bool = False
