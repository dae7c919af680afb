"""The vision-language model: a look at each picture, then questions over one or several of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvlm.config import ModelConfig
from medvlm.findings import FINDINGS
from medvlm.image.polygon import Polygon
from medvlm.model.connectors import build_connector
from medvlm.model.connectors.interface import LOCAL_STRIDE
from medvlm.model.encoder import Features
from medvlm.model.heads import ATTRIBUTES
from medvlm.model.language import LanguageModel, Segment, Sequences, Turn
from medvlm.model.pictures import Sight as Sight
from medvlm.model.pictures import TokenSource, introductions, token_sources
from medvlm.model.prompting import Prompter
from medvlm.model.vision import Look, SecondReader, VisionModel


class VisionLanguageModel(nn.Module):
    """Encoder and heads, connector, language model with LoRA.

    `probe` reads findings and attributes from the mean visual token. It helps the connector learn,
    and is a second reader of the findings afterwards.
    """

    def __init__(self, config: ModelConfig, llm: Path, language: Prompter | None = None) -> None:
        """`language`: what answers; left out, the model in the folder `llm`, with LoRA."""
        super().__init__()
        self.config = config
        self.vision = VisionModel(config.encoder)
        self.second = SecondReader(config.second) if config.second else None
        self.language = language or LanguageModel(llm, config.language)
        encoder = self.vision.encoder
        encoder.require_sizes(config.scales, "model.scales")
        if self.second is not None:
            sizes = (config.encoder.size, *config.scales)
            self.second.encoder.require_sizes(sizes, "model.second.size")
        self.connector = build_connector(
            config.connector,
            encoder.channels,
            self.language.width,
            dims=encoder.dims,
            image=(config.encoder.size, config.encoder.size),
            single=encoder.single,
        )
        self.probe = nn.Linear(self.language.width, len(FINDINGS) + len(ATTRIBUTES))

    @property
    def learner(self) -> LanguageModel:
        """The language model, where it can learn. Raises TypeError for a compiled one."""
        if not isinstance(self.language, LanguageModel):
            raise TypeError("a compiled language model cannot learn")
        return self.language

    @property
    def device(self) -> torch.device:
        """Where images are looked at."""
        return self.probe.weight.device

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
            resized = _resized(images, size)
            own_findings, own_attributes = self.vision.classify(resized)
            findings.append(own_findings)
            attributes.append(own_attributes)
            if self.second is not None:
                findings.append(self.second(resized))
        return look._replace(
            findings=torch.stack(findings).mean(dim=0),
            attributes=torch.stack(attributes).mean(dim=0),
        )

    def sight(self, features: Features, padding: Tensor | None = None) -> Sight:
        """The connector's tokens for features of the encoder; `padding` as the connector has it."""
        visual = self.connector(features, padding)
        return Sight(visual.tokens, visual.local)

    def glimpse(self, images: Tensor) -> Sight:
        """What the language model sees in `images`, without the heads' readings."""
        return self.sight(self.vision.encoder(images))

    def sources(self, sight: Sight) -> tuple[TokenSource, ...]:
        """Where each visual token of a row comes from (`sight` of one row)."""
        return token_sources(len(sight.shown[0]), self.connector.cells)

    def findings(self, look: Look, sight: Sight) -> Tensor:
        """Logits [B, F]: the mean of all readings of the findings, which err differently.

        Each encoder's classifier reads its maps, the probe the visual tokens.
        """
        probe = self.probe(sight.tokens.mean(dim=1))[:, : len(FINDINGS)]
        encoders = 1 if self.second is None else 2
        return (encoders * look.findings + probe) / (encoders + 1)

    def sequences(self, sight: Sight, turns: Sequence[Sequence[Turn]]) -> Sequences:
        """Trees of `turns[b]` over the pictures of row b of `sight`, region tokens in place."""
        return self.language.sequences(_segments(sight), turns, self._regions(sight, turns))

    def margins(self, sight: Sight, turns: Sequence[Turn]) -> Tensor:
        """[T] yes-minus-no logits of questions over the same pictures (`sight` of one row)."""
        return self.language.yes_no_margins(self.sequences(sight, [turns]))

    def write(
        self,
        sight: Sight,
        turns: Sequence[Turn],
        max_tokens: int = 40,
        guesses: Sequence[Sequence[str]] = (),
        *,
        exactly: bool = False,
    ) -> list[str]:
        """Greedy answers to questions over the same pictures (`sight` of one row).

        `guesses`: what each answer may be; `exactly`: without rounding (`Prompter.write`).
        """
        return self.write_rows(sight, [turns], max_tokens, guesses, exactly=exactly)

    def write_rows(
        self,
        sight: Sight,
        turns: Sequence[Sequence[Turn]],
        max_tokens: int = 40,
        guesses: Sequence[Sequence[str]] = (),
        *,
        exactly: bool = False,
    ) -> list[str]:
        """Greedy answers to `turns[b]` over the pictures of row b, in the order of the turns."""
        flat = [turn for own in turns for turn in own]
        if not flat:
            return []
        rows = zip(_segments(sight), turns, strict=True)
        pictures = [shown for shown, own in rows for _ in own]
        regions = [region for own in self._regions(sight, turns) for region in own]
        return self.language.write(pictures, flat, regions, max_tokens, guesses, exactly=exactly)

    def _regions(self, sight: Sight, turns: Sequence[Sequence[Turn]]) -> list[list[Tensor | None]]:
        places, boxes, outlines = [], [], []
        for row, (own, pictures) in enumerate(zip(turns, sight.shown, strict=True)):
            for i, turn in enumerate(own):
                if turn.region is not None:
                    picture, _ = pictures[turn.picture]
                    slices = (turn.slices or (0.0, 1.0)) if sight.local.ndim == 5 else ()
                    places.append((row, i))
                    boxes.append([float(picture), *turn.region, *slices])
                    outlines.append(turn.outline)
        out: list[list[Tensor | None]] = [[None] * len(own) for own in turns]
        if places:
            given = torch.tensor(boxes, device=sight.local.device)
            covers = _covers(outlines, sight.local)
            tokens = self.connector.region_tokens(sight.local, given, covers)
            for (row, i), own_tokens in zip(places, tokens, strict=True):
                out[row][i] = own_tokens
        return out


def _covers(outlines: Sequence[Polygon | None], local: Tensor) -> Tensor | None:
    """The share of each cell of the local map in each region [R, H, W]; None if all are boxes."""
    if not any(outlines):
        return None
    rows, columns = local.shape[-2:]
    covers = np.ones((len(outlines), rows, columns), dtype=np.float32)
    for i, outline in enumerate(outlines):
        if outline is not None:
            covers[i] = outline.coverage(rows, columns, LOCAL_STRIDE)
    return torch.from_numpy(covers).to(local.device)


def _segments(sight: Sight) -> list[list[Segment]]:
    """Each row's pictures with the words that introduce them."""
    rows = []
    for pictures in sight.shown:
        words = introductions([picture for _, picture in pictures])
        rows.append(
            [Segment(own, sight.tokens[i]) for own, (i, _) in zip(words, pictures, strict=True)]
        )
    return rows


def _resized(images: Tensor, size: int) -> Tensor:
    """Images [B, 1, H, W] or volumes [B, 1, D, H, W] at another size in the plane."""
    if images.ndim == 5:
        return F.interpolate(images, (images.shape[2], size, size), mode="trilinear")
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)
