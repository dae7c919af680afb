"""Sections and sentences of reports, and what is English."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.reports.language import is_english
from medvlm.reports.sections import section_name, split_sections, split_sentences


@pytest.mark.parametrize(
    ("heading", "name"),
    [
        ("FINDINGS", "findings"),
        ("Findings:", "findings"),
        ("Chest x-ray findings", "findings"),
        ("  RADIOGRAPHIC   FINDINGS ", "findings"),
        ("Impressions", "impression"),
        ("CONCLUSION", "impression"),
        ("Opinion", "impression"),
        ("Radiology Imaging study [Impression]", "impression"),
        ("Clinical History", "history"),
        ("CLINICAL INFORMATION", "history"),
        ("Reason for exam", "indication"),
        ("INDICATION", "indication"),
        ("Technique", "technique"),
        ("Examination", "technique"),
        ("Comparison", "comparison"),
        ("Prior studies", "comparison"),
        ("Recommendation", "recommendation"),
        ("ADDENDUM #2", "addendum"),
        ("Electronically signed by", "signature"),
        ("Favourite colour", "other"),
        ("", "other"),
    ],
)
def test_headings(heading: str, name: str) -> None:
    assert section_name(heading) == name


def test_a_report_with_headings_on_lines() -> None:
    text = (
        "CHEST TWO VIEWS\r\n\r\nClinical history: cough.\r\nTechnique\r\nPA and lateral.\r\n"
        "FINDINGS:\r\nLungs are clear.\r\nHEART: normal.\r\n\r\nIMPRESSION -\r\n1. No effusion.\r\n"
        "Signed by: somebody\r\n"
    )
    assert split_sections(text) == [
        ("other", "CHEST TWO VIEWS"),
        ("history", "cough."),
        ("technique", "PA and lateral."),
        ("findings", "Lungs are clear.\nHEART: normal."),
        ("impression", "1. No effusion."),
        ("signature", "somebody"),
    ]


def test_a_report_whose_line_breaks_were_lost() -> None:
    text = "INDICATION: Pneumonia? FINDINGS: Clear lungs. IMPRESSION: Normal chest."
    assert split_sections(text) == [
        ("indication", "Pneumonia?"),
        ("findings", "Clear lungs."),
        ("impression", "Normal chest."),
    ]


def test_what_stands_above_the_only_heading_is_findings() -> None:
    assert split_sections("Small effusion.\nImpression: Effusion.") == [
        ("findings", "Small effusion."),
        ("impression", "Effusion."),
    ]
    assert split_sections("Small effusion.") == [("findings", "Small effusion.")]
    assert split_sections(" \n ") == []


def test_a_word_of_a_heading_inside_a_sentence_opens_nothing() -> None:
    text = "Findings: Comparison is limited. The impression of a nodule: not confirmed."
    assert [name for name, _ in split_sections(text)] == ["findings"]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("No effusion. No edema.", ["No effusion.", "No edema."]),
        ("A 1.5 cm nodule. Stable.", ["A 1.5 cm nodule.", "Stable."]),
        (
            "Discussed with Dr. Doe at once. No edema.",
            ["Discussed with Dr. Doe at once.", "No edema."],
        ),
        ("Atelectasis vs. pneumonia. Clear.", ["Atelectasis vs. pneumonia.", "Clear."]),
        ("Seen, e.g. basal atelectasis. Clear.", ["Seen, e.g. basal atelectasis.", "Clear."]),
        ("1. Effusion.\n2. No edema.", ["Effusion.", "No edema."]),
        ("1. Effusion. 2) No edema. 3. Mass.", ["Effusion.", "No edema.", "Mass."]),
        ("- Effusion\n- No edema", ["Effusion", "No edema"]),
        (
            "The lungs show no\nconsolidation. Heart normal.",
            ["The lungs show no consolidation.", "Heart normal."],
        ),
        ("Cardiomegaly\nNo effusion", ["Cardiomegaly", "No effusion"]),
        (
            "The cardiomediastinal silhouette is enlarged when compared with the\n"
            "January film of the same patient",
            [
                "The cardiomediastinal silhouette is enlarged when compared with the "
                "January film of the same patient"
            ],
        ),
        ("Pneumonia? Please repeat!", ["Pneumonia?", "Please repeat!"]),
        ("Effusion: no. Mass: none.", ["Effusion: no.", "Mass: none."]),
        ("no effusion. heart is normal.", ["no effusion.", "heart is normal."]),
        ("First part.\n\nSecond part", ["First part.", "Second part"]),
        (" ... \n--\n 12. ", []),
        ("", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


@given(st.text(max_size=300))
def test_no_letter_is_lost(text: str) -> None:
    def letters(of: str) -> list[str]:
        return [char for char in of if char.isalpha()]

    assert letters(" ".join(split_sentences(text))) == letters(text)


@pytest.mark.parametrize(
    "text",
    [
        "The lungs are clear. No effusion.",
        "Cardiomegaly.",
        "Mild bibasilar atelectasis without pneumothorax.",
        "",
    ],
)
def test_english(text: str) -> None:
    assert is_english(text)


@pytest.mark.parametrize(
    "text",
    [
        "Kein Pleuraerguss. Das Herz ist nicht vergrößert.",
        "Pas d'épanchement pleural, le coeur est de taille normale.",
        "No hay derrame pleural en el lado derecho, los pulmones sin lesiones.",
        "Il cuore non è ingrandito, e non si vede versamento.",
        "Лёгкие без очаговых изменений.",
        "未见胸腔积液 心影不大",
    ],
)
def test_not_english(text: str) -> None:
    assert not is_english(text)
