"""Texts held against texts, by figures of sacrebleu and rouge-score, and people's reports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.errors import DataSetError
from medvlm.evaluate.references import MENTIONS, Reference, read_references, strongest
from medvlm.evaluate.report_text import against_references, confusion
from medvlm.evaluate.text import bleu_of, normalise_answer, rouge_l, token_f1

REPORTS = [
    "Small left pleural effusion with adjacent atelectasis. No pneumothorax.",
    "The heart is enlarged. There is no focal consolidation.",
    "No acute cardiopulmonary process.",
]
DRAFTS = [
    "Left pleural effusion and atelectasis. No pneumothorax is seen.",
    "The heart is enlarged. No consolidation.",
    "There is no acute cardiopulmonary process.",
]


def test_answers() -> None:
    assert normalise_answer("  The Left, lower-lobe. ") == "left lower lobe"
    assert token_f1("the left lung", "left lower lung") == pytest.approx(2 * 2 / 5)
    assert token_f1("Yes.", "yes") == 1
    assert token_f1("no", "yes") == 0
    assert token_f1("", "the") == 1
    assert token_f1("", "yes") == 0


def test_bleu_is_that_of_sacrebleu() -> None:
    # BLEU(max_ngram_order=n, smooth_method="none", tokenize="none") over words without marks.
    once = np.ones((1, 3))
    expected = [0.7264738703493159, 0.6203451651854628, 0.5274913817364891, 0.3907990878044854]
    assert bleu_of(REPORTS, DRAFTS, once)[0] == pytest.approx(expected)


def test_bleu_by_hand() -> None:
    # Words 3 of 3, pairs 2 of 2, triples 1 of 1; 3 words for 4: exp(1 - 4/3).
    (short,) = bleu_of(["a b c d"], ["a b c"], np.ones((1, 1)))
    assert short == pytest.approx([np.exp(-1 / 3)] * 3 + [0])
    # A word said more often than it is wanted counts but as often as it is wanted.
    assert bleu_of(["the cat"], ["the the the the"], np.ones((1, 1)))[0, 0] == 0.25
    assert bleu_of(["a b"], [""], np.ones((1, 1)))[0].tolist() == [0] * 4
    # A resample that holds a text twice is the corpus that does.
    twice = bleu_of(REPORTS, DRAFTS, np.array([[2.0, 0, 1]]))[0]
    rows = [0, 0, 2]
    corpus = bleu_of([REPORTS[i] for i in rows], [DRAFTS[i] for i in rows], np.ones((1, 3)))[0]
    assert twice == pytest.approx(corpus)


def test_rouge_l_is_that_of_rouge_score() -> None:
    scores = [rouge_l(a, b) for a, b in zip(REPORTS, DRAFTS, strict=True)]
    assert scores == pytest.approx([2 / 3, 0.8, 0.8])
    assert rouge_l("", "a") == 0


@given(*[st.lists(st.sampled_from("abcd"), min_size=1, max_size=12)] * 2)
def test_rouge_l_counts_the_longest_common_subsequence(a: list[str], b: list[str]) -> None:
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            longer = max(table[i, j + 1], table[i + 1, j])
            table[i + 1, j + 1] = table[i, j] + 1 if x == y else longer
    expected = 2 * table[-1, -1] / (len(a) + len(b))
    assert rouge_l(" ".join(a), " ".join(b)) == pytest.approx(expected)


def test_what_is_there_outweighs_what_is_not() -> None:
    said = strongest([("Mass", "absent"), ("Mass", "uncertain"), ("Nodule", "present")])
    assert said == {"Mass": "uncertain", "Nodule": "present"}


def test_reports_are_read_by_image(tmp_path: Path) -> None:
    assert read_references(tmp_path) == {}
    mass = {"finding": "Mass", "polarity": "present", "implied": False}
    sentences = [
        {"section": "findings", "text": "A mass.", "statements": [mass]},
        {"section": "impression", "text": "Possibly no mass.", "statements": []},
    ]
    lines = [
        {"study_id": "1", "images": ["a.png", "b.png"], "sentences": sentences},
        {"image": "images/c.png", "text": "No pneumothorax. Possible pleural effusion."},
        {"images": ["d.png"], "sentences": []},
    ]
    (tmp_path / "reports.jsonl").write_text("\n\n".join(map(json.dumps, lines)) + "\n")
    found = read_references(tmp_path)
    assert found.keys() == {"a.png", "b.png", "c.png"}
    assert found["a.png"] == found["b.png"]
    assert found["a.png"] == Reference("A mass. Possibly no mass.", {"Mass": "present"})
    assert found["c.png"].polarities == {"Pneumothorax": "absent", "Effusion": "uncertain"}


@pytest.mark.parametrize(
    "line",
    [
        '{"text": "of no image"}',
        '{"image": "of no text"}',
        "{",
        "[]",
        '{"image": "a", "sentences": [{"text": "", "statements": [{"finding": "Mass"}]}]}',
        '{"image": "a", "sentences": [{"text": "", "statements": '
        '[{"finding": "Mass", "polarity": "yes"}]}]}',
        '{"image": "a", "sentences": [{"text": "", "statements": '
        '[{"finding": "Grief", "polarity": "present"}]}]}',
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "reports.jsonl").write_text('{"image": "a.png", "text": "x"}\n' + line)
    with pytest.raises(DataSetError, match="line 2 cannot be read"):
        read_references(tmp_path)


def test_uncertain_is_neither_present_nor_absent() -> None:
    names = ["Effusion", "Mass"]
    references = [
        Reference("Effusion. No mass.", {"Effusion": "present", "Mass": "absent"}),
        Reference("Possible effusion.", {"Effusion": "uncertain"}),
        Reference("Effusion.", {"Effusion": "present"}),
    ]
    texts = ["Effusion. No mass.", "Effusion. No mass.", "Possible effusion."]
    drafted = np.array(
        [["present", "absent"], ["present", "absent"], ["uncertain", "unmentioned"]], object
    )
    few = against_references(references, texts, drafted, names, ["p1", "p2", "p3"])
    assert few["too_few"]
    assert few["bleu_1"] is few["polarity"]["present"]["f1"] is None
    assert (few["n"], few["confusion"]["present"]["present"]) == (3, 1)
    twice = np.concatenate([drafted, drafted])
    scores = against_references(references * 2, texts * 2, twice, names, list("abcdef"))
    assert scores["n"] == 6
    assert {name: own["f1"] for name, own in scores["polarity"].items()} == {
        "present": 0.5, "uncertain": 0.0, "absent": pytest.approx(2 / 3),
    }  # fmt: skip
    assert scores["confusion"]["present"] == {
        "present": 2, "uncertain": 2, "absent": 0, "unmentioned": 0,
    }  # fmt: skip
    assert scores["confusion"]["unmentioned"]["absent"] == 2
    assert sum(sum(row.values()) for row in scores["confusion"].values()) == 12
    low, high = scores["bleu_1_ci"]
    assert low <= scores["bleu_1"] <= high
    assert scores["rouge_l"] == pytest.approx((1 + 2 * 1 / 5 + 2 * 1 / 3) / 3)


def test_confusion_of_some_rows() -> None:
    reported, drafted = np.array([["present", "absent"]]), np.array([["absent", "absent"]])
    found = confusion(reported, drafted, MENTIONS[:1])
    assert found == {"present": {"present": 0, "uncertain": 0, "absent": 1, "unmentioned": 0}}
