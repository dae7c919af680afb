"""Identifiers planted in sentences: none is left, and the words of medicine stay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.dicom.identifiers import fold, squash
from medvlm.findings import PHRASES
from medvlm.reports import known
from medvlm.reports.known import Known
from medvlm.reports.redact import names_somebody, redact
from medvlm.reports.statements import statements
from tests.dicoms import ramp, synthetic
from tests.test_reports_labels import SENTENCES

NOBODY: Known = {}


@pytest.fixture(scope="module")
def patient() -> Known:
    """What the header of a film of an invented patient names."""
    ds = synthetic(
        ramp(),
        PatientName="Quibblethwaite^Zebediah^Oz",
        PatientID="QX-4711-ZZ9",
        PatientBirthDate="19620317",
        AccessionNumber="ACC9081726",
        ReferringPhysicianName="Crumpet^Ébène^^Dr",
        PerformingPhysicianName="Li^Wu",
        InstitutionName="Mudfordshire Infirmary",
        InstitutionAddress="17 Larkspurway, Netherwallop Magna",
        StationName="CHEST",
        PatientComments="effusion",
    )
    return known.of_header(ds)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Mr. Quibblethwaite has an effusion.", "Mr. [NAME] has an effusion."),
        ("QUIBBLETHWAITE, ZEBEDIAH: no mass.", "[NAME]: no mass."),
        ("Zebediah Oz Quibblethwaite's effusion", "[NAME]'s effusion"),
        ("zebediahquibblethwaite", "[NAME]"),
        ("As Dr. Ebene Crumpet asked, no mass.", "As Dr. [NAME] asked, no mass."),
        ("Asked by CRUMPET.", "Asked by [NAME]."),
        ("Read with Wu Li today.", "Read with [NAME] today."),
        ("No li or wu, whatever these are.", "No li or wu, whatever these are."),
        ("ID QX 4711 ZZ9 and qx4711zz9.", "ID [ID] and [ID]."),
        ("Accession ACC9081726, seen.", "Accession [ID], seen."),
        ("Born 17031962, on 3/17/62, on 17.03.1962.", "Born [DATE], on [DATE], on [DATE]."),
        ("At Mudfordshire Infirmary, unchanged.", "At [PLACE], unchanged."),
        ("Of Netherwallop Magna.", "Of [PLACE]."),
        ("Normal chest without effusion.", "Normal chest without effusion."),
    ],
)
def test_what_the_header_names(patient: Known, text: str, clean: str) -> None:
    redacted = redact(text, patient)
    assert redacted.text == clean
    assert not names_somebody(redacted.text, patient)
    assert sum(redacted.counts.values()) == clean.count("[")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Compared with 12/03/2019.", "Compared with [DATE]."),
        ("Compared with 2019-12-03 and 3.12.19.", "Compared with [DATE] and [DATE]."),
        ("Unchanged since March 5th, 2020.", "Unchanged since [DATE]."),
        ("Unchanged since 5 Mar 2020.", "Unchanged since [DATE]."),
        ("Unchanged since 05-MAR-20.", "Unchanged since [DATE]."),
        ("Unchanged since May 4.", "Unchanged since [DATE]."),
        ("Unchanged since October 2018.", "Unchanged since [DATE]."),
        ("Unchanged since November.", "Unchanged since [DATE]."),
        ("Unchanged since 2017.", "Unchanged since [DATE]."),
        ("The film dated 3/12 is better.", "The film dated [DATE] is better."),
        ("Told at 10:42 am.", "Told at [TIME]"),
        ("Told at 3 p.m. by telephone.", "Told at [TIME] by telephone."),
        ("Told at 1430 hours.", "Told at [TIME]."),
        ("Call 555-123-4567.", "Call [PHONE]."),
        ("Call (555) 123-4567 or +44 1632 960017.", "Call [PHONE] or [PHONE]."),
        ("Pager 4711 or ext. 22.", "Pager [PHONE] or ext. [PHONE]."),
        ("Write to a.b-c@ward.example.org now.", "Write to [EMAIL] now."),
        ("See https://pacs.example/1?x=2 there.", "See [URL] there."),
        ("MRN: 4455667.", "MRN: [ID]."),
        ("MRN 44-5x7 and case no. A123.", "MRN [ID] and case no. [ID]."),
        ("SSN 123-45-6789.", "SSN [ID]."),
        ("Number 00451234 and AB-123456.", "Number [ID] and [ID]."),
        ("Study 1.2.840.113619.2.5.77 of today.", "Study [ID] of today."),
        ("Bed 12, room 4B.", "Bed [ID], room [ID]."),
        ("A 92-year-old with a mass.", "A [AGE] with a mass."),
        ("Aged 95; 101 y/o; 93F.", "Aged [AGE]; [AGE]; [AGE]."),
        ("A 45-year-old with a mass.", "A 45-year-old with a mass."),
        ("Dr. Jane van der Berg was told.", "Dr. [NAME] was told."),
        ("DR SMITH", "DR [NAME]"),
        ("Told to dr smith.", "Told to dr [NAME]."),
        ("Mrs. O'Hara-Smith has a mass.", "Mrs. [NAME] has a mass."),
        ("Seen by Jane Doe, MD.", "Seen by [NAME]."),
        ("Signed by: John A. Smith", "Signed by: [NAME]"),
        ("Dictated by J. Smith", "Dictated by [NAME]"),
        ("Discussed by phone with Jane Doe.", "Discussed by phone with [NAME]."),
        ("Her daughter Emily knows.", "Her daughter [NAME] knows."),
        ("Taken at St. Mary Hospital.", "Taken at [PLACE]."),
        ("Lives at 12 Elm Grove Road.", "Lives at [PLACE]."),
    ],
)  # fmt: skip
def test_what_looks_like_an_identifier(text: str, clean: str) -> None:
    assert redact(text, NOBODY).text == clean


@pytest.mark.parametrize(
    "text",
    [
        "A 1.5 cm nodule, 10 x 15 mm, at the level of T12.",
        "The opacity may represent pneumonia in 2 of 3 views.",
        "Port-A-Cath and 18F tube, 3 cm above the carina.",
        "Right IJ catheter, Swan-Ganz catheter in the right pulmonary artery.",
        "Series 2, image 45 of 120; kVp 120.",
        "C3-C7 fusion, L1 fracture, 50% of height.",
        "No pneumothorax. Heart size normal.",
        "The findings were discussed with the referring clinician.",
        "",
    ],
)
def test_medical_words_and_numbers_stay(text: str) -> None:
    assert redact(text, NOBODY) == (text, {})


@pytest.mark.parametrize("text", [text for text, _ in SENTENCES])
def test_sentences_about_findings_stay(text: str, patient: Known) -> None:
    assert redact(text, patient).text == text


def test_a_name_that_is_a_word_of_medicine_changes_what_a_sentence_says() -> None:
    # What is then done about it: `tests/test_site.py`.
    names = known.name("Mass^Edna")
    redacted = redact("No mass in the left lung.", names).text
    assert redacted == "No [NAME] in the left lung."
    assert statements(redacted) != statements("No mass in the left lung.")


@given(st.lists(st.sampled_from(["Quibble", "Tiddle", "mass", "in", "5", "the", "-", "."])))
def test_nothing_known_is_ever_left(parts: list[str]) -> None:
    names = known.name("Quibble^Tiddle")
    clean = redact(" ".join(parts), names).text
    assert "quibble" not in squash(fold(clean))
    assert not names_somebody(clean, names)


@given(st.text(max_size=100), st.text(max_size=20))
def test_any_text_can_be_redacted(text: str, somebody: str) -> None:
    names = known.name(somebody) | known.value(somebody, "ID")
    once = redact(text, names).text
    assert redact(once, {}).counts.keys() <= {"NAME", "ID", "DATE", "PHONE", "TIME", "AGE"}


def test_the_last_net_sees_through_separators_and_accents() -> None:
    names = known.value("AB-12-CD-9", "ID") | known.name("Ébène^Crumpet")
    assert names_somebody("so a b 1 2 c d 9 it is", names)
    assert names_somebody("EBÈNE Crum pet", names)
    assert not names_somebody(" ".join(PHRASES.values()), names)


SPELLED = [
    # (a header's name, as a report may write it)
    ("Müller-Lüdenscheidt^Jörg", "Mueller-Luedenscheidt"),
    ("Mu\u0308ller^Jo\u0308rg", "Mueller, Joerg"),
    ("Mueller^Joerg", "Jörg Müller"),
    ("Łukasiewicz^Jan", "Lukasiewicz"),
    ("Lukasiewicz^Jan", "ŁUKASIEWICZ"),
    ("Øster^Bjørn", "Bjorn Oster"),
    ("山田^太郎", "山田太郎さん"),
]


@pytest.mark.parametrize(("header", "written"), SPELLED)
def test_names_however_they_are_spelled(header: str, written: str) -> None:
    assert redact(f"Effusion in {written}.", known.name(header)).text == "Effusion in [NAME]."


def test_initials_go_with_their_name() -> None:
    smith = known.name("Smith^Mary")
    assert redact("Effusion in M. A. Smith.", smith).text == "Effusion in [NAME]."
    assert redact("Effusion, Smith, M.A. told.", smith).text == "Effusion, [NAME] told."
    assert redact("Effusion in patient R.M.", {}).text == "Effusion in patient [NAME]"


def test_numbers_without_the_zeros_in_front() -> None:
    number = known.value("0004711", "ID")
    assert redact("Effusion of 4711.", number).text == "Effusion of [ID]."
    assert redact("Effusion of 47 11.", number).text == "Effusion of [ID]."


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("On 2019-09-03T10:22.", "On [DATE]T[TIME]."),
        ("Effusion, 09/2019.", "Effusion, [DATE]."),
        ("Effusion, born 17/2.", "Effusion, born [DATE]."),
        ("Call 555 0199.", "Call [PHONE]."),
        ("Call (020) 7946 0123.", "Call [PHONE]."),
        ("Call x4411.", "Call [PHONE]."),
        ("MRN 77 12 33.", "MRN [ID]."),
        ("SSN 078 05 1120.", "SSN [ID]."),
        ("Electronically signed: Waylon Smithers.", "Electronically signed: [NAME]."),
        ("Drs. Smithers and Burns told.", "Drs. [NAME] and [NAME] told."),
    ],
)
def test_what_once_slipped_through(text: str, clean: str) -> None:
    assert redact(text, {}).text == clean


def test_names_of_files_and_folders_are_known() -> None:
    named = known.of_path("/Quibblethwaite_Zebediah/chest effusion/ACC-4711.dcm")
    assert named == {"quibblethwaite": "NAME", "zebediah": "NAME", "acc4711": "ID", "4711": "ID"}


@pytest.mark.parametrize(
    "column", ["Patient", "surname", "Patient Last", "dictated_by", "consultant", "guardian"]
)
def test_columns_that_hold_names(column: str) -> None:
    key = column.lower().replace(" ", "_")
    assert "quibblethwaite" in known.of_field(key, "Quibblethwaite, Zebediah")
