"""An encoder in ONNX Runtime: normalisation merged into the convolutions, activations into them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from medvlm.model.encoder import Encoder, Features
from medvlm.model.runtime.session import open_session

# Of the maps' spread: what merging and another order of sums may change.
ALLOWED = 1e-4


class CompiledEncoder(nn.Module):
    """In the place of the `encoder` that `graph` was made from; it cannot learn."""

    def __init__(self, encoder: Encoder, graph: Path) -> None:
        super().__init__()
        self.config, self.dims = encoder.config, encoder.dims
        self.channels, self.single = encoder.channels, encoder.single
        self.session = open_session(graph, arena=True)

    def forward(self, images: Tensor) -> Features:
        """`images` [B, 1, size, size] in 0..1, as `Encoder` takes them."""
        # One at a time: what a layer leaves is still in the cache for the next.
        each = [
            self.session.run(None, {"images": own[None].numpy()}) for own in images.contiguous()
        ]
        return Features(
            *(torch.from_numpy(np.concatenate(maps)) for maps in zip(*each, strict=True))
        )


class _Maps(nn.Module):
    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.encoder(images))


def write_encoder(encoder: Encoder, path: Path) -> None:
    """Writes the encoder as an ONNX graph that takes any number of images of any size it takes."""
    size = encoder.config.size
    axes = {0: "b", 2: "h", 3: "w"} if encoder.any_size else {0: "b"}
    with warnings.catch_warnings():
        # The exporter that traces is going out of use; the one that does not takes a minute.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Maps(encoder).eval(),
            (torch.rand(2, 1, size, size),),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["images"],
            output_names=list(Features._fields),
            dynamic_axes={"images": axes},
        )


@torch.no_grad()
def same_maps(encoder: Encoder, path: Path, sizes: Sequence[int]) -> bool:
    """Whether the graph gives the encoder's maps, at each size that is used."""
    compiled = CompiledEncoder(encoder, path)
    generator = torch.Generator().manual_seed(0)
    for size in sizes:
        images = torch.rand(2, 1, size, size, generator=generator)
        for ours, theirs in zip(compiled(images), encoder(images), strict=True):
            if ours.shape != theirs.shape:
                return False
            if not (ours - theirs).abs().max() <= ALLOWED * theirs.std():
                return False
    return True
