"""Other patients' films as the model sees them: what would it say without this patient's image?

A few films of training patients without any finding travel in the checkpoint, as features and
readings, not as pictures. Whatever a model still says with their features in the place of the
patient's, it does not say because of the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from medvlm.errors import CheckpointError
from medvlm.findings import FINDINGS
from medvlm.model.encoder import Features

FILE = "donors.safetensors"
_READINGS, _LACKING = "findings", "lacking"


@dataclass(frozen=True)
class Donors:
    """D films (letters as in `medvlm.model.encoder`).

    `findings` [D, F]: logits, the mean of all readings, before calibration. `lacking` [D, F]: which
    findings a film has not, by its labels. `features`: the maps that the connector reads, the
    others empty.
    """

    findings: Tensor
    lacking: Tensor
    features: Features


def save_donors(donors: Donors, path: Path) -> None:
    """Writes maps as float16."""
    maps = donors.features._asdict()
    tensors = {name: t.half().contiguous() for name, t in maps.items() if t.numel()}
    tensors[_READINGS], tensors[_LACKING] = donors.findings.float(), donors.lacking
    save_file({name: tensor.cpu() for name, tensor in tensors.items()}, path)


def load_donors(path: Path, maps: tuple[str, ...]) -> Donors:
    """What `save_donors` wrote. Raises CheckpointError unless it holds exactly `maps`, for as many
    films as readings."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError("cannot be read", file=str(path), remedy=_ANEW) from error
    count = len(tensors.get(_READINGS, ()))
    fits = (
        count > 0
        and tensors.keys() == {_READINGS, _LACKING, *maps}
        and tensors[_READINGS].shape == tensors[_LACKING].shape == (count, len(FINDINGS))
        and tensors[_LACKING].dtype == torch.bool
        and all(len(tensors[name]) == count for name in maps)
    )
    if not fits:
        raise CheckpointError("does not fit the model", file=str(path), remedy=_ANEW)
    given = (tensors.get(name, torch.empty(0)).float() for name in Features._fields)
    return Donors(tensors[_READINGS], tensors[_LACKING], Features(*given))


_ANEW = "fetch the checkpoint anew"
