"""The pages of a report as PDF. Needs reportlab; `medvlm.export.pdf` is what others call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import tzinfo
from io import BytesIO
from typing import Any

from PIL.Image import open as open_image
from reportlab.lib.colors import Color, HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    BaseDocTemplate,
    CondPageBreak,
    Flowable,
    Frame,
    HRFlowable,
    Image,
    KeepTogether,
    PageTemplate,
    Spacer,
    Table,
)

from medvlm.export.lettering import MISSING, Style, Text, draw_line, font_of, width_of, wrap
from medvlm.export.notice import (
    addendum_signatures,
    is_signed,
    notices,
    provenance,
    signature,
    title,
)
from medvlm.export.text import patient_lines, sections
from medvlm.export.words import paragraphs, person_name, plain
from medvlm.review.records import Report

_MARGIN = 20 * mm
_FOOT = 30 * mm
_WIDTH = A4[0] - 2 * _MARGIN
_BODY = Style(after=2)
_HEADING = Style(size=10.5, leading=15, bold=True, after=1)
_TITLE = Style(size=15, leading=20, bold=True)
_LABEL = Style(size=8.5, leading=12, grey=0.35)
_VALUE = Style(size=9.5, leading=12)
_SMALL = Style(size=8, leading=10.5, grey=0.25)
_FOOTER = Style(size=7.5, leading=9.5, grey=0.3)
_LINE = HexColor(0x9AA5B1)
_WATERMARK = Color(0.80, 0.10, 0.10, alpha=0.16)
_GAP = 6 * mm  # between two pictures
_TALLEST, _TALLEST_ALONE = 95 * mm, 130 * mm
_NOTE = f"{MISSING} stands for a character that this form cannot print; the text form has it."

Picture = tuple[bytes, str]


class UnreadablePicture(Exception):
    """A key image is no picture."""


def draw(report: Report, pictures: Sequence[Picture], zone: tzinfo) -> bytes:
    """The file's bytes. Raises UnreadablePicture."""
    with BytesIO() as file:
        document = BaseDocTemplate(
            file,
            pagesize=A4,
            title=title(report).capitalize(),  # no name: viewers show it in their window's title
            author="",
            creator="medvlm",
            invariant=1,
        )
        frame = Frame(
            _MARGIN,
            _FOOT,
            _WIDTH,
            A4[1] - _FOOT - _MARGIN,
            leftPadding=0,
            rightPadding=0,
            topPadding=0,
            bottomPadding=0,
        )
        # A draft's watermark lies under its text.
        page = PageTemplate(frames=[frame], onPage=_watermark if not is_signed(report) else _none)
        document.addPageTemplates([page])

        def canvas(*arguments: Any, **options: Any) -> _Numbered:
            return _Numbered(*arguments, footer=_footer(report), **options)

        document.build(list(_story(report, pictures, zone)), canvasmaker=canvas)
        return file.getvalue()


def _story(report: Report, pictures: Sequence[Picture], zone: tzinfo) -> Iterator[Flowable]:
    yield Text(title(report), _TITLE)
    if not is_signed(report):
        yield Text(provenance(report), Style(bold=True, after=2))
    yield Spacer(0, 2 * mm)
    yield _header(patient_lines(report))
    yield Spacer(0, 2 * mm)
    for heading, lines in sections(report):
        if heading == "Findings" and pictures and report.sentences:
            # The pictures call a region by the number of its sentence.
            lines = [f"{n}. {plain(one.text)}" for n, one in enumerate(report.sentences, start=1)]
        yield from _section(heading, [Text(line, _BODY) for line in lines])
    addenda = zip(report.addenda, addendum_signatures(report, zone), strict=True)
    for number, (addendum, by) in enumerate(addenda, start=1):
        said = [Text(line, _BODY) for line in paragraphs(addendum.text)]
        yield from _section(f"Addendum {number}", [*said, Text(f"Addendum signed by {by}", _SMALL)])
    yield Spacer(0, 4 * mm)
    yield _signature(report, zone)
    if pictures:
        yield from _key_images(pictures)
    if _has_missing(report, pictures):
        yield Spacer(0, 3 * mm)
        yield Text(_NOTE, _SMALL)


def _header(pairs: Sequence[tuple[str, str]]) -> Flowable:
    """Patient and study, two facts a row."""
    cells = [[Text(label, _LABEL), Text(value, _VALUE)] for label, value in pairs]
    rows = [
        [*cells[i], *(cells[i + 1] if i + 1 < len(cells) else ["", ""])]
        for i in range(0, len(cells), 2)
    ]
    columns = [22 * mm, _WIDTH / 2 - 22 * mm] * 2
    table = Table(rows or [["", "", "", ""]], colWidths=columns)
    table.setStyle(
        [
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LINEABOVE", (0, 0), (-1, 0), 0.8, _LINE),
            ("LINEBELOW", (0, -1), (-1, -1), 0.8, _LINE),
            ("LEFTPADDING", (0, 0), (-1, -1), 0),
            ("RIGHTPADDING", (0, 0), (-1, -1), 4),
            ("TOPPADDING", (0, 0), (-1, -1), 2),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
        ]
    )
    return table


def _section(heading: str, body: Sequence[Flowable]) -> Iterator[Flowable]:
    """A heading never stands alone at the foot of a page."""
    yield CondPageBreak(_HEADING.leading + 3 * _BODY.leading)
    yield Spacer(0, 3 * mm)
    yield Text(heading, _HEADING)
    yield from body


def _signature(report: Report, zone: tzinfo) -> Flowable:
    by = signature(report, zone)
    lines: list[Flowable] = [
        HRFlowable(width="100%", thickness=0.8, color=_LINE, spaceAfter=4),
        Text(f"Signed by {by}" if by else "Not signed.", Style(bold=True, after=2)),
        *(Text(line, _SMALL) for line in notices(report)),
    ]
    if report.sha256 and by:
        lines.append(Text(f"Version {report.version}, SHA-256 {plain(report.sha256)}", _FOOTER))
    return KeepTogether(lines)


def _key_images(pictures: Sequence[Picture]) -> Iterator[Flowable]:
    """Two in a row; one alone is larger."""
    alone = len(pictures) == 1
    width = 0.8 * _WIDTH if alone else (_WIDTH - _GAP) / 2
    rows = [pictures[first : first + 2] for first in range(0, len(pictures), 2)]
    heading = [Spacer(0, 5 * mm), Text("Key images", _HEADING), Spacer(0, 1 * mm)]
    for row in rows:
        images = [_picture(data, width, _TALLEST_ALONE if alone else _TALLEST) for data, _ in row]
        table = Table(
            [images, [Text(caption, _SMALL) for _, caption in row]],
            colWidths=[width + _GAP] * len(row),
            hAlign="LEFT",
            style=[
                ("VALIGN", (0, 0), (-1, 0), "BOTTOM"),
                ("VALIGN", (0, 1), (-1, 1), "TOP"),
                ("LEFTPADDING", (0, 0), (-1, -1), 0),
                ("RIGHTPADDING", (0, 0), (-1, -1), _GAP),
                ("TOPPADDING", (0, 0), (-1, -1), 2),
                ("BOTTOMPADDING", (0, 0), (-1, 0), 2),
                ("BOTTOMPADDING", (0, 1), (-1, 1), 8),
            ],
        )
        yield KeepTogether([*heading, table])  # neither heading nor caption stands alone
        heading = []


def _picture(data: bytes, width: float, tallest: float) -> Flowable:
    try:
        with open_image(BytesIO(data)) as picture:
            picture.load()  # reportlab would read it to its end only when the page is drawn
            columns, rows = picture.size
        scale = min(width / columns, tallest / rows)
        image = Image(BytesIO(data), width=columns * scale, height=rows * scale)
    except Exception as error:  # whatever a decoder throws at bytes that are no picture
        raise UnreadablePicture from error
    image.hAlign = "LEFT"
    return image


def _has_missing(report: Report, pictures: Sequence[Picture]) -> bool:
    said = [line for _, lines in sections(report) for line in lines]
    said += [value for _, value in patient_lines(report)]
    said += [line for addendum in report.addenda for line in paragraphs(addendum.text)]
    said += [caption for _, caption in pictures]
    return any(font_of(c) is None for c in set("".join(said)))


def _footer(report: Report) -> list[str]:
    """On every page: whose report it is, that a loose page be not taken for another's; notices."""
    patient = report.study.patient
    who = ", ".join(filter(None, (person_name(patient.name), plain(patient.patient_id))))
    return [*([who] if who else []), *notices(report)]


def _none(_canvas: Any, _document: Any) -> None:
    """Nothing under the text."""


def _watermark(canvas: Any, _document: Any) -> None:
    canvas.saveState()
    canvas.setFillColor(_WATERMARK)
    canvas.setFont("Helvetica-Bold", 78)
    canvas.translate(A4[0] / 2, A4[1] / 2)
    canvas.rotate(50)
    canvas.drawCentredString(0, -25, "PRELIMINARY")
    canvas.restoreState()


class _Numbered(Canvas):
    """Draws each page's foot when the number of pages is known."""

    def __init__(self, *arguments: Any, footer: list[str], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._footer = footer
        self._pages: list[dict[str, Any]] = []

    def showPage(self) -> None:  # noqa: N802 (reportlab's name)
        self._pages.append(dict(self.__dict__))
        self._startPage()

    def save(self) -> None:
        for number, page in enumerate(pages := self._pages, start=1):
            self.__dict__.update(page)
            self._draw_footer(f"Page {number} of {len(pages)}")
            super().showPage()
        super().save()

    def _draw_footer(self, page: str) -> None:
        y = _FOOT - 8 * mm
        self.setStrokeColor(_LINE)
        self.setLineWidth(0.5)
        self.line(_MARGIN, y + 10, A4[0] - _MARGIN, y + 10)
        self.setFillGray(_FOOTER.grey)
        room = _WIDTH - width_of(page, _FOOTER) - 5 * mm
        draw_line(self, A4[0] - _MARGIN - width_of(page, _FOOTER), y, page, _FOOTER)
        for line in [part for text in self._footer for part in wrap(text, _FOOTER, room)][:5]:
            draw_line(self, _MARGIN, y, line, _FOOTER)
            y -= _FOOTER.leading
