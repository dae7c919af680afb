"""Which parcels are done, so that they are not fetched again only to see that they are.

One tiny file for each, named by what is in the parcel and by what it is drafted with.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from medvlm.batch.files import write_text
from medvlm.batch.results import KEY, PARCELS


class Entry(NamedTuple):
    """`studies`: folder names with the keys of their drafts; `failed`: names of records."""

    studies: list[tuple[str, str]]
    failed: list[str]


@dataclass(frozen=True)
class Ledger:
    """The finished parcels of a folder of results, by `medvlm.batch.key.parcel_key`."""

    out: Path

    def entry(self, key: str) -> Entry | None:
        """What a finished parcel held; None if it must be opened."""
        try:
            found = json.loads(self._place(key).read_text(encoding="utf-8"))
            return Entry([(name, own) for name, own in found["studies"]], list(found["failed"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def close(self, key: str, folders: Sequence[Path], failed: Sequence[str]) -> None:
        """Every study of the parcel is drafted or recorded as failed. Raises CannotWrite."""
        studies = [(folder.name, (folder / KEY).read_text(encoding="utf-8")) for folder in folders]
        write_text(self._place(key), json.dumps({"studies": studies, "failed": list(failed)}))

    def _place(self, key: str) -> Path:
        # A folder of ten million files is slow.
        return self.out / PARCELS / key[:2] / key[2:]
