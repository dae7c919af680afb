"""Several pictures before one question: what each is called, and where each token comes from.

A picture is what the encoder sees at once: a view of the current study, one of an earlier study, a
tile of a view in full resolution, a slice of a volume, or a whole volume where the encoder is 3-D.
The language model is told which is which in plain words, through its own embeddings. One current
picture alone has no words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from medvlm.config import ModelConfig
from medvlm.model.connectors import Cell

Role = Literal["view", "prior", "tile", "slice"]
WHOLE = Cell(0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Picture:
    """What one picture is.

    `number`: of the view, the prior view or the slice, from 0; of a tile, its view's. `tile`: its
    row and column, from 0.
    """

    role: Role = "view"
    number: int = 0
    tile: tuple[int, int] = (0, 0)


class Sight(NamedTuple):
    """Pictures as the language model sees them, row by row.

    `tokens` [P, N, D] and `local` [P, C, (D,) H, W] of P pictures. `rows`: for each row of a batch,
    its pictures in order, each by its index among the P and what it is; None where every picture
    is a row of its own.
    """

    tokens: Tensor
    local: Tensor
    rows: tuple[tuple[tuple[int, Picture], ...], ...] | None = None

    @property
    def shown(self) -> tuple[tuple[tuple[int, Picture], ...], ...]:
        """`rows`, written out where every picture is a row of its own."""
        if self.rows is not None:
            return self.rows
        return tuple(((i, Picture()),) for i in range(len(self.tokens)))

    def row(self, index: int) -> Sight:
        """One row's part, still with a batch axis."""
        if self.rows is None:
            return Sight(self.tokens[index : index + 1], self.local[index : index + 1])
        picked = [i for i, _ in self.rows[index]]
        pictures = tuple((i, picture) for i, (_, picture) in enumerate(self.rows[index]))
        return Sight(self.tokens[picked], self.local[picked], (pictures,))


def together(parts: Sequence[tuple[Sight, Picture]]) -> Sight:
    """One row of single pictures, in order, each with what it is."""
    return Sight(
        torch.cat([sight.tokens for sight, _ in parts]),
        torch.cat([sight.local for sight, _ in parts]),
        (tuple((i, picture) for i, (_, picture) in enumerate(parts)),),
    )


def introductions(pictures: Sequence[Picture]) -> list[str]:
    """The words in front of each picture of a row; none for one current picture alone.

    Weights trained on these words fit no others: they are part of the prompt's version.
    """
    if len(pictures) == 1 and pictures[0].role == "view":
        return [""]
    several = {
        role: sum(picture.role == role for picture in pictures) > 1 for role in ("view", "prior")
    }

    def words(picture: Picture) -> str:
        number = f" {picture.number + 1}" if several.get(picture.role) else ""
        if picture.role == "view":
            return f"Current image{number}:"
        if picture.role == "prior":
            return f"Prior image{number}:"
        if picture.role == "slice":
            return f"Slice {picture.number + 1}:"
        of = f" of image {picture.number + 1}" if several["view"] else ""
        return f"Detail{of}, row {picture.tile[0] + 1}, column {picture.tile[1] + 1}:"

    return [words(picture) for picture in pictures]


class TokenSource(NamedTuple):
    """Where a visual token of a row comes from: the row's picture, and the cell of its grid.

    The cell bounds the token as fractions of the grid; that of a token which may look everywhere is
    the whole grid.
    """

    picture: int
    cell: Cell


def token_sources(pictures: int, cells: Sequence[Cell | None]) -> tuple[TokenSource, ...]:
    """The sources of a row's tokens, in order; `cells` are the connector's, for one picture."""
    return tuple(
        TokenSource(picture, cell or WHOLE) for picture in range(pictures) for cell in cells
    )


class PicturesCount(NamedTuple):
    """The most that the language model sees before one question: `pictures`, visual `tokens`."""

    pictures: int
    tokens: int


def pictures_count(config: ModelConfig) -> PicturesCount:
    """How much a model of this configuration may see at once, before region tokens and words.

    A view comes with its tiles, a prior alone. Slices of a volume stand in the place of views.
    """
    settings = config.pictures
    tiles = math.prod(settings.tiles) if settings.tiles else 0
    films = settings.views * (1 + tiles) + settings.prior
    pictures = max(films, settings.slices)
    return PicturesCount(pictures, pictures * math.prod(config.connector.tokens))
