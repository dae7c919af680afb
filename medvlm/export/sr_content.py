"""The content tree of a structured report: PS3.16 TID 2000, Basic Diagnostic Imaging Report.

Basic Text holds the sentences and the images that they are of. Comprehensive adds to each sentence
its finding and polarity as a code, its probability, and its regions as spatial coordinates. A
finding is the name and its polarity the value, so that no reader can take "no pneumothorax" for a
pneumothorax.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any, Literal

from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat

from medvlm.errors import ExportError
from medvlm.export import codes
from medvlm.export.codes import Concept
from medvlm.export.notice import addendum_signatures, is_signed, notices, signature, software
from medvlm.export.sr_header import dicom_name, size
from medvlm.export.text import NOTHING
from medvlm.export.words import block, plain
from medvlm.records import Region
from medvlm.review.records import Report, SignedSentence

Kind = Literal["basic", "comprehensive"]
_TOLERANCE = 1.0  # pixels that a region may stand over the picture's edge
_JAPANESE = re.compile("[\u3040-\u30ff]")
_LANGUAGES = {
    True: Concept("ja", "RFC5646", "Japanese"),
    False: Concept("en", "RFC5646", "English"),
}
_LANGUAGE = Concept("121049", "DCM", "Language of Content Item and Descendants")
_OBSERVER_TYPE = Concept("121005", "DCM", "Observer Type")
_PERSON = Concept("121006", "DCM", "Person")
_DEVICE = Concept("121007", "DCM", "Device")
_PERSON_NAME = Concept("121008", "DCM", "Person Observer Name")
_DEVICE_UID = Concept("121012", "DCM", "Device Observer UID")
_DEVICE_NAME = Concept("121013", "DCM", "Device Observer Name")
_DEVICE_MODEL = Concept("121015", "DCM", "Device Observer Model Name")
_DEVICE_SERIAL = Concept("121016", "DCM", "Device Observer Serial Number")
_IMAGE_REGION = Concept("111030", "DCM", "Image Region")
_SOURCE_IMAGE = Concept("121324", "DCM", "Source image")


def root(report: Report, images: Mapping[str, Dataset], kind: Kind, zone: tzinfo) -> Dataset:
    """The root container. `images`: headers by SOPInstanceUID."""
    heads = [_modifier(_LANGUAGE, _LANGUAGES[bool(_JAPANESE.search(_all_text(report)))])]
    attested = _container(
        codes.ATTESTATION,
        [
            _text(codes.ATTESTATION, line)
            for line in (*filter(None, [signature(report, zone)]), *notices(report))
        ],
    )
    parts = [*_sections(report, images, kind), *_addenda(report, zone)]
    # A draft warns before anything else.
    parts = [*parts, attested] if is_signed(report) else [attested, *parts]
    tree = _container(codes.document_title(report.study), [*heads, *_observers(report), *parts])
    del tree.RelationshipType
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2000"
    tree.ContentTemplateSequence = [template]
    return tree


def code(concept: Concept) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = concept.value, concept.scheme
    item.CodeMeaning = concept.meaning
    return item


def reference(header: Dataset, frame: int | None = None) -> Dataset:
    """A reference to an image, or to one frame (from 0) of one with several."""
    item = Dataset()
    item.ReferencedSOPClassUID = header.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    if frame is not None and size(header)[2] > 1:
        item.ReferencedFrameNumber = frame + 1  # DICOM counts from 1
    return item


def outline(region: Region, header: Dataset) -> list[float]:
    """column\\row pairs of a closed outline, in the image's own pixels.

    Both here and in PS3.3 C.18.6 the origin is the top-left corner of the top-left pixel and the
    bottom-right corner of the last pixel is Columns\\Rows; nothing has to be shifted.

    Raises:
        ExportError: the region is of a frame the image lacks, or not on the image.
    """
    rows, columns, frames = size(header)
    if region.frame >= frames:
        raise _misplaced("A region is of a frame that its image does not have")
    left, top = region.x, region.y
    right, bottom = region.x + region.width, region.y + region.height
    points = region.polygon or [(left, top), (right, top), (right, bottom), (left, bottom)]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if min(*xs, *ys) < -_TOLERANCE or max(xs) > columns + _TOLERANCE or max(ys) > rows + _TOLERANCE:
        raise _misplaced("A region lies outside of its image")
    inside = [(min(max(x, 0.0), float(columns)), min(max(y, 0.0), float(rows))) for x, y in points]
    if inside[0] != inside[-1]:
        inside.append(inside[0])
    return [value for point in inside for value in point]


def moment_of(time: datetime, zone: tzinfo) -> str:
    """A DT with its offset from UTC."""
    return time.astimezone(zone).strftime("%Y%m%d%H%M%S%z")


def _sections(report: Report, images: Mapping[str, Dataset], kind: Kind) -> Iterator[Dataset]:
    if indication := block(report.indication):
        yield _container(codes.INDICATIONS, [_text(codes.INDICATIONS, indication)])
    if comparison := block(report.comparison):
        yield _container(codes.PRIOR_PROCEDURES, [_text(codes.PROCEDURE_DESCRIPTION, comparison)])
    told = [_sentence(one, report, images, kind) for one in report.sentences if block(one.text)]
    yield _container(codes.FINDINGS_HEADING, told or [_text(codes.FINDING, NOTHING)])
    if impression := block(report.impression):
        yield _container(codes.IMPRESSIONS, [_text(codes.IMPRESSION, impression)])


def _addenda(report: Report, zone: tzinfo) -> Iterator[Dataset]:
    signed = addendum_signatures(report, zone)
    for addendum, by in zip(report.addenda, signed, strict=True):
        item = _text(codes.ADDENDUM, f"{block(addendum.text)}\nAddendum signed by {by}")
        item.ObservationDateTime = moment_of(addendum.signed_at, zone)
        yield _container(codes.ADDENDUM, [*_person(addendum.signed_by), item])


def _sentence(
    one: SignedSentence, report: Report, images: Mapping[str, Dataset], kind: Kind
) -> Dataset:
    item = _text(codes.FINDING, block(one.text))
    placed = [(region, _image_of(region, report, images)) for region in one.regions]
    if kind == "basic":
        seen = {(image.SOPInstanceUID, region.frame): image for region, image in placed}
        children = [_image("INFERRED FROM", image, frame) for (_, frame), image in seen.items()]
    else:
        children = [
            _coded("HAS PROPERTIES", codes.finding(one.finding), codes.PRESENCE[one.polarity]),
            _coded("HAS PROPERTIES", codes.ORIGIN, codes.ORIGINS[one.origin]),
        ]
        if one.probability is not None:
            children.append(_number(codes.PROBABILITY, one.probability))
        children += [_region(region, image) for region, image in placed]
    if children:
        item.ContentSequence = children
    return item


def _image_of(region: Region, report: Report, images: Mapping[str, Dataset]) -> Dataset:
    name = region.sop_instance_uid
    if name is None and len(report.images) == 1:
        name = report.images[0].sop_instance_uid
    if name is None or name not in images:
        raise _misplaced("A region is of an image whose header was not given")
    return images[name]


def _region(region: Region, header: Dataset) -> Dataset:
    item = _item("INFERRED FROM", "SCOORD", _IMAGE_REGION)
    item.GraphicType, item.GraphicData = "POLYLINE", outline(region, header)
    if "TotalPixelMatrixColumns" in header:
        item.PixelOriginInterpretation = "FRAME"
    item.ContentSequence = [_image("SELECTED FROM", header, region.frame)]
    return item


def _observers(report: Report) -> list[Dataset]:
    """TID 1002: the software that drafted, and the person who signed."""
    items = _person(report.signed_by) if report.signed_by else []
    if report.model is None:
        return items
    device = _item("HAS OBS CONTEXT", "UIDREF", _DEVICE_UID)
    device.UID = codes.uid_of("model", report.model.weights_sha256)
    named = (
        (_DEVICE_NAME, software(report)),
        (_DEVICE_MODEL, plain(report.model.name)),
        (_DEVICE_SERIAL, plain(report.model.weights_sha256)),
    )
    return [
        *items,
        _coded("HAS OBS CONTEXT", _OBSERVER_TYPE, _DEVICE),
        device,
        *(_text(concept, value, "HAS OBS CONTEXT") for concept, value in named),
    ]


def _person(name: str) -> list[Dataset]:
    item = _item("HAS OBS CONTEXT", "PNAME", _PERSON_NAME)
    item.PersonName = dicom_name(name)
    return [_coded("HAS OBS CONTEXT", _OBSERVER_TYPE, _PERSON), item]


def _item(relation: str, kind: str, concept: Concept, **attributes: Any) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = relation, kind
    item.ConceptNameCodeSequence = [code(concept)]
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def _container(concept: Concept, children: Sequence[Dataset]) -> Dataset:
    return _item(
        "CONTAINS",
        "CONTAINER",
        concept,
        ContinuityOfContent="SEPARATE",
        ContentSequence=list(children),
    )


def _text(concept: Concept, text: str, relation: str = "CONTAINS") -> Dataset:
    return _item(relation, "TEXT", concept, TextValue=text.replace("\n", "\r\n"))


def _coded(relation: str, concept: Concept, value: Concept) -> Dataset:
    return _item(relation, "CODE", concept, ConceptCodeSequence=[code(value)])


def _modifier(concept: Concept, value: Concept) -> Dataset:
    return _coded("HAS CONCEPT MOD", concept, value)


def _number(concept: Concept, number: float) -> Dataset:
    value = Dataset()
    value.NumericValue = DSfloat(round(number, 6), auto_format=True)
    value.MeasurementUnitsCodeSequence = [code(codes.NO_UNITS)]
    return _item("HAS PROPERTIES", "NUM", concept, MeasuredValueSequence=[value])


def _image(relation: str, header: Dataset, frame: int) -> Dataset:
    return _item(relation, "IMAGE", _SOURCE_IMAGE, ReferencedSOPSequence=[reference(header, frame)])


def _all_text(report: Report) -> str:
    said = (one.text for one in report.sentences)
    return " ".join((report.indication, report.comparison, report.impression, *said))


def _misplaced(message: str) -> ExportError:
    return ExportError(
        message, remedy="give the header of every image of the study, and check the region there"
    )
