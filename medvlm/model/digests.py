"""What names a file's content, or that of several files."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_all(folder: Path, names: tuple[str, ...]) -> str:
    """One sha256 for several files: of the sorted lines "sha256  relative name"."""
    lines = sorted(f"{sha256_of(folder / name)}  {name}\n" for name in names)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
