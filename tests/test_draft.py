"""Drafting and answering with a tiny model behind the real interface."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import generate_uid

from medvlm.dicom.read import read_inputs
from medvlm.dicom.study import Study, group_studies
from medvlm.draft.answer import answer_question
from medvlm.draft.compose import draft_study
from medvlm.draft.markdown import to_markdown
from medvlm.draft.parse import Location, contradictions, parse_sentence
from medvlm.draft.write import Statement, says
from medvlm.errors import UsageError
from medvlm.findings import FINDINGS
from medvlm.image.geometry import Box
from medvlm.image.load import load_image
from medvlm.model.checkpoint import Checkpoint, load_checkpoint
from medvlm.resources import sample_film
from tests.dicoms import save, synthetic


@pytest.fixture
def checkpoint(tiny: Path) -> Checkpoint:
    return load_checkpoint()


@pytest.fixture(scope="module")
def film() -> Study:
    (study,) = group_studies(read_inputs(sample_film()))
    return study


def test_a_draft_speaks_of_every_finding_and_never_contradicts_itself(
    checkpoint: Checkpoint, film: Study
) -> None:
    result = draft_study(checkpoint, film)
    findings = result.draft.findings
    named = [f.finding for f in findings] + [item.finding for item in result.draft.withheld]
    assert sorted(named) == sorted(FINDINGS)
    for finding in findings:
        assert [(s.finding, s.polarity) for s in parse_sentence(finding.text)] == [
            (finding.finding, finding.polarity)
        ]
    assert result.draft.status == "preliminary"
    assert result.overlay is not None


def test_regions_lie_inside_the_film(checkpoint: Checkpoint, film: Study) -> None:
    width, height = film.instances[0].columns, film.instances[0].rows
    regions = [r for f in draft_study(checkpoint, film).draft.findings for r in f.regions]
    assert regions
    for region in regions:
        assert 0 <= region.x <= region.x + region.width <= width + 0.01
        assert 0 <= region.y <= region.y + region.height <= height + 0.01
        assert region.sop_instance_uid == film.instances[0].sop_instance_uid


def test_two_drafts_of_one_film_are_the_same(checkpoint: Checkpoint, film: Study) -> None:
    one, two = (
        draft_study(checkpoint, film).draft.model_dump(exclude={"timings_s"}) for _ in range(2)
    )
    assert one == two


def test_a_lateral_or_other_modality_is_refused_with_reasons(
    checkpoint: Checkpoint, ct_study: Study
) -> None:
    draft = draft_study(checkpoint, ct_study).draft
    assert not draft.input_check.accepted
    assert "wrong_modality" in {reason.code for reason in draft.input_check.reasons}
    assert draft.findings == []


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("Left lower zone nodule.", True),
        ("Right lower zone nodule.", False),
        ("No nodule.", False),
        ("Left lower zone nodule. Effusion.", False),
        ("Left lower zone nodule and mass.", False),
        ("nodule", False),
        ("", False),
    ],
)
def test_a_sentence_must_say_the_statement_and_nothing_else(text: str, good: bool) -> None:
    statement = Statement("Nodule", "present", Location("left", "lower"))
    assert says(text, statement) == good
    if good:
        assert contradictions(text, "Nodule", "present", Location("left", "lower")) == []


def test_a_question_over_a_region_answers_with_that_region(
    checkpoint: Checkpoint, film: Study
) -> None:
    image = load_image(film.instances[0])
    answer = answer_question(checkpoint, image, "What is this?", Box(100, 200, 300, 400))
    (region,) = answer.regions
    assert (region.x, region.y, region.width, region.height) == (100, 200, 300, 400)


def test_yes_no_has_a_probability(checkpoint: Checkpoint, film: Study) -> None:
    answer = answer_question(checkpoint, load_image(film.instances[0]), "Are there rib fractures?")
    assert answer.answer in ("yes", "no")
    assert answer.probability is not None
    assert (answer.probability > 0.5) == (answer.answer == "yes")


def test_a_region_outside_the_image_is_wrong_usage(checkpoint: Checkpoint, film: Study) -> None:
    with pytest.raises(UsageError, match="outside"):
        answer_question(
            checkpoint, load_image(film.instances[0]), "What is this?", Box(9000, 0, 10, 10)
        )


@pytest.fixture
def ct_study() -> Study:
    from tests.dicoms import shipped

    (study,) = group_studies(read_inputs(shipped("CT_small.dcm")))
    return study


def test_a_picture_is_drafted_without_uids(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "film.png"
    ramp = np.tile(np.linspace(0, 255, 300), (280, 1)).astype(np.uint8)
    Image.fromarray(ramp).save(path)
    (study,) = group_studies(read_inputs(path))
    draft = draft_study(checkpoint, study).draft
    assert draft.study.study_instance_uid is None
    assert draft.input_check.accepted


def with_points(checkpoint: Checkpoint, **points: float | dict[str, float]) -> Checkpoint:
    """The checkpoint with other operating points."""
    own = checkpoint.config.operating_points.model_copy(update=points)
    config = checkpoint.config.model_copy(update={"operating_points": own})
    return replace(checkpoint, config=config)


def test_what_the_model_takes_for_no_chest_film_is_refused(
    checkpoint: Checkpoint, film: Study
) -> None:
    strict = with_points(checkpoint, frontal_chest=1.01)
    draft = draft_study(strict, film).draft
    assert [reason.code for reason in draft.input_check.reasons] == ["not_frontal_chest"]
    assert draft.findings == []
    answer = answer_question(strict, load_image(film.instances[0]), "Where is the left lung?")
    assert not answer.input_check.accepted
    assert answer.regions == []


def test_no_opacity_is_withheld_beside_a_possible_pneumonia(
    checkpoint: Checkpoint, film: Study
) -> None:
    # Everything is at least possible, but for the opacity itself.
    below = dict.fromkeys(FINDINGS, 0.0) | {"Lung_Opacity": 1.01}
    draft = draft_study(with_points(checkpoint, present_from=1.1, absent_below=below), film).draft
    assert "Lung_Opacity" not in {finding.finding for finding in draft.findings}
    assert [item.finding for item in draft.withheld] == ["Lung_Opacity"]


def test_two_films_of_a_study_are_told_apart(checkpoint: Checkpoint, tmp_path: Path) -> None:
    uid = generate_uid()
    for number in (1, 2):
        pixels = np.random.default_rng(number).integers(0, 4000, (300, 260)).astype(np.uint16)
        save(synthetic(pixels, StudyInstanceUID=uid), tmp_path / f"{number}.dcm")
    (study,) = group_studies(read_inputs(tmp_path))
    result = draft_study(with_points(checkpoint, present_from=0.0), study)
    assert [image.accepted for image in result.draft.input_check.images] == [True, True]
    assert result.overlay is not None
    assert result.overlay.width >= 2 * 260
    assert "image 1: " in to_markdown(result.draft, "t") or "image 2: " in to_markdown(
        result.draft, "t"
    )


@pytest.mark.parametrize(
    ("question", "of"),
    [
        ("Is there a pneumothorax?", "pneumothorax"),
        ("Is the heart enlarged?", "cardiomegaly"),
        ("Is this a PA film?", "answer"),
        ("Are there rib fractures?", "yes"),
        ("Which findings are present?", None),
    ],
)
def test_an_answer_says_what_its_probability_is_of(
    checkpoint: Checkpoint, film: Study, question: str, of: str | None
) -> None:
    answer = answer_question(checkpoint, load_image(film.instances[0]), question)
    assert answer.probability_of == of
    assert (answer.probability is None) == (of is None)


def test_asked_for_its_normality_the_heart_is_what_the_draft_says(
    checkpoint: Checkpoint, film: Study
) -> None:
    image = load_image(film.instances[0])
    present = with_points(checkpoint, present_from=0.0)
    assert answer_question(present, image, "Is the heart enlarged?").answer == "yes"
    assert answer_question(present, image, "Is the heart size normal?").answer == "no"
    assert answer_question(present, image, "Is this film normal?").answer == "no"
    absent = with_points(checkpoint, present_from=1.1, absent_below=dict.fromkeys(FINDINGS, 1.01))
    assert answer_question(absent, image, "Is the heart enlarged?").answer == "no"
    assert answer_question(absent, image, "Is the heart size normal?").answer == "yes"
    assert answer_question(absent, image, "Is there a left pneumothorax?").answer == "no"


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Is this a CT scan?", "no"),
        ("Is this an MRI of the chest?", "no"),
        ("Is this a chest x-ray?", "yes"),
        ("Is this an x-ray of the head?", "no"),
        ("What modality is this?", "x-ray"),
        ("Is this a CT or an x-ray?", "x-ray"),
        ("Is this a CT, an MRI or an x-ray?", "x-ray"),
    ],
)
def test_the_modality_is_what_the_file_says(
    checkpoint: Checkpoint, film: Study, question: str, answer: str
) -> None:
    image = load_image(film.instances[0])
    assert answer_question(checkpoint, image, question).answer == answer
    picture = replace(image, is_dicom=False, modality=None)
    assert answer_question(checkpoint, picture, question).answer == answer


def test_the_modality_of_an_image_that_is_no_chest_film(
    checkpoint: Checkpoint, film: Study
) -> None:
    strict = with_points(checkpoint, frontal_chest=1.01)
    slice_ = replace(load_image(film.instances[0]), modality="CT")
    assert answer_question(strict, slice_, "Is this a CT scan?").answer == "yes"
    assert answer_question(strict, slice_, "Is this a chest x-ray?").answer == "no"
    assert answer_question(strict, slice_, "What modality is this?").answer == "CT"
    # What is neither in a header nor known to the gate is left to the language model.
    picture = replace(slice_, is_dicom=False, modality=None)
    answer = answer_question(strict, picture, "Is this a CT scan?")
    assert answer.probability_of == "yes"
    # A screenshot is no CT, and what it was taken of is not known.
    screen = replace(slice_, conversion_type="WSD")
    assert answer_question(strict, screen, "Is this a CT scan?").probability_of == "yes"
    # Two body parts are a choice of parts, not of modalities.
    parts = answer_question(strict, slice_, "Is this a chest CT or a head CT?")
    assert parts.answer != "CT"
    bones = replace(slice_, modality="DX")
    assert answer_question(strict, bones, "Is this an x-ray?").answer == "yes"
    assert answer_question(strict, bones, "Is this a chest x-ray?").probability_of == "yes"
