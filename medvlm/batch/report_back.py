"""A draft's way back: a preliminary structured report, stored in the study it is of.

Nothing of the patient is kept: who it is stands in the images' headers, and the report takes it
from there when it is sent.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from pathlib import Path

from pydantic import ValidationError
from pydicom import Dataset, dcmread

from medvlm.batch.dicomweb import Server
from medvlm.batch.files import write_whole
from medvlm.dicom.instance import Instance
from medvlm.dicom.study import Study
from medvlm.dicom.workers import in_worker
from medvlm.errors import ExportError, InputError, InputNotFound, Undecodable
from medvlm.export.sr import sr_bytes, to_sr
from medvlm.export.sr_content import Kind
from medvlm.records import Draft, Finding
from medvlm.review.records import ImageRow, Patient, Report, SignedSentence, StudyRow

SENT = ".sent"
# UIDs follow from all of a report. One with a time of today in it would be another one tomorrow.
_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Back:
    """The way back of a study's draft. `headers` of its images: the files may be gone by then."""

    server: str
    kind: Kind
    headers: tuple[Dataset, ...] = field(repr=False)

    @classmethod
    def of(cls, study: Study, server: str, kind: Kind) -> Back:
        """Reads the headers. Raises InputError."""
        return cls(server, kind, tuple(_header(one) for one in study.instances if one.is_dicom))


def send_back(
    folder: Path,
    study: Study,
    server_url: str,
    kind: Kind = "basic",
    headers: Sequence[Dataset] | None = None,
) -> bool:
    """Stores the draft in `folder` (draft.json) on a server, once; whether it went there now.

    A study that the gate refused, and a picture that is not DICOM, have nothing to send. What was
    sent is remembered in `folder`, by server; and a report that is on the server is not sent again
    even if that was forgotten.

    Args:
        folder: of the study's results, with its draft.json.
        study: with its files still in place, unless `headers` of its images are given.
        server_url: as `dicomweb.Server.of` takes it.
        kind: "basic" for every viewer, "comprehensive" with codes, probabilities and regions.

    Raises:
        UsageError: the address is none.
        ServerError: the server did not take it; the next run tries again.
        InputError, ExportError: the draft or a header cannot be read, or they do not go together.
        CannotWrite: what was sent cannot be remembered.
    """
    server = Server.of(server_url)
    draft, written = _read(folder / "draft.json")
    if not draft.input_check.accepted or study.study_instance_uid is None:
        return False
    report = to_report(draft, study)
    ds = to_sr(report, _of_images(headers, report) or _headers(study, report), kind)
    uid = str(ds.SOPInstanceUID)
    sent = _sent(folder)
    if uid in sent.get(server.address, ()):
        return False
    there = server.has(study.study_instance_uid, uid)
    if not there:
        _date(ds, written)
        server.store(sr_bytes(ds), study.study_instance_uid, uid)
    _remember(folder, {**sent, server.address: [*sent.get(server.address, ()), uid]})
    return not there


def to_report(draft: Draft, study: Study) -> Report:
    """The draft as an unsigned report on the images that it was made from, the same every time.

    Raises ExportError if the draft is of another study.
    """
    if draft.study.study_instance_uid != study.study_instance_uid:
        raise ExportError("The draft is of another study", remedy="draft the study again")
    key = f"{study.study_instance_uid}\0{study.patient or ''}"
    id = hashlib.sha256(key.encode()).hexdigest()[:32]
    images = _images(draft, study, id)
    return Report(
        status="preliminary",
        study_id=id,
        version=0,
        study=StudyRow(
            id=id,
            study_instance_uid=study.study_instance_uid,
            patient=Patient(),  # to_sr takes it from the images
            modality=study.modality,
            body_part=study.body_part,
            view=study.view,
            received=_NO_TIME,
            status="drafted",
            priority="routine",
            images=len(images),
        ),
        images=images,
        model=draft.model,
        sentences=tuple(_sentence(finding) for finding in draft.findings),
        comparison=_comparison(draft),
        impression=draft.impression,
    )


def _sentence(finding: Finding) -> SignedSentence:
    return SignedSentence(
        text=finding.text,
        finding=finding.finding,
        polarity=finding.polarity,
        origin="machine",
        probability=finding.probability,
        regions=tuple(finding.regions),
    )


def _comparison(draft: Draft) -> str:
    prior = draft.comparison
    if prior is None or not prior.input_check.accepted:
        return ""
    return f"Study {prior.study_instance_uid or 'without a UID'}."


def _images(draft: Draft, study: Study, id: str) -> tuple[ImageRow, ...]:
    """Those that the gate let through, and those with a region."""
    wanted = {check.sop_instance_uid for check in draft.input_check.images if check.accepted}
    wanted |= {region.sop_instance_uid for one in draft.findings for region in one.regions}
    by_uid = {one.sop_instance_uid: one for one in study.instances if one.sop_instance_uid}
    return tuple(
        ImageRow(
            id=f"{number:032x}",
            study_id=id,
            stack=0,
            number=number,
            sop_class_uid=one.sop_class_uid,
            sop_instance_uid=uid,
            series_instance_uid=one.series_instance_uid,
            modality=one.modality,
            view_position=one.view_position,
            rows=one.rows,
            columns=one.columns,
            frames=one.frames,
            sha256=one.sha256,
        )
        for number, (uid, one) in enumerate(by_uid.items())
        if uid in wanted
    )


def _of_images(headers: Sequence[Dataset] | None, report: Report) -> list[Dataset]:
    wanted = {row.sop_instance_uid for row in report.images}
    return [ds for ds in headers or () if ds.get("SOPInstanceUID") in wanted]


def _headers(study: Study, report: Report) -> list[Dataset]:
    wanted = {row.sop_instance_uid for row in report.images}
    return [_header(one) for one in study.instances if one.sop_instance_uid in wanted]


def _header(instance: Instance) -> Dataset:
    """Where anything about a header is unusual, a worker parses it, as when it was read."""
    try:
        if instance.is_plain:
            return _parsed(instance.path)
        return in_worker(_parsed, instance.path)
    except InputError as error:
        error.file = instance.file
        raise


def _parsed(path: Path) -> Dataset:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dcmread(path, stop_before_pixels=True, force=True)
    except OSError:
        raise InputNotFound("The file is gone.", remedy="Start again.") from None
    except Exception:  # whatever a damaged header makes of the parser
        raise Undecodable("The image's header cannot be read any more.") from None


def _read(path: Path) -> tuple[Draft, datetime]:
    """The draft, and when it was written."""
    try:
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        return Draft.model_validate_json(path.read_text(encoding="utf-8")), written
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise InputNotFound(
            "The draft cannot be read.", file=path.name, remedy="Draft the study again."
        ) from error


def _date(ds: Dataset, written: datetime) -> None:
    """In the time zone that the images declare, else of this machine. No part of the UIDs."""
    offset = ds.get("TimezoneOffsetFromUTC")
    zone: tzinfo | None = datetime.strptime(offset, "%z").tzinfo if offset else None
    local = written.astimezone(zone)
    ds.ContentDate, ds.ContentTime = local.strftime("%Y%m%d"), local.strftime("%H%M%S")


def _sent(folder: Path) -> dict[str, list[str]]:
    """SOPInstanceUIDs by server. A file that cannot be read is forgotten; the server knows."""
    try:
        told = json.loads((folder / SENT).read_text(encoding="utf-8"))
        return {str(server): [str(uid) for uid in uids] for server, uids in told.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _remember(folder: Path, sent: Mapping[str, Sequence[str]]) -> None:
    told = json.dumps(sent, indent=2) + "\n"
    write_whole(folder / SENT, lambda path: path.write_text(told, encoding="utf-8"))
