"""Facts on how an image was made: found in its questions, asked in other words."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from medvlm.data.sets import Question, load_set
from medvlm.train.facts import OF_ORGAN, VALUES, _table, fact_turns, image_facts


def _asked(question: str, answer: str, kind: str = "MODALITY", organ: str = "HEAD") -> Question:
    return Question(Path("made-up.jpg"), "made-up", organ, question, answer, False, kind)


@pytest.mark.parametrize(
    ("question", "answer", "kind", "fact"),
    [
        ("What type of imaging is this?", "MRI Diffusion Weighted", "MODALITY", "mri"),
        ("Is this a CT image?", "yes", "MODALITY", "ct"),
        ("Is this a CT image?", "no", "MODALITY", None),
        ("How was this taken?", "X-ray", "MODALITY", "x-ray"),
        ("What does this not represent?", "ultrasound, CT", "MODALITY", None),
        ("Is there blood on this head CT?", "no", "PRES", "ct"),
        ("Is there blood?", "yes", "PRES", None),
    ],
)
def test_modality(question: str, answer: str, kind: str, fact: str | None) -> None:
    found = image_facts([_asked(question, answer, kind)])["made-up.jpg"]
    assert found.get("modality") == fact


def test_one_fact_implies_another() -> None:
    found = image_facts([_asked("What MRI sequence is shown?", "FLAIR")])["made-up.jpg"]
    assert found == {"organ": "HEAD", "plane": "axial", "modality": "mri", "sequence": "flair"}
    chest = image_facts([_asked("Is this a PA film?", "no", "PLANE", "CHEST")])["made-up.jpg"]
    assert chest == {"organ": "CHEST", "modality": "x-ray", "projection": "ap"}


def test_contrast_with_and_without() -> None:
    for question, answer, value in (
        ("Is this a noncontrast CT?", "yes", "without"),
        ("Is this a noncontrast CT?", "no", "with"),
        ("Was contrast used?", "no", "without"),
        ("Is this taken with or without contrast?", "with contrast", "with"),
    ):
        found = image_facts([_asked(question, answer)])["made-up.jpg"]
        assert found["contrast"] == value, question


def test_contradictions_tell_nothing() -> None:
    questions = [_asked("What is this?", "CT"), _asked("What is this?", "MRI")]
    assert "modality" not in image_facts(questions)["made-up.jpg"]


def test_turns_are_true_of_the_image_and_not_always_yes() -> None:
    facts = {"organ": "HEAD", "modality": "mri", "plane": "axial", "contrast": "without"}
    turns = fact_turns(facts, 400, np.random.default_rng(0))
    assert len(turns) == 400
    closed = [turn for turn in turns if turn.answer in ("yes", "no")]
    assert 0.3 < np.mean([turn.answer == "yes" for turn in closed]) < 0.7
    for turn in turns:
        asked = turn.question.lower()
        if turn.answer == "yes":
            assert not re.search(r"\bct\b|x-ray|coronal|sagittal|chest|abdomen", asked), asked
        elif turn.answer == "no":
            assert not re.search(r"\bmri\b|axial|head|noncontrast", asked), asked
        else:
            assert turn.answer in {"mri", "axial"}


def test_the_table_speaks_the_same_language() -> None:
    table = _table()
    assert len(table) > 50
    for facts in table.values():
        for kind, value in facts.items():
            assert value in VALUES[kind]


def test_the_table_is_of_training_images_of_heads(data_pack: Path) -> None:
    """Looking at validation images would be training on them."""
    questions = load_set(data_pack / "vqa_rad").questions
    heads = {q.image.name for q in questions if q.organ == "HEAD" and not q.validation}
    assert set(_table()) == heads
    facts = image_facts([q for q in questions if not q.validation])
    assert all(OF_ORGAN.keys() >= {own["organ"]} for own in facts.values())
    known = np.mean(["modality" in own for own in facts.values()])
    assert known > 0.95
