"""`medvlm deidentify`: copies of DICOM files without what identifies the patient.

No path and no value of a header is printed: names of files and folders may be names of patients.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from medvlm.cli.common import AsJson, Inputs, err, print_json, writable, write_atomically
from medvlm.dicom.confidentiality import Key
from medvlm.dicom.deidentify import Copy
from medvlm.dicom.deidentify import deidentify as deidentify_file
from medvlm.dicom.files import Found, find_files
from medvlm.dicom.instance import read_bytes
from medvlm.dicom.workers import in_workers
from medvlm.errors import InputError, RefusedByPolicy, UsageError

KEY_VARIABLE = "MEDVLM_DEIDENTIFY_KEY"
SHORTEST_KEY = 16  # bytes; a shorter secret could be guessed, and with it identifiers
REPORT = "report.json"


@dataclass
class Outcome:
    """What became of the inputs, in words that name nobody."""

    copies: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)


def deidentify(
    inputs: Inputs,
    out: Annotated[Path, typer.Option("--out", help="Folder for the copies and report.json.")],
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", help=f"File with the secret key; else {KEY_VARIABLE}."),
    ] = None,
    new_key: Annotated[
        Path | None, typer.Option("--new-key", help="Make a key, write it here and use it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Writes de-identified copies (DICOM PS3.15 Basic Profile), or says why there is none.

    With one key, the same patient, study or image is given the same new identity in every run. Keep
    the key away from the copies. Without a key, one is made up for this run and forgotten.
    """
    if any(os.path.realpath(path) == os.path.realpath(out) for path in inputs):
        raise UsageError("--out is the input itself", remedy="give a folder of its own")
    try:
        writable(out)
    except UsageError:
        raise UsageError(
            "nothing can be written into --out", remedy="choose another folder"
        ) from None
    secret = _secret(key_file, new_key, out)
    if secret is None:
        err.print("No key was given: identities will not agree with those of other runs.")
    found = list(_find_once(inputs, out, key_file or new_key))
    outcome = _deidentify_all(found, out, Key(secret or secrets.token_bytes(32)))
    report = {
        "consistent": secret is not None,
        "copies": outcome.copies,
        "refused": outcome.refused,
        "failed": outcome.failed,
    }
    write_atomically(out / REPORT, json.dumps(report, indent=2) + "\n")
    if as_json:
        print_json(report)
    else:
        typer.echo(in_words(outcome))
    for item in outcome.failed:
        err.print(f"failed: {item['input']}: {item['message']} [{item['code']}]", markup=False)
    if outcome.failed:
        raise typer.Exit(1)


def in_words(outcome: Outcome) -> str:
    """What became of the inputs, for people."""
    lines = [f"refused: {i['input']}: {i['message']} [{i['code']}]" for i in outcome.refused]
    rows = [("copies", _listed(Counter(copy["pixels"] for copy in outcome.copies), "pixels "))]
    done: Counter[str] = Counter()
    for copy in outcome.copies:
        done.update({action: sum(tags.values()) for action, tags in copy["actions"].items()})
    rows.append(("elements", _listed(done)))
    rows.append(("refused", _listed(Counter(item["code"] for item in outcome.refused))))
    rows.append(("failed", _listed(Counter(item["code"] for item in outcome.failed))))
    return "\n".join(lines + [f"{name:<9} {text}" for name, text in rows])


def _listed(counts: Counter[str], prefix: str = "") -> str:
    named = ", ".join(f"{prefix}{name} {count}" for name, count in sorted(counts.items()))
    return f"{sum(counts.values()):>6}" + (f"  ({named})" if named else "")


def _deidentify_all(found: list[Found | InputError], out: Path, key: Key) -> Outcome:
    outcome = Outcome()
    jobs = [(item.path, key) for item in found if isinstance(item, Found)]
    # In processes of their own: hostile bytes are taken apart, and some decoded.
    copies = in_workers(_copied, jobs)
    with Progress(console=err, transient=True) as progress:
        for number, item in enumerate(progress.track(found, description="de-identifying"), 1):
            name = f"file {number:04} (not read)"
            try:
                if isinstance(item, InputError):
                    raise item
                result = next(copies)
                digest = hashlib.sha256(read_bytes(item.path, "")).hexdigest()
                name = f"file {number:04} ({digest[:12]})"
                if isinstance(result, InputError):
                    raise result
                output = f"{key.digest('file', digest).hex()[:32]}.dcm"
                write_atomically(out / output, result.data)
                outcome.copies.append(
                    {
                        "input": name,
                        "output": output,
                        "pixels": result.pixels,
                        "actions": result.actions,
                    }
                )
            except RefusedByPolicy as refusal:
                outcome.refused.append(_because(name, refusal.code, refusal.message))
            except InputError as error:
                outcome.failed.append(_because(name, error.code, error.message))
            except OSError:
                outcome.failed.append(
                    _because(name, "not_written", "The copy cannot be written: is the disk full?")
                )
    return outcome


def _copied(job: tuple[Path, Key]) -> Copy:
    path, key = job
    return deidentify_file(read_bytes(path, ""), key)


def _because(name: str, code: str, message: str) -> dict[str, str]:
    return {"input": name, "code": code, "message": message}


def _find_once(
    inputs: list[Path], out: Path, key_file: Path | None
) -> Iterator[Found | InputError]:
    """Every file behind the inputs, once; results and key inside an input are left out."""
    results, seen = Path(os.path.realpath(out)), set()
    if key_file:
        seen.add(Path(os.path.realpath(key_file)))
    for path in inputs:
        around = Path(os.path.realpath(path)) in results.parents
        for item in find_files(path):
            if isinstance(item, Found):
                place = Path(os.path.realpath(item.path))
                if place in seen or (around and place.is_relative_to(results)):
                    continue
                seen.add(place)
            yield item


def _secret(key_file: Path | None, new_key: Path | None, out: Path) -> bytes | None:
    """The key's bytes, or None where there is none. Raises UsageError."""
    if key_file and new_key:
        raise UsageError("--key-file and --new-key exclude each other", remedy="give one of them")
    place = key_file or new_key
    if place and Path(os.path.realpath(place)).is_relative_to(os.path.realpath(out)):
        raise UsageError("the key lies in --out", remedy="keep it away from the copies")
    if new_key:
        return _made(new_key)
    try:
        given = key_file.read_bytes() if key_file else os.fsencode(os.environ.get(KEY_VARIABLE, ""))
    except OSError:
        raise UsageError("--key-file cannot be read", remedy="name a file, or --new-key") from None
    secret = given.strip()
    if (secret or key_file) and len(secret) < SHORTEST_KEY:
        raise UsageError(
            f"the key is shorter than {SHORTEST_KEY} bytes", remedy="make one with --new-key FILE"
        )
    return secret or None


def _made(new_key: Path) -> bytes:
    secret = secrets.token_hex(32).encode()
    try:
        descriptor = os.open(new_key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        raise UsageError(
            "--new-key cannot be written, or is there already", remedy="name another file"
        ) from None
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(secret + b"\n")
    return secret
