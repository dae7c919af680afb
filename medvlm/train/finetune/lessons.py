"""The two lessons of fine-tuning, as the training loop takes them, and what they share.

`heads`: the findings' classifiers over cached features. `text`: connector, probe and LoRA. Both are
stopped, and then followed, by a loss on tuning patients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from medvlm.config import EncoderConfig, FinetuneConfig, FinetunePhase, TrainConfig
from medvlm.findings import FINDINGS
from medvlm.model.encoder import Features
from medvlm.model.heads import ATTRIBUTES, DENSE_MAPS
from medvlm.model.vision import Look, SecondReader
from medvlm.model.vlm import VisionLanguageModel
from medvlm.train.align import Asked, Pupil, Stage
from medvlm.train.features import FeatureStore, feature_store
from medvlm.train.finetune.material import Material
from medvlm.train.finetune.recalibrate import loss_after_correction
from medvlm.train.finetune.targets import SiteAsker, absent_at_times
from medvlm.train.lesson import Chunk, Lesson, named_tensors
from medvlm.train.losses import masked_bce, total
from medvlm.train.parallel import Processes
from medvlm.train.schedule import cosine

HELD_OUT = "held_out_loss"
WARM_UP_STEPS, FLOOR = 10, 0.05
CLASSIFIER_STRIDES = (16, 32)
READ_AT_ONCE = 32


class Desk(NamedTuple):
    """What both lessons share. Rows are those of `material.store`."""

    model: VisionLanguageModel
    material: Material
    features: FeatureStore
    second: FeatureStore | None
    config: FinetuneConfig
    run: TrainConfig
    device: torch.device
    key: str

    @classmethod
    def build(
        cls,
        model: VisionLanguageModel,
        material: Material,
        config: FinetuneConfig,
        run: TrainConfig,
        processes: Processes,
        key: str,
    ) -> Desk:
        """Computes the features that are not at hand."""
        strides = sorted({*CLASSIFIER_STRIDES, *model.config.connector.strides})
        place, store, rows = run.data.cache, material.store, material.rows
        model.vision.eval().requires_grad_(False)

        def features(reader: Any, kept: Sequence[int], views: int) -> FeatureStore:
            return feature_store(reader, store, rows, views, kept, place, config.seed, key)

        with processes.one_by_one():
            first = features(model.vision, strides, config.views)
            second = None
            if model.second is not None and model.config.second is not None:
                size = model.config.encoder.size
                own = model.config.second.model_copy(update={"size": size})
                reader = _AsVision(model.second, own)
                second = features(reader, CLASSIFIER_STRIDES, config.views)
        return cls(model, material, first, second, config, run, processes.device, key)

    def epoch(self, epoch: int, films: int | None) -> np.ndarray:
        """The site's training films and the rehearsal, or `films` of them, shuffled."""
        rows = np.concatenate([self.material.training, self.material.rehearsal])
        return np.random.default_rng([self.config.seed, epoch, 1]).permutation(rows)[:films]

    def batch_size(self, films: int | None) -> int:
        """As configured, or all films of an epoch where there are fewer."""
        return min(self.config.batch_size, len(self.epoch(0, films)))

    def findings(self, chunk: Chunk) -> Tensor:
        """The labels [B, F] of a pass, some of what reports do not mention as absent."""
        labels = self.material.store.findings[chunk.rows].numpy()
        silent = self.material.silent[chunk.rows]
        shown = absent_at_times(labels, silent, self.config.silence, chunk.shared())
        return torch.from_numpy(shown)

    def weighed(self, loss: Callable[[np.ndarray], float], most: int | None = None) -> float:
        """A loss on `most` of the site's tuning films and of the retention sets', by shares."""
        random = np.random.default_rng(self.config.seed)
        own, recall = (
            np.sort(random.permutation(rows)[:most])
            for rows in (self.material.tuning, self.material.recall)
        )
        parts = [(1.0 - (self.config.rehearsal if len(recall) else 0.0), own)]
        if len(recall):
            parts.append((self.config.rehearsal, recall))
        return sum(share * loss(rows) for share, rows in parts if share)


class Held(Lesson):
    """A lesson that is stopped and followed by its loss on tuning patients."""

    def held_out(self) -> float:
        """The loss to choose by; NaN where there are no tuning films."""
        raise NotImplementedError

    def figures(self, epoch: int, always: bool) -> dict[str, float]:
        return {HELD_OUT: self.held_out()}

    def about(self, epoch: int) -> dict[str, Any]:
        return {"stage": self.name, "epoch": epoch + 1}


class Heads(Held):
    """The classifiers of one or two readers over their features, unknown labels masked."""

    name = "heads"
    parts = ("first", "second")

    def __init__(self, desk: Desk, phase: FinetunePhase) -> None:
        self.desk, self.phase, self.epochs = desk, phase, phase.epochs
        self.batch_size = desk.batch_size(phase.films)
        self.total = self.epochs * (len(self.rows(0)) // self.batch_size)
        self.readers = nn.ModuleList([desk.model.vision.classifier])
        if desk.model.second is not None:
            self.readers.append(desk.model.second.classifier)

    def begin(self) -> None:
        self.desk.model.requires_grad_(False)
        self.readers.requires_grad_(True)

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.readers.parameters()), "lr": self.phase.learning_rate}]

    def rate(self, step: int) -> float:
        return cosine(step, self.total, WARM_UP_STEPS, FLOOR)

    def rows(self, epoch: int) -> np.ndarray:
        return self.desk.epoch(epoch, self.phase.films)

    def train(self, on: bool) -> None:
        self.desk.model.eval()
        self.readers.train(on)

    def tensors(self) -> dict[str, Tensor]:
        names = ("vision.classifier", "second.classifier")
        return named_tensors(**dict(zip(names, self.readers, strict=False)))

    def prepare(self, chunk: Chunk, epoch: int) -> tuple[list[Features], Tensor]:
        views = np.array([random.integers(self.desk.config.views) for random in chunk.randoms()])
        return self._features(chunk.rows, views), self.desk.findings(chunk)

    def loss(self, batch: tuple[list[Features], Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        features, labels = batch
        truth = labels.to(self.desk.device)
        each = [masked_bce(logits.float(), truth) for logits in self._read(features)]
        parts = dict(zip(self.parts, [*each, torch.zeros_like(each[0])][:2], strict=True))
        return total(parts), parts

    def held_out(self) -> float:
        return self.desk.weighed(self._held_out)

    @torch.no_grad()
    def _held_out(self, rows: np.ndarray) -> float:
        said = []
        for start in range(0, len(rows), READ_AT_ONCE):
            part = rows[start : start + READ_AT_ONCE]
            logits = self._read(self._features(part, np.zeros(len(part), dtype=int)))
            said.append(torch.stack(logits).mean(dim=0).float().cpu().numpy())
        if not said:
            return float("nan")
        return loss_after_correction(self.desk.material.truth(rows), np.concatenate(said))

    def _features(self, rows: np.ndarray, views: np.ndarray) -> list[Features]:
        stores = (self.desk.features, self.desk.second)
        return [store.batch(rows, views) for store in stores if store is not None]

    def _read(self, features: list[Features]) -> list[Tensor]:
        device = self.desk.device
        moved = [Features(*(t.to(device) for t in own)) for own in features]
        return [reader(own)[0] for reader, own in zip(self.readers, moved, strict=True)]


class Text(Stage, Held):
    """Connector, probe and LoRA on what the site's labels, boxes and sentences can be asked."""

    def __init__(
        self, desk: Desk, asker: SiteAsker, phase: FinetunePhase, first_epoch: int
    ) -> None:
        pupil = Pupil(
            config=desk.run,
            model=desk.model,
            store=desk.material.store,
            questions=[],
            features=desk.features,
            asker=cast(Any, asker),
            device=desk.device,
            key=desk.key,
        )
        super().__init__(pupil, "stage2", desk.run.stage2, first_epoch)
        self.desk, self.phase, self.name = desk, phase, "text"
        self.batch_size = desk.batch_size(phase.films)
        self.total = self.epochs * (len(self.rows(0)) // self.batch_size)

    def rows(self, epoch: int) -> np.ndarray:
        return self.desk.epoch(self.first_epoch + epoch, self.phase.films)

    def prepare(self, chunk: Chunk, epoch: int) -> Asked:
        asked = super().prepare(chunk, epoch)
        findings = self.desk.findings(chunk)
        labels = torch.cat([findings, asked.labels[:, findings.shape[1] :]], dim=1)
        films = asked.films and asked.films._replace(findings=findings)
        return asked._replace(labels=labels, films=films)

    def figures(self, epoch: int, always: bool) -> dict[str, float]:
        return Held.figures(self, epoch, always)

    def held_out(self) -> float:
        return self.desk.weighed(self._held_out, self.desk.config.judged_films)

    @torch.no_grad()
    def _held_out(self, rows: np.ndarray) -> float:
        """The lesson's own loss on the same questions every time."""
        losses = []
        for start in range(0, len(rows), self.batch_size):
            places = np.arange(start, min(start + self.batch_size, len(rows)))
            chunk = Chunk(rows[places], places, 0, self.config.seed)
            losses += [self.loss(self.prepare(chunk, 0))[0].item()] * len(places)
        return float(np.mean(losses)) if losses else float("nan")


class _AsVision(nn.Module):
    """The second reader's encoder, with the maps that it does not have left empty."""

    def __init__(self, reader: SecondReader, config: EncoderConfig) -> None:
        super().__init__()
        self.encoder, self.config = reader.encoder, config

    def forward(self, images: Tensor) -> Look:
        features = self.encoder(images)
        none = images.new_zeros(len(images), len(FINDINGS))
        size = images.shape[-1] // 8
        return Look(
            features=features,
            findings=none,
            maps=none,
            attributes=images.new_zeros(len(images), len(ATTRIBUTES)),
            dense=images.new_full((len(images), len(DENSE_MAPS), size, size), -10.0),
        )
