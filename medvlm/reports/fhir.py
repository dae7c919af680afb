"""Reports as FHIR DiagnosticReport resources (R4, R4B, R5): alone, in a Bundle, or as ndjson."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from typing import Any

from medvlm.dicom.facts import is_uid
from medvlm.reports import known
from medvlm.reports.report import Report, UnusableReport, checked
from medvlm.reports.sections import Section, split_sections
from medvlm.reports.table import decoded, iso

Resource = Mapping[str, Any]
_USELESS = frozenset({"cancelled", "entered-in-error", "registered", "unknown"})
_PRELIMINARY = frozenset({"partial", "preliminary", "modified"})
_BLOCKS = frozenset({"p", "div", "br", "li", "tr", "h1", "h2", "h3", "h4", "td", "th"})
_OID = "urn:oid:"
_ACCESSION = "ACSN"


def resources_of(content: Any) -> Iterator[Resource]:
    """The resources of a file's content: itself, or the entries of a Bundle."""
    if not isinstance(content, Mapping):
        return
    if content.get("resourceType") == "Bundle":
        for entry in _list(content.get("entry")):
            if isinstance(resource := _dict(entry).get("resource"), Mapping):
                yield {**resource, "fullUrl": _dict(entry).get("fullUrl")}
    elif isinstance(content.get("resourceType"), str):
        yield content


class Pool:
    """Resources that others refer to, by address and by type and id."""

    def __init__(self, resources: list[Resource]) -> None:
        self._by: dict[str, Resource] = {}
        for resource in resources:
            name = f"{resource.get('resourceType')}/{resource.get('id')}"
            for address in (name, str(resource.get("fullUrl") or "")):
                if (address and resource.get("id")) or address.startswith(("urn:", "http")):
                    self._by[address] = resource

    def find(self, reference: Any, report: Resource) -> Resource | None:
        """The resource that a reference points at: contained, or in the same file."""
        address = str(_dict(reference).get("reference") or "")
        if address.startswith("#"):
            contained = (_dict(item) for item in _list(report.get("contained")))
            return next((item for item in contained if item.get("id") == address[1:]), None)
        short = "/".join(address.split("/_history")[0].split("/")[-2:])
        return self._by.get(address) or self._by.get(short)


def report_of(resource: Resource, pool: Pool, source: str) -> Report:
    """One DiagnosticReport. Raises UnusableReport."""
    status = str(resource.get("status") or "")
    if status in _USELESS:
        raise UnusableReport(f"The report's status is {status}.", code="status")
    study, accession = _study(resource, pool)
    subject = pool.find(resource.get("subject"), resource)
    others = [
        found
        for key in ("performer", "resultsInterpreter", "basedOn")
        for one in _list(resource.get(key))
        if (found := pool.find(one, resource))
    ]
    return checked(
        Report(
            source=source,
            sections=tuple(_sections(resource, pool)),
            study_instance_uid=study,
            accession_number=accession,
            patient_id=_patient(resource, subject),
            issued=iso(str(resource.get("issued") or resource.get("effectiveDateTime") or "")),
            final=status not in _PRELIMINARY,
            known=known.together(
                known.of_json(one) for one in (resource, *others, *([subject] if subject else []))
            ),
        )
    )


def _sections(resource: Resource, pool: Pool) -> list[Section]:
    """The attached text, the observations or the narrative; then the conclusion as impression."""
    sections = [
        section
        for form in _list(resource.get("presentedForm"))
        if (text := _attached(_dict(form)))
        for section in split_sections(text)
    ]
    if not sections:
        for reference in _list(resource.get("result")):
            observation = pool.find(reference, resource) or {}
            said = observation.get("valueString")
            if isinstance(said, str) and said.strip():
                sections += split_sections(said)
    conclusion = str(resource.get("conclusion") or "").strip()
    told = " ".join(" ".join(body for _, body in sections).split())
    if conclusion and " ".join(conclusion.split()) not in told:
        # A conclusion may itself be a whole report with headings.
        parts = split_sections(conclusion)
        plain = len(parts) == 1 and parts[0].name == "findings"
        sections += [Section("impression", conclusion)] if plain else parts
    if not sections and (narrative := _plain(str(_dict(resource.get("text")).get("div") or ""))):
        sections = split_sections(narrative)
    return sections


def _attached(form: Resource) -> str:
    """The text of an attachment; "" for what is no text or lies elsewhere."""
    kind = str(form.get("contentType") or "text/plain").lower()
    if not kind.startswith("text/") or not isinstance(form.get("data"), str):
        return ""
    try:
        data = base64.b64decode(re.sub(r"\s", "", form["data"]), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnusableReport("An attached text is no base64.", code="bad_attachment") from error
    text = decoded(data)
    return _plain(text) if "html" in kind else text


def _study(resource: Resource, pool: Pool) -> tuple[str | None, str | None]:
    """StudyInstanceUID and accession number, each from the first place that tells it."""
    uids: list[str] = []
    accessions: list[str] = []
    own = [_dict(item) for item in _list(resource.get("identifier"))]
    accessions += filter(None, map(_accession, own))
    for key in ("imagingStudy", "study", "basedOn"):
        for reference in _list(resource.get(key)):
            found = pool.find(reference, resource) or {}
            identifiers = [_dict(_dict(reference).get("identifier"))]
            identifiers += [_dict(item) for item in _list(found.get("identifier"))]
            if key != "basedOn":
                uids += filter(None, map(_uid, identifiers))
            accessions += filter(None, map(_accession, identifiers))
    uids += filter(None, map(_uid, own))
    if len(set(uids)) > 1:
        raise UnusableReport("The report belongs to several studies.", code="several_studies")
    return next(iter(uids), None), next(iter(accessions), None)


def _uid(identifier: Resource) -> str | None:
    value = str(identifier.get("value") or "").removeprefix(_OID)
    marked = identifier.get("system") == "urn:dicom:uid" or str(
        identifier.get("value") or ""
    ).startswith(_OID)
    return value if marked and is_uid(value) else None


def _accession(identifier: Resource) -> str | None:
    kinds = {_dict(code).get("code") for code in _list(_dict(identifier.get("type")).get("coding"))}
    named = "accession" in str(identifier.get("system") or "").lower()
    value = str(identifier.get("value") or "").strip()
    return value if value and (_ACCESSION in kinds or named) else None


def _patient(resource: Resource, subject: Resource | None) -> str | None:
    identifiers = [_dict(_dict(resource.get("subject")).get("identifier"))]
    identifiers += [_dict(item) for item in _list((subject or {}).get("identifier"))]
    values = [str(one["value"]).strip() for one in identifiers if one.get("value")]
    # Of several identifiers nothing says which the images carry.
    return values[0] if len(set(values)) == 1 else None


class _Plain(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def _plain(html: str) -> str:
    reader = _Plain()
    reader.feed(html)
    reader.close()
    return "".join(reader.parts).strip()


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
