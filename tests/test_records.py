"""draft.json keeps its form and cannot say what makes no sense."""

import json
from importlib.resources import files
from typing import Any

import pytest
from pydantic import ValidationError

from medvlm.draft.markdown import to_markdown
from medvlm.records import (
    Draft,
    Evidence,
    Finding,
    ImageCheck,
    InputCheck,
    ModelRecord,
    Reason,
    Region,
    StudyRecord,
    Withheld,
    draft_schema,
)

MODEL = ModelRecord(name="medvlm-cxr-lite", version="0.1.0", weights_sha256="ab" * 32)


def full_draft() -> Draft:
    region = Region(sop_instance_uid="1.2.3", x=10.5, y=20, width=30, height=40)
    evidence = Evidence(status="supported", p_image=0.8, p_erased=0.2, p_blank=0.1, p_other=0.15)
    return Draft(
        study=StudyRecord(study_instance_uid="1.2", modality="CR", body_part="CHEST", view="PA"),
        model=MODEL,
        input_check=InputCheck(
            accepted=True, images=[ImageCheck(sop_instance_uid="1.2.3", accepted=True)]
        ),
        findings=[
            Finding(
                text="Left lower zone | *nodule*.",
                finding="Nodule",
                polarity="present",
                probability=0.81,
                evidence=evidence,
                regions=[region],
            ),
            Finding(text="No mass.", finding="Mass", polarity="absent", probability=0.02),
        ],
        impression="Left lower zone nodule.",
        withheld=[
            Withheld(finding="Edema", text="<b>Edema.</b>", probability=0.5, reason="unsupported")
        ],
        timings_s={"model": 1.25},
    )


def refused_draft() -> Draft:
    reason = Reason(code="wrong_modality", message="This is a CT.")
    return Draft(
        study=StudyRecord(),
        model=MODEL,
        input_check=InputCheck(accepted=False, reasons=[reason]),
    )


def test_the_schema_in_the_package_is_that_of_the_code() -> None:
    stored = files("medvlm").joinpath("schemas/draft.schema.json").read_text(encoding="utf-8")
    assert json.loads(stored) == draft_schema()


@pytest.mark.parametrize("draft", [full_draft(), refused_draft()])
def test_what_is_written_fits_the_schema_and_reads_back(draft: Draft) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    written = draft.model_dump_json()
    jsonschema.validate(json.loads(written), draft_schema())
    assert Draft.model_validate_json(written) == draft


def test_the_fields_of_the_contract() -> None:
    written = full_draft().model_dump(mode="json")
    assert list(written) == [
        "schema_version", "status", "study", "model", "input_check", "findings", "impression",
        "withheld", "comparison", "stability", "timings_s",
    ]  # fmt: skip
    assert written["status"] == "preliminary"
    region = {
        "sop_instance_uid": "1.2.3",
        "frame": 0,
        "x": 10.5,
        "y": 20,
        "width": 30,
        "height": 40,
    }
    assert written["findings"][0]["regions"] == [region]
    outlined = Region(x=0, y=0, width=2, height=2, polygon=[(0, 0), (2, 0), (2, 2)])
    assert outlined.model_dump(mode="json")["polygon"] == [[0, 0], [2, 0], [2, 2]]


@pytest.mark.parametrize(
    "change",
    [
        {"patient_name": "X"},
        {"status": "final"},
        {"impression": None},
        {"input_check": {"accepted": False}},  # refused, yet with findings
        {"timings_s": {"model": -1}},
    ],
)
def test_nonsense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Draft.model_validate(full_draft().model_dump() | change)


@pytest.mark.parametrize(
    "change",
    [
        {"probability": 1.01},
        {"probability": float("nan")},
        {"polarity": "maybe"},
        {"polarity": "absent"},  # with a region
        {"regions": [{"x": 0, "y": 0, "width": 0, "height": 5}]},
        {"regions": [{"x": float("inf"), "y": 0, "width": 1, "height": 5}]},
    ],
)
def test_a_finding_of_nonsense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Finding.model_validate(full_draft().findings[0].model_dump() | change)


def test_markdown_shows_the_draft_and_escapes_its_texts() -> None:
    page = to_markdown(full_draft(), "Study <1>")
    assert page.startswith("# Study \\<1\\>\n\n**Preliminary")
    row = "| Left lower zone \\| \\*nodule\\*. | 81% | supported | 10, 20, 30, 40 |"
    assert row in page.splitlines()
    assert "- \\<b\\>Edema.\\</b\\> (50%): unsupported" in page
    assert "weights abababababab; model 1.25 s." in page


def test_markdown_of_a_refused_study_gives_the_reason_and_no_findings() -> None:
    page = to_markdown(refused_draft(), "A CT")
    assert "- This is a CT. (wrong\\_modality)" in page
    assert "## Findings" not in page
    assert "## Impression" not in page
