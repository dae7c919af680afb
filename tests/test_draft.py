"""Drafting and answering with a tiny model behind the real interface."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medvlm.dicom.read import read_inputs
from medvlm.dicom.study import Study, group_studies
from medvlm.draft.answer import answer_question
from medvlm.draft.compose import draft_study
from medvlm.draft.parse import Location, contradictions, parse_sentence
from medvlm.draft.write import Statement, says
from medvlm.errors import UsageError
from medvlm.findings import FINDINGS
from medvlm.image.geometry import Box
from medvlm.image.load import load_image
from medvlm.model.checkpoint import Checkpoint, load_checkpoint
from medvlm.resources import sample_film


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
    assert sorted(f.finding for f in findings) == sorted(FINDINGS)
    for finding in findings:
        assert [(s.finding, s.polarity) for s in parse_sentence(finding.text)] == [
            (finding.finding, finding.polarity)
        ]
    assert result.draft.status == "preliminary"
    assert result.overlay is not None


def test_regions_lie_inside_the_film(checkpoint: Checkpoint, film: Study) -> None:
    width, height = film.instances[0].columns, film.instances[0].rows
    regions = [r for f in draft_study(checkpoint, film).draft.findings for r in f.regions]
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
    answer = answer_question(checkpoint, load_image(film.instances[0]), "Is this normal?")
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
