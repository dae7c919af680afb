"""The pictures beside a draft."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medvlm.draft.illustrate import MARGIN, crops, labelled_regions, notes
from medvlm.draft.look import Seen, look_at
from medvlm.image.load import ImageInput
from medvlm.model.checkpoint import load_checkpoint
from medvlm.records import Evidence, Finding, Region

PLACE = {"sop_instance_uid": None, "x": 300.0, "y": 400.0, "width": 200.0, "height": 100.0}


@pytest.fixture
def seen(tiny: Path) -> Seen:
    pixels = np.zeros((900, 800), np.float32)
    pixels[400:500, 300:500] = 1.0
    return next(look_at(load_checkpoint(), [ImageInput(pixels, "film", "0" * 64, False)]))


def finding(name: str, **facts: object) -> Finding:
    own = {"text": "A sentence.", "polarity": "present", "probability": 0.81} | facts
    return Finding.model_validate({"finding": name, "regions": [PLACE]} | own)


PROOF = Evidence(status="weak", p_image=0.81, p_erased=0.8, p_blank=0.2, p_other=0.1)


def test_findings_that_share_a_region_share_its_label_and_keep_their_numbers(seen: Seen) -> None:
    both = [
        finding("Mass", evidence=PROOF),
        finding("Pneumonia", polarity="uncertain", probability=0.4),
        finding("Effusion", regions=[]),
    ]
    ((label, region),) = labelled_regions(seen, both)
    assert label == "mass, pneumonia?"
    assert (region.x, region.y) == (300, 400)
    assert notes(seen, both) == {label: "mass 81%, weak; pneumonia? 40%"}


def test_a_crop_shows_the_region_and_its_surroundings(seen: Seen) -> None:
    found = crops([seen], [finding("Mass"), finding("Effusion", regions=[])])
    assert list(found) == ["Mass"]
    margin = round(MARGIN * 200)
    picture = np.asarray(found["Mass"])
    width, height = 200 + 2 * margin, 100 + 2 * margin
    scale = 640 // width + (640 % width > 0)
    assert picture.shape[1] == scale * (width + 1)
    assert picture.shape[0] > scale * height  # the sentence stands below
    middle = picture[scale * height // 2, scale * width // 2]
    corner = picture[scale * (height - 3), scale * 2]
    assert (middle > 250).all()
    assert (corner < 5).all()


def test_a_crop_ends_where_the_film_ends(seen: Seen) -> None:
    edge = PLACE | {"x": 0.0, "y": 0.0, "width": 800.0, "height": 900.0}
    found = crops([seen], [finding("Mass", regions=[edge])])
    assert found["Mass"].size[0] == 800


def test_regions_of_another_image_are_not_drawn(seen: Seen) -> None:
    other = replace(seen, image=replace(seen.image, sop_instance_uid="1.2.3"))
    assert labelled_regions(other, [finding("Mass")]) == []
    assert crops([other], [finding("Mass")]) == {}
    on_other = finding("Mass", regions=[PLACE | {"sop_instance_uid": "1.2.3"}])
    assert list(crops([seen, other], [on_other])) == ["Mass"]
    assert isinstance(on_other.regions[0], Region)
