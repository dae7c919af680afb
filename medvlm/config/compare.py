"""Configuration of a comparison: variants that differ in what is compared and in nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from medvlm.config.base import Config
from medvlm.config.train import PretrainConfig, TrainConfig

NAME = r"^[a-z0-9][a-z0-9_.-]*$"


class Variant(Config):
    """One of the systems compared.

    `pretrain`, `train`: what it changes in the comparison's own, key by key. `series`, `x`: the
    curve it belongs to and its place on it, where curves are drawn.
    """

    name: str = Field(pattern=NAME)
    series: str = ""
    x: float | None = None
    pretrain: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)


class CompareConfig(Config):
    """Variants trained at equal budget with several seeds, then scored on the validation patients.

    `factors`: the options that may differ, such as `train.model.connector`; a variant that touches
    another is refused. `reference`: the variant that the others are held against. `pretrain`: the
    contents of a PretrainConfig, without `out` and `seed`; None where a given encoder is used.
    `train`: those of a TrainConfig; None where no language model is compared; `vision` is the
    variant's own encoder where `pretrain` is given. `films`: at most so many validation films are
    asked about. `x_label`: what the variants' `x` is. `out`: where finished runs leave their
    scores, which are small and may be kept; `work`: where models lie while they are trained.
    """

    name: str = Field(pattern=NAME)
    title: str
    out: Path
    work: Path = Path("runs/compare")
    factors: tuple[str, ...] = Field(min_length=1)
    reference: str
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    pretrain: dict[str, Any] | None = None
    train: dict[str, Any] | None = None
    variants: tuple[Variant, ...] = Field(min_length=2)
    films: int = Field(1000, ge=1)
    x_label: str = ""

    @model_validator(mode="after")
    def _one_thing_at_a_time(self) -> Self:
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names):
            raise ValueError("variants: two have the same name")
        if self.reference not in names:
            raise ValueError(f"reference: no variant is called {self.reference}")
        if self.pretrain is None and self.train is None:
            raise ValueError("pretrain, train: one of them is needed")
        for variant in self.variants:
            touched = [*_paths(variant.pretrain, "pretrain"), *_paths(variant.train, "train")]
            for path in touched:
                if not any(f"{path}.".startswith(f"{factor}.") for factor in self.factors):
                    raise ValueError(f"variants.{variant.name}: {path} is not among the factors")
            for stage in ("pretrain", "train"):
                if getattr(variant, stage) and getattr(self, stage) is None:
                    raise ValueError(f"variants.{variant.name}: {stage} is not compared here")
            self.pretraining(variant, self.seeds[0])
            self.training(variant, self.seeds[0])
        return self

    def folder(self, variant: Variant, seed: int) -> Path:
        """Where one run leaves its results."""
        return self.out / variant.name / f"seed-{seed}"

    def workshop(self, variant: Variant, seed: int) -> Path:
        """Where one run is trained."""
        return self.work / self.out.name / variant.name / f"seed-{seed}"

    def pretraining(self, variant: Variant, seed: int) -> PretrainConfig | None:
        """The encoder pretraining of one run. Raises ValueError for what is no configuration."""
        if self.pretrain is None:
            return None
        own = merged(self.pretrain, variant.pretrain)
        out = self.workshop(variant, seed) / "pretrain"
        return PretrainConfig.model_validate(own | {"out": out, "seed": seed})

    def training(self, variant: Variant, seed: int) -> TrainConfig | None:
        """The alignment of one run. Raises ValueError for what is no configuration."""
        if self.train is None:
            return None
        own = merged(self.train, variant.train)
        if (encoder := self.pretraining(variant, seed)) is not None:
            model = merged(own.get("model", {}), {"encoder": encoder.encoder.model_dump()})
            own = own | {"vision": encoder.out, "model": model}
        out = self.workshop(variant, seed) / "train"
        return TrainConfig.model_validate(own | {"out": out, "seed": seed})


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, mapping by mapping."""
    out = dict(base)
    for key, value in changes.items():
        own = out.get(key)
        both = isinstance(own, Mapping) and isinstance(value, Mapping)
        out[key] = merged(own, value) if both else value  # type: ignore[arg-type]
    return out


def _paths(changes: Mapping[str, Any], prefix: str) -> list[str]:
    """The options that `changes` touches, dotted."""
    paths = []
    for key, value in changes.items():
        own = f"{prefix}.{key}"
        paths += _paths(value, own) if isinstance(value, Mapping) and value else [own]
    return paths
