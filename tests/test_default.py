"""The embedded checkpoint itself, on the real film that the demo drafts."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medvlm.dicom.read import read_inputs, read_instance
from medvlm.dicom.study import group_studies
from medvlm.draft.anatomy import Part
from medvlm.draft.answer import answer_question
from medvlm.draft.compose import draft_study
from medvlm.draft.ground import marked_opacities
from medvlm.draft.locate import DENSE_OPACITY
from medvlm.draft.look import look_at
from medvlm.draft.parse import parse_sentence
from medvlm.draft.phrases import read_part
from medvlm.image.load import ImageInput, load_image
from medvlm.model.base_llm import WHEEL
from medvlm.model.checkpoint import DEFAULT, Checkpoint, load_checkpoint
from medvlm.resources import sample_film
from tests.dicoms import shipped


def default_or_skip() -> Checkpoint:
    """The embedded checkpoint in PyTorch."""
    try:
        importlib.metadata.distribution(WHEEL)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"needs the base language model of {WHEEL} (`make` installs it)")
    return load_checkpoint(DEFAULT)


@pytest.fixture(scope="module")
def default() -> Checkpoint:
    return default_or_skip()


def test_it_drafts_the_sample_the_same_twice(default: Checkpoint) -> None:
    (study,) = group_studies(read_inputs(sample_film()))
    one, two = (draft_study(default, study) for _ in range(2))
    assert one.draft.model_dump(exclude={"timings_s"}) == two.draft.model_dump(
        exclude={"timings_s"}
    )
    draft = one.draft
    assert draft.input_check.accepted
    assert draft.model.name == DEFAULT
    for finding in draft.findings:
        assert [(s.finding, s.polarity) for s in parse_sentence(finding.text)] == [
            (finding.finding, finding.polarity)
        ]
        if finding.polarity == "absent":
            assert finding.regions == []


def test_it_finds_the_lungs_on_their_own_sides(default: Checkpoint) -> None:
    image = load_image(read_instance(sample_film()))
    right, left = (
        answer_question(default, image, f"Where is the {side} lung?").regions
        for side in ("right", "left")
    )
    # The patient's right is on the left of the picture.
    assert right[0].x + right[0].width / 2 < image.width / 2 < left[0].x + left[0].width / 2


@pytest.mark.parametrize("odd", [False, True])
def test_what_it_marks_on_the_mirrored_film_is_mirrored(default: Checkpoint, odd: bool) -> None:
    """As a grid already: letterboxing again would lay odd padding on the same side once more."""
    whole = load_image(read_instance(sample_film()))
    size = default.config.model.encoder.size
    widths = (whole.width - less for less in range(40))
    film, content = next(
        (replace(whole, pixels=grid), transform.content_box())
        for own in (replace(whole, pixels=whole.pixels[:, :width]) for width in widths)
        for grid, transform in [own.grid(size)]
        if round(transform.content_box().width) % 2 == odd
    )
    assert (size - round(content.right) != round(content.x)) == odd
    across = replace(film, pixels=np.ascontiguousarray(film.pixels[:, ::-1]))
    here, there = (next(look_at(default, [own])) for own in (film, across))
    one, two = here.dense[DENSE_OPACITY], there.dense[DENSE_OPACITY][:, ::-1]
    assert one == pytest.approx(two, abs=1e-4)
    cell = size / len(one)
    marked, mirrored = (marked_opacities(default, own) for own in (here, there))
    assert len(marked) == len(mirrored) > 0
    for item, other in zip(marked, mirrored, strict=True):
        assert item.box.x == pytest.approx(size - other.box.right, abs=cell)
        assert item.box.right == pytest.approx(size - other.box.x, abs=cell)
        assert item.box.y == pytest.approx(other.box.y, abs=cell)
        assert item.box.bottom == pytest.approx(other.box.bottom, abs=cell)


def test_it_reads_a_part_in_other_words_and_nothing_in_strange_ones(default: Checkpoint) -> None:
    read = read_part(default, "the caudal third of the left lung")
    assert read == Part("left", "lower zone")
    for phrase in ("left lung kidney", "patella in the right lung", "left lung", "pancreas"):
        assert read_part(default, phrase) is None


@pytest.mark.parametrize("name", ["MR2_UNCR.dcm", "RG3_UNCR.dcm", "US1_UNCR.dcm", "693_UNCR.dcm"])
def test_other_images_are_refused_by_their_looks_alone(
    name: str, default: Checkpoint, tmp_path: Path
) -> None:
    """As PNG, so that no header tells: a shoulder MR, an ankle film, an ultrasound, a CT."""
    pixels = load_image(read_instance(shipped(name))).pixels
    picture = Image.fromarray(np.rint(pixels * 255).astype(np.uint8))
    picture.save(tmp_path / "picture.png")
    (seen,) = look_at(default, [load_image(read_instance(tmp_path / "picture.png"))])
    assert not seen.check.accepted


OUTSIDE = (
    *("693_UNCR.dcm", "CT_small.dcm", "JPEG-LL.dcm", "JPGLosslessP14SV1_1s_1f_8b.dcm"),
    *("MR-SIEMENS-DICOM-WithOverlays.dcm", "MR2_UNCR.dcm", "MR_small.dcm", "OT-PAL-8-face.dcm"),
    *("RG3_UNCR.dcm", "US1_UNCR.dcm", "OBXXXX1A.dcm", "color-pl.dcm", "emri_small.dcm"),
    *("mlut_18.dcm", "vlut_04.dcm", "gdcm-US-ALOKA-16.dcm", "explicit_VR-UN.dcm"),
    *("bad_sequence.dcm", "eCT_Supplemental.dcm", "examples_overlay.dcm", "SC_rgb.dcm"),
)


def _untagged(image: ImageInput) -> ImageInput:
    """As a plain picture: without a header, and without colour."""
    return ImageInput(image.pixels, "picture", image.sha256, False)


@pytest.mark.slow
def test_pictures_from_elsewhere_are_refused_without_their_headers(default: Checkpoint) -> None:
    """CT, MR, ultrasound, a wrist, lookup-table patterns, a face, photographs, patterns."""
    from sklearn.datasets import load_sample_images

    images = [_untagged(load_image(read_instance(shipped(name)))) for name in OUTSIDE]
    photographs = [picture.mean(axis=2) / 255 for picture in load_sample_images().images]
    ramp = np.tile(np.linspace(0, 1, 400), (400, 1))
    noise = np.random.default_rng(0).random((400, 400))
    checks = ((np.indices((400, 400)) // 50).sum(axis=0) % 2).astype(float)
    for pixels in (*photographs, ramp, noise, checks):
        images.append(ImageInput(pixels.astype(np.float32), "picture", "0" * 64, False))
    accepted = [i for i, seen in enumerate(look_at(default, images)) if seen.check.accepted]
    assert accepted == []
    assert next(
        look_at(default, [_untagged(load_image(read_instance(sample_film())))])
    ).check.accepted
