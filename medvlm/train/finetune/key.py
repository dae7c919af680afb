"""The site's own secret: one key for all of its fine-tuning, so that splits do not move.

Pseudonyms and the split are keyed hashes. With the same key a patient stays on the same side when
the folder grows and in every later run, also of a checkpoint fine-tuned before. The key can link
pseudonyms to patients: it never lies among results.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from medvlm.errors import UsageError
from medvlm.model.registry import home_dir

KEY = "site.key"
SHORTEST = 16  # bytes


def site_key(path: Path | None, out: Path) -> bytes:
    """The key in `path`, else this installation's own, made on first use.

    Raises UsageError if it cannot be read or made, is too short, or lies in `out`.
    """
    place = path or home_dir() / KEY
    if Path(os.path.realpath(place)).is_relative_to(os.path.realpath(out)):
        raise UsageError("the key lies in --out", remedy="Keep it away from the results.")
    try:
        if path is None and not place.exists():
            _make(place)
        secret = place.read_bytes().strip()
    except OSError as error:
        raise UsageError(
            f"the site's key cannot be read or made ({error.strerror})",
            remedy="Name a file with --key-file, or set MEDVLM_HOME to a folder of your own.",
        ) from error
    if len(secret) < SHORTEST:
        raise UsageError(
            f"the key is shorter than {SHORTEST} bytes",
            remedy="Make one with `medvlm deidentify --new-key FILE`.",
        )
    return secret


def _make(place: Path) -> None:
    """Writes a new key that only its owner can read; whoever comes first makes it."""
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = place.with_name(f".{place.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(32).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if not place.exists():
            os.link(partial, place)
    except FileExistsError:
        pass
    finally:
        partial.unlink()
