"""A report as JSON: the record as it was signed, to the letter, and the notices.

Other programs rely on these fields (``schemas/report.schema.json``). Nothing is taken out of the
texts, so that the signature's sha256 can be checked; JSON escapes what could do harm.
"""

from __future__ import annotations

from typing import Any

from medvlm.export.notice import checked, notices
from medvlm.review.records import Report


class ExportedReport(Report):
    """A report outside of the desk. `notices`: who wrote it, who reviewed it, what it is for."""

    notices: tuple[str, ...]


def to_json(report: Report) -> str:
    """Indented JSON, UTF-8 characters as they are.

    Raises ExportError for a report that is not what its status says.
    """
    content = {**checked(report).model_dump(), "notices": notices(report)}
    return ExportedReport.model_validate(content).model_dump_json(indent=2) + "\n"


def report_schema() -> dict[str, Any]:
    """The JSON schema of ``report.json``; ``schemas/report.schema.json`` holds a copy."""
    schema = ExportedReport.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
