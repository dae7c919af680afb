"""Averages of weights over training, which generalise better than the last step's."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def copy_of(model: M) -> M:
    """A copy to average into: it learns nothing by itself."""
    return copy.deepcopy(model).requires_grad_(False).eval()


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    """One step of an exponential moving average; counters are copied."""
    own = average.state_dict()
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            own[name].lerp_(value, 1 - decay)
        else:
            own[name].copy_(value)


def mean(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of state dicts; counters are the last one's.

    Over the ends of the learning rate's cycles this is stochastic weight averaging (Izmailov et
    al., UAI 2018).
    """
    return {
        name: torch.stack([state[name] for state in states]).mean(dim=0).contiguous()
        if last.is_floating_point()
        else last
        for name, last in states[-1].items()
    }
