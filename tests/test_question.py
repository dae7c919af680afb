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
    ],
)
def test_kind(question: str, region: bool, kind: str) -> None:
    assert parse_question(question, region).kind == kind


def test_sides_and_findings_are_read() -> None:
    assert parse_question("Where is the right lung?", False).sides == ("right",)
    assert parse_question("Where are the lungs?", False).sides == ("right", "left")
    assert parse_question("Where is the pleural effusion?", False).findings == ("Effusion",)
