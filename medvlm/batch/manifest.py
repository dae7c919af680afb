"""A list of inputs as a table: CSV or Parquet, read a piece at a time, however long it is.

Columns: `path` (a file, folder, archive or URL; relative to the manifest's folder) and, if wanted,
`study`: rows with the same value are one parcel, and stand together. Rows are counted from 1, the
heading of a CSV apart.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medvlm.batch.dicomweb import SCHEME
from medvlm.batch.storage import PlacesParcel, absolute, shown
from medvlm.dicom.files import printable
from medvlm.dicom.limits import limits
from medvlm.dicom.read import Refused
from medvlm.errors import InputError, InputNotFound, MissingExtra, UsageError

COLUMNS = ("path", "study")
_PARQUET = b"PAR1"
MOST_MISTAKES = 1000
_ROWS = 1000  # of a Parquet file in memory at once


class Row(NamedTuple):
    """One row as written; `study` is "" where it is a parcel of its own."""

    number: int
    path: str
    study: str


def read_manifest(path: Path) -> tuple[Iterator[PlacesParcel], int, list[Refused]]:
    """Its parcels, how many there are, and the rows that cannot be used.

    The whole table is looked through first, so that a mistake in its last row is not found after a
    night's work; only the mistakes are kept in memory, and eight bytes of each study.

    Raises InputError (code "manifest") if it is damaged, has other columns or too many mistakes, or
    if rows of one study do not stand together; InputNotFound, MissingExtra.
    """
    refused: list[Refused] = []
    count = 0
    hashes = array("q")
    for made in _parcels(path, hashes):
        if isinstance(made, PlacesParcel):
            count += 1
        else:
            refused += made
        if len(refused) > MOST_MISTAKES:
            raise _wrong(
                path,
                f"More than {MOST_MISTAKES} rows cannot be used",
                f"The first: {refused[0].file}: {refused[0].message}",
            )
    _require_together(path, hashes)
    return (one for one in _parcels(path) if isinstance(one, PlacesParcel)), count, refused


def rows(path: Path) -> Iterator[Row]:
    """Raises InputError (code "manifest"), InputNotFound, MissingExtra."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_PARQUET))
    except OSError as error:
        raise InputNotFound("The manifest cannot be read.", file=_name(path)) from error
    return _of_parquet(path) if start == _PARQUET else _of_csv(path)


def _require_together(path: Path, hashes: array[int]) -> None:
    """Half a study would be drafted as another one. `hashes` of the studies, in order."""
    kept = np.sort(np.array(hashes, np.int64))
    twice = set(kept[1:][kept[1:] == kept[:-1]].tolist())
    if not twice:
        return
    before: set[str] = set()
    for name, together in groupby(rows(path), lambda row: row.study):
        if name and hash(name) in twice:
            if name in before:
                raise _wrong(
                    path,
                    f"Row {next(together).number} is of a study whose other rows stand elsewhere",
                    "Sort the table by its column study.",
                )
            before.add(name)


def _parcels(
    path: Path, hashes: array[int] | None = None
) -> Iterator[PlacesParcel | list[Refused]]:
    """A study of which one row is wrong is left out as a whole: half of it would be another one.

    `hashes` takes those of the values of `study`, in order.
    """
    folder = str(path.parent.absolute())
    for study, together in groupby(rows(path), lambda row: row.study or row.number):
        if hashes is not None and isinstance(study, str):
            hashes.append(hash(study))
        places: list[str] = []
        wrong: list[Refused] = []
        name = ""
        for row in together:
            name = name or shown(row.path)
            try:
                places.append(_place(row, folder))
            except MissingExtra:
                raise
            except (InputError, UsageError) as error:
                at = f"{_name(path)}, row {row.number}"
                wrong.append(Refused(at, error.code, error.message, error.remedy))
            if len(places) + len(wrong) > limits().archive_members:
                raise _wrong(path, f"Too many rows of one study, at row {row.number}")
        yield wrong or PlacesParcel(name, tuple(places))


def _place(row: Row, folder: str) -> str:
    if not row.path or "\0" in row.path:
        raise InputError("The row names no path.", code="manifest")
    if row.path.startswith(SCHEME):
        raise UsageError(
            "a DICOMweb server is no file", remedy="give its address as an input of the command"
        )
    return absolute(row.path, folder)


def _of_csv(path: Path) -> Iterator[Row]:
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.reader(file, strict=True)
            heads = [head.strip() for head in next(table, [])]
            _check_columns(path, heads)
            for cells in table:
                if not "".join(cells).strip() and len(cells) != len(heads):
                    continue  # a blank line
                number += 1
                if len(cells) != len(heads):
                    raise _wrong(path, f"Row {number} has {len(cells)} cells and not {len(heads)}")
                row = dict(zip(heads, cells, strict=True))
                yield Row(number, row["path"].strip(), row.get("study", "").strip())
    except (csv.Error, UnicodeDecodeError) as error:
        raise _wrong(path, f"Row {number + 1} is no CSV in UTF-8") from error


def _of_parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra(
            "a Parquet manifest needs pyarrow",
            remedy="install it with `pip install 'medvlm[batch]'`, or give a CSV",
        ) from error
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow.names)
            for batch in file.iter_batches(_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield Row(number, *(_cell(path, number, row.get(name)) for name in COLUMNS))
    except (pa.ArrowException, OSError) as error:
        raise _wrong(path, f"The Parquet file is damaged after row {number}") from error


def _cell(path: Path, number: int, value: object) -> str:
    if value is None or isinstance(value, str | int):
        return "" if value is None else str(value).strip()
    raise _wrong(path, f"Row {number} holds a {type(value).__name__} and not words")


def _check_columns(path: Path, given: Sequence[str]) -> None:
    allowed = " and ".join(COLUMNS)
    if unknown := [name for name in given if name not in COLUMNS]:
        shown = ", ".join(printable(name)[:40] or "(without a name)" for name in unknown[:5])
        raise _wrong(path, f"Unknown columns: {shown}", f"There may be {allowed} only.")
    if "path" not in given or len(set(given)) != len(given):
        raise _wrong(path, "There must be one column path", f"There may be {allowed} only.")


def _wrong(path: Path, message: str, remedy: str | None = None) -> InputError:
    return InputError(f"{message}.", file=_name(path), remedy=remedy, code="manifest")


def _name(path: Path) -> str:
    return printable(str(path))
