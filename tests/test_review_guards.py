"""What stands in the way of a signature: what is found, and what is rightly left alone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from medvlm.draft.sentences import Location, impression, sentence, variants
from medvlm.findings import FINDINGS
from medvlm.records import Comparison, Finding, InputCheck, Region
from medvlm.review import changes, guards
from medvlm.review.agreement import disagreements, mislabelled, suggested_impression
from medvlm.review.laterality import frontal_widths, sides_named, sides_shown
from medvlm.review.records import ImageRow, Patient, Problem, Review, StudyRow
from medvlm.review.wording import Known, doubtful, readable, says_with_what
from tests.desk import a_draft, a_pneumothorax, effusion, no_pneumothorax

WIDTH = 2000
UID = "1.2.826.0.1.3680043.8.498.1.1.1"


def at(share: float, width: float = 200, uid: str | None = UID) -> Region:
    """A region whose middle lies at this share of the film's width."""
    return Region(sop_instance_uid=uid, x=share * WIDTH - width / 2, y=300, width=width, height=100)


ON_THE_LEFT_OF_THE_PICTURE = at(0.25)  # the patient's right
ON_THE_RIGHT_OF_THE_PICTURE = at(0.75)


def image(**told: Any) -> ImageRow:
    return ImageRow(
        **{
            "id": "1" * 32,
            "study_id": "0" * 32,
            "stack": 0,
            "number": 0,
            "sop_instance_uid": UID,
            "modality": "DX",
            "view_position": "PA",
            "rows": 2500,
            "columns": WIDTH,
            "sha256": "0" * 64,
            **told,
        }
    )


def row(sex: str | None = "F", **told: Any) -> StudyRow:
    return StudyRow(
        **{
            "id": "0" * 32,
            "study_instance_uid": "1.2.3",
            "patient": Patient(sex=sex),
            "modality": "DX",
            "body_part": "CHEST",
            "view": "PA",
            "received": datetime(2026, 3, 1, tzinfo=UTC),
            "status": "in_review",
            "priority": "routine",
            **told,
        }
    )


def begun(*findings: Finding, **told: Any) -> Review:
    """All images displayed, nothing decided."""
    review = changes.begin("0" * 32, "2" * 32, a_draft(*findings, **told))
    return changes.display(review, ["1" * 32])


def written(*sentences: tuple[str, str, str], impression: str | None = None) -> Review:
    """A report by hand: (text, finding, polarity), and an impression that suits unless given."""
    review = changes.display(changes.begin("0" * 32), ["1" * 32])
    for number, (text, finding, polarity) in enumerate(sentences):
        review = review.model_copy(update={"version": number})
        review = changes.add(review, text, finding, polarity)  # type: ignore[arg-type]
    suits = suggested_impression(review) or "Nothing to report."
    return changes.set_fields(review, impression=suits if impression is None else impression)


def found(
    review: Review,
    study: StudyRow | None = None,
    images: list[ImageRow] | None = None,
    spacing: bool = True,
) -> list[Problem]:
    return guards.problems(review, study or row(), images or [image()], spacing)


def codes(*given: Any, **named: Any) -> list[str]:
    return [one.code for one in found(*given, **named)]


# ---- nothing is found where nothing is wrong ----


def test_a_report_without_a_flaw() -> None:
    review = changes.accept_all(begun(), ["1" * 32])
    assert found(review) == []
    assert found(written(("Left pleural effusion.", "Effusion", "present"))) == []


def machine_findings() -> some.SearchStrategy[list[Finding]]:
    """What a draft may say: each finding once, in one of its wordings, at some place."""

    @some.composite
    def one(draw: Any, name: str) -> Finding:
        polarity = draw(some.sampled_from(["present", "absent", "uncertain"]))
        side = draw(some.sampled_from([None, "left", "right", "both"]))
        zone = draw(some.sampled_from([None, "upper", "mid", "lower"]))
        place = Location(side, zone) if polarity != "absent" else None
        at_side = {"left": [at(0.75)], "right": [at(0.25)], "both": [at(0.25), at(0.75)]}
        variant = draw(some.integers(0, variants(name, polarity) - 1))
        return Finding(
            text=sentence(name, polarity, place, variant),
            finding=name,
            polarity=polarity,
            probability=draw(some.floats(0, 1)),
            regions=at_side.get(side, []) if polarity != "absent" else [],
        )

    return some.lists(some.sampled_from(FINDINGS), unique=True, max_size=8).flatmap(
        lambda names: some.tuples(*map(one, names)).map(list)
    )


@settings(max_examples=60)
@given(machine_findings())
def test_a_draft_that_agrees_with_itself_is_signed_as_it_is(findings: list[Finding]) -> None:
    """No rule is set off by the program's own wordings."""
    opacity = {one.finding: one.polarity for one in findings}.get("Lung_Opacity")
    if not findings or opacity == "absent":  # withheld where something shows as an opacity
        return
    review = changes.accept_all(
        begun(*findings, impression=impression(findings), withheld=()), ["1" * 32]
    )
    assert found(review) == []
    assert disagreements(review.sentences, suggested_impression(review)) == []


@settings(max_examples=60)
@given(machine_findings())
def test_the_suggested_impression_agrees_with_what_people_wrote(findings: list[Finding]) -> None:
    if any(one.finding == "Lung_Opacity" and one.polarity == "absent" for one in findings):
        return
    told = [(one.text, one.finding, one.polarity) for one in findings]
    assert found(written(*told), spacing=False) == [] or not told


JAPANESE = (
    "左下肺野に結節を認める。",
    "胸水なし。",
    "effusion なし",
    "左に effusion あり、前回と比較して増大。",
    "5 mm の結節、前立腺癌の既往、子宮筋腫。",
    "Pneumothorax は認めない",
    "LEFT EFFUSION".translate({one: one + 0xFEE0 for one in range(0x21, 0x7F)}),  # wide letters
    "❤ 😀 ｶﾀｶﾅ ﾊﾝｶｸ",
)


@pytest.mark.parametrize("text", JAPANESE)
@pytest.mark.parametrize("finding", ["Effusion", "Nodule", changes.OTHER])
@pytest.mark.parametrize("polarity", ["present", "absent", "uncertain"])
def test_of_japanese_the_rules_find_nothing(text: str, finding: str, polarity: str) -> None:
    regions = [] if polarity == "absent" else [ON_THE_LEFT_OF_THE_PICTURE]
    review = changes.display(changes.begin("0" * 32), ["1" * 32])
    review = changes.add(review, text, finding, polarity, regions)  # type: ignore[arg-type]
    review = changes.set_fields(review, impression=text, indication=text, comparison="なし")
    for sex in ("M", "F", None):
        assert found(review, row(sex), spacing=False) == []
    edited = changes.edit(begun(), "s01", text, finding=finding, polarity=polarity)  # type: ignore[arg-type]
    edited = changes.set_fields(changes.accept(edited, "s02"), impression=text)
    assert found(edited, spacing=False) == []
    assert suggested_impression(edited)


@given(some.text(max_size=80))
def test_no_text_breaks_a_rule(text: str) -> None:
    try:
        review = changes.set_fields(begun(), impression=text, comparison=text)
        review = changes.edit(review, "s01", text)
    except changes.ReviewError:
        return
    found(review, spacing=False)
    suggested_impression(review)


# ---- what nobody decided ----


def test_unresolved_sentences_are_told_one_by_one() -> None:
    review = begun()
    left = [one for one in found(review) if one.code == "unresolved"]
    assert [one.sentence_id for one in left] == ["s01", "s02"]
    assert "unresolved" not in codes(
        changes.reject(changes.accept(review, "s01"), "s02", "wording")
    )
    taken = changes.take_in(changes.accept_all(review, []), "w01")
    assert "unresolved" in codes(taken)


def test_images_that_were_not_displayed_are_counted() -> None:
    others = [image(), image(id="3" * 32, number=1)]
    (problem,) = [one for one in found(begun(), images=others) if one.code == "not_displayed"]
    assert problem.values == {"count": "1", "of": "2"}


def test_an_urgent_finding_waits_for_somebody() -> None:
    review = changes.accept_all(
        begun(a_pneumothorax(), impression="Right-sided pneumothorax."), ["1" * 32]
    )
    study = row(urgent=("Pneumothorax",))
    assert codes(review, study) == ["urgent"]
    assert codes(changes.acknowledge(review, "Pneumothorax"), study) == []
    assert "urgent" in codes(changes.reject(review, "s01", "not there"), study)


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_an_empty_impression(text: str) -> None:
    review = changes.set_fields(changes.accept_all(begun(), ["1" * 32]), impression=text)
    assert codes(review) == ["empty_impression"]


def test_a_report_without_a_sentence() -> None:
    assert codes(written(impression="Normal chest.")) == ["no_findings"]


def test_what_nobody_may_confirm_and_what_one_may() -> None:
    assert not guards.BLOCKING & guards.WARNINGS
    assert "unresolved" in guards.BLOCKING
    assert "laterality" in guards.WARNINGS


# ---- right and left ----


def with_region(text: str, region: Region, finding: str = "Nodule") -> Review:
    review = changes.display(changes.begin("0" * 32), ["1" * 32])
    review = changes.add(review, text, finding, "present", [region])
    return changes.set_fields(review, impression=suggested_impression(review))


@pytest.mark.parametrize(
    ("text", "share", "wrong"),
    [
        ("Left nodule.", 0.25, True),
        ("Nodule in the left upper zone.", 0.1, True),
        ("Right nodule.", 0.75, True),
        ("Left nodule.", 0.75, False),
        ("Right nodule.", 0.25, False),
        ("Nodule.", 0.25, False),
        ("Bilateral nodules.", 0.25, False),
        ("Left nodule.", 0.5, False),
        ("Left nodule.", 0.46, False),
        ("LEFT NODULE", 0.25, True),
    ],
)
def test_words_and_regions_on_different_sides(text: str, share: float, wrong: bool) -> None:
    assert ("laterality" in codes(with_region(text, at(share)))) is wrong


def test_the_problem_says_which_sides() -> None:
    review = with_region("Left nodule.", ON_THE_LEFT_OF_THE_PICTURE)
    (problem,) = [one for one in found(review) if one.code == "laterality"]
    assert problem.values == {"said": "left", "other": "right", "against": "region"}
    assert problem.sentence_id == review.sentences[0].id
    assert "left" in problem.message
    assert "right" in problem.message


def test_one_side_is_named_and_both_are_marked() -> None:
    review = changes.add(begun(), "Left nodules.", "Nodule", "present", [at(0.2), at(0.8)])
    assert "laterality" in codes(review)


def test_a_region_across_the_middle_says_nothing() -> None:
    wide = at(0.44, width=1200)
    assert "laterality" not in codes(with_region("Left mass.", wide, "Mass"))


def test_sentences_about_nothing_in_the_lexicon_have_sides_too() -> None:
    for text in ("Fracture of the left fifth rib.", "Left-sided pacemaker."):
        review = with_region(text, ON_THE_LEFT_OF_THE_PICTURE, changes.OTHER)
        assert "laterality" in codes(review)
        good = with_region(text, ON_THE_RIGHT_OF_THE_PICTURE, changes.OTHER)
        assert "laterality" not in codes(good)
    heart = with_region("Left ventricular contour.", ON_THE_LEFT_OF_THE_PICTURE, changes.OTHER)
    assert "laterality" not in codes(heart)


def test_an_edit_that_turns_the_side_over() -> None:
    """Also where the region itself says nothing: in the middle, or on a film from the side."""
    middle = effusion(regions=[at(0.5)])
    review = changes.edit(begun(middle), "s01", "Possible right pleural effusion.")
    (problem,) = [
        one for one in found(review) if one.code == "laterality" and one.sentence_id == "s01"
    ]
    assert problem.values["against"] == "machine"
    moved = changes.edit(
        begun(middle), "s01", "Possible right pleural effusion.", regions=[at(0.25)]
    )
    assert all(one.sentence_id is None for one in found(moved) if one.code == "laterality")
    same = changes.edit(begun(middle), "s01", "Small left pleural effusion.")
    assert "laterality" not in codes(same)


@pytest.mark.parametrize(
    "told",
    [
        {"view_position": "LL"},
        {"view_position": "LATERAL"},
        {"modality": "CT", "view_position": None},
        {"modality": "US", "view_position": None},
    ],
)
def test_only_frontal_films_have_a_left_and_a_right(told: dict[str, Any]) -> None:
    review = with_region("Left nodule.", ON_THE_LEFT_OF_THE_PICTURE)
    study = row(modality=told.get("modality", "DX"), view=None)
    assert "laterality" not in codes(review, study, [image(**told)])
    assert "laterality" in codes(review, row(view=None), [image(view_position="ap")])


def test_a_picture_has_no_uid_and_one_image() -> None:
    picture = image(sop_instance_uid=None, modality=None, view_position=None)
    review = with_region("Left nodule.", at(0.25, uid=None))
    study = row(modality=None, view=None, body_part=None)
    assert "laterality" in codes(review, study, [picture])
    two = [picture, picture.model_copy(update={"id": "4" * 32})]
    assert "laterality" not in codes(review, study, two)


def test_the_impression_is_on_the_findings_side() -> None:
    review = written(("Left pleural effusion.", "Effusion", "present"))
    for text, wrong in (
        ("Right pleural effusion.", True),
        ("Bilateral pleural effusions.", True),
        ("Left pleural effusion.", False),
        ("Pleural effusion.", False),
        ("Left pleural effusion. No right pleural effusion.", False),
    ):
        given_ = changes.set_fields(review, impression=text)
        (*problems,) = [one for one in found(given_) if one.code == "laterality"]
        assert bool(problems) is wrong, text
        assert all(one.values["field"] == "impression" for one in problems)
    silent = with_region("Nodule.", ON_THE_LEFT_OF_THE_PICTURE)
    assert "laterality" in codes(changes.set_fields(silent, impression="Left nodule."))


def test_sides_in_words_and_in_the_picture() -> None:
    assert sides_named("Left effusion, right nodule.", "Nodule") == {"right"}
    assert sides_named("No left nodule.", "Nodule") == frozenset()
    assert sides_named("Bibasal effusions.", "Effusion") == {"left", "right"}
    widths = frontal_widths([image()], row())
    assert widths == {UID: WIDTH, None: WIDTH}
    assert sides_shown([at(0.2), at(0.7, uid="1.2.3")], widths) == {"right"}


# ---- sex and anatomy, comparison, measurement ----


@pytest.mark.parametrize(
    ("sex", "text", "wrong"),
    [
        ("F", "Known cancer of the prostate.", True),
        ("F", "Status after orchiectomy of the right testis.", True),
        ("F", "Gynecomastia.", True),
        ("F", "He has a nodule.", True),
        ("M", "Calcified uterus.", True),
        ("M", "Pregnant patient.", True),
        ("M", "She has a nodule.", True),
        ("M", "Ovarian metastases.", True),
        ("F", "Calcified uterus.", False),
        ("M", "Prostate cancer.", False),
        (None, "Prostate cancer.", False),
        ("F", "Hernia, cervical spine, the rest.", False),
        ("M", "Breast shadow on the left.", False),
        ("M", "There, other, here, sheath.", False),
    ],
)
def test_the_patients_sex(sex: Any, text: str, wrong: bool) -> None:
    said = [one.code for one in doubtful(text, Known(sex=sex, prior=True, spacing=True))]
    assert said == (["sex"] if wrong else [])


def test_sex_is_looked_at_everywhere() -> None:
    review = written(("No pneumothorax.", "Pneumothorax", "absent"))
    for field in ("indication", "impression"):
        told = changes.set_fields(review, **{field: "Prostate cancer."})
        problems = [one for one in found(told, row("F")) if one.code == "sex"]
        assert [one.values for one in problems] == [{"word": "Prostate", "field": field}]
    told = changes.set_fields(review, indication="Pain in the left hip, worse than before, 3 cm.")
    assert found(told, spacing=False) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("Fracture of the left femur.", True),
        ("Uterus unremarkable.", True),
        ("The brain is normal.", True),
        ("On the other hand, the lungs are clear.", False),
        ("Degenerative change of both shoulders.", False),
        ("Gas under the diaphragm, liver not enlarged.", False),
        ("Gall bladder stones.", False),
    ],
)
def test_what_no_film_of_a_chest_shows(text: str, wrong: bool) -> None:
    review = written((text, changes.OTHER, "present"))
    assert ("anatomy" in codes(review)) is wrong
    assert "anatomy" not in codes(review, row(modality="CT"), [image(modality="CT")])
    assert "anatomy" not in codes(review, row(body_part="LEG"))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("Left effusion, unchanged.", True),
        ("Left effusion has increased.", True),
        ("Left effusion, larger than before.", True),
        ("Left effusion, compared with the last film.", True),
        ("New left effusion.", True),
        ("Left effusion. No prior available.", False),
        ("Increased left effusion density.", False),
        ("More likely effusion than consolidation on the left.", False),
    ],
)
def test_words_of_comparison_need_something_to_compare_with(text: str, wrong: bool) -> None:
    review = written((text, "Effusion", "present"), impression="Left effusion.")
    assert ("comparison" in codes(review)) is wrong
    for none in ("None.", "no prior films", "N/A", "-", "none available", "なし", "前回なし。"):
        told = changes.set_fields(review, comparison=none)
        assert ("comparison" in codes(told)) is wrong, none
    for prior in ("Film of 1 March 2026.", "2026-03-01", "No change in technique; 2026-03-01"):
        assert "comparison" not in codes(changes.set_fields(review, comparison=prior)), prior
    assert not says_with_what(" ")


def test_a_draft_with_a_prior_may_compare() -> None:
    compared = effusion(text="Possible left pleural effusion.", change="unchanged")
    prior = Comparison(input_check=InputCheck(accepted=True))
    review = begun(compared, impression="Possible left-sided pleural effusion.", comparison=prior)
    review = changes.edit(review, "s01", "Possible left pleural effusion, unchanged.")
    assert codes(review) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("Left nodule of 12 mm.", True),
        ("Left nodule, 1.2 x 0.8 cm.", True),
        ("A 12-mm left nodule.", True),
        ("Nodule 3 centimetres above the left hilum.", True),
        ("Left nodule, blood pressure 120 mm Hg.", False),
        ("Left nodule, heart 55 % of the chest.", False),
        ("3 left nodules.", False),
    ],
)
def test_sizes_need_the_size_of_a_pixel(text: str, wrong: bool) -> None:
    review = written((text, "Nodule", "present"), impression="Left nodule.")
    assert ("measurement" in codes(review, spacing=False)) is wrong
    assert "measurement" not in codes(review, spacing=True)


def test_a_machine_is_held_to_more_than_a_person() -> None:
    for text, code in (
        ("Left effusion in this known smoker.", "history"),
        ("Left effusion on the lateral view.", "view"),
        ("Left effusion and a pacemaker.", "not_read"),
        ("Left effusion of 3 cm.", "measurement"),
        ("Left effusion, unchanged.", "comparison"),
        ("Left effusion, liver normal.", "anatomy"),
        ("Left effusion, as she stands.", "sex"),
    ):
        draft = effusion(text=text, polarity="present")
        review = begun(draft, impression="Left effusion.")
        assert code in codes(changes.accept(review, "s01"), row("M")), text
        # The same words, when a person has looked at them.
        edited = changes.edit(review, "s01", text.replace("effusion", "pleural effusion"))
        assert not guards.BLOCKING & set(codes(edited, row("M"))), text


def test_the_machines_impression_is_held_to_the_same() -> None:
    draft = begun(impression="Possible left pleural effusion. Known smoker.")
    review = changes.accept_all(draft, ["1" * 32])
    assert codes(review) == ["comparison", "history"]
    edited = changes.set_fields(review, impression="Possible left pleural effusion. A smoker.")
    assert codes(edited) == []


def test_what_a_draft_says_of_itself_is_no_claim() -> None:
    text = (
        "Possible left-sided pleural effusion. Doubtful by the site's policy: pleural effusion. "
        "More was written and withheld."
    )
    assert codes(changes.accept_all(begun(impression=text), ["1" * 32])) == []


# ---- the report against itself ----


@pytest.mark.parametrize(
    ("text", "finding", "polarity", "wrong"),
    [
        ("No pleural effusion.", "Effusion", "present", True),
        ("Left pleural effusion.", "Effusion", "absent", True),
        ("Left pleural effusion.", "Effusion", "uncertain", True),
        ("Left nodule.", "Mass", "present", True),
        ("Lungs are clear.", "Nodule", "present", True),
        ("Possible effusion.", "Effusion", "uncertain", False),
        ("Blunted left costophrenic angle.", "Effusion", "present", False),
        ("Lungs are clear.", "Nodule", "absent", False),
        ("Left basal opacity, suspicious for pneumonia.", "Pneumonia", "uncertain", False),
        ("Something strange.", "Mass", "present", False),
        ("Left nodule.", changes.OTHER, "present", False),
        ("Left effusion and cardiomegaly.", "Effusion", "present", False),
    ],
)
def test_words_and_what_they_are_marked_as(
    text: str, finding: str, polarity: str, wrong: bool
) -> None:
    review = written((text, finding, polarity))
    assert ("contradiction" in codes(review)) is wrong
    assert (mislabelled(review.sentences[0]) is not None) is wrong


@pytest.mark.parametrize(
    ("one", "other", "wrong"),
    [
        ("Left pleural effusion.", "No pleural effusion.", True),
        ("Possible pleural effusion.", "No pleural effusion.", True),
        ("Left pleural effusion.", "No pleural effusion or pneumothorax.", True),
        ("Left nodule.", "The lungs are clear.", True),
        ("Left pleural effusion.", "No right pleural effusion.", False),
        ("Nodule in the left upper zone.", "No nodule in the left lower zone.", False),
        ("Left nodule.", "No other nodule.", False),
        ("Left pleural effusion.", "Possible pleural effusion.", False),
        ("Blunted left costophrenic angle.", "No pleural effusion.", False),
        ("No pleural effusion.", "No pneumothorax.", False),
    ],
)
def test_one_sentence_says_what_another_denies(one: str, other: str, wrong: bool) -> None:
    for first, second in ((one, other), (other, one)):
        review = written(
            (first, changes.OTHER, "present"), (second, changes.OTHER, "present"), impression="-"
        )
        problems = [item for item in found(review) if item.code == "contradictory_findings"]
        assert bool(problems) is wrong
        if wrong:
            assert problems[0].sentence_id == review.sentences[1].id
            assert problems[0].values["one"] == first


def test_what_is_marked_present_and_absent_contradicts_in_any_language() -> None:
    review = written(("左胸水。", "Effusion", "present"), ("胸水なし。", "Effusion", "absent"))
    assert codes(review) == ["contradictory_findings"]


def test_what_was_rejected_contradicts_nothing() -> None:
    review = changes.reject(begun(), "s01", "not there")
    review = changes.accept(review, "s02")
    review = changes.add(review, "No pleural effusion.", "Effusion", "absent")
    review = changes.set_fields(review, impression=suggested_impression(review))
    assert codes(review) == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Normal chest.", ["Effusion"]),
        ("No pleural effusion.", ["Effusion"]),
        ("Possible pleural effusion.", ["Effusion"]),
        ("Left pleural effusion. Cardiomegaly.", ["Cardiomegaly"]),
        ("Left pleural effusion. Possible pneumothorax.", ["Pneumothorax"]),
        ("Left pleural effusion. No pneumothorax.", []),
        ("Left pleural effusion.", []),
        ("Left pleural fluid.", []),
        ("左胸水。", []),
    ],
)
def test_the_impression_against_the_findings_and_they_against_it(
    text: str, named: list[str]
) -> None:
    review = written(
        ("Left pleural effusion.", "Effusion", "present"),
        ("No pneumothorax.", "Pneumothorax", "absent"),
        impression=text,
    )
    problems = [one for one in found(review) if one.code == "disagreement"]
    assert [one.values["finding"] for one in problems] == named


@pytest.mark.parametrize(("polarity", "wrong"), [("uncertain", 0), ("present", 0), ("absent", 1)])
def test_a_doubt_before_and_is_read_both_ways(polarity: str, wrong: int) -> None:
    """A draft means both to be possible, and many people only the first."""
    text = {"uncertain": "Possible left mass.", "present": "Left mass.", "absent": "No mass."}
    review = written(
        ("Possible atelectasis.", "Atelectasis", "uncertain"),
        (text[polarity], "Mass", polarity),
        impression="Possible atelectasis and left-sided mass.",
    )
    assert codes(review).count("disagreement") == wrong


def test_an_opacity_is_named_by_what_it_is() -> None:
    review = written(
        ("Left lower zone opacity.", "Lung_Opacity", "present"),
        ("Pneumonia.", "Pneumonia", "present"),
        impression="Left lower zone pneumonia.",
    )
    assert codes(review) == []


def test_a_suggested_impression() -> None:
    review = written(
        ("Left pleural effusion.", "Effusion", "present"),
        ("Possible nodule in the right upper zone.", "Nodule", "uncertain"),
        ("No pneumothorax.", "Pneumothorax", "absent"),
        ("Old fracture of the left fifth rib.", changes.OTHER, "present"),
        ("No fracture elsewhere.", changes.OTHER, "absent"),
    )
    assert suggested_impression(review) == (
        "Left-sided pleural effusion. Possible right upper zone nodule. "
        "Old fracture of the left fifth rib."
    )
    assert codes(review) == []
    assert suggested_impression(changes.begin("0" * 32)) == ""
    assert suggested_impression(begun()) == ""
    none = changes.accept(begun(effusion(), no_pneumothorax()), "s02")
    assert suggested_impression(none) == "None of the findings looked for is reported."


def test_an_impression_names_a_finding_twice_only_at_two_places() -> None:
    review = written(
        ("Left nodule.", "Nodule", "present"),
        ("Nodule on the left.", "Nodule", "present"),
        ("Possible right nodule.", "Nodule", "uncertain"),
    )
    assert suggested_impression(review) == "Left-sided nodule. Possible right-sided nodule."
    assert codes(review) == []


def test_which_texts_are_read() -> None:
    assert readable("Left nodule of 300 µm in a patient who is naïve of that.")
    assert not readable("結節")
    assert not readable("Links unten ist ein Rundherd mit der Größe nicht sicher.")
