"""Where a phrase lies: the language model's reading of its words against the encoder's maps.

Each cell of a feature pyramid (Lin et al., CVPR 2017) is compared with a query made of the phrase,
as in GLIP (Li et al., CVPR 2022). Cells also know where in each lung they are, by how much of the
lung lies above them and beside them, so that "lower zone" means the same on any film.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvlm.model.encoder import Features
from medvlm.model.spatial import positions

WIDTH = 48
PLACES = 8


class PhraseHead(nn.Module):
    """Maps of phrases (letters as in `medvlm.model.encoder`).

    Args:
        channels: of the encoder's maps at strides 8, 16 and 32.
        words: the width of the language model's hidden states.
    """

    def __init__(self, channels: tuple[int, ...], words: int, width: int = WIDTH) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.place = nn.Conv2d(PLACES, width, 1)
        self.mix = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width),
            nn.Conv2d(width, width, 1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 1),
        )
        self.norm = nn.LayerNorm(words)
        self.query = nn.Sequential(nn.Linear(words, width), nn.SiLU(), nn.Linear(width, width))
        self.where = nn.Sequential(nn.Linear(words, width), nn.SiLU(), nn.Linear(width, PLACES * 2))
        self.bias = nn.Linear(width, 1)

    def forward(self, features: Features, lungs: Tensor, phrases: Tensor) -> Tensor:
        """Logits [B, P, size/8, size/8].

        Args:
            features: maps at strides 8, 16 and 32.
            lungs: probabilities of the right and the left lung [B, 2, size/8, size/8].
            phrases: [P, words], from `LanguageModel.phrases`.
        """
        places = lung_places(lungs)
        merged = self.lateral[2](features.coarse)
        for lateral, finer in (
            (self.lateral[1], features.middle),
            (self.lateral[0], features.fine),
        ):
            merged = lateral(finer) + F.interpolate(merged, size=finer.shape[2:], mode="nearest")
        cells = self.mix(merged + self.place(places))
        words = self.norm(phrases)
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
        width, words = weights["query.0.weight"].shape
        head = PhraseHead(channels, words, width)
        head.load_state_dict(weights)
    except (KeyError, RuntimeError, IndexError) as error:
        raise ValueError("other weights") from error
    return head.eval().requires_grad_(False)
