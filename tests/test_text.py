"""What is written can be read back, and texts of others are read with care."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.draft.change import WORDS, compares, told, with_change
from medvlm.draft.parse import Location, Polarity, Statement, contradictions, parse_sentence
from medvlm.draft.sentences import impression, sentence, variants
from medvlm.findings import FINDINGS, PHRASES
from medvlm.records import Change, Finding

POLARITIES: tuple[Polarity, ...] = ("present", "absent", "uncertain")
LOCATIONS = [
    Location(side, zone) if side or zone else None
    for side in (None, "right", "left", "both")
    for zone in (None, "upper", "mid", "lower")
]
RIGHT, LEFT, LEFT_LOWER = Location("right"), Location("left"), Location("left", "lower")

statements = st.builds(
    Statement, st.sampled_from(FINDINGS), st.sampled_from(POLARITIES), st.sampled_from(LOCATIONS)
)


@pytest.mark.parametrize("finding", FINDINGS)
def test_every_sentence_reads_back_as_what_was_meant(finding: str) -> None:
    for polarity in POLARITIES:
        for location in LOCATIONS:
            meant = Statement(finding, polarity, location)
            texts = [
                sentence(finding, polarity, location, i) for i in range(variants(finding, polarity))
            ]
            assert len(set(texts)) == len(texts) >= 4
            for text in texts:
                assert parse_sentence(text) == [meant], text
                assert contradictions(text, finding, polarity, location) == []


@given(st.lists(st.tuples(statements, st.integers(0, 50)), max_size=8))
def test_a_report_reads_back_as_its_sentences(report: list[tuple[Statement, int]]) -> None:
    text = " ".join(sentence(s.finding, s.polarity, s.location, variant) for s, variant in report)
    assert parse_sentence(text) == [s for s, _ in report]


@given(statements, statements, st.integers(0, 9))
def test_another_statement_is_a_contradiction(
    said: Statement, meant: Statement, variant: int
) -> None:
    text = sentence(said.finding, said.polarity, said.location, variant)
    difference = contradictions(text, meant.finding, meant.polarity, meant.location)
    said_place, place = said.location or Location(), meant.location or Location()
    agrees = (
        (said.finding, said.polarity) == (meant.finding, meant.polarity)
        and said_place.side in (None, place.side)
        and said_place.zone in (None, place.zone)
    )
    assert agrees == (difference == [])


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    for statement in parse_sentence(text):
        assert statement.finding in FINDINGS


def test_wordings_wrap_and_look_like_a_report() -> None:
    assert sentence("Pneumonia", "uncertain", LEFT_LOWER, 4) == (
        "Left lower zone opacity, suspicious for pneumonia."
    )
    assert sentence("Effusion", "present", Location("both")) == "Bilateral pleural effusions."
    assert sentence("Nodule", "present", RIGHT, 2) == "There is a right-sided nodule."
    assert sentence("Lung_Opacity", "present", Location(zone="upper"), 2) == (
        "There is an upper zone lung opacity."
    )
    assert sentence("Mass", "absent", None, 4) == sentence("Mass", "absent", None, 0) == "No mass."
    with pytest.raises(KeyError):
        sentence("Fracture", "present")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "No effusion, pneumothorax or consolidation.",
            [
                ("Effusion", "absent", None),
                ("Pneumothorax", "absent", None),
                ("Consolidation", "absent", None),
            ],
        ),
        (
            "Pneumonia in the left lower lobe and right pleural effusion; no pneumothorax.",
            [
                ("Pneumonia", "present", LEFT_LOWER),
                ("Effusion", "present", RIGHT),
                ("Pneumothorax", "absent", None),
            ],
        ),
        (
            "No focal consolidation, but a possible nodule in the right apex.",
            [
                ("Consolidation", "absent", None),
                ("Nodule", "uncertain", Location("right", "upper")),
            ],
        ),
        (
            "Effusion is present and pneumonia is absent.",
            [("Effusion", "present", None), ("Pneumonia", "absent", None)],
        ),
        (
            "No pneumothorax, possible effusion.",
            [("Pneumothorax", "absent", None), ("Effusion", "uncertain", None)],
        ),
        (
            "Pneumonia cannot be excluded, no effusion.",
            [("Pneumonia", "uncertain", None), ("Effusion", "absent", None)],
        ),
        (
            "Mild cardiomegaly without pulmonary edema.",
            [("Cardiomegaly", "present", None), ("Edema", "absent", None)],
        ),
        ("No change in the small left effusion.", [("Effusion", "present", LEFT, "unchanged")]),
        ("Left effusion has resolved.", [("Effusion", "absent", LEFT, "resolved")]),
        ("Bibasilar atelectasis.", [("Atelectasis", "present", Location("both", "lower"))]),
        ("Heart size is normal.", [("Cardiomegaly", "absent", None)]),
        ("Heart size appears within normal limits.", [("Cardiomegaly", "absent", None)]),
        ("The heart is mildly enlarged.", [("Cardiomegaly", "present", None)]),
        ("The heart is not enlarged.", [("Cardiomegaly", "absent", None)]),
        (
            "No opacity to suggest pneumonia.",
            [("Lung_Opacity", "absent", None), ("Pneumonia", "absent", None)],
        ),
        (
            "A 1.5 cm nodule in the right upper and left upper lobes.",
            [("Nodule", "present", Location("both", "upper"))],
        ),
        (
            "Nodule in the right upper and left lower zones.",
            [("Nodule", "present", Location("both"))],
        ),
        ("Normal chest radiograph.", []),
        (
            "Cardiomegaly, unchanged, and left effusion, new since the prior.",
            [("Cardiomegaly", "present", None, "unchanged"), ("Effusion", "present", LEFT, "new")],
        ),
        (
            "New right upper zone mass and unchanged cardiomegaly.",
            [
                ("Mass", "present", Location("right", "upper"), "new"),
                ("Cardiomegaly", "present", None, "unchanged"),
            ],
        ),
        (
            "Cardiomegaly and effusion are stable; the nodule has increased in size.",
            [
                ("Cardiomegaly", "present", None, "unchanged"),
                ("Effusion", "present", None, "unchanged"),
                ("Nodule", "present", None, "larger"),
            ],
        ),
        (
            "New effusion, no pneumothorax.",
            [("Effusion", "present", None, "new"), ("Pneumothorax", "absent", None)],
        ),
        ("Decreasing left effusion.", [("Effusion", "present", LEFT, "smaller")]),
        ("Nodule is larger than 3 cm.", [("Nodule", "present", None)]),
        ("Pneumonia is no longer seen.", [("Pneumonia", "absent", None, "resolved")]),
    ],
)
def test_texts_of_others(text: str, expected: list[tuple[Any, ...]]) -> None:
    assert parse_sentence(text) == [Statement(*item) for item in expected]


def test_contradictions_say_what_differs() -> None:
    text = "Right lower zone pneumonia and possible effusion."
    assert contradictions(text, "Pneumonia", "absent", LEFT_LOWER) == [
        "calls pneumonia present, not absent",
        "names side right, not left",
        "calls pleural effusion uncertain",
    ]
    assert contradictions(text, "Mass", "absent")[0] == "does not mention mass"
    # Leaving a place out is no contradiction; naming one that was not given is.
    assert contradictions("Pneumonia.", "Pneumonia", "present", LEFT_LOWER) == []
    assert contradictions("Left-sided pneumonia.", "Pneumonia", "present") == [
        "names side left, not any"
    ]


def _finding(
    name: str, polarity: Polarity, probability: float, location: Location | None
) -> Finding:
    text = sentence(name, polarity, location)
    return Finding(text=text, finding=name, polarity=polarity, probability=probability)


def test_impression_names_what_is_present_then_what_is_possible() -> None:
    findings = [
        _finding("Effusion", "present", 0.7, LEFT),
        _finding("Pneumonia", "uncertain", 0.4, LEFT_LOWER),
        _finding("Cardiomegaly", "present", 0.9, None),
        _finding("Mass", "absent", 0.01, None),
    ]
    text = impression(findings)
    assert text == (
        "Cardiomegaly and left-sided pleural effusion. Possible left lower zone pneumonia."
    )
    assert (
        impression([])
        == impression(findings[-1:])
        == "None of the findings looked for is reported."
    )
    assert parse_sentence(impression([])) == []


@given(st.lists(statements, unique_by=lambda s: s.finding))
def test_impression_says_what_the_findings_say(said: list[Statement]) -> None:
    text = impression([_finding(s.finding, s.polarity, 0.5, s.location) for s in said])
    expected = [s for wanted in ("present", "uncertain") for s in said if s.polarity == wanted]
    assert parse_sentence(text) == expected, (text, PHRASES)


@given(statements, st.integers(0, 9), st.sampled_from([*WORDS, "resolved", "not_comparable", None]))
def test_a_change_reads_back_and_is_only_said_where_it_fits(
    said: Statement, variant: int, change: Change | None
) -> None:
    spoken = told(said.polarity, change)
    text = sentence(said.finding, said.polarity, said.location, variant, spoken)
    (read,) = parse_sentence(text)
    place = None if spoken == "resolved" else said.location
    assert read == Statement(said.finding, said.polarity, place, spoken), text
    assert compares(text) == (spoken is not None)
    if spoken:
        assert contradictions(text, said.finding, said.polarity, said.location)
        assert not contradictions(text, said.finding, said.polarity, said.location, spoken)


@pytest.mark.parametrize(
    "word",
    [
        "stable", "unchanged", "interval", "increased", "decreased", "again seen", "persistent",
        "new", "newly seen", "larger", "smaller", "improved", "worsening", "resolving", "still",
        "previously seen", "progressive", "recurrent", "remaining", "no longer seen", "residual",
    ],
)  # fmt: skip
def test_words_of_comparison_are_known(word: str) -> None:
    assert compares(f"Left effusion, {word}.")
    assert compares(f"{word.capitalize()} left effusion.")


@pytest.mark.parametrize(
    "text",
    [
        "Atelectatic changes at the left base.",
        "Emphysematous change in both lungs.",
        "The lungs are clear.",
        "The heart is mildly enlarged.",
        "No evidence of pneumothorax.",
    ],
)
def test_what_compares_with_nothing_is_let_through(text: str) -> None:
    assert not compares(text)


def test_no_plain_sentence_compares() -> None:
    for finding in FINDINGS:
        for polarity in POLARITIES:
            for location in LOCATIONS:
                for variant in range(variants(finding, polarity)):
                    assert not compares(sentence(finding, polarity, location, variant))


def test_an_impression_tells_what_changed() -> None:
    effusion = _finding("Effusion", "present", 0.7, LEFT).model_copy(update={"change": "new"})
    mass = _finding("Mass", "absent", 0.02, None).model_copy(update={"change": "resolved"})
    heart = _finding("Cardiomegaly", "present", 0.9, None).model_copy(
        update={"change": "unchanged"}
    )
    assert impression([effusion, mass, heart]) == (
        "Cardiomegaly and left-sided pleural effusion. "
        "Pleural effusion is new since the prior. Mass is no longer seen."
    )
    assert impression([mass]) == (
        "None of the findings looked for is reported. Mass is no longer seen."
    )
    assert with_change("Mass.", "not_comparable") == "Mass."
