"""The header part of the gate: what says it is no frontal chest film gets no draft."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medvlm.config import GateConfig
from medvlm.dicom.assemble import assemble
from medvlm.dicom.read import read_inputs
from medvlm.image.gate import (
    header_reasons,
    instance_reasons,
    is_body_part,
    is_frontal,
    stack_reasons,
)
from medvlm.image.load import ImageInput, load_image
from tests.dicoms import ramp, save, shipped
from tests.test_inspect import ct_slices

CHEST_FILM = ImageInput(
    pixels=ramp(256, 200, np.float32) / 200,
    file="film.dcm",
    sha256="0" * 64,
    is_dicom=True,
    modality="DX",
    body_part="CHEST",
    view_position="PA",
)


def codes(image: ImageInput) -> list[str]:
    return [reason.code for reason in header_reasons(image)]


def test_a_chest_film_passes() -> None:
    assert codes(CHEST_FILM) == []
    assert codes(replace(CHEST_FILM, modality="CR", body_part=None, view_position=None)) == []


def test_a_picture_says_nothing_and_passes() -> None:
    picture = replace(CHEST_FILM, is_dicom=False, modality=None, body_part=None, view_position=None)
    assert codes(picture) == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"modality": "CT"}, "wrong_modality"),
        ({"modality": "MG"}, "wrong_modality"),
        ({"modality": None}, "wrong_modality"),
        ({"body_part": "WRIST"}, "wrong_body_part"),
        ({"body_part": "TSPINE"}, "wrong_body_part"),
        ({"view_position": "LL"}, "wrong_view"),
        ({"view_position": "LATERAL"}, "wrong_view"),
        ({"view_position": "RLD"}, "wrong_view"),
        ({"patient_orientation": ("R", "F")}, "wrong_orientation"),
        ({"patient_orientation": ("A", "F")}, "wrong_orientation"),
        ({"presentation_intent": "FOR PROCESSING"}, "for_processing"),
        ({"burned_in_annotation": "YES"}, "burned_in_text"),
        ({"conversion_type": "WSD"}, "screenshot"),
        ({"coloured": 0.02}, "colour_screenshot"),
        ({"pixels": ramp(100, 200, np.float32) / 200}, "too_small"),
        ({"pixels": np.full((256, 256), 0.5, dtype=np.float32)}, "blank"),
    ],
)
def test_each_reason(change: dict, code: str) -> None:
    assert codes(replace(CHEST_FILM, **change)) == [code]


def test_all_reasons_are_given() -> None:
    image = replace(CHEST_FILM, modality="CT", body_part="HEAD", view_position="LL")
    assert codes(image) == ["wrong_modality", "wrong_body_part", "wrong_view"]
    assert all(reason.message.endswith(".") for reason in header_reasons(image))


def test_a_volume_for_a_model_of_volumes(tmp_path: Path) -> None:
    for number, ds in enumerate(ct_slices(6)):
        save(ds, tmp_path / f"{number}.dcm")
    (stack,) = assemble(read_inputs(tmp_path).instances).stacks
    volumes = GateConfig(modalities=("CT",), frontal_only=False, min_pixels=16, min_slices=6)
    assert stack_reasons(stack, volumes) == []
    thick = volumes.model_copy(update={"min_slices": 20})
    assert [reason.code for reason in stack_reasons(stack, thick)] == ["too_few_slices"]
    assert [reason.code for reason in stack_reasons(stack)] == ["wrong_dimensions"]


def test_a_grey_picture_saved_in_colour_passes_and_a_screenshot_does_not(tmp_path: Path) -> None:
    grey = np.repeat(ramp(256, 200, np.uint8)[:, :, None], 3, axis=2)
    Image.fromarray(grey).save(tmp_path / "a.jpg")
    grey[:20, :60] = (200, 40, 40)
    Image.fromarray(grey).save(tmp_path / "b.jpg")
    plain, marked = (load_image(one) for one in read_inputs(tmp_path).instances)
    assert codes(plain) == []
    assert codes(marked) == ["colour_screenshot"]


def test_the_youngest_that_the_checkpoint_knows() -> None:
    assert codes(replace(CHEST_FILM, age_years=0.1)) == []  # a gate that says nothing
    young = GateConfig(min_age_years=1)
    for age, expected in ((0.5, ["wrong_age"]), (365 / 365.25, []), (1.0, []), (None, [])):
        reasons = header_reasons(replace(CHEST_FILM, age_years=age), young)
        assert [reason.code for reason in reasons] == expected
    adults = GateConfig(min_age_years=18)
    (reason,) = header_reasons(replace(CHEST_FILM, age_years=17.0), adults)
    assert reason.message.startswith("The patient is younger than 18 years")


@pytest.mark.parametrize("text", ["CHEST", "chest", "Thorax", "LUNG", "RIBS", "CHEST_PA", "CXR 2"])
def test_words_for_the_chest(text: str) -> None:
    assert is_body_part(text)


@pytest.mark.parametrize("text", ["HAND", "ABDOMEN", "THORACIC SPINE", "CSPINE", "SKULL", "KNEE"])
def test_words_for_other_parts(text: str) -> None:
    assert not is_body_part(text)


@pytest.mark.parametrize("text", ["PA", "AP", "ap", "AP SUPINE", "POSTERO-ANTERIOR"])
def test_frontal_views(text: str) -> None:
    assert is_frontal(text)


@pytest.mark.parametrize("text", ["LL", "lateral", "LEFT LATERAL", "RAO", "LEFT OBLIQUE"])
def test_other_views(text: str) -> None:
    assert not is_frontal(text)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("RG1_UNCR.dcm", set()),
        ("RG3_UNCR.dcm", {"wrong_body_part", "wrong_orientation"}),
        ("693_UNCR.dcm", {"wrong_modality"}),
        ("US1_UNCR.dcm", {"wrong_modality"}),
        ("MR_small.dcm", {"wrong_modality", "too_small"}),
        ("dicomdirtests/77654033/CR1/6154", {"wrong_body_part", "wrong_view", "too_small"}),
    ],
)
def test_real_files(name: str, expected: set[str]) -> None:
    (instance,) = read_inputs(shipped(name)).instances
    assert {reason.code for reason in instance_reasons(instance)} == expected
    assert set(codes(load_image(instance))) - {"colour_screenshot"} == expected
