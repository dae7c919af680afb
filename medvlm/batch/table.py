"""`OUT/findings.parquet`: every finding of every draft in a folder of results, for analysis.

One row for each finding and each withheld finding, ordered by study (its folder's name) and, in a
study, as in its draft. A study without any, such as one that the gate refused, has one row whose
finding is null, so that studies can be counted.

| column | |
|---|---|
| study | name of the study's folder |
| study_instance_uid | null for a picture |
| modality, view | as in draft.json; may be null |
| accepted | whether the gate let the study through |
| finding | its name; null in the row of a study without any |
| polarity | present, uncertain or absent; null where withheld |
| probability | calibrated, that the finding is present, whatever the polarity |
| text | the sentence |
| withheld | whether the sentence was kept back |
| reason | why it was withheld; of a refused study, the codes of the reasons, joined by ", " |
| evidence | supported, weak or unsupported; null where not measured |
| p_image, p_erased, p_blank, p_other | the probabilities behind it |
| regions | how many regions the finding has |
| sop_instance_uid, frame, x, y, width, height | of the first region, in source pixels |
| change | since the prior study; null without one |
| model, model_version, weights_sha256, policy_sha256 | what drafted it |
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medvlm.batch.files import write_whole
from medvlm.batch.results import KEY, QUARANTINE
from medvlm.errors import MissingExtra
from medvlm.records import Draft, Finding, Withheld

TABLE = "findings.parquet"
ROWS_A_GROUP = 20_000

COLUMNS = {
    "study": "string",
    "study_instance_uid": "string",
    "modality": "string",
    "view": "string",
    "accepted": "bool_",
    "finding": "string",
    "polarity": "string",
    "probability": "float64",
    "text": "string",
    "withheld": "bool_",
    "reason": "string",
    "evidence": "string",
    "p_image": "float64",
    "p_erased": "float64",
    "p_blank": "float64",
    "p_other": "float64",
    "regions": "int32",
    "sop_instance_uid": "string",
    "frame": "int32",
    "x": "float64",
    "y": "float64",
    "width": "float64",
    "height": "float64",
    "change": "string",
    "model": "string",
    "model_version": "string",
    "weights_sha256": "string",
    "policy_sha256": "string",
}
_EVIDENCE = ("p_image", "p_erased", "p_blank", "p_other")
_REGION = ("sop_instance_uid", "frame", "x", "y", "width", "height")


def write_table(out: Path) -> int:
    """Writes the table anew from all finished drafts in `out`; the number of its rows.

    One row group at a time is in memory, and the names of the studies.

    Raises MissingExtra without pyarrow, CannotWrite.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtra(
            f"{TABLE} is not written, for pyarrow is not installed",
            remedy="pip install 'medvlm[batch]'",
        ) from None
    schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in COLUMNS.items()])
    count = 0

    def write(partial: Path) -> None:
        nonlocal count
        with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
            for rows in _groups(out):
                writer.write_table(pa.Table.from_pylist(rows, schema))
                count += len(rows)

    write_whole(out / TABLE, write)
    return count


def _groups(out: Path) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    for name in studies(out):
        if (draft := _draft(out / name)) is not None:
            rows += draft_rows(name, draft)
        if len(rows) >= ROWS_A_GROUP:
            yield rows
            rows = []
    if rows:
        yield rows


def studies(out: Path) -> list[str]:
    """The folders' names, in order."""
    with os.scandir(out) as entries:
        names = [entry.name for entry in entries if entry.is_dir()]
    return sorted(name for name in names if name != QUARANTINE and not name.startswith("."))


def draft_rows(study: str, draft: Draft) -> list[dict[str, Any]]:
    """A draft's rows, by column; what a row lacks is null."""
    check = draft.input_check
    common = {
        "study": study,
        "study_instance_uid": draft.study.study_instance_uid,
        "modality": draft.study.modality,
        "view": draft.study.view,
        "accepted": check.accepted,
        "model": draft.model.name,
        "model_version": draft.model.version,
        "weights_sha256": draft.model.weights_sha256,
        "policy_sha256": draft.model.policy_sha256,
    }
    rows = [_stated(finding) for finding in draft.findings]
    rows += [_withheld(item) for item in draft.withheld]
    codes = ", ".join(sorted({reason.code for reason in check.reasons}))
    return [{**common, **row} for row in rows or [{"reason": codes or None}]]


def _stated(finding: Finding) -> dict[str, Any]:
    row: dict[str, Any] = {
        "finding": finding.finding,
        "polarity": finding.polarity,
        "probability": finding.probability,
        "text": finding.text,
        "withheld": False,
        "regions": len(finding.regions),
        "change": finding.change,
    }
    if (proof := finding.evidence) is not None:
        row |= {"evidence": proof.status, **{name: getattr(proof, name) for name in _EVIDENCE}}
    if finding.regions:
        row |= {name: getattr(finding.regions[0], name) for name in _REGION}
    return row


def _withheld(item: Withheld) -> dict[str, Any]:
    return {
        "finding": item.finding,
        "probability": item.probability,
        "text": item.text,
        "withheld": True,
        "reason": item.reason,
    }


def _draft(folder: Path) -> Draft | None:
    """None where there is none, or none that is finished."""
    try:
        if not (folder / KEY).is_file():
            return None
        return Draft.model_validate_json((folder / "draft.json").read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError):
        return None
