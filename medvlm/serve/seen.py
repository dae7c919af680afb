"""What was seen of images that were asked about before: the latest, within a bound of bytes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from threading import Lock

import numpy as np

from medvlm.draft.answers import ImageKey
from medvlm.draft.look import Seen
from medvlm.model.pictures import Sight


class SeenLately:
    """Keeps what was asked for last. Threads may share it; `most` is in bytes."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.bytes = 0
        self._kept: OrderedDict[ImageKey, tuple[Seen, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: ImageKey) -> Seen | None:
        """What was seen of the image, if that is still known."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def put(self, key: ImageKey, seen: Seen) -> None:
        """Remembers it; what was not asked for longest goes where there is no room."""
        own = _by_itself(seen)
        size = _bytes(own)
        with self._lock:
            if size > self.most or key in self._kept:
                return
            self._kept[key] = own, size
            self.bytes += size
            while self.bytes > self.most:
                _, (_, gone) = self._kept.popitem(last=False)
                self.bytes -= gone


def _by_itself(seen: Seen) -> Seen:
    """Without the rest of the batch that it was seen in, which its arrays are views of."""
    return replace(
        seen,
        score_maps=np.array(seen.score_maps),
        dense=np.array(seen.dense),
        sight=_copied(seen.sight),
        tiles=tuple(replace(tile, sight=_copied(tile.sight)) for tile in seen.tiles),
    )


def _copied(sight: Sight) -> Sight:
    return sight._replace(tokens=sight.tokens.clone(), local=sight.local.clone())


def _bytes(seen: Seen) -> int:
    sights = [seen.sight, *(tile.sight for tile in seen.tiles)]
    arrays = [seen.image.pixels, seen.score_maps, seen.dense]
    return sum(own.nbytes for own in arrays) + sum(
        own.nbytes for sight in sights for own in (sight.tokens, sight.local)
    )
