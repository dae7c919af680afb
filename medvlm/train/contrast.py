"""Learning from films and words: a film should lie near the sentences that are true of it.

Contrastive learning of images and text (ConVIRT, Zhang et al., MLHC 2022; CLIP, Radford et al.,
ICML 2021). The sentences are made from labels; the text encoder is the frozen language model, whose
mean hidden state stands for a sentence. Films with the same labels are no negatives of each other:
they share the target (as in MedCLIP, Wang et al., EMNLP 2022). Negatives come from one pass, so a
batch should be large and `accumulate` 1.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvlm.config import PretrainConfig
from medvlm.data.sets import Film
from medvlm.draft.sentences import sentence, variants
from medvlm.findings import FINDINGS
from medvlm.model.causal import load_base
from medvlm.model.heads import ATTRIBUTES
from medvlm.model.llm_source import weights_digest
from medvlm.model.vision import VisionModel
from medvlm.train.films import FilmStore
from medvlm.train.lesson import Chunk, autocast, named_tensors
from medvlm.train.objectives import VisionLesson

WIDTH = 256
ABSENT = 2
TEMPERATURE, COLDEST = 0.07, 0.01
KINDS = {
    "frontal_chest": "Frontal chest film.",
    "head": "Image of the head.",
    "abdomen": "Image of the abdomen.",
}


class Captions:
    """All sentences that labels can be put into, and which of them are true of a film."""

    def __init__(self) -> None:
        self.sentences: list[str] = list(KINDS.values())
        self._places: dict[tuple[str, str], range] = {}
        for finding in FINDINGS:
            for polarity in ("present", "absent"):
                count, start = variants(finding, polarity), len(self.sentences)
                self._places[finding, polarity] = range(start, start + count)
                self.sentences += [sentence(finding, polarity, None, i) for i in range(count)]

    def draw(self, film: Film, random: np.random.Generator) -> list[int]:
        """Numbers of sentences: the kind of image, all that is present, some of what is absent."""
        said = [i for i, name in enumerate(KINDS) if film.attributes[ATTRIBUTES.index(name)] == 1]
        present, absent = (np.flatnonzero(film.findings == value) for value in (1, 0))
        for polarity, findings in (("present", present), ("absent", random.permutation(absent))):
            for i in findings[: ABSENT if polarity == "absent" else None]:
                said.append(int(random.choice(self._places[FINDINGS[i], polarity])))
        return said


def meaning(film: Film) -> tuple[bool, ...]:
    """What captions can tell films apart by: the kind of image, and the findings present."""
    kinds = [film.attributes[ATTRIBUTES.index(name)] == 1 for name in KINDS]
    return (*map(bool, kinds), *map(bool, film.findings == 1))


class Pairs(NamedTuple):
    """`images` [B, 1, size, size], `texts` [B, D], `shared` [B, B]: each row's target, sum 1."""

    images: Tensor
    texts: Tensor
    shared: Tensor


class Contrastive(VisionLesson):
    """`llm`: the language model's folder.

    The part `matched`: how often the nearest text of the pass is true of the film.
    """

    parts = ("matched",)

    def __init__(
        self, config: PretrainConfig, model: VisionModel, store: FilmStore, llm: Path
    ) -> None:
        super().__init__(config, model, store)
        self.captions = Captions()
        self.key = weights_digest(llm)
        self.table = embed_sentences(self.captions.sentences, llm)
        self.image = nn.Linear(model.encoder.channels[-1], WIDTH).to(self.device)
        self.text = nn.Linear(self.table.shape[1], WIDTH).to(self.device)
        scale = torch.tensor(math.log(1 / TEMPERATURE), device=self.device)
        self.scale = nn.Parameter(scale)

    def groups(self) -> list[dict[str, Any]]:
        modules = (self.model.encoder, self.image, self.text)
        learned = [p for module in modules for p in module.parameters()]
        return [{"params": [*learned, self.scale], "lr": self.config.learning_rate}]

    def tensors(self) -> dict[str, Tensor]:
        own = named_tensors(image=self.image, text=self.text)
        return super().tensors() | own | {"scale": self.scale.data}

    def prepare(self, chunk: Chunk, epoch: int) -> Pairs:
        films = [self.store.films[row] for row in chunk.rows]
        drawn = zip(films, chunk.randoms(), strict=True)
        texts = [self.table[self.captions.draw(film, own)].mean(dim=0) for film, own in drawn]
        means = [meaning(film) for film in films]
        same = torch.tensor([[one == other for other in means] for one in means]).float()
        images = self.store.batch(chunk.rows, self.phases[epoch].size, chunk.generators()).images
        return Pairs(images, torch.stack(texts), same / same.sum(dim=1, keepdim=True))

    def loss(self, batch: Pairs) -> tuple[Tensor, dict[str, Tensor]]:
        images, texts, shared = (t.to(self.device) for t in batch)
        with autocast(self.device, self.config.precision):
            coarse = self.model.encoder(images).coarse
            seen, said = self.image(coarse.flatten(2).mean(dim=2)), self.text(texts)
        seen, said = (F.normalize(x.float(), dim=1) for x in (seen, said))
        scale = self.scale.exp().clamp(max=1 / COLDEST)
        logits = scale * seen @ said.T
        loss = (F.cross_entropy(logits, shared) + F.cross_entropy(logits.T, shared)) / 2
        nearest = logits.argmax(dim=1, keepdim=True)
        return loss, {"matched": (shared.gather(1, nearest) > 0).float().mean()}


@torch.no_grad()
def embed_sentences(sentences: list[str], folder: Path) -> Tensor:
    """[S, D]: each sentence's mean last hidden state, standardised over the sentences.

    Hidden states of a language model all point much the same way; what sets the sentences apart is
    what remains when their mean is taken off.
    """
    tokenizer, base = load_base(folder)
    base.eval()
    rows = []
    for text in sentences:
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        rows.append(base.get_decoder()(input_ids=ids).last_hidden_state[0].mean(dim=0))
    table = torch.stack(rows).float()
    return (table - table.mean(dim=0)) / table.std(dim=0).clamp_min(1e-6)
