"""`medvlm compare`: trains and scores the variants of a comparison, each with several seeds.

A run that is complete is not run again, and one that was stopped goes on, so a comparison can take
many sittings. What is kept of a run is what its model said, without the data: to read it again, the
sets are needed. It carries keys of its configuration and its samples; those of others are refused.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from medvlm.config import PretrainConfig, TrainConfig
from medvlm.config.compare import CompareConfig, Variant
from medvlm.errors import CheckpointError
from medvlm.model.checkpoint import load_checkpoint
from medvlm.model.vision import VisionModel
from medvlm.train.align import align
from medvlm.train.begin import origin
from medvlm.train.films import FilmStore, load_sets
from medvlm.train.pretrain import WEIGHTS, pretrain
from medvlm.train.progress import run_key
from medvlm.train.scores import (
    Scores,
    language_scores,
    load_scores,
    samples,
    samples_digest,
    save_scores,
    vision_scores,
)

SCORES, COST, LOG = "scores.npz", "cost.json", "log.jsonl"


@dataclass(frozen=True)
class Run:
    """One variant with one seed: its scores, the samples that they are about, and its cost.

    `cost`: `seconds` of training, `parameters` that were trained, `tokens` per image.
    """

    variant: str
    seed: int
    scores: Scores
    cost: dict[str, float]


def runs(config: CompareConfig, llm_path: Path | None = None) -> Iterator[Run]:
    """Every run of the comparison, seed by seed, so that a stopped one has whole rounds.

    Raises CheckpointError if a folder holds the scores of another configuration.
    """
    sets = _Sets(config)
    for seed in config.seeds:
        for variant in config.variants:
            yield _run(config, variant, seed, sets, llm_path)


def finished(config: CompareConfig) -> list[Run]:
    """The runs that are complete."""
    pairs = [(variant, seed) for seed in config.seeds for variant in config.variants]
    done = [pair for pair in pairs if (config.folder(*pair) / COST).is_file()]
    if not done:
        return []
    sets = _Sets(config)
    return [_read(config, *pair, sets) for pair in done]


class _Sets:
    """What the runs are scored on: the same for all."""

    def __init__(self, config: CompareConfig) -> None:
        first = config.variants[0], config.seeds[0]
        stages = config.pretraining(*first), config.training(*first)
        data = [stage.data for stage in stages if stage is not None]
        # Alignment may use sets that pretraining does not, and is scored on them.
        kinds = {kind: count for own in data for kind, count in own.per_epoch.items()}
        sets = load_sets(data[0].model_copy(update={"per_epoch": kinds}))
        self.store = FilmStore.build(sets, data[0].cache)
        self.questions = [question for data in sets for question in data.questions]
        self.samples = samples(self.store, self.questions, config.films)
        self.digest = samples_digest(self.samples)


def _run(
    config: CompareConfig, variant: Variant, seed: int, sets: _Sets, llm_path: Path | None
) -> Run:
    folder = config.folder(variant, seed)
    if (folder / COST).is_file():
        return _read(config, variant, seed, sets)
    folder.mkdir(parents=True, exist_ok=True)
    scores: Scores = {}
    cost: dict[str, float] = {}
    if (first := config.pretraining(variant, seed)) is not None:
        own, spent = _pretrained(first, sets, config.films, llm_path)
        scores |= own
        cost |= spent
    if (second := config.training(variant, seed)) is not None:
        own, spent = _aligned(second, sets, config.films, llm_path)
        scores |= own
        cost = {name: cost.get(name, 0) + value for name, value in spent.items()}
    save_scores(folder / SCORES, scores)
    cost_file = {"key": _key(config, variant, seed), "samples": sets.digest, **cost}
    # Last, since it says that the run is complete.
    (folder / COST).write_text(json.dumps(cost_file, indent=2) + "\n", encoding="utf-8")
    # What was learned is not kept: a comparison of twenty runs would fill the disk.
    shutil.rmtree(config.workshop(variant, seed), ignore_errors=True)
    return _read(config, variant, seed, sets)


def _read(config: CompareConfig, variant: Variant, seed: int, sets: _Sets) -> Run:
    folder = config.folder(variant, seed)
    cost = json.loads((folder / COST).read_text(encoding="utf-8"))
    if cost.pop("key") != _key(config, variant, seed):
        raise CheckpointError(
            "holds the scores of another configuration",
            file=str(folder),
            remedy="remove the folder, or give this comparison another `out`",
        )
    if cost.pop("samples") != sets.digest:
        raise CheckpointError(
            "holds the scores of other films or labels",
            file=str(folder),
            remedy="give the sets that it was scored on, or remove the folder",
        )
    return Run(variant.name, seed, sets.samples | load_scores(folder / SCORES), cost)


def _key(config: CompareConfig, variant: Variant, seed: int) -> str:
    first, second = config.pretraining(variant, seed), config.training(variant, seed)
    keys = [] if first is None else [run_key(first, str(config.films))]
    if second is not None:
        # A given encoder is named by its weights: a checkpoint's name may come to mean others.
        given = () if first is not None else (origin(second),)
        keys.append(run_key(second, str(config.films), *given))
    return "-".join(key[:32] for key in keys)


def _pretrained(
    config: PretrainConfig, sets: _Sets, films: int, llm_path: Path | None
) -> tuple[Scores, dict[str, float]]:
    folder = pretrain(config, llm_path)
    model = VisionModel(config.encoder)
    model.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    parameters = sum(p.numel() for p in model.parameters())
    cost = {"seconds": _seconds(config.out), "parameters": parameters, "tokens": 0}
    return vision_scores(model, sets.store, films), cost


def _aligned(
    config: TrainConfig, sets: _Sets, films: int, llm_path: Path | None
) -> tuple[Scores, dict[str, float]]:
    folder = align(config, "compared", "0", llm_path)
    model = load_checkpoint(str(folder), llm_path).model
    trained = [*model.connector.parameters(), *model.learner.adapter_parameters().values()]
    size = config.model.encoder.size
    with torch.no_grad():
        tokens = model.glimpse(torch.zeros(1, 1, size, size)).tokens.shape[1]
    cost = {
        "seconds": _seconds(config.out),
        "parameters": sum(p.numel() for p in trained),
        "tokens": tokens,
    }
    return language_scores(model, sets.store, sets.questions, films), cost


def _seconds(folder: Path) -> float:
    """The seconds that training took, over all sittings."""
    last = (folder / LOG).read_text(encoding="utf-8").splitlines()[-1]
    return float(json.loads(last)["seconds"])
