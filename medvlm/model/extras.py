"""What `medvlm release` adds to trained weights, without changing them.

Donors, the scorer of opacity boxes, references, phrases, what is familiar, a second opacity map:
all are readings of these very weights, so they lie in one file whose sha256 is in the
configuration, and a checkpoint that is written anew has none until it is released.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from medvlm.errors import CheckpointError
from medvlm.findings import FINDINGS
from medvlm.model.box_scorer import BoxScorer, pairs
from medvlm.model.donors import Donors
from medvlm.model.encoder import Features
from medvlm.model.familiarity import Familiarity
from medvlm.model.heads import DenseHead, dense_head_of
from medvlm.model.phrase_head import PhraseHead, phrase_head_of
from medvlm.model.references import STEPS, References

FILE = "extras.safetensors"
_DONORS, _BOXES, _REFERENCES, _PHRASES = "donors.", "boxes.", "references.", "phrases."
_FAMILIAR, _OPACITY = "familiarity.", "opacity."
_PREFIXES = (_DONORS, _BOXES, _REFERENCES, _PHRASES, _FAMILIAR, _OPACITY)
_SCORER = tuple(field.name for field in fields(BoxScorer))
_DISTANCE = tuple(field.name for field in fields(Familiarity))
_QUANTILES = tuple(field.name for field in fields(References))


@dataclass(frozen=True)
class Extras:
    """Each may be missing."""

    donors: Donors | None = None
    boxes: BoxScorer | None = None
    references: References | None = None
    phrases: PhraseHead | None = None
    familiarity: Familiarity | None = None
    opacity: DenseHead | None = None

    @property
    def empty(self) -> bool:
        return all(getattr(self, field.name) is None for field in fields(self))

    def to(self, device: torch.device) -> Extras:
        """The same, with all that meets an encoder's maps on `device`; heads are moved in place."""
        for head in (self.phrases, self.opacity):
            if head is not None:
                head.to(device)
        if self.donors is None:
            return self
        features = Features(*(maps.to(device) for maps in self.donors.features))
        return replace(self, donors=replace(self.donors, features=features))


NO_EXTRAS = Extras()


def save_extras(extras: Extras, path: Path) -> None:
    """Writes maps as float16."""
    tensors: dict[str, Tensor] = {}
    if extras.donors is not None:
        given = extras.donors
        maps = {name: t.half() for name, t in given.features._asdict().items() if t.numel()}
        own = maps | {"findings": given.findings.float(), "lacking": given.lacking}
        tensors |= {_DONORS + name: t.cpu().contiguous() for name, t in own.items()}
    if extras.boxes is not None:
        for name in _SCORER:
            tensors[_BOXES + name] = torch.from_numpy(getattr(extras.boxes, name)).float()
    if extras.references is not None:
        for name in _QUANTILES:
            # In full: a cut-off that is rounded up misses the very film that it was taken from.
            tensors[_REFERENCES + name] = torch.from_numpy(
                getattr(extras.references, name)
            ).contiguous()
    for prefix, head in ((_PHRASES, extras.phrases), (_OPACITY, extras.opacity)):
        if head is not None:
            state = head.state_dict()
            tensors |= {prefix + n: t.float().cpu().contiguous() for n, t in state.items()}
    if extras.familiarity is not None:
        for name in _DISTANCE:
            own_part = np.ascontiguousarray(getattr(extras.familiarity, name))
            tensors[_FAMILIAR + name] = torch.from_numpy(own_part)
    save_file(tensors, path)


def load_extras(path: Path, maps: tuple[str, ...], channels: tuple[int, ...], words: int) -> Extras:
    """What `save_extras` wrote; `maps` are those that the connector reads.

    `channels`: of the encoder's maps; `words`: the width of the language model. Raises
    CheckpointError if the file cannot be read, does not hold exactly what belongs in it, or holds a
    part made for other widths, which it names.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError("cannot be read", file=str(path), remedy=_ANEW) from error
    parts = [_under(tensors, prefix) for prefix in _PREFIXES]
    donors, boxes, references, phrases, familiar, opacity = parts
    try:
        if sum(map(len, parts)) != len(tensors):
            raise ValueError("unknown tensors")
        found = Extras(
            _donors(donors, maps) if donors else None,
            _scorer(boxes) if boxes else None,
            _references(references) if references else None,
            phrase_head_of(phrases) if phrases else None,
            _familiarity(familiar) if familiar else None,
            dense_head_of(opacity) if opacity else None,
        )
    except (KeyError, ValueError) as error:
        raise CheckpointError("does not fit the model", file=str(path), remedy=_ANEW) from error
    for part, own, wanted in _widths(found, channels, words):
        if own != wanted:
            raise CheckpointError(
                f"{part} does not fit the model: made for widths of {own}, not {wanted}",
                file=str(path),
                remedy=_ANEW,
            )
    return found


def _widths(
    extras: Extras, channels: tuple[int, ...], words: int
) -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """Each part's name, the widths that it was made for, and those of the model."""
    if extras.donors is not None:
        both = zip(extras.donors.features, channels, strict=True)
        kept = [(maps.shape[1], count) for maps, count in both if maps.numel()]
        yield "donors", tuple(own for own, _ in kept), tuple(count for _, count in kept)
    if extras.phrases is not None:
        head = extras.phrases
        yield "phrases", (*head.channels, head.choices.in_features), (*channels, words)
    if extras.opacity is not None:
        yield "opacity", extras.opacity.channels, channels
    if extras.familiarity is not None:
        yield "familiarity", (len(extras.familiarity.mean),), (sum(channels[1:]),)


_ANEW = "fetch the checkpoint anew"


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _donors(tensors: dict[str, Tensor], maps: tuple[str, ...]) -> Donors:
    if tensors.keys() != {"findings", "lacking", *maps}:
        raise ValueError("other maps")
    findings, lacking = tensors["findings"], tensors["lacking"]
    count = len(findings)
    if findings.shape != (count, len(FINDINGS)) or lacking.shape != findings.shape:
        raise ValueError("other findings")
    if not count or any(len(tensors[name]) != count for name in maps):
        raise ValueError("other films")
    given = (tensors.get(name, torch.empty(0)).float() for name in Features._fields)
    return Donors(findings, lacking.bool(), Features(*given))


def _scorer(tensors: dict[str, Tensor]) -> BoxScorer:
    own = {name: tensors.pop(name).numpy().astype(np.float64) for name in _SCORER}
    count = len(own["mean"])
    shapes = {
        "candidates": (len(own["candidates"]), 4),
        "mean": (count,),
        "scale": (count,),
        "weights": (count + len(pairs(count)[0]),),
        "bias": (1,),
    }
    if tensors or any(own[name].shape != shape for name, shape in shapes.items()):
        raise ValueError("other shapes")
    return BoxScorer(**own)


def _familiarity(tensors: dict[str, Tensor]) -> Familiarity:
    own = {name: tensors.pop(name).numpy() for name in _DISTANCE}
    axes, count = own["axes"].shape
    shapes = {"mean": (count,), "scale": (count,), "axes": (axes, count), "variance": (axes,)}
    shapes |= {"beside": (1,), "limit": (1,)}
    if tensors or any(own[name].shape != shape for name, shape in shapes.items()):
        raise ValueError("other shapes")
    return Familiarity(**own)


def _references(tensors: dict[str, Tensor]) -> References:
    own = {name: tensors.pop(name).numpy() for name in _QUANTILES}
    quantiles = (len(FINDINGS), STEPS + 1)
    shapes = {"positives": quantiles, "negatives": quantiles, "counts": (len(FINDINGS), 2)}
    if tensors or any(own[name].shape != shape for name, shape in shapes.items()):
        raise ValueError("other shapes")
    return References(**own)
