"""Where a phrase lies: what the language model's words say against the encoder's maps.

Words are read as three choices (which side, which part of the lungs, part or opacity), a linear
function of the phrase's embedding: what a word means then does not depend on those beside it.
Each cell of a feature pyramid (Lin et al., CVPR 2017) is compared with a query made of the choices,
as in GLIP (Li et al., CVPR 2022). Cells also know where in each lung they are, by how much of the
lung lies above them and beside them, so that "lower zone" means the same on any film.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvlm.model.encoder import Features
from medvlm.model.spatial import positions

Kind = Literal["part", "opacity"]
"""What a phrase is of: a part of the lungs, or an opacity in it."""
KINDS: tuple[Kind, ...] = get_args(Kind)
CHOICES = (3, 8, len(KINDS))
"""A phrase is read as three choices: the side, the part of the lungs, the kind."""
SHARPNESS = 16.0
"""Of the choices' scores, which lie between 0 and 1."""
WIDTH = 48
PLACES = 8


class Reading(NamedTuple):
    """Shares of P phrases' choices: `side` [P, 3], `part` [P, 8], `kind` [P, 2]."""

    side: Tensor
    part: Tensor
    kind: Tensor


class PhraseHead(nn.Module):
    """Maps of phrases (letters as in `medvlm.model.encoder`).

    Args:
        channels: of the encoder's maps at strides 8, 16 and 32.
        words: the width of the language model's embeddings.
    """

    def __init__(self, channels: tuple[int, ...], words: int, width: int = WIDTH) -> None:
        super().__init__()
        self.channels = channels
        self.lateral = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.place = nn.Conv2d(PLACES, width, 1)
        self.mix = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width),
            nn.Conv2d(width, width, 1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 1),
        )
        self.choices = nn.Linear(words, sum(CHOICES))
        self.near = nn.Linear(words, 1)
        self.query = nn.Sequential(
            nn.Linear(sum(CHOICES), width), nn.SiLU(), nn.Linear(width, width)
        )
        self.where = nn.Sequential(
            nn.Linear(sum(CHOICES), width), nn.SiLU(), nn.Linear(width, PLACES * 2)
        )
        self.bias = nn.Linear(width, 1)

    def read(self, phrases: Tensor) -> Reading:
        """What phrases [P, words] (`LanguageModel.phrases`) mean."""
        scores = (SHARPNESS * self.choices(phrases)).split(CHOICES, dim=1)
        return Reading(*(own.softmax(dim=1) for own in scores))

    def familiarity(self, words: Tensor) -> float:
        """How near a phrase lies to what was taught, by the strangest of its words [W, words].

        About 1 for words for parts of the lungs, 0 for those of anything else.
        """
        return float(self.near(words).min())

    def forward(self, features: Features, lungs: Tensor, phrases: Tensor) -> Tensor:
        """Logits [B, P, size/8, size/8].

        Args:
            features: maps at strides 8, 16 and 32.
            lungs: probabilities of the right and the left lung [B, 2, size/8, size/8].
            phrases: [P, words], from `LanguageModel.phrases`.
        """
        return self.draw(features, lungs, self.read(phrases))

    def draw(self, features: Features, lungs: Tensor, reading: Reading) -> Tensor:
        """The same of phrases that are read."""
        places = lung_places(lungs)
        merged = self.lateral[2](features.coarse)
        for lateral, finer in (
            (self.lateral[1], features.middle),
            (self.lateral[0], features.fine),
        ):
            merged = lateral(finer) + F.interpolate(merged, size=finer.shape[2:], mode="nearest")
        cells = self.mix(merged + self.place(places))
        words = torch.cat(reading, dim=1)
        query = self.query(words)
        seen = torch.einsum("bchw,pc->bphw", cells, query) / query.shape[1] ** 0.5
        return seen + self._lies(places, words) + self.bias(query)[:, 0, None, None]

    def _lies(self, places: Tensor, words: Tensor) -> Tensor:
        """How well each cell's place fits: a parabola of every place, chosen by the words."""
        slope, curve = self.where(words).chunk(2, dim=1)
        linear = torch.einsum("bchw,pc->bphw", places, slope)
        return linear - torch.einsum("bchw,pc->bphw", places**2, curve)


def lung_places(lungs: Tensor) -> Tensor:
    """Where each cell lies [B, PLACES, H, W]: in the right and in the left lung; for each, which
    share of it lies above and which left of the cell; x and y, -1..1."""
    mass = lungs.clamp_min(1e-6)
    total = mass.sum(dim=(2, 3), keepdim=True)
    above = mass.sum(dim=3, keepdim=True).cumsum(dim=2) / total
    beside = mass.sum(dim=2, keepdim=True).cumsum(dim=3) / total
    return torch.cat(
        [lungs, above.expand_as(lungs), beside.expand_as(lungs), positions(lungs)], dim=1
    )


def phrase_head_of(weights: dict[str, Tensor]) -> PhraseHead:
    """The head whose state these are. Raises ValueError for anything else."""
    try:
        channels = tuple(weights[f"lateral.{i}.weight"].shape[1] for i in range(3))
        width, words = len(weights["query.0.weight"]), weights["choices.weight"].shape[1]
        head = PhraseHead(channels, words, width)
        head.load_state_dict(weights)
    except (KeyError, RuntimeError, IndexError) as error:
        raise ValueError("other weights") from error
    return head.eval().requires_grad_(False)
