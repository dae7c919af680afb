"""`medvlm compare`: trains and scores the variants of a comparison, each with several seeds.

A run that is complete is not run again, and one that was stopped goes on, so a comparison can take
many sittings. A run's scores carry the key of its configuration: scores of another one are refused.
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
from medvlm.train.films import FilmStore, load_sets
from medvlm.train.pretrain import WEIGHTS, pretrain
from medvlm.train.progress import run_key
from medvlm.train.scores import Scores, language_scores, load_scores, save_scores, vision_scores

SCORES, COST, LOG = "scores.npz", "cost.json", "log.jsonl"


@dataclass(frozen=True)
class Run:
    """One variant with one seed, and what it cost.

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
    for seed in config.seeds:
        for variant in config.variants:
            yield _run(config, variant, seed, llm_path)


def finished(config: CompareConfig) -> list[Run]:
    """The runs that are complete."""
    pairs = [(variant, seed) for seed in config.seeds for variant in config.variants]
    return [
        _read(config, variant, seed)
        for variant, seed in pairs
        if (config.folder(variant, seed) / COST).is_file()
    ]


def _run(config: CompareConfig, variant: Variant, seed: int, llm_path: Path | None) -> Run:
    folder = config.folder(variant, seed)
    if (folder / COST).is_file():
        return _read(config, variant, seed)
    folder.mkdir(parents=True, exist_ok=True)
    scores: Scores = {}
    cost: dict[str, float] = {}
    if (first := config.pretraining(variant, seed)) is not None:
        own, spent = _pretrained(first, config.films)
        scores |= own
        cost |= spent
    if (second := config.training(variant, seed)) is not None:
        own, spent = _aligned(second, config.films, llm_path)
        scores |= own
        cost = {name: cost.get(name, 0) + value for name, value in spent.items()}
    save_scores(folder / SCORES, scores)
    cost_file = {"key": _key(config, variant, seed), **cost}
    # Last, since it says that the run is complete.
    (folder / COST).write_text(json.dumps(cost_file, indent=2) + "\n", encoding="utf-8")
    # What was learned is not kept: a comparison of twenty runs would fill the disk.
    shutil.rmtree(config.workshop(variant, seed), ignore_errors=True)
    return _read(config, variant, seed)


def _read(config: CompareConfig, variant: Variant, seed: int) -> Run:
    folder = config.folder(variant, seed)
    cost = json.loads((folder / COST).read_text(encoding="utf-8"))
    if cost.pop("key") != _key(config, variant, seed):
        raise CheckpointError(
            "holds the scores of another configuration",
            file=str(folder),
            remedy="remove the folder, or give this comparison another `out`",
        )
    return Run(variant.name, seed, load_scores(folder / SCORES), cost)


def _key(config: CompareConfig, variant: Variant, seed: int) -> str:
    own = (config.pretraining(variant, seed), config.training(variant, seed))
    return "-".join(run_key(stage, str(config.films))[:32] for stage in own if stage is not None)


def _pretrained(config: PretrainConfig, films: int) -> tuple[Scores, dict[str, float]]:
    folder = pretrain(config)
    model = VisionModel(config.encoder)
    model.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    store = FilmStore.build(load_sets(config.data), config.data.cache)
    parameters = sum(p.numel() for p in model.parameters())
    cost = {"seconds": _seconds(config.out), "parameters": parameters, "tokens": 0}
    return vision_scores(model, store, films), cost


def _aligned(
    config: TrainConfig, films: int, llm_path: Path | None
) -> tuple[Scores, dict[str, float]]:
    folder = align(config, "compared", "0", llm_path)
    model = load_checkpoint(str(folder), llm_path).model
    sets = load_sets(config.data)
    store = FilmStore.build(sets, config.data.cache)
    questions = [question for data in sets for question in data.questions]
    trained = [*model.connector.parameters(), *model.language.adapter_parameters().values()]
    size = config.model.encoder.size
    with torch.no_grad():
        tokens = model.glimpse(torch.zeros(1, 1, size, size)).tokens.shape[1]
    cost = {
        "seconds": _seconds(config.out),
        "parameters": sum(p.numel() for p in trained),
        "tokens": tokens,
    }
    return language_scores(model, store, questions, films), cost


def _seconds(folder: Path) -> float:
    """The seconds that training took, over all sittings."""
    last = (folder / LOG).read_text(encoding="utf-8").splitlines()[-1]
    return float(json.loads(last)["seconds"])
