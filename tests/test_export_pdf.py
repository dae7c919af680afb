"""A report as PDF."""
# ruff: noqa: RUF001 (Japanese marks)

import base64
import re
import shutil
import subprocess
import zlib
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("reportlab")

from medvlm.errors import ExportError
from medvlm.export.lettering import Style, font_of, width_of, wrap
from medvlm.export.pdf import KeyImage, to_pdf
from medvlm.review.records import Patient, Report
from tests.exports import amended, picture, preliminary, report, said, study

STYLE = Style(size=10)
needs_pdftotext = pytest.mark.skipif(
    shutil.which("pdftotext") is None, reason="needs pdftotext (Debian package poppler-utils)"
)


def drawn(pdf: bytes) -> str:
    """All streams of the file that are no pictures, as they draw."""
    found = []
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL):
        data = base64.a85decode(stream.strip(), adobe=False) if b"~>" not in stream else b""
        data = base64.a85decode(b"<~" + stream.strip(), adobe=True) if b"~>" in stream else data
        found.append(zlib.decompress(data))
    return b"\n".join(found).decode("latin-1")


def read(pdf: bytes, folder: Path) -> str:
    """The text as another program reads it."""
    (folder / "report.pdf").write_bytes(pdf)
    command = ["pdftotext", "-layout", str(folder / "report.pdf"), "-"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@needs_pdftotext
def test_what_a_signed_report_says(tmp_path: Path) -> None:
    patient = Patient(name="Yamada^Tarou=山田^太郎", patient_id="ID-1", sex="M", age_years=66.3)
    one = amended(study=study(patient=patient))
    text = " ".join(read(to_pdf(one, [KeyImage(picture(), "1: 胸水")]), tmp_path).split())
    for words in (
        "AMENDED REPORT",
        "山田 太郎 (Yamada, Tarou)",
        "male, 66 years",
        "Indication Cough and fever.",
        "Comparison None.",
        "1. Small left pleural effusion. 2. No pneumothorax.",
        "Impression Small left pleural effusion.",
        "Addendum 1 Discussed with the ward at 14:10.",
        "Addendum signed by John Roe, 2026-05-04 05:20 UTC (signed in through hospital log-in)",
        "Signed by Jane Doe, 2026-05-04 04:12 UTC (locally attested)",
        "Drafted by software (medvlm-cxr-lite 0.2.2), reviewed by Jane Doe.",
        "Research use only",
        "Key images",
        "1: 胸水",
        "Page 1 of",
    ):
        assert words in text
    assert "PRELIMINARY" not in text


@needs_pdftotext
def test_markup_is_shown_as_it_was_written(tmp_path: Path) -> None:
    hostile = "<b>bold</b> & <para>&lt; &#65; </font> ]]> (a\\b) %s {x}"
    one = report(
        sentences=(said(hostile),),
        impression=hostile,
        signed_by=hostile,
        study=study(patient=Patient(name=hostile, patient_id=hostile)),
    )
    text = read(to_pdf(one, [KeyImage(picture(), hostile)]), tmp_path)
    assert text.count("<b>bold</b> & <para>&lt; &#65; </font> ]]> (a\\b) %s {x}") >= 4


@pytest.mark.parametrize("make", [report, amended, preliminary])
def test_the_same_report_gives_the_same_bytes(make: Any) -> None:
    images = [KeyImage(picture(), "一"), KeyImage(picture(30, 90), "2")]
    assert to_pdf(make(), images) == to_pdf(make(), images)


def test_a_draft_has_a_watermark_on_every_page_and_says_that_nobody_signed() -> None:
    long = preliminary(sentences=tuple(said(f"Sentence {n}.") for n in range(120)))
    content = drawn(to_pdf(long))
    pages = re.findall(r"\(Page [0-9]+ of ([0-9]+)\)", content)
    assert len(pages) == int(pages[0]) > 2
    assert content.count("(PRELIMINARY) Tj") == len(pages)
    assert "(Not signed.)" in content
    assert content.count("NOT reviewed: preliminary.") >= len(pages)
    assert "(PRELIMINARY) Tj" not in drawn(to_pdf(report()))


def test_the_files_title_names_nobody() -> None:
    patient = Patient(name="Doe^Jane", patient_id="ID-1")
    data = to_pdf(report(study=study(patient=patient)))
    assert b"(Final report)" in data
    # Names stand in the pages, which are compressed, and nowhere else.
    assert b"Doe" not in data
    assert b"ID-1" not in data


def test_a_key_image_that_is_none_is_refused() -> None:
    for data in (b"", b"no picture", picture()[:60]):
        with pytest.raises(ExportError, match="key image"):
            to_pdf(report(), [KeyImage(data, "")])


@pytest.mark.parametrize("pictures", [1, 2, 5])
def test_any_number_and_shape_of_key_images_fits(pictures: int) -> None:
    shapes = [(2000, 100), (100, 2000), (64, 64), (3, 3), (1000, 1000)]
    images = [KeyImage(picture(*shapes[n]), "caption " * 40) for n in range(pictures)]
    assert drawn(to_pdf(report(), images)).count(" Do") >= pictures


@pytest.mark.parametrize(
    "hard",
    [
        report(sentences=(said("x" * 5000),)),
        report(sentences=(said("長" * 9000),), impression="\n".join(["line"] * 300)),
        report(study=study(patient=Patient(name="長" * 400, patient_id="9" * 400))),
        report(sentences=(), impression="", indication="", comparison="", study=study(taken="")),
        report(signed_by="長い名前" * 60),
    ],
)
def test_hard_reports_come_onto_pages(hard: Report) -> None:
    assert to_pdf(hard).startswith(b"%PDF")


def test_a_character_without_a_font_is_shown_to_be_missing() -> None:
    one = report(impression="\U00020bb7 and nothing else")  # a rare kanji, beyond the fonts
    assert "stands for a character that this form cannot print" in drawn(to_pdf(one, zone=UTC))
    assert "stands for a character" not in drawn(to_pdf(report()))


# ---- letters and lines ----


@pytest.mark.parametrize(
    ("characters", "font"),
    [
        ("aÄ\u2013µ\u00d7ß€", "Helvetica"),
        ("≥≤→αβ±", "Helvetica"),  # partly in Symbol, which goes with it
        ("あ漢Ж□ー、", "HeiseiKakuGo-W5"),
        ("한글", "HYGothic-Medium"),
        ("们这", "STSong-Light"),
        ("\U00020bb7\u0e01", None),
    ],
)
def test_the_font_of_a_character(characters: str, font: str | None) -> None:
    assert {font_of(character) for character in characters} == {font}


def test_lines_hold_all_that_was_said_and_fit() -> None:
    text = (
        "右下肺野に3.2cm大の腫瘤影（mass）を認める。前回のCT（2025-11-03）と比較して増大しており、"
        "The lesion abuts the major fissure、胸膜陥入像（pleural indentation）を伴う。" * 3
    )
    for width in range(90, 400, 17):
        lines = wrap(text, STYLE, width)
        assert "".join("".join(lines).split()) == "".join(text.split())
        assert all(width_of(line, STYLE) <= width for line in lines)
        assert not any(line[0] in "、。）" for line in lines)
        assert not any(line[-1] == "（" for line in lines)
        for word in ("indentation", "fissure", "2025-11-03", "3.2cm"):
            assert any(word in line for line in lines)  # never broken inside


def test_latin_lines_break_at_spaces_and_only_words_too_long_are_broken() -> None:
    assert wrap("one two three", STYLE, width_of("one two", STYLE)) == ["one two", "three"]
    assert wrap('say "no" (now)', STYLE, width_of("(now)", STYLE)) == ["say", '"no"', "(now)"]
    pieces = wrap("a " + "x" * 50, STYLE, 50)
    assert pieces[0] == "a"
    assert "".join(pieces[1:]) == "x" * 50
    assert wrap("", STYLE, 50) == [""]
    assert wrap("漢", STYLE, 1) == ["漢"]
