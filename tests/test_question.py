"""Which kind of question is asked."""

from __future__ import annotations

import pytest

from medvlm.draft.question import parse_question, projections


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
        ("Is this normal?", False, "normal"),
        ("Does this woman have a rib fracture?", False, "other"),
        ("Is there a fracture on this AP film?", False, "other"),
        ("Is this film PA or AP?", False, "view"),
        ("Is there no pneumothorax?", False, "other"),
        ("Is there a left pleural effusion?", False, "presence"),
        ("Is this film anteroposterior?", False, "view"),
        ("Which view is this?", False, "view"),
        ("Is the PA enlarged?", False, "other"),
        ("What abnormality is seen in this view?", False, "other"),
        ("Where is the opacity in the left lung?", False, "place"),
        ("Has the effusion resolved?", False, "comparison"),
        ("What has changed since the prior study?", False, "comparison"),
        ("Any change?", False, "comparison"),
        ("Is the mass stable?", False, "comparison"),
        ("Is the patient stable?", False, "other"),
        ("Is this larger than on the prior film?", True, "other_comparison"),
        ("Did the patient ingest contrast prior to taking this image?", False, "other"),
        ("Are there degenerative changes in the spine?", False, "other"),
        ("Are there increased interstitial markings?", False, "other"),
        ("Are the lungs free of any consolidation?", False, "other"),
        ("Does this patient with emphysema have a rib fracture?", False, "other"),
        ("Is there mediastinal shift due to the effusion?", False, "other"),
        ("Does the mass have irregular margins?", False, "other"),
        ("Can you appreciate a pleural effusion?", False, "presence"),
        ("Does this patient have a pneumothorax?", False, "presence"),
        ("Are there patchy infiltrates present?", False, "presence"),
        ("Is there consolidation in the patient's lungs?", False, "presence"),
        ("Are the margins of the cardiac silhouette normal?", False, "other"),
        ("Where is this?", True, "region_place"),
        ("Which side is this on?", True, "region_place"),
        ("How big is this area?", True, "other"),
        ("Is this an opacity?", True, "region_presence"),
        ("Which findings are present?", False, "findings"),
        ("What are the findings?", False, "findings"),
        ("Can you describe the film?", False, "findings"),
        ("What abnormalities are in the left lower lobe?", False, "other"),
        ("Are there any abnormalities?", False, "normal"),
        ("Is this a PA chest x-ray?", False, "view"),
        ("Is this an AP view of the chest?", False, "view"),
        ("What is the view?", False, "view"),
        ("Any evidence of pneumothorax?", False, "presence"),
        ("Is the heart larger than on the previous film?", False, "other_comparison"),
        ("Is there evidence of heart failure with increased vascular markings?", False, "other"),
        ("Are the costophrenic angles free of blunting?", False, "other"),
        ("Which lung is free of consolidation?", False, "other"),
        ("Where is the tip of the chest tube draining the effusion?", False, "other"),
        ("Where does this tube end?", True, "other"),
        ("What is the width of this?", True, "other"),
        ("Could you show me where the effusion is?", False, "place"),
        ("What does this film show?", False, "findings"),
        ("Describe this film.", False, "findings"),
        ("Where is the lung lesion located?", False, "other"),
        ("Which lung has a defect?", False, "other"),
        ("Is there a pneumothorax?", True, "region_presence"),
        ("Is the mass solid or cystic?", False, "other"),
        ("What type of imaging is this?", False, "modality"),
        ("Is this a CT scan?", False, "modality"),
        ("Is the image an CT scan?", False, "modality"),
        ("Is this a MRI of the chest?", False, "modality"),
        ("Was this image taken with an MRI or CT scanner?", False, "modality"),
        ("Is this image a CT or MRI image?", False, "modality"),
        ("What imaging modality is used to take this image?", False, "modality"),
        ("What kind of image is this?", False, "modality"),
        ("Which image modality is this?", False, "modality"),
        ("Is this a CT, an MRI or an x-ray?", False, "modality"),
        ("Was a CT taken?", False, "modality"),
        ("Is the above image a CT?", False, "modality"),
        ("What's the modality?", False, "modality"),
        ("Is this a CT scan?", True, "modality"),
        ("What modality is this?", True, "modality"),
        ("What is seen in the imaging study?", False, "other"),
        ("What is the imaging exam for?", False, "other"),
        ("Is the x-ray?", False, "other"),
        ("Which modality was used for the prior study?", False, "other_comparison"),
        ("Is this a noncontrast CT?", False, "other"),
        ("Is this a T1 weighted MRI?", False, "other"),
        ("What type of MRI is this?", False, "other"),
        ("Is there edema on this CT?", False, "other"),
        ("Is the CT normal?", False, "other"),
        ("Can this image highlight bone fractures?", False, "other"),
        ("What type of imaging does this not represent?", False, "other"),
        ("Is the heart enlarged?", False, "presence"),
        ("Is the heart border enlarged?", False, "other"),
        ("Is the left heart enlarged?", False, "other"),
        ("Is there a pericardial effusion?", False, "other"),
        ("Are the lungs enlarged?", False, "other"),
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
        ("Is the heart size within normal limits?", "Cardiomegaly", True),
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
    sided = parse_question("Is there a right-sided pleural effusion?", False)
    assert (sided.kind, sided.sides) == ("presence", ("right",))
    assert parse_question("Is this image normal?", False).denied
    assert not parse_question("Is this image abnormal?", False).denied


def test_projections_are_named_in_short_or_in_full() -> None:
    assert projections("Is this a PA film?") == {"pa"}
    assert projections("Is this an anterior-posterior image?") == {"ap"}
    assert projections("AP or PA?") == {"ap", "pa"}


@pytest.mark.parametrize("unit", ["or ct ", "image ", "the ", "x ", "magnetic ", "plain ", ", "])
@pytest.mark.parametrize("start", ["is this ct ", "what is the ", "is there "])
def test_long_questions_are_read_at_once(start: str, unit: str) -> None:
    # Word by word: a pattern that backtracks would not end within the life of the page.
    assert parse_question(start + 1000 * unit + "x", False).kind == "other"
