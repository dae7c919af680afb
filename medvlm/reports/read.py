"""Files beside the images: reports, reviews and boxes, whatever their format.

Every file and row ends as something that was read or as a problem with a code; none stops the rest.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from medvlm.errors import InputError
from medvlm.findings import FINDINGS
from medvlm.reports import fhir, table
from medvlm.reports.corrections import ReviewedStudy, review_of
from medvlm.reports.report import Problem, Report, UnusableReport
from medvlm.reports.structured import structured_report

TABLES, JSONS = frozenset({".csv", ".tsv"}), frozenset({".json", ".ndjson", ".jsonl"})
_BOX_COLUMNS = frozenset({"finding", "x", "y", "width", "height"})


@dataclass(frozen=True)
class SiteBox:
    """A box somebody drew: source pixels, origin at the top-left corner of the image.

    The image is named by its SOPInstanceUID or by its file's name.
    """

    source: str
    finding: str
    x: float
    y: float
    width: float
    height: float
    sop_instance_uid: str | None = field(default=None, repr=False)
    file: str | None = field(default=None, repr=False)


@dataclass
class Beside:
    """What the files beside the images hold."""

    reports: list[Report] = field(default_factory=list)
    reviews: list[ReviewedStudy] = field(default_factory=list)
    boxes: list[SiteBox] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add(self, other: Beside) -> None:
        self.reports += other.reports
        self.reviews += other.reviews
        self.boxes += other.boxes
        self.problems += other.problems


def is_text(name: str) -> bool:
    """Whether a file of this name is a table or JSON."""
    return PurePath(name).suffix.lower() in TABLES | JSONS


def read_text(data: bytes, name: str, source: str) -> Beside:
    """A table of reports or boxes, FHIR resources, or reviews.

    Args:
        data: the file's bytes.
        name: its name, for its ending.
        source: how problems name it.
    """
    beside = Beside()
    try:
        if PurePath(name).suffix.lower() in TABLES:
            _read_table(table.decoded(data), source, beside)
        else:
            _read_json(table.decoded(data), source, beside)
    except (csv.Error, RecursionError) as error:
        message = f"The file cannot be read: {type(error).__name__}."
        beside.problems.append(Problem(source, "unreadable", message))
    return beside


def read_structured(data: bytes, source: str) -> Beside:
    """A DICOM structured report."""
    beside = Beside()
    try:
        beside.reports.append(structured_report(data, source))
    except InputError as error:
        beside.problems.append(Problem(source, error.code, error.message))
    return beside


def _read_table(text: str, source: str, beside: Beside) -> None:
    rows = 0
    for line, row in table.rows_of(text):
        rows += 1
        place = f"{source} line {line}"
        try:
            if table.is_report_table(row):
                beside.reports.append(table.report_of(row, place))
            elif set(row) >= _BOX_COLUMNS and {"sop_instance_uid", "file"} & set(row):
                beside.boxes.append(_box(row, place))
            else:
                raise UnusableReport(
                    "The table has neither the columns of reports nor those of boxes.",
                    code="unknown_table",
                )
        except UnusableReport as error:
            beside.problems.append(Problem(place, error.code, error.message))
            if error.code == "unknown_table":
                return
    if not rows:
        beside.problems.append(Problem(source, "empty", "The table has no rows."))


def _box(row: Mapping[str, str], source: str) -> SiteBox:
    finding = row["finding"].strip().replace(" ", "_")
    named = {name.lower(): name for name in FINDINGS}.get(finding.lower())
    if row.get("__length__") or named is None:
        raise UnusableReport("The box is of none of the fifteen findings.", code="bad_box")
    try:
        x, y, width, height = (float(row[key]) for key in ("x", "y", "width", "height"))
    except ValueError as error:
        raise UnusableReport("A box's numbers are none.", code="bad_box") from error
    if not all(map(math.isfinite, (x, y, width, height))) or min(width, height) <= 0:
        raise UnusableReport("A box has no area.", code="bad_box")
    uid, file = (row.get(key, "").strip() or None for key in ("sop_instance_uid", "file"))
    return SiteBox(source, named, x, y, width, height, uid, file)


def _read_json(text: str, source: str, beside: Beside) -> None:
    contents = list(_objects(text, source, beside))
    resources = [
        (place, resource) for place, content in contents for resource in fhir.resources_of(content)
    ]
    pool = fhir.Pool([resource for _, resource in resources])
    known_kinds = False
    for place, resource in resources:
        known_kinds = True
        if resource.get("resourceType") != "DiagnosticReport":
            continue
        try:
            beside.reports.append(fhir.report_of(resource, pool, place))
        except UnusableReport as error:
            beside.problems.append(Problem(place, error.code, error.message))
    for place, content in contents:
        if isinstance(content, Mapping) and "sentences" in content:
            known_kinds = True
            try:
                beside.reviews.append(review_of(content))
            except UnusableReport as error:
                beside.problems.append(Problem(place, error.code, error.message))
    if contents and not known_kinds:
        message = "The JSON is neither FHIR nor reviews of drafts."
        beside.problems.append(Problem(source, "unknown_json", message))


def _objects(text: str, source: str, beside: Beside) -> Iterator[tuple[str, Any]]:
    """The file's one value (of a list, each of its items), else one for each of its lines."""
    try:
        whole = json.loads(text)
    except ValueError:
        pass
    else:
        yield from ((source, item) for item in (whole if isinstance(whole, list) else [whole]))
        return
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        place = f"{source} line {number}"
        try:
            yield place, json.loads(line)
        except ValueError:
            beside.problems.append(Problem(place, "bad_json", "The line is no JSON."))
