"""Greedy answers to many questions at once, with guesses that cost nothing when they are wrong.

Questions over one picture are branches of one tree (`medvlm.model.tree`): the picture is read once,
and no branch sees another. Where a caller can guess what an answer will be (a report's sentences
have few wordings), all tokens of the guesses are read in one pass, as branches of the branch, and
the answer follows the greedy choice through them for as long as they agree with it. So an answer is
the one that greedy decoding gives token by token, in a few passes instead of one for each token:
speculative decoding (Leviathan et al., ICML 2023) over a tree of guesses (Miao et al., "SpecInfer",
ASPLOS 2024), without a second model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Embed = Callable[[Sequence[int]], Tensor]
Visible = NDArray[np.bool_]


class Forward(Protocol):
    """A forward pass of a language model that remembers what it has read.

    Each call adds L tokens to each of B rows: `embeddings` [B, L, D], `positions` [B, L],
    `visible` [B, L, P + L] (bool; token attends to token, P of them from earlier calls). Returns
    the logits [N, vocabulary] at `wanted` [N], which counts through the rows: row * L + column.
    """

    def begin(self, trunk: Tensor) -> bool:
        """Reads a trunk [T, D] as the only row, or remembers it; False: it must be given again."""

    def __call__(
        self, embeddings: Tensor, positions: Tensor, visible: Tensor, wanted: Tensor
    ) -> Tensor: ...


class Question(NamedTuple):
    """`prompt` [T, D] follows picture number `trunk`; `guesses`: token ids, the end among them."""

    trunk: int
    prompt: Tensor
    guesses: Sequence[Sequence[int]] = ()


@dataclass
class _Branch:
    """An answer on its way: `ids` so far, the next position, and the tokens that it sees."""

    row: int
    position: int
    seen: list[int]
    guesses: list[Sequence[int]]
    ids: list[int] = field(default_factory=list)
    done: bool = False


@torch.no_grad()
def decode(
    forward: Forward,
    embed: Embed,
    trunks: Sequence[Tensor],
    questions: Sequence[Question],
    end: int,
    max_tokens: int,
) -> list[list[int]]:
    """The token ids of each answer, without its `end`, at most `max_tokens`.

    Args:
        forward: that has read nothing yet.
        embed: embeddings [T, D] of token ids.
        trunks: embeddings [T, D] of each prompt's beginning, up to the question.
        questions: in any order; each names its trunk.
        end: the token that ends an answer.
    """
    branches, first, read = _read_prompts(forward, trunks, questions)
    for branch, token in zip(branches, first, strict=True):
        _accept(branch, token, end, max_tokens)
    while going := [branch for branch in branches if not branch.done]:
        read = _step(forward, embed, going, len(trunks), read, end, max_tokens)
    return [branch.ids for branch in branches]


def _read_prompts(
    forward: Forward, trunks: Sequence[Tensor], questions: Sequence[Question]
) -> tuple[list[_Branch], list[int], int]:
    """Reads trunks and prompts: the branches, each one's first token, how much of a row is read."""
    known = len(trunks[0]) if len(trunks) == 1 and forward.begin(trunks[0]) else 0
    lengths = [0 if known else len(trunk) for trunk in trunks]
    for question in questions:
        lengths[question.trunk] += len(question.prompt)
    batch = _Batch(len(trunks), known, max(lengths), trunks[0])
    if not known:
        for row, embeddings in enumerate(trunks):
            batch.add(row, embeddings, 0, [])
    branches: list[_Branch] = []
    last: list[int] = []
    for question in questions:
        trunk = list(range(len(trunks[question.trunk])))
        columns = batch.add(question.trunk, question.prompt, len(trunk), trunk)
        start = len(trunk) + len(question.prompt)
        seen = trunk + [known + column for column in columns]
        branches.append(_Branch(question.trunk, start, seen, list(question.guesses)))
        last.append(question.trunk * batch.length + columns[-1])
    first = [int(i) for i in batch.read(forward, last).argmax(dim=1)]
    return branches, first, known + batch.length


def _step(
    forward: Forward,
    embed: Embed,
    going: Sequence[_Branch],
    rows: int,
    read: int,
    end: int,
    max_tokens: int,
) -> int:
    """One pass for all branches that go on; returns how many tokens of each row are read now."""
    tries = [_lay_guesses(branch, end) for branch in going]
    used = [0] * rows
    for branch, nodes in zip(going, tries, strict=True):
        used[branch.row] += len(nodes)
    batch = _Batch(rows, read, max(used), embed(going[0].ids[-1:]))
    wanted: list[int] = []
    roots: list[tuple[int, list[int]]] = []
    for branch, nodes in zip(going, tries, strict=True):
        columns: list[int] = []
        for token, depth, parents in nodes:
            seen = branch.seen + [read + columns[parent] for parent in parents]
            columns += batch.add(branch.row, embed([token]), branch.position + depth, seen)
        roots.append((len(wanted), columns))
        wanted += [branch.row * batch.length + column for column in columns]
    best = batch.read(forward, wanted).argmax(dim=1).tolist()
    for branch, nodes, (start, columns) in zip(going, tries, roots, strict=True):
        at = 0
        while not branch.done:
            branch.seen.append(read + columns[at])
            branch.position += 1
            token = best[start + at]
            _accept(branch, token, end, max_tokens)
            follower = _follower(nodes, at, token)
            if follower is None:
                break
            at = follower
    return read + batch.length


_Guess = tuple[int, int, list[int]]
"""A token, how deep it lies, and the numbers of those before it in its guess."""


def _lay_guesses(branch: _Branch, end: int) -> list[_Guess]:
    """The last token of the answer, and below it the rest of every guess that begins like it."""
    nodes: list[_Guess] = [(branch.ids[-1], 0, [])]
    known: dict[tuple[int, ...], int] = {}
    so_far = len(branch.ids)
    branch.guesses = [own for own in branch.guesses if list(own[:so_far]) == branch.ids]
    for guess in branch.guesses:
        rest, parents = tuple(guess[so_far:]), [0]
        for depth, token in enumerate(rest, 1):
            if token == end:
                break
            if rest[:depth] not in known:
                known[rest[:depth]] = len(nodes)
                nodes.append((token, depth, list(parents)))
            parents.append(known[rest[:depth]])
    return nodes


def _follower(nodes: Sequence[_Guess], at: int, token: int) -> int | None:
    """The number of the node that guessed `token` after node `at`."""
    for number, (own, _, parents) in enumerate(nodes):
        if own == token and parents and parents[-1] == at:
            return number
    return None


def _accept(branch: _Branch, token: int, end: int, max_tokens: int) -> None:
    if token == end:
        branch.done = True
        return
    branch.ids.append(token)
    branch.done = len(branch.ids) == max_tokens


class _Batch:
    """The tokens of one pass: rows are filled from the left, and what is left over sees itself."""

    def __init__(self, rows: int, read: int, length: int, like: Tensor) -> None:
        self.length, self.read_before = length, read
        self.embeddings = like.new_zeros(rows, length, like.shape[1])
        self.positions = torch.zeros(rows, length, dtype=torch.long)
        self.visible: Visible = np.zeros((rows, length, read + length), dtype=np.bool_)
        self.visible[:, range(length), range(read, read + length)] = True
        self.used = [0] * rows

    def add(self, row: int, embeddings: Tensor, position: int, seen: Sequence[int]) -> list[int]:
        """Adds tokens [T, D] from `position` on, each seeing `seen` and those before it.

        Returns their columns in this pass.
        """
        start, count = self.used[row], len(embeddings)
        columns = list(range(start, start + count))
        self.embeddings[row, start : start + count] = embeddings
        self.positions[row, start : start + count] = torch.arange(position, position + count)
        own = self.visible[row, start : start + count]
        own[:, list(seen)] = True
        first = self.read_before + start
        own[:, first : first + count] = np.tril(np.ones((count, count), dtype=np.bool_))
        self.used[row] += count
        return columns

    def read(self, forward: Forward, wanted: Sequence[int]) -> Tensor:
        """The logits [N, vocabulary] at the places `wanted`."""
        visible = torch.from_numpy(self.visible)
        return forward(self.embeddings, self.positions, visible, torch.tensor(wanted))


def buckets(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Rows in batches of at most `most` tokens with their padding, rows of like length together."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    batch: list[int] = []
    for number in order:
        if batch and lengths[number] * (len(batch) + 1) > most:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
