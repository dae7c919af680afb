"""The pictures beside a draft."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medvlm.draft.ground import finding_heat
from medvlm.draft.illustrate import MARGIN, crops, labelled_regions, notes
from medvlm.draft.locate import DENSE_OPACITY
from medvlm.draft.look import Seen, look_at
from medvlm.findings import FINDINGS
from medvlm.image.geometry import Box
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
    assert picture.shape[1] == 2 * scale * (width + 1)  # beside it the same under the map
    assert picture.shape[0] > scale * height  # the sentence stands below
    picture = picture[:, : scale * (width + 1)]
    middle = picture[scale * height // 2, scale * width // 2]
    corner = picture[scale * (height - 3), scale * 2]
    assert (middle > 250).all()
    assert (corner < 5).all()


def test_a_crop_ends_where_the_film_ends(seen: Seen) -> None:
    edge = PLACE | {"x": 0.0, "y": 0.0, "width": 800.0, "height": 900.0}
    found = crops([seen], [finding("Mass", regions=[edge])])
    assert found["Mass"].size[0] == 2 * 800


def test_regions_of_another_image_are_not_drawn(seen: Seen) -> None:
    other = replace(seen, image=replace(seen.image, sop_instance_uid="1.2.3"))
    assert labelled_regions(other, [finding("Mass")]) == []
    assert crops([other], [finding("Mass")]) == {}
    on_other = finding("Mass", regions=[PLACE | {"sop_instance_uid": "1.2.3"}])
    assert list(crops([seen, other], [on_other])) == ["Mass"]
    assert isinstance(on_other.regions[0], Region)


def test_the_heat_lies_where_the_map_is_high(seen: Seen) -> None:
    dense = np.zeros((3, 64, 64), np.float32)
    grid = seen.transform.to_grid(Box(400, 450, 1, 1))
    cell = seen.transform.size / 64
    dense[DENSE_OPACITY, int(grid.y / cell), int(grid.x / cell)] = 0.8
    hot = replace(seen, dense=dense)
    own = finding("Lung_Opacity", evidence=PROOF)
    picture = np.asarray(crops([hot], [own])["Lung_Opacity"]).astype(int)
    right = picture[:, picture.shape[1] // 2 :]
    red = right[..., 0] - right[..., 2]
    red[round(right.shape[1] * 0.7) :] = 0  # the legend
    y, x = np.unravel_index(red.argmax(), red.shape)
    margin = MARGIN * 200
    scale = right.shape[1] / (200 + 2 * margin + 1)
    where = (x / scale + 300 - margin, y / scale + 400 - margin)
    assert where[0] == pytest.approx(400, abs=1.5 * cell / seen.transform.scale_x)
    assert where[1] == pytest.approx(450, abs=1.5 * cell / seen.transform.scale_y)


@pytest.mark.parametrize("name", ["Mass", "Cardiomegaly"])
def test_other_findings_show_the_classifiers_map(seen: Seen, name: str) -> None:
    maps = np.zeros((len(FINDINGS), 20, 20))
    maps[FINDINGS.index(name), 9, 9] = 3.0
    lit = replace(seen, score_maps=maps, dense=np.ones((3, 40, 40)))
    heat = finding_heat(lit, name)
    assert heat[9, 9] == 1
    assert (heat > 0).sum() == 1
