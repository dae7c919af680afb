"""Which kind of question is asked."""

from __future__ import annotations

import pytest

from medvlm.draft.question import parse_question


@pytest.mark.parametrize(
    ("question", "region", "kind"),
    [
        ("Where is the left lung?", False, "lungs"),
        ("Where are the lungs?", False, "lungs"),
        ("Where is the effusion?", False, "place"),
        ("What is this?", True, "region"),
        ("What is in this region?", True, "region"),
        ("Is this a PA film?", False, "view"),
        ("Is the patient male or female?", False, "sex"),
        ("Is there a pneumothorax?", False, "presence"),
        ("Is/Are there evidence of cardiomegaly?", False, "presence"),
        ("Is this normal?", False, "yes_no"),
        ("Does this woman have a rib fracture?", False, "yes_no"),
        ("Is there a fracture on this AP film?", False, "yes_no"),
        ("Is this film PA or AP?", False, "view"),
        ("Is there no pneumothorax?", False, "yes_no"),
        ("Is there a left pleural effusion?", False, "yes_no"),
        ("Where is the lung lesion located?", False, "free"),
        ("Which lung has a defect?", False, "free"),
        ("Is there a pneumothorax?", True, "yes_no"),
        ("Is the mass solid or cystic?", False, "free"),
        ("What type of imaging is this?", False, "free"),
        ("Is the heart enlarged?", False, "presence"),
        ("Is the heart border enlarged?", False, "yes_no"),
        ("Is the left heart enlarged?", False, "yes_no"),
        ("Is there a pericardial effusion?", False, "yes_no"),
        ("Are the lungs enlarged?", False, "yes_no"),
    ],
)
def test_kind(question: str, region: bool, kind: str) -> None:
    assert parse_question(question, region).kind == kind


@pytest.mark.parametrize(
    ("question", "finding", "denied"),
    [
        ("Is/Are the heart enlarged?", "Cardiomegaly", False),
        ("Is the heart larger than normal?", "Cardiomegaly", False),
        ("Is the heart size abnormal?", "Cardiomegaly", False),
        ("Does the width of the heart exceed half of the thorax?", "Cardiomegaly", False),
        ("Is the heart normal in size?", "Cardiomegaly", True),
        ("Is/Are the cardiac silhouette normal?", "Cardiomegaly", True),
        ("Is there blunting of the costophrenic angles?", "Effusion", False),
        ("Are the costophrenic angles sharp?", "Effusion", True),
    ],
)
def test_signs_stand_for_findings(question: str, finding: str, denied: bool) -> None:
    parsed = parse_question(question, False)
    assert (parsed.kind, parsed.findings, parsed.denied) == ("presence", (finding,), denied)


def test_sides_and_findings_are_read() -> None:
    assert parse_question("Where is the right lung?", False).sides == ("right",)
    assert parse_question("Where are the lungs?", False).sides == ("right", "left")
    assert parse_question("Where is the pleural effusion?", False).findings == ("Effusion",)
