"""A draft says nothing that its input does not tell."""

from __future__ import annotations

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from medvlm.draft.change import told
from medvlm.draft.claims import Given, disagreements, unfounded
from medvlm.draft.parse import Location, Polarity
from medvlm.draft.sentences import impression, sentence, variants
from medvlm.draft.withhold import withhold
from medvlm.draft.write import Statement, says
from medvlm.findings import FINDINGS, LEXICON
from medvlm.records import Change, Finding

PLACES = [
    None,
    *(
        Location(side, zone)
        for side in ("right", "left", "both")
        for zone in (None, "upper", "mid", "lower")
    ),
]


@pytest.mark.parametrize("polarity", ["present", "absent", "uncertain"])
def test_its_own_sentences_claim_nothing(polarity: Polarity) -> None:
    for finding in FINDINGS:
        for place in PLACES:
            for variant in range(variants(finding, polarity)):
                text = sentence(finding, polarity, place, variant)
                assert not unfounded(text), text


def test_names_of_findings_claim_nothing() -> None:
    for entry in LEXICON.values():
        for name in (entry.phrase, *entry.synonyms):
            assert not unfounded(f"There is {name}."), name


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("2 cm left nodule.", "measurement"),
        ("Left nodule of 2.5 x 3 cm.", "measurement"),
        ("Subcentimeter nodule.", "measurement"),
        ("Three centimetre mass.", "measurement"),
        ("A nodule measuring 8mm.", "measurement"),
        ("Left pneumothorax of 20%.", "measurement"),
        ("Increased cardiothoracic ratio.", "measurement"),
        ("Left effusion, larger than before.", "comparison"),
        ("Persistent left effusion.", "comparison"),
        ("Left effusion on the lateral view.", "view"),
        ("Portable film with left effusion.", "view"),
        ("Effusion, seen on CT.", "view"),
        ("Cardiomegaly on this AP film.", "view"),
        ("Nodule seen in two views.", "view"),
        ("Known left nodule.", "history"),
        ("Nodule in a patient with fever.", "history"),
        ("Post-operative left effusion.", "history"),
        ("Left effusion; CT is recommended.", "history"),
        ("72-year-old with cardiomegaly.", "history"),
        ("Left effusion, status post lobectomy.", "history"),
        ("Effusion in this woman.", "sex"),
        ("His heart is enlarged.", "sex"),
        ("Left nodule over the breast.", "sex"),
        ("Mass of the liver.", "anatomy"),
        ("Mass near the hip.", "anatomy"),
        ("Left effusion with a chest tube.", "not_read"),
        ("Nodule, suspicious for malignancy.", "not_read"),
        ("Left rib fracture with pneumothorax.", "not_read"),
        ("Left nodule and pericardial effusion.", "not_read"),
        ("Left mass, likely adenocarcinoma.", "not_read"),
        ("Nodule on the lateral chest radiograph.", "view"),
        ("PA and lateral films show a nodule.", "view"),
        ("3 cms mass.", "measurement"),
        ("Left effusion after mastectomy.", "history"),
    ],
)
def test_what_nothing_tells_is_found(text: str, code: str) -> None:
    assert code in [reason.code for reason in unfounded(text)]


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("Left effusion, larger than on the prior.", Given(prior=True)),
        ("Cardiomegaly on this AP film.", Given(views=frozenset({"AP"}))),
        ("Cardiomegaly on this antero-posterior film.", Given(views=frozenset({"AP"}))),
        ("His heart is enlarged.", Given(sex="M")),
        ("Effusion in this woman.", Given(sex="F")),
        ("The frontal film shows a nodule.", Given()),
        ("Nodule near the lateral chest wall.", Given()),
    ],
)
def test_what_the_input_tells_may_be_said(text: str, given: Given) -> None:
    assert not unfounded(text, given)


def test_the_words_that_were_found_are_quoted() -> None:
    (reason,) = unfounded("2 cm left nodule.")
    assert reason.message == 'It gives a size ("2 cm"), and the size of a pixel is not known.'
    (reason,) = unfounded("2 cm left nodule.", Given(spacing=True))
    assert reason.message.endswith("and nothing was measured.")
    (reason,) = unfounded("His heart is enlarged.", Given(sex="F"))
    assert reason.message.endswith("the file says otherwise.")


def _finding(
    name: str, polarity: Polarity, probability: float, change: Change | None = None
) -> Finding:
    text = sentence(name, polarity, change=told(polarity, change))
    return Finding(
        text=text, finding=name, polarity=polarity, probability=probability, change=change
    )


@for_all(
    st.dictionaries(
        st.sampled_from(FINDINGS),
        st.one_of(
            st.tuples(
                st.sampled_from(["present", "uncertain"]),
                st.floats(0, 1),
                st.sampled_from([None, "new", "unchanged", "larger", "smaller", "not_comparable"]),
            ),
            st.tuples(
                st.just("absent"),
                st.floats(0, 1),
                st.sampled_from([None, "unchanged", "resolved", "not_comparable"]),
            ),
        ),
    )
)
def test_the_impression_by_rule_agrees_with_the_findings(
    said: dict[str, tuple[Polarity, float, Change | None]],
) -> None:
    findings = [_finding(name, *facts) for name, facts in said.items()]
    assert disagreements(findings, impression(findings)) == []
    kept, summary, withheld = withhold(findings, Given(prior=True))
    assert len(kept) + len(withheld) == len(findings)
    assert summary == impression(kept)
    assert {item.finding for item in withheld} <= {"Lung_Opacity"}


def test_an_impression_that_says_something_else_is_found() -> None:
    findings = [_finding("Effusion", "present", 0.9), _finding("Mass", "absent", 0.1)]
    assert disagreements(findings, "No pleural effusion.") == [
        "pleural effusion is present in the findings and absent in the impression"
    ]
    assert disagreements(findings, "Pleural effusion and mass.") == [
        "mass is absent in the findings and present in the impression"
    ]
    assert disagreements(findings, "Pleural effusion and nodule.") == [
        "nodule is present in the impression and missing in the findings"
    ]
    assert disagreements(findings, "") == [
        "pleural effusion is present in the findings and missing in the impression"
    ]
    assert disagreements(findings, "Pleural effusion. No mass.") == []


def test_a_sentence_that_claims_too_much_is_withheld_with_the_reason() -> None:
    findings = [
        Finding(text="2 cm nodule.", finding="Nodule", polarity="present", probability=0.9),
        _finding("Effusion", "present", 0.8),
    ]
    kept, summary, (withheld,) = withhold(findings)
    assert [finding.finding for finding in kept] == ["Effusion"]
    assert summary == "Pleural effusion. More was written and withheld."
    assert (withheld.finding, withheld.text, withheld.probability) == (
        "Nodule",
        "2 cm nodule.",
        0.9,
    )
    assert withheld.reason == 'It gives a size ("2 cm"), and the size of a pixel is not known.'


def test_change_is_withheld_where_no_prior_was_given() -> None:
    findings = [_finding("Effusion", "present", 0.8, "larger")]
    kept, _, (withheld,) = withhold(findings)
    assert not kept
    assert withheld.reason == "It compares, and no prior was given."
    assert withhold(findings).impression == ""  # not "none of the findings"
    assert withhold(findings, Given(prior=True)).withheld == []


def test_the_language_models_own_words_stand_only_without_such_claims() -> None:
    statement = Statement("Nodule", "present", Location("left", None))
    assert says("Left-sided nodule.", statement)
    assert not says("2 cm left-sided nodule.", statement)
    assert not says("Left-sided nodule in this woman.", statement)
    assert says("Left-sided nodule in this woman.", statement, Given(sex="F"))
