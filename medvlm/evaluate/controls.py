"""What an answer is worth without its image: another patient's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def other_patient(groups: Sequence[str]) -> np.ndarray | None:
    """For every row the next one in the list that belongs to another group, around in a ring.

    None if there is but one group: then there is no control.
    """
    count = len(groups)
    if len(set(groups)) < 2:
        return None
    return np.array(
        [
            next(j % count for j in range(i + 1, i + count) if groups[j % count] != groups[i])
            for i in range(count)
        ]
    )
