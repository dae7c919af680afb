"""A study beside an earlier one: the right prior or none, a cautious rule, and its words."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydicom.uid import generate_uid

from medvlm.dicom.prior import Prior, chosen_prior, latest_prior
from medvlm.dicom.read import read_inputs
from medvlm.dicom.study import Study, group_studies
from medvlm.draft.change import compares
from medvlm.draft.comparison import BY_PROJECTION, FAR, Read, change
from medvlm.draft.locate import ScoredBox
from medvlm.draft.parse import Location, Polarity
from medvlm.draft.sentences import sentence
from medvlm.errors import PriorRefused
from medvlm.findings import FINDINGS
from medvlm.image.geometry import Box
from medvlm.records import Change
from tests.dicoms import save, synthetic


def film(folder: Path, seed: int = 0, **elements: Any) -> Path:
    """A study of one film."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 4000, (200, 180)).astype(np.uint16)
    ds = synthetic(pixels, **{"StudyInstanceUID": generate_uid()} | elements)
    return save(ds, folder / f"{ds.SOPInstanceUID}.dcm")


def study(folder: Path, seed: int = 0, **elements: Any) -> Study:
    (found,) = group_studies(read_inputs(film(folder, seed, **elements)))
    return found


# ---- which study is the prior ----


def test_auto_takes_the_last_study_before_of_the_same_patient(tmp_path: Path) -> None:
    old = study(tmp_path, StudyDate="20200101", StudyTime="101500")
    older = study(tmp_path, StudyDate="20190101")
    morning = study(tmp_path, StudyDate="20200203", StudyTime="080000.123")
    noon = study(tmp_path, StudyDate="20200203", StudyTime="1200")
    same_day = study(tmp_path, StudyDate="20200203")
    stranger = study(tmp_path, StudyDate="20200202", PatientID="ID-2")
    undated = study(tmp_path)
    everything = [noon, old, older, morning, same_day, stranger, undated]
    assert latest_prior(noon, everything) == Prior(morning)
    assert latest_prior(morning, everything) == Prior(old)
    assert latest_prior(old, everything) == Prior(older)
    assert latest_prior(older, everything) is None
    assert latest_prior(stranger, everything) is None
    assert latest_prior(undated, everything) is None
    # Of two studies of one day, one without a time, nobody knows which came first.
    assert latest_prior(same_day, everything) == Prior(old)
    # Nor of two within the only hour that one of them tells.
    vague = study(tmp_path, StudyDate="20200203", StudyTime="12")
    assert latest_prior(vague, [*everything, vague]) == Prior(morning)
    assert latest_prior(noon, [vague, morning]) == Prior(morning)


def test_a_prior_of_another_patient_is_refused(tmp_path: Path) -> None:
    now = study(tmp_path, StudyDate="20200101")
    for other in ("ID-2", ""):
        with pytest.raises(PriorRefused) as caught:
            chosen_prior(now, [study(tmp_path, StudyDate="20190101", PatientID=other)])
        assert caught.value.code == "other_patient"
        assert "ID-" not in str(caught.value)


@pytest.mark.parametrize("anybody", ["ANONYMOUS", "unknown", "000000", "XXX", "Anon^Patient"])
def test_an_id_that_is_anybodys_tells_no_patient(tmp_path: Path, anybody: str) -> None:
    now, old = (
        study(tmp_path, StudyDate=date, PatientID=anybody) for date in ("20200101", "20190101")
    )
    assert latest_prior(now, [old]) is None
    assert chosen_prior(now, [old]) == Prior(old, same_patient=False)


@pytest.mark.parametrize(
    "text",
    [
        *("Similar effusion", "Effusion, same as on the last film", "Old effusion"),
        *("Effusion reaccumulated", "Effusion has lessened", "Less effusion", "More effusion"),
        *("Chronic effusion", "Effusion has diminished", "Reduced effusion", "Effusion has gone"),
        *("No difference", "Effusion, 3 days ago", "Healing pneumonia", "Known effusion"),
        "Effusion has returned",
    ],
)
def test_every_word_of_comparison_is_caught(text: str) -> None:
    assert compares(text)


def test_the_drafts_own_sentences_compare_nothing() -> None:
    polarities: tuple[Polarity, ...] = ("present", "absent", "uncertain")
    for finding, polarity, variant in product(FINDINGS, polarities, range(8)):
        assert not compares(sentence(finding, polarity, Location("left", "lower"), variant))
        assert not compares(sentence(finding, polarity, None, variant))


def test_a_later_study_or_the_study_itself_is_no_prior(tmp_path: Path) -> None:
    now = study(tmp_path, StudyDate="20200101")
    with pytest.raises(PriorRefused, match="not taken before") as caught:
        chosen_prior(now, [study(tmp_path, StudyDate="20200102")])
    assert caught.value.code == "not_earlier"
    with pytest.raises(PriorRefused, match="the study itself"):
        chosen_prior(now, [now])


def test_of_several_priors_the_last_before_is_taken_and_dates_must_tell(tmp_path: Path) -> None:
    now = study(tmp_path, StudyDate="20200101")
    old, older = (study(tmp_path, StudyDate=date) for date in ("20190601", "20180601"))
    assert chosen_prior(now, [older, old, study(tmp_path)]) == Prior(old)
    undated = study(tmp_path)
    assert chosen_prior(now, [undated]) == Prior(undated, earlier=False)
    with pytest.raises(PriorRefused) as caught:
        chosen_prior(now, [undated, study(tmp_path)])
    assert caught.value.code == "several_priors"


# ---- the rule ----

LUNGS = {"right": Box(0, 0, 100, 200), "left": Box(150, 0, 100, 200)}
ABSENT, DOUBTFUL, PRESENT = 0.02, 0.3, 0.9


def read(finding: str, probability: float, side: float = 50, boxes: int = 1, **best: Any) -> Read:
    polarity: Polarity = (
        "present" if probability >= 0.5 else "absent" if probability < 0.09 else "uncertain"
    )
    seen = {
        "lungs": LUNGS,
        "image": SimpleNamespace(view_position=best.pop("view", "PA")),
        "attributes": {"ap_view": 0.9},
    } | best
    own = [ScoredBox(Box(10, 10 + 70 * i, side, side), 0.9) for i in range(boxes)]
    place = Location("right", "upper") if polarity != "absent" else None
    return Read(finding, probability, polarity, SimpleNamespace(**seen), own, place, own)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        (ABSENT, PRESENT, "new"),
        (PRESENT, ABSENT, "resolved"),
        (ABSENT, ABSENT, "unchanged"),
        (PRESENT, PRESENT, "unchanged"),
        (DOUBTFUL, PRESENT, "not_comparable"),
        (PRESENT, DOUBTFUL, "not_comparable"),
        (DOUBTFUL, ABSENT, "not_comparable"),
        (DOUBTFUL, DOUBTFUL, "not_comparable"),
        # On both sides of doubt, yet not far apart.
        (0.085, 0.55, "not_comparable"),
        (0.55, 0.085, "not_comparable"),
        # There on both, but much surer on one.
        (0.5, 0.95, "not_comparable"),
    ],
)
@pytest.mark.parametrize("finding", ["Mass", "Pneumonia"])
def test_what_became_of_a_finding(then: float, now: float, expected: Change, finding: str) -> None:
    assert change(read(finding, now), read(finding, then)) == expected


@pytest.mark.parametrize(
    ("side", "expected"),
    [(50, "unchanged"), (54, "unchanged"), (60, "not_comparable"), (72, "larger"), (35, "smaller")],
)
def test_an_opacity_grows_by_its_share_of_the_lungs(side: float, expected: Change) -> None:
    before = read("Pneumonia", PRESENT)
    assert change(read("Pneumonia", PRESENT, side), before) == expected
    # Taken from nearer, all is larger, the lungs too.
    zoomed = {name: Box(0, 0, 200, 400) for name in LUNGS}
    near = read("Pneumonia", PRESENT, 2 * side, lungs=zoomed)
    assert change(near, before) == expected
    # Nothing measures how large the others are.
    assert change(read("Mass", PRESENT, side), read("Mass", PRESENT)) == "unchanged"


def test_what_cannot_be_measured_is_not_compared() -> None:
    before = read("Pneumonia", PRESENT)
    one_lung = {"right": LUNGS["right"]}
    assert change(read("Pneumonia", PRESENT, lungs=one_lung), before) == "not_comparable"
    assert change(read("Pneumonia", PRESENT, boxes=2), before) == "not_comparable"
    assert change(read("Pneumonia", PRESENT, boxes=0), before) == "not_comparable"
    moved = replace(read("Mass", PRESENT), location=Location("left", "upper"))
    assert change(moved, read("Mass", PRESENT)) == "not_comparable"


@pytest.mark.parametrize("finding", FINDINGS)
def test_projections_are_not_compared_where_they_differ_by_themselves(finding: str) -> None:
    for ap in (read(finding, PRESENT, view="AP"), read(finding, PRESENT, view="unknown")):
        found = change(ap, read(finding, ABSENT))
        assert found == ("not_comparable" if finding in BY_PROJECTION else "new")


def test_far_is_beyond_the_doubtful_range_of_the_default_checkpoint() -> None:
    assert change(read("Mass", 0.501), read("Mass", 0.087)) == "not_comparable"
    assert np.log(0.5 / 0.5) - np.log(0.0876 / 0.9124) < FAR
