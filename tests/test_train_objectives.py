"""Learning without labels, from words, and what the encoder is found to know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medvlm.config import LanguageConfig
from medvlm.data.sets import load_set
from medvlm.draft.parse import parse_sentence
from medvlm.findings import FINDINGS
from medvlm.model.llm_source import weights_digest
from medvlm.model.vision import VisionModel
from medvlm.train import watch_vision
from medvlm.train.contrast import ABSENT, KINDS, Captions, Contrastive, embed_sentences, meaning
from medvlm.train.films import FilmStore, load_sets
from medvlm.train.lesson import Chunk
from medvlm.train.simsiam import WIDTH, _distance, spread
from tests.sets import pack
from tests.tiny import TINY
from tests.training import data_config, pretrain_config


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="module")
def store(data: Path, tmp_path_factory: pytest.TempPathFactory) -> FilmStore:
    folder = tmp_path_factory.mktemp("cache")
    return FilmStore.build(load_sets(data_config(data, folder)), folder)


@pytest.mark.parametrize("name", ["nih_cxr", "kermany_cxr", "vqa_rad"])
def test_captions_are_true_of_their_film(data: Path, name: str) -> None:
    captions, films = Captions(), load_set(data / name).films
    for number, film in enumerate(films):
        said = [captions.sentences[i] for i in captions.draw(film, np.random.default_rng(number))]
        assert said[0] in KINDS.values()
        claims = {claim.finding: claim.polarity for text in said for claim in parse_sentence(text)}
        present = {name for name, value in zip(FINDINGS, film.findings, strict=True) if value == 1}
        assert {name for name, polarity in claims.items() if polarity == "present"} == present
        absent = {name for name, polarity in claims.items() if polarity == "absent"}
        assert all(film.findings[FINDINGS.index(name)] == 0 for name in absent)
        assert len(absent) <= ABSENT


def test_films_of_the_same_meaning_are_no_negatives(
    data: Path, tmp_path: Path, store: FilmStore, tiny_language: Path
) -> None:
    config = pretrain_config(
        data, tmp_path, objective="contrastive", language=LanguageConfig(base=str(tiny_language))
    )
    lesson = Contrastive(config, VisionModel(config.encoder), store, tiny_language)
    assert lesson.key == weights_digest(tiny_language)
    rows = np.arange(8)
    pairs = lesson.prepare(Chunk(rows, rows, epoch=0, seed=0), 0)
    means = [meaning(store.films[row]) for row in rows]
    assert 1 < len(set(means)) < 8
    for i, one in enumerate(means):
        alike = [one == other for other in means]
        torch.testing.assert_close(pairs.shared[i], torch.tensor(alike).float() / sum(alike))


def test_sentences_are_told_apart(tiny_language: Path) -> None:
    sentences = Captions().sentences
    table = embed_sentences(sentences, tiny_language)
    assert table.shape == (len(sentences), 32)
    torch.testing.assert_close(table.mean(dim=0), torch.zeros(32), atol=1e-5, rtol=0)
    assert len({tuple(row.tolist()) for row in table}) == len(set(sentences))


def test_no_gradient_reaches_the_target() -> None:
    guess, target = (torch.randn(4, 8, requires_grad=True) for _ in range(2))
    _distance(guess, target).backward()
    assert guess.grad is not None
    assert target.grad is None
    assert _distance(target, target).item() == pytest.approx(-1)


def test_spread_tells_a_collapse() -> None:
    apart = torch.randn(256, WIDTH, generator=torch.Generator().manual_seed(0))
    assert spread(apart).item() == pytest.approx(1, abs=0.02)
    assert spread(apart[:1].expand(256, -1)).item() == pytest.approx(0, abs=1e-3)


def test_the_probe_finds_what_is_in_the_features(
    store: FilmStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(model: object, store: FilmStore, rows: np.ndarray, size: int) -> np.ndarray:
        noise = np.random.default_rng(0).normal(size=(len(rows), 4))
        return np.concatenate([store.findings[rows, :14].numpy(), noise], axis=1)

    monkeypatch.setattr(watch_vision, "_pooled", planted)
    monkeypatch.setattr(watch_vision, "LEAST_POSITIVES", 1)
    model = VisionModel(TINY.encoder)
    found = watch_vision.linear_probe(model, store, 64, "validation")
    assert found["probe_macro"] > 0.95
