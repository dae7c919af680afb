"""Reports in a table: one row each, with a column that names the study and one with the text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping

from medvlm.dicom.facts import is_uid
from medvlm.reports import known
from medvlm.reports.report import Report, UnusableReport, checked
from medvlm.reports.sections import Section, split_sections
from medvlm.reports.words import word_set

_DELIMITERS = ",;\t|"
_COLUMNS: dict[str, frozenset[str]] = {
    "study": word_set("study_instance_uid studyinstanceuid study_uid studyuid"),
    "accession": word_set("accession_number accession accessionnumber accession_no acc_number"),
    "text": word_set("text report report_text reporttext full_text"),
    "findings": frozenset({"findings", "finding_text"}),
    "impression": frozenset({"impression", "impressions", "conclusion", "conclusions"}),
    "patient": word_set("patient_id patientid mrn"),
    "issued": word_set("issued report_date date signed_at report_datetime"),
    "status": frozenset({"status", "report_status"}),
}
_LARGEST_FIELD = 1 << 24
_PRELIMINARY = frozenset({"preliminary", "partial", "draft", "registered"})
_WITHDRAWN = frozenset(
    {"cancelled", "canceled", "entered-in-error", "entered in error", "deleted", "void", "voided"}
)
_ISO = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)(?:[T ]?(\d\d):?(\d\d)(?::?(\d\d))?)?")


def decoded(data: bytes) -> str:
    """Text of an export: UTF-16 or UTF-8 by its byte-order mark, else UTF-8, else Windows-1252."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def rows_of(text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, row) of a table with a header; the delimiter is what gives its header most columns.

    Columns are named in lower case with underscores. Raises csv.Error.
    """
    if text[:4].lower() == "sep=":  # Excel's own first line
        text = text.partition("\n")[2]
    header = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(_DELIMITERS, key=header.count)
    csv.field_size_limit(_LARGEST_FIELD)
    lines = text.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")
    # Strict: a quote that is not closed would make one report of two patients'.
    reader = csv.reader(io.StringIO(lines), delimiter=delimiter, strict=True)
    names: list[str] | None = None
    for row in reader:
        if not any(cell.strip() for cell in row):
            continue
        if names is None:
            names = [re.sub(r"[\s.-]+", "_", cell.strip().lower()) for cell in row]
        else:
            cells = dict.fromkeys(names, "") | dict(zip(names, row, strict=False))
            # A row of another length was cut or has a stray quote: its text is not to be trusted.
            cells["__length__"] = "" if len(row) == len(names) else "wrong"
            yield reader.line_num, cells


def is_report_table(columns: Mapping[str, str]) -> bool:
    """Whether a row with these columns can hold a report."""
    names = set(columns)
    has_text = names & (_COLUMNS["text"] | _COLUMNS["findings"] | _COLUMNS["impression"])
    return bool(has_text) and bool(names & (_COLUMNS["study"] | _COLUMNS["accession"]))


def report_of(row: Mapping[str, str], source: str) -> Report:
    """The report of one row. Raises UnusableReport."""
    if row.get("__length__"):
        raise UnusableReport(
            "The row has more or fewer columns than the header: a quote is missing.", code="bad_row"
        )
    study, accession = _cell(row, "study"), _cell(row, "accession")
    if study and not is_uid(study):
        raise UnusableReport("The StudyInstanceUID is none.", code="no_study")
    if _cell(row, "status").lower() in _WITHDRAWN:
        raise UnusableReport("The report was withdrawn.", code="status")
    sections = split_sections(_cell(row, "text"))
    for name in ("findings", "impression"):
        if text := _cell(row, name):
            sections.append(Section(name, text))
    return checked(
        Report(
            source=source,
            sections=tuple(sections),
            study_instance_uid=study or None,
            accession_number=accession or None,
            patient_id=_cell(row, "patient") or None,
            issued=iso(_cell(row, "issued")),
            final=_cell(row, "status").lower() not in _PRELIMINARY,
            known=known.together(
                known.of_field(column, cell)
                for column, cell in row.items()
                if column not in _COLUMNS["text"] | _COLUMNS["findings"] | _COLUMNS["impression"]
            ),
        )
    )


def iso(text: str) -> str | None:
    """A date, with or without time, in a form that sorts; None where the order is not sure."""
    match = _ISO.match(text.strip())
    if not match:
        return None
    year, month, day, *clock = match.groups()
    return f"{year}-{month}-{day}T{':'.join(part or '00' for part in clock)}"


def _cell(row: Mapping[str, str], kind: str) -> str:
    """The first cell with something in it among the columns of this kind."""
    found = (row[name].strip() for name in sorted(_COLUMNS[kind] & set(row)))
    return next((cell for cell in found if cell), "")
