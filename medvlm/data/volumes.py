"""Hands a volume to MONAI, with its affine: MONAI's own readers may make one up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from medvlm.image.volume import Volume

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor


def to_metatensor(volume: Volume) -> MetaTensor:
    """The voxels as MONAI's [1, D, H, W] with the affine from (plane, row, column) to RAS mm.

    `Orientation`, `Spacing` and their inverses then work as for a file that MONAI read itself.
    """
    from monai.data.meta_tensor import MetaTensor

    voxels = torch.from_numpy(volume.voxels).unsqueeze(0)
    return MetaTensor(voxels, affine=torch.from_numpy(volume.affine_ras))
