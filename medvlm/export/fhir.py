"""A report as a FHIR DiagnosticReport (R4B, or R5) with its findings as contained Observations.

The structure is checked by fhir.resources, the codes by ourselves: fhir.resources takes any word
for a status. No extensions. Regions have no place here; they travel in the Comprehensive SR.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any, Literal

from pydantic import ValidationError

from medvlm.errors import ExportError, MissingExtra
from medvlm.export import codes
from medvlm.export.codes import Concept
from medvlm.export.notice import addendum_signatures, checked, notices, software
from medvlm.export.text import to_text
from medvlm.export.words import block, date_of, person_name, plain
from medvlm.review.records import Report, SignedSentence

Release = Literal["R4B", "R5"]
_IDENTIFIER_TYPES = "http://terminology.hl7.org/CodeSystem/v2-0203"
_SERVICES = "http://terminology.hl7.org/CodeSystem/v2-0074"
_OBSERVATIONS = "http://terminology.hl7.org/CodeSystem/observation-category"
_DRAFTER = "drafter"

# What may stand in a coded field of ours, by resource and field: part of FHIR's own value sets.
_STATUSES = frozenset({"preliminary", "final", "amended"})
VALUE_SETS: dict[tuple[str, str], frozenset[str]] = {
    ("DiagnosticReport", "status"): _STATUSES,
    ("Observation", "status"): frozenset({"preliminary", "final"}),
    ("Device", "status"): frozenset({"active"}),
}
_CODINGS: dict[tuple[str, str], frozenset[tuple[str, str]]] = {
    ("DiagnosticReport", "category"): frozenset({(_SERVICES, "RAD")}),
    ("Observation", "category"): frozenset({(_OBSERVATIONS, "imaging")}),
    ("Observation", "valueCodeableConcept"): frozenset(
        (codes.SYSTEMS[one.scheme], one.value) for one in codes.PRESENCE.values()
    ),
}
_NAME_TYPES = frozenset({"user-friendly-name"})


def to_fhir(
    report: Report, *, release: Release = "R4B", pdf: bytes | None = None, zone: tzinfo = UTC
) -> dict[str, Any]:
    """The DiagnosticReport as parsed JSON. `pdf` goes into it beside the plain text.

    Raises:
        ExportError: the report is not what its status says, or would break FHIR's rules.
        MissingExtra: fhir.resources is not installed.
    """
    resource = dict(_report(checked(report), release, pdf, zone))
    validate(resource, release)
    return resource


def validate(resource: Mapping[str, Any], release: Release = "R4B") -> None:
    """Checks a resource of ours: its structure, then its codes.

    Raises:
        ExportError: says which field is wrong, never its value.
        MissingExtra: fhir.resources is not installed.
    """
    try:
        if release == "R5":
            from fhir.resources import get_fhir_model_class
        else:
            from fhir.resources.R4B import get_fhir_model_class
    except ImportError as error:
        raise MissingExtra(
            "a FHIR report needs fhir.resources",
            remedy="install it with `pip install 'medvlm[app]'`",
        ) from error
    for one in (resource, *resource.get("contained", ())):
        kind = str(one.get("resourceType"))
        try:
            get_fhir_model_class(kind).model_validate(one)
        except (ValidationError, KeyError, LookupError) as error:
            fields = (
                {".".join(map(str, item["loc"])) for item in error.errors()}
                if isinstance(error, ValidationError)
                else {"resourceType"}
            )
            raise _wrong(kind, ", ".join(sorted(fields))) from None
        _check_codes(kind, one)


def _check_codes(kind: str, resource: Mapping[str, Any]) -> None:
    for (of, field), allowed in VALUE_SETS.items():
        if of == kind and resource.get(field) not in allowed:
            raise _wrong(kind, field)
    for (of, field), known in _CODINGS.items():
        concepts = resource.get(field) if of == kind else None
        for concept in concepts if isinstance(concepts, list) else filter(None, [concepts]):
            if {(one.get("system"), one.get("code")) for one in concept["coding"]} - known:
                raise _wrong(kind, field)
    for name in (*resource.get("deviceName", ()), *(resource.get("name") or ())):
        if kind == "Device" and name.get("type") not in _NAME_TYPES:
            raise _wrong(kind, "name.type")
    for system in _systems(resource):
        if system not in _SYSTEMS:
            raise _wrong(kind, "coding.system")


_SYSTEMS = frozenset({*codes.SYSTEMS.values(), _IDENTIFIER_TYPES, _SERVICES, _OBSERVATIONS})


def _systems(value: Any) -> Iterator[Any]:
    """The systems of all codings, at any depth."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key == "coding":
                yield from (one.get("system") for one in inner)
            if key != "contained":
                yield from _systems(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _systems(inner)


def _report(
    report: Report, release: Release, pdf: bytes | None, zone: tzinfo
) -> Iterator[tuple[str, Any]]:
    study, signers = report.study, _signers(report)
    yield "resourceType", "DiagnosticReport"
    yield "id", f"{report.study_id}-{'p' if not signers else 'v'}{report.version}"
    contained = [_device(report, release)] if report.model else []
    said = [one for one in report.sentences if block(one.text)]
    contained += [_observation(one, number, report) for number, one in enumerate(said, start=1)]
    if contained:
        yield "contained", contained
    # One name for all versions of a report.
    name = uuid.uuid5(codes.NAMESPACE, report.study_id).urn
    yield "identifier", [{"system": "urn:ietf:rfc:3986", "value": name}]
    if accession := plain(study.accession_number):
        kind = {"coding": [{"system": _IDENTIFIER_TYPES, "code": "ACSN"}]}
        order = {"type": "ServiceRequest", "identifier": {"type": kind, "value": accession}}
        yield "basedOn", [order]
    yield "status", report.status
    yield "category", [_concept_of(_SERVICES, "RAD", "Radiology")]
    yield "code", concept(codes.examination(study))
    if subject := _subject(report):
        yield "subject", subject
    if taken := date_of(study.taken):
        yield "effectiveDateTime", taken[:10]  # its time is without a zone, which FHIR demands
    if signers:
        yield "issued", _instant(max(time for _, time in signers), zone)
        people = list(dict.fromkeys(name for name, _ in signers))
        yield "performer", [_practitioner(people[0])]
        yield "resultsInterpreter", [_practitioner(name) for name in people]
    if uid := study.study_instance_uid:
        identifier = {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}
        where = "study" if release == "R5" else "imagingStudy"
        yield where, [{"type": "ImagingStudy", "identifier": identifier}]
    if said:
        yield "result", [{"reference": f"#{_finding_id(n)}"} for n in range(1, len(said) + 1)]
    if conclusion := _conclusion(report, zone):
        yield "conclusion", conclusion
    yield "presentedForm", _forms(report, pdf, zone)


def _observation(one: SignedSentence, number: int, report: Report) -> dict[str, Any]:
    """A finding, its presence as the value, and the sentence as a note."""
    found = concept(codes.finding(one.finding)) | {"text": codes.phrase(one.finding)}
    observation: dict[str, Any] = {
        "resourceType": "Observation",
        "id": _finding_id(number),
        # An addendum leaves what was found as it was.
        "status": "final" if report.signed_by else "preliminary",
        "category": [_concept_of(_OBSERVATIONS, "imaging", "Imaging")],
        "code": found,
        "valueCodeableConcept": concept(codes.PRESENCE[one.polarity]),
        "note": [{"text": block(one.text)}],
        "component": [
            {
                "code": concept(codes.ORIGIN),
                "valueCodeableConcept": concept(codes.ORIGINS[one.origin]),
            }
        ],
    }
    if subject := _subject(report):
        observation["subject"] = subject
    if taken := date_of(report.study.taken):
        observation["effectiveDateTime"] = taken[:10]
    if report.signed_by:
        observation["performer"] = [_practitioner(report.signed_by)]
    if report.model and one.origin != "human":
        observation["device"] = {"reference": f"#{_DRAFTER}"}
    if one.probability is not None:
        quantity = {
            "value": round(one.probability, 6),
            "system": codes.SYSTEMS["UCUM"],
            "code": codes.NO_UNITS.value,
        }
        component = {"code": concept(codes.PROBABILITY), "valueQuantity": quantity}
        observation["component"].append(component)
    return observation


def _device(report: Report, release: Release) -> dict[str, Any]:
    """The software: its name, version, and the hash of its weights as serial number."""
    model = report.model
    assert model is not None
    name = [{"type": "user-friendly-name"}]
    name[0]["value" if release == "R5" else "name"] = software(report)
    device: dict[str, Any] = {
        "resourceType": "Device",
        "id": _DRAFTER,
        "status": "active",
        "manufacturer": "medvlm",
        "serialNumber": plain(model.weights_sha256),
        "modelNumber": plain(model.name),
        "version": [{"value": plain(model.version)}],
        "note": [{"text": line} for line in notices(report)],
    }
    device["name" if release == "R5" else "deviceName"] = name
    return device


def _subject(report: Report) -> dict[str, Any] | None:
    """The patient by identifier, where the study tells one; nobody is made up."""
    patient = report.study.patient
    subject: dict[str, Any] = {}
    if identifier := plain(patient.patient_id):
        subject["identifier"] = {"value": identifier}
        if issuer := plain(patient.issuer):
            subject["identifier"]["assigner"] = {"display": issuer}
    if name := person_name(patient.name):
        subject["display"] = name
    return {"type": "Patient", **subject} if subject else None


def _signers(report: Report) -> list[tuple[str, datetime]]:
    if report.signed_by is None or report.signed_at is None:
        return []
    added = [(addendum.signed_by, addendum.signed_at) for addendum in report.addenda]
    return [(report.signed_by, report.signed_at), *added]


def _conclusion(report: Report, zone: tzinfo) -> str:
    """The impression, and what was added to it: who reads only this must not miss an addendum."""
    added = zip(report.addenda, addendum_signatures(report, zone), strict=True)
    parts = [f"ADDENDUM by {by}: {block(addendum.text)}" for addendum, by in added]
    return "\n".join(filter(None, [block(report.impression), *parts]))


def _forms(report: Report, pdf: bytes | None, zone: tzinfo) -> list[dict[str, str]]:
    forms = [("text/plain; charset=utf-8", to_text(report, zone=zone).encode())]
    if pdf is not None:
        forms.append(("application/pdf", pdf))
    return [{"contentType": kind, "data": base64.b64encode(data).decode()} for kind, data in forms]


def concept(one: Concept) -> dict[str, Any]:
    return _concept_of(codes.SYSTEMS[one.scheme], one.value, one.meaning)


def _concept_of(system: str, code: str, display: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code, "display": display}]}


def _practitioner(name: str) -> dict[str, str]:
    return {"type": "Practitioner", "display": plain(name)}


def _finding_id(number: int) -> str:
    return f"finding-{number}"


def _instant(time: datetime, zone: tzinfo) -> str:
    return time.astimezone(zone).isoformat(timespec="seconds")


def _wrong(kind: str, fields: str) -> ExportError:
    return ExportError(
        f"The {kind} would break FHIR's rules: {fields}",
        remedy="report this as a defect of medvlm; PDF, text and JSON can still be exported",
    )
