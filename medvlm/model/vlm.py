"""The vision-language model: one look at an image, then questions over it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvlm.config import ModelConfig
from medvlm.findings import FINDINGS
from medvlm.model.connector import CAbstractor
from medvlm.model.encoder import Features
from medvlm.model.heads import ATTRIBUTES
from medvlm.model.language import LanguageModel, Sequences, Turn
from medvlm.model.vision import Look, SecondReader, VisionModel


class Sight(NamedTuple):
    """B images as the language model sees them: `tokens` [B, N, D], `local` [B, C, H, W]."""

    tokens: Tensor
    local: Tensor

    def row(self, index: int) -> Sight:
        """One image's part, still with a batch axis."""
        return Sight(self.tokens[index : index + 1], self.local[index : index + 1])


class VisionLanguageModel(nn.Module):
    """Encoder and heads, connector, language model with LoRA.

    `probe` reads findings and attributes from the mean visual token. It helps the connector learn,
    and is a second reader of the findings afterwards.
    """

    def __init__(self, config: ModelConfig, llm: Path) -> None:
        super().__init__()
        self.config = config
        self.vision = VisionModel(config.encoder)
        self.second = SecondReader(config.second) if config.second else None
        self.language = LanguageModel(llm, config.language.lora)
        self.connector = CAbstractor(
            config.connector, self.vision.encoder.channels, self.language.width
        )
        self.probe = nn.Linear(self.language.width, len(FINDINGS) + len(ATTRIBUTES))

    def look(self, images: Tensor) -> Look:
        """The encoder and its heads over `images` [B, 1, size, size] in 0..1.

        Logits of findings and attributes are means over the image's own size and `scales`, and over
        both encoders where there is a second; features and maps are the first's at the own size.
        """
        look: Look = self.vision(images)
        findings, attributes = [look.findings], [look.attributes]
        if self.second is not None:
            findings.append(self.second(images))
        for size in self.config.scales:
            resized = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
            own_findings, own_attributes = self.vision.classify(resized)
            findings.append(own_findings)
            attributes.append(own_attributes)
            if self.second is not None:
                findings.append(self.second(resized))
        return look._replace(
            findings=torch.stack(findings).mean(dim=0),
            attributes=torch.stack(attributes).mean(dim=0),
        )

    def sight(self, features: Features) -> Sight:
        """The connector's tokens for features of the encoder."""
        return Sight(*self.connector(features))

    def findings(self, look: Look, sight: Sight) -> Tensor:
        """Logits [B, F]: the mean of all readings of the findings, which err differently.

        Each encoder's classifier reads its maps, the probe the visual tokens.
        """
        probe = self.probe(sight.tokens.mean(dim=1))[:, : len(FINDINGS)]
        encoders = 1 if self.second is None else 2
        return (encoders * look.findings + probe) / (encoders + 1)

    def sequences(self, sight: Sight, turns: Sequence[Sequence[Turn]]) -> Sequences:
        """Trees of `turns[b]` over image b of `sight`, region tokens in place."""
        return self.language.sequences(sight.tokens, turns, self._regions(sight, turns))

    def margins(self, sight: Sight, turns: Sequence[Turn]) -> Tensor:
        """[T] yes-minus-no logits of questions over one image (`sight` of batch 1)."""
        return self.language.yes_no_margins(self.sequences(sight, [turns]))

    def write(self, sight: Sight, turns: Sequence[Turn], max_tokens: int = 40) -> list[str]:
        """Greedy answers to questions over one image (`sight` of batch 1)."""
        if not turns:
            return []
        (regions,) = self._regions(sight, [turns])
        visual = sight.tokens.expand(len(turns), -1, -1)
        return self.language.write(visual, turns, regions, max_tokens)

    def _regions(self, sight: Sight, turns: Sequence[Sequence[Turn]]) -> list[list[Tensor | None]]:
        places = [
            (row, i)
            for row, own in enumerate(turns)
            for i, turn in enumerate(own)
            if turn.region is not None
        ]
        out: list[list[Tensor | None]] = [[None] * len(own) for own in turns]
        if places:
            boxes = torch.tensor(
                [[float(row), *(turns[row][i].region or ())] for row, i in places],
                device=sight.local.device,
            )
            tokens = self.connector.region_tokens(sight.local, boxes)
            for (row, i), own_tokens in zip(places, tokens, strict=True):
                out[row][i] = own_tokens
        return out
