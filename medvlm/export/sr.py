"""A report as a DICOM structured report, Basic Text or Comprehensive, in its images' study.

The UIDs follow from the report, so that exporting it twice gives one and the same object, and an
addendum can refer to the version before it without having seen it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from io import BytesIO

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    BasicTextSRStorage,
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
)

from medvlm import __version__
from medvlm.export.codes import PRIVATE, PRIVATE_UID, Concept, uid_of
from medvlm.export.notice import checked, is_signed, provenance
from medvlm.export.sr_content import Kind, code, moment_of, reference, root
from medvlm.export.sr_header import carry_over, dicom_name, images_of, long_string, one
from medvlm.export.words import cut
from medvlm.review.records import Report

_CLASSES = {"basic": BasicTextSRStorage, "comprehensive": ComprehensiveSRStorage}
_SERIES = {"basic": ("Report", 9001), "comprehensive": ("Report with regions", 9002)}
_PROCESSING = Concept("109102", "DCM", "Processing Equipment")
_MAKER = "medvlm"
# What changes while a study lies on the desk and says nothing of it.
_OF_THE_DESK = {"status", "priority", "urgent", "problem", "progress", "lock", "version"}


def to_sr(
    report: Report,
    headers: Sequence[Dataset],
    kind: Kind = "basic",
    *,
    organisation: str | None = None,
    zone: tzinfo = UTC,
) -> Dataset:
    """A new object in the study of the images, in a series of its own.

    Args:
        report: signed: complete, verified, final; else partial, unverified, preliminary.
        headers: of the report's images, without pixels: all that its regions are on, at least one.
        kind: "basic" for every viewer, "comprehensive" with codes, probabilities and regions.
        organisation: that answers for the signature; left out, the images' institution.
        zone: of dates and times. An offset that the images declare goes before it.

    Raises:
        ExportError: the report is not what its status says, is of a picture that is not DICOM, or
            does not fit the headers.
    """
    images = images_of(checked(report), headers)
    source = next(iter(images.values()))
    ds = Dataset()
    carry_over(source, ds)
    zone = _declared(ds.get("TimezoneOffsetFromUTC")) or zone
    _identify(ds, report, kind)
    _date(ds, report, zone)
    _status(ds, report, organisation or one(source, "InstitutionName"), zone)
    _software(ds, report)
    ds.CurrentRequestedProcedureEvidenceSequence = [_evidence(images)]
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.PerformedProcedureCodeSequence = []
    if report.status == "amended":
        ds.PredecessorDocumentsSequence = [_predecessor(report, kind)]
    ds.update(root(report, images, kind, zone))
    return ds


def sr_bytes(ds: Dataset) -> bytes:
    """The object as a DICOM file."""
    with BytesIO() as file:
        ds.save_as(file, enforce_file_format=True)
        return file.getvalue()


def _identify(ds: Dataset, report: Report, kind: Kind) -> None:
    # Names of people go in with whatever letters they have, wherever the images came from.
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = _CLASSES[kind]
    ds.SOPInstanceUID = _instance_uid(report, kind)
    ds.SeriesInstanceUID = _series_uid(report, kind)
    ds.Modality = "SR"
    ds.SeriesDescription, ds.SeriesNumber = _SERIES[kind]
    ds.InstanceNumber = max(report.version, 1)
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeUID = PRIVATE, PRIVATE_UID
    scheme.CodingSchemeName = "Codes of medvlm"
    ds.CodingSchemeIdentificationSequence = [scheme]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        ds.SOPClassUID,
        ds.SOPInstanceUID,
    )
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta = meta


def _date(ds: Dataset, report: Report, zone: tzinfo) -> None:
    """Of the last signature; for a draft, of the study's arrival: nothing else is sure to stay."""
    times = [report.signed_at, *(addendum.signed_at for addendum in report.addenda)]
    last = max((time for time in times if time), default=report.study.received).astimezone(zone)
    ds.ContentDate, ds.ContentTime = last.strftime("%Y%m%d"), last.strftime("%H%M%S")


def _status(ds: Dataset, report: Report, organisation: str, zone: tzinfo) -> None:
    if not is_signed(report):
        ds.CompletionFlag, ds.VerificationFlag = "PARTIAL", "UNVERIFIED"
        ds.PreliminaryFlag = "PRELIMINARY"
        return
    ds.CompletionFlag, ds.VerificationFlag, ds.PreliminaryFlag = "COMPLETE", "VERIFIED", "FINAL"
    signers = [(report.signed_by, report.signed_at)]
    signers += [(addendum.signed_by, addendum.signed_at) for addendum in report.addenda]
    ds.VerifyingObserverSequence = [
        _verifier(name, time, organisation, zone) for name, time in signers if name and time
    ]


def _verifier(name: str, time: datetime, organisation: str, zone: tzinfo) -> Dataset:
    item = Dataset()
    item.VerifyingObserverName = dicom_name(name)
    item.VerifyingOrganization = long_string(organisation) or "Unknown"
    item.VerificationDateTime = moment_of(time, zone)
    item.VerifyingObserverIdentificationCodeSequence = []
    return item


def _software(ds: Dataset, report: Report) -> None:
    """This program made the object; the model contributed the draft."""
    ds.Manufacturer = ds.ManufacturerModelName = _MAKER
    ds.SoftwareVersions = __version__
    if report.model is None:
        return
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code(_PROCESSING)]
    item.Manufacturer = _MAKER
    item.ManufacturerModelName = long_string(report.model.name)
    item.SoftwareVersions = long_string(report.model.version)
    item.DeviceSerialNumber = long_string(report.model.weights_sha256)
    item.ContributionDescription = cut(provenance(report), 1024)
    ds.ContributingEquipmentSequence = [item]


def _evidence(images: Mapping[str, Dataset]) -> Dataset:
    series: dict[str, list[Dataset]] = {}
    for header in images.values():
        series.setdefault(str(header.SeriesInstanceUID), []).append(reference(header))
    return _study(images, series)


def _study(images: Mapping[str, Dataset], series: Mapping[str, list[Dataset]]) -> Dataset:
    item = Dataset()
    item.StudyInstanceUID = next(iter(images.values())).StudyInstanceUID
    item.ReferencedSeriesSequence = [_series(name, objects) for name, objects in series.items()]
    return item


def _series(name: str, objects: list[Dataset]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID, item.ReferencedSOPSequence = name, objects
    return item


def _predecessor(report: Report, kind: Kind) -> Dataset:
    earlier = Dataset()
    earlier.ReferencedSOPClassUID = _CLASSES[kind]
    earlier.ReferencedSOPInstanceUID = _signed_uid(report.study_id, report.version - 1, kind)
    item = Dataset()
    item.StudyInstanceUID = report.study.study_instance_uid
    item.ReferencedSeriesSequence = [_series(_series_uid(report, kind), [earlier])]
    return item


def _series_uid(report: Report, kind: Kind) -> str:
    return uid_of("series", report.study_id, kind)


def _signed_uid(study_id: str, version: int, kind: Kind) -> str:
    # Not from the content: a signed version never changes, and the next one must name this one.
    return uid_of("signed", study_id, str(version), kind)


def _instance_uid(report: Report, kind: Kind) -> str:
    if is_signed(report):
        return _signed_uid(report.study_id, report.version, kind)
    content = report.model_dump_json(exclude={"study": _OF_THE_DESK})
    digest = hashlib.sha256(content.encode()).hexdigest()
    return uid_of("preliminary", report.study_id, digest, kind)


def _declared(offset: str | None) -> tzinfo | None:
    """The time zone of a TimezoneOffsetFromUTC."""
    if not offset:
        return None
    minutes = int(offset[1:3]) * 60 + int(offset[3:5])
    return timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))
