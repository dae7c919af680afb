"""Encoder pretraining: findings, attributes, lung masks and opacity boxes at once.

Losses with unknown labels are masked. An exponential moving average of the weights is taken, and
the weights released are the mean of that average at the ends of the learning rate's cycles
(stochastic weight averaging, Izmailov et al., UAI 2018). The validation patients are only watched.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from medvlm.config import Phase, PretrainConfig
from medvlm.evaluate.metrics import auroc
from medvlm.findings import FINDINGS, NIH_FINDINGS
from medvlm.model.heads import ATTRIBUTES
from medvlm.model.vision import Look, VisionModel, channels_last
from medvlm.train.films import FilmBatch, FilmStore, batches, epoch_rows, load_sets
from medvlm.train.progress import Log, load_state, run_key, save_state, track


def pretrain(config: PretrainConfig) -> Path:
    """Trains, resuming where an earlier run stopped, and returns the folder with the weights."""
    torch.manual_seed(config.seed)
    store = FilmStore.build(load_sets(config.data), config.data.cache)
    device = torch.device(config.device)
    model = VisionModel(config.encoder)
    model.encoder.load_imagenet()
    model.to(device)
    channels_last(model)
    average = copy.deepcopy(model).requires_grad_(False).eval()
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    phases = [phase for phase in config.phases for _ in range(phase.epochs)]
    per_epoch = {str(kind): count for kind, count in config.data.per_epoch.items()}
    rate = _cycles(config.phases, sum(per_epoch.values()) // config.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    log, state_path = Log(config.out), config.out / "state.pt"
    first, cycle_ends = 0, [*_cycle_ends(config.phases)]
    ends: list[dict[str, Tensor]] = []
    if (state := load_state(state_path, run_key(config))) is not None:
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        first, ends = state["epoch"], state["ends"]
    for epoch in range(first, len(phases)):
        rows = epoch_rows(store, per_epoch, config.seed, epoch)
        # Dropout draws from the global generator: a resumed epoch must find it as it would be.
        torch.manual_seed(config.seed * 1000 + epoch)
        generator = torch.Generator().manual_seed(config.seed * 1000 + epoch)
        model.train()
        losses = []
        steps = list(batches(rows, config.batch_size))
        for part in track(steps, f"epoch {epoch + 1}/{len(phases)}"):
            batch = store.batch(part, phases[epoch].size, generator)
            if phases[epoch].mixup:
                batch = mixup(batch, phases[epoch].mixup, generator)
            batch = FilmBatch(*(t.to(device) for t in batch))
            with torch.autocast(config.device, dtype=torch.bfloat16):
                look = model(batch.images)
            loss = vision_loss(look, batch, config.opacity_weight)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            _follow(average, model, config.ema)
            losses.append(loss.item())
        figures = {}
        if (epoch + 1) % config.watch_every == 0 or epoch + 1 == len(phases):
            figures = watch(average, store, config.encoder.size)
        log.write(epoch=epoch + 1, size=phases[epoch].size, loss=float(np.mean(losses)), **figures)
        if epoch + 1 in cycle_ends:
            ends.append({name: t.cpu().clone() for name, t in average.state_dict().items()})
        save_state(
            state_path,
            {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
                "epoch": epoch + 1,
                "ends": ends,
                "key": run_key(config),
            },
        )
    save_file(_mean(ends), config.out / "vision.safetensors")
    config.encoder.to_yaml(config.out / "encoder.yaml")
    return config.out


def vision_loss(look: Look, batch: FilmBatch, opacity_weight: float) -> Tensor:
    """Sum of the masked losses of findings, attributes, lungs (BCE + Dice) and opacity."""
    dense = look.dense.float()
    known = batch.dense_known[..., None, None].float()
    pixelwise = F.binary_cross_entropy_with_logits(dense, batch.dense, reduction="none") * known
    pixelwise = pixelwise.mean(dim=(0, 2, 3)) / known.mean(dim=(0, 2, 3)).clamp_min(1e-3)
    probability = dense.sigmoid()
    overlap = 2 * (probability * batch.dense).sum(dim=(2, 3)) + 1
    dice = 1 - overlap / ((probability + batch.dense).sum(dim=(2, 3)) + 1)
    lungs = (dice * batch.dense_known)[:, :2].sum() / batch.dense_known[:, :2].sum().clamp_min(1)
    return (
        masked_bce(look.findings.float(), batch.findings) * 2
        + masked_bce(look.attributes.float(), batch.attributes) * 0.3
        + (pixelwise[0] + pixelwise[1] + lungs) * 0.3
        + pixelwise[2] * opacity_weight
    )


def masked_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy over the targets that are not NaN."""
    known = ~targets.isnan()
    loss = F.binary_cross_entropy_with_logits(logits, targets.nan_to_num(), reduction="none")
    return (loss * known).sum() / known.sum().clamp_min(1)


def mixup(batch: FilmBatch, alpha: float, generator: torch.Generator) -> FilmBatch:
    """Blends every film with another one and their labels alike (Zhang et al., ICLR 2018).

    Partners are drawn among films with the same labels known, so that few labels are lost.
    """
    random = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
    share = torch.from_numpy(random.beta(alpha, alpha, len(batch.images))).float()
    share = torch.maximum(share, 1 - share)
    partner = np.arange(len(batch.images))
    labelled = ~batch.findings[:, 0].isnan().numpy()
    for group in (np.flatnonzero(labelled), np.flatnonzero(~labelled)):
        partner[group] = random.permutation(group)

    def blend(x: Tensor) -> Tensor:
        own = share.reshape(-1, *[1] * (x.ndim - 1))
        return own * x + (1 - own) * x[partner]

    return FilmBatch(
        images=blend(batch.images),
        findings=blend(batch.findings),
        attributes=blend(batch.attributes),
        dense=blend(batch.dense),
        dense_known=batch.dense_known & batch.dense_known[partner],
    )


def _cycle_ends(phases: Sequence[Phase]) -> Iterator[int]:
    """Epochs done at the end of each cycle of the learning rate."""
    done = 0
    for i, phase in enumerate(phases):
        done += phase.epochs
        if i + 1 == len(phases) or phases[i + 1].restart:
            yield done


def _mean(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of state dicts; counters are the last one's."""
    return {
        name: torch.stack([state[name] for state in states]).mean(dim=0).contiguous()
        if last.is_floating_point()
        else last
        for name, last in states[-1].items()
    }


def _cycles(phases: Sequence[Phase], steps: int) -> Callable[[int], float]:
    """The learning rate's factor by step; a restart begins a new cosine at half the height."""
    lengths: list[int] = []
    for phase in phases:
        if phase.restart or not lengths:
            lengths.append(0)
        lengths[-1] += phase.epochs * steps
    starts = np.cumsum([0, *lengths])

    def rate(step: int) -> float:
        cycle = min(int(np.searchsorted(starts, step, side="right")) - 1, len(lengths) - 1)
        return 0.5**cycle * _rate(step - int(starts[cycle]), lengths[cycle])

    return rate


def _rate(step: int, total: int, warm_up: int = 100) -> float:
    """Linear warm-up, then a cosine to 1 %."""
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))


@torch.no_grad()
def _follow(average: VisionModel, model: VisionModel, decay: float) -> None:
    own = average.state_dict()
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            own[name].lerp_(value, 1 - decay)
        else:
            own[name].copy_(value)


@torch.no_grad()
def predict(
    model: VisionModel, store: FilmStore, rows: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of findings [N, F], attributes and dense maps [N, 3, size/8, size/8]."""
    device = next(model.parameters()).device
    parts = []
    for start in range(0, len(rows), 16):
        batch = store.batch(rows[start : start + 16], size, None)
        look = model(batch.images.to(device))
        maps = (look.findings, look.attributes, look.dense)
        parts.append([t.float().sigmoid().cpu().numpy() for t in maps])
    findings, attributes, dense = (np.concatenate(column) for column in zip(*parts, strict=True))
    return findings, attributes, dense


def watch(model: VisionModel, store: FilmStore, size: int) -> dict[str, float]:
    """A few figures on the validation patients, for the log only."""
    figures: dict[str, float] = {}
    if len(rows := store.rows("nih_cxr", validation=True)):
        findings, attributes, _ = predict(model, store, rows, size)
        truth = store.findings[rows].numpy()
        columns = [i for i in range(len(NIH_FINDINGS)) if truth[:, i].sum() >= 10]
        if columns:
            figures["nih_macro"] = float(
                np.mean([auroc(truth[:, i], findings[:, i]) for i in columns])
            )
        opacity = len(FINDINGS) - 1
        known = ~np.isnan(truth[:, opacity])
        if 0 < truth[known, opacity].sum() < known.sum():
            figures["opacity"] = float(auroc(truth[known, opacity], findings[known, opacity]))
        for name in ("ap_view", "male"):
            i = ATTRIBUTES.index(name)
            figures[name] = auroc(store.attributes[rows, i], attributes[:, i])
    if len(rows := store.rows("kermany_cxr", validation=True)):
        masked = [row for row in rows if store.dense_known[row, 0]]
        rows = np.unique(np.concatenate([rows[::4], masked]).astype(int))
        findings, _, dense = predict(model, store, rows, size)
        i = FINDINGS.index("Pneumonia")
        figures["kermany"] = auroc(store.findings[rows, i], findings[:, i])
        known = store.dense_known[rows, 0].numpy()
        truth = store.batch(rows, size, None).dense[:, :2].numpy()[known] > 0.5
        said = dense[known, :2] > 0.5
        overlap = 2 * (truth & said).sum(axis=(2, 3)) / (truth.sum((2, 3)) + said.sum((2, 3)))
        figures["lung_dice"] = float(overlap.mean())
    return figures
