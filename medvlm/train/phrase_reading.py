"""What words mean, fitted in closed form: the first layer of the phrase head."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from medvlm.draft.anatomy import PARTS, SIDES, Part
from medvlm.model.phrase_head import CHOICES, KINDS, Kind, PhraseHead
from medvlm.model.prompting import Prompter
from medvlm.train.phrase_words import OTHERS, Wording, taught_wordings

RIDGE, RIDGE_OF_WORDS = 0.3, 0.1
"""Chosen by leaving taught words out, opposites together."""


class Meaning(NamedTuple):
    """Of phrases."""

    kind: Kind
    part: Part


class Taught(NamedTuple):
    """Every phrase that is taught, as the language model reads it [N, D]; `own`: by meaning and by
    the word that carries it, the rows that have it."""

    wordings: list[Wording]
    read: Tensor
    own: dict[Meaning, dict[str, list[int]]]

    @classmethod
    def of(cls, language: Prompter) -> Taught:
        told = taught_wordings()
        own: dict[Meaning, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for i, wording in enumerate(told):
            own[Meaning(wording.kind, wording.part)][wording.word].append(i)
        return cls(told, language.phrases([wording.text for wording in told]), own)

    def drawn(self, meaning: Meaning, random: np.random.Generator) -> Tensor:
        """One phrase [D] with this meaning: a word, then a phrase with it."""
        words = list(self.own[meaning].values())
        rows = words[random.integers(len(words))]
        return self.read[rows[random.integers(len(rows))]]


def fit_choices(head: PhraseHead, taught: Taught) -> None:
    """Sets and freezes the head's choices: a ridge regression each onto the shares 0 and 1."""
    names, told = list(PARTS), taught.wordings
    labels = (
        [SIDES.index(own.part.side) for own in told],
        [names.index(own.part.name) for own in told],
        [KINDS.index(own.kind) for own in told],
    )
    fitted = [
        _ridge(taught.read, np.eye(count)[own], _weights(own, told), RIDGE)
        for own, count in zip(labels, CHOICES, strict=True)
    ]
    _set(head.choices, *map(np.concatenate, zip(*fitted, strict=True)))


def fit_familiarity(head: PhraseHead, taught: Taught, language: Prompter) -> None:
    """Sets and freezes what is near: the words of parts of the lungs, against others."""
    known = sorted({w for own in taught.wordings if own.kind == "part" for w in own.text.split()})
    others = sorted({w for other in OTHERS for w in other.split()})
    truth = np.array([1.0] * len(known) + [0.0] * len(others))
    weights = np.where(truth == 1, 0.5 / len(known), 0.5 / len(others))
    read = language.phrases([*known, *others])
    _set(head.near, *_ridge(read, truth[:, None], weights, RIDGE_OF_WORDS))


def _set(layer: nn.Linear, weight: np.ndarray, bias: np.ndarray) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
    layer.requires_grad_(False)


def _ridge(
    read: Tensor, truth: np.ndarray, weights: np.ndarray, ridge: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weights [K, D] and bias [K] from `read` [N, D] to `truth` [N, K]; `weights` [N] sum to 1."""
    x = read.double().numpy()
    mean, level = weights @ x, weights @ truth
    scale = np.sqrt(weights @ (x - mean) ** 2) + 1e-9
    z = (x - mean) / scale
    gram = (z * weights[:, None]).T @ z + ridge * np.eye(z.shape[1])
    slope = np.linalg.solve(gram, (z * weights[:, None]).T @ (truth - level)) / scale[:, None]
    return slope.T, level - mean @ slope


def _weights(labels: Sequence[int], wordings: Sequence[Wording]) -> np.ndarray:
    """[N], of sum 1: labels count the same within a kind, and so do a label's words."""
    groups: dict[tuple[int, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, (label, wording) in enumerate(zip(labels, wordings, strict=True)):
        groups[label, wording.kind][wording.word].append(i)
    weights = np.zeros(len(labels))
    for words in groups.values():
        for rows in words.values():
            weights[rows] = 1 / (len(groups) * len(words) * len(rows))
    return weights
