"""Reviews of drafts as data: the format, and what each action teaches."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest

from medvlm.findings import FINDINGS
from medvlm.reports.corrections import (
    ReviewedStudy,
    boxes_of,
    corrections_schema,
    labels_of,
    latest,
    review_of,
    to_jsonl,
    unsettled,
)
from medvlm.reports.read import read_text
from medvlm.reports.report import UnusableReport

REGION = {"sop_instance_uid": "1.2.3.4", "frame": 0, "x": 10, "y": 20, "width": 30, "height": 40}


def sentence(**changes: Any) -> dict[str, Any]:
    return {
        "text": "Left pleural effusion.",
        "finding": "Effusion",
        "polarity": "present",
        "action": "accepted",
        **changes,
    }


def review(*sentences: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "schema_version": "1.0",
        "study_instance_uid": "1.2.3",
        "sop_instance_uids": ["1.2.3.4"],
        "model": {"name": "m", "version": "1", "weights_sha256": "ab"},
        "sentences": list(sentences),
        "reviewer": "reader-1",
        "signed_at": "2025-01-02T03:04:05+00:00",
        **changes,
    }


FULL = review(
    sentence(regions=[REGION]),
    sentence(
        text="Possible mass.",
        finding="Mass",
        polarity="uncertain",
        action="edited",
        text_after="Nodule in the left lung.",
        finding_after="Nodule",
        polarity_after="present",
        regions=[REGION],
    ),
    sentence(finding="Pneumonia", action="rejected", reason="not there"),
    sentence(finding="Atelectasis", action="rejected", reason="wrong place", regions=[REGION]),
    sentence(finding="Edema", action="rejected", reason="other"),
    sentence(finding="Hernia", text="Hiatal hernia.", action="added", regions=[REGION]),
    sentence(finding="Pneumothorax", polarity="absent", text="No pneumothorax."),
)


def test_what_each_action_teaches() -> None:
    read = review_of(FULL)
    said = {finding: label for finding, label in labels_of(read).items() if label}
    assert said == {
        "Effusion": "present",
        "Nodule": "present",
        "Pneumonia": "absent",
        "Atelectasis": "present",
        "Hernia": "present",
        "Pneumothorax": "absent",
    }
    assert unsettled(read) == {"Edema"}
    assert [(box.finding, box.action) for box in boxes_of(read)] == [
        ("Effusion", "accepted"),
        ("Nodule", "edited"),
        ("Atelectasis", "rejected"),
        ("Hernia", "added"),
    ]
    assert [one.text_left for one in read.sentences] == [
        "Left pleural effusion.",
        "Nodule in the left lung.",
        None,
        None,
        None,
        "Hiatal hernia.",
        "No pneumothorax.",
    ]


def test_of_several_sentences_the_strongest_counts() -> None:
    read = review_of(
        review(
            sentence(action="rejected", reason="not there"),
            sentence(text="Right pleural effusion."),
            sentence(finding="Edema", action="rejected", reason="other"),
            sentence(finding="Edema", polarity="absent"),
        )
    )
    assert labels_of(read)["Effusion"] == "present"
    assert labels_of(read)["Edema"] == "absent"
    assert unsettled(read) == set()


def test_nothing_is_concluded_from_one_finding_for_another() -> None:
    labels = labels_of(review_of(review(sentence(finding="Pneumonia"))))
    assert labels == {**dict.fromkeys(FINDINGS), "Pneumonia": "present"}


def test_a_wrong_place_without_a_right_one_leaves_no_box() -> None:
    read = review_of(review(sentence(action="rejected", reason="wrong place")))
    assert labels_of(read)["Effusion"] == "present"
    assert boxes_of(read) == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"finding": "Fracture"}, "sentences.0"),
        ({"polarity": "maybe"}, "sentences.0.polarity"),
        ({"action": "liked"}, "sentences.0.action"),
        ({"text_after": "x"}, "sentences.0"),
        ({"action": "rejected"}, "sentences.0"),
        ({"reason": "not there"}, "sentences.0"),
        ({"action": "rejected", "reason": "not there", "polarity": "absent"}, "sentences.0"),
        ({"action": "rejected", "reason": "not there", "regions": [REGION]}, "sentences.0"),
        ({"polarity": "absent", "regions": [REGION]}, "sentences.0"),
        ({"Quibbleson": "x"}, "sentences.0.unknown"),
        ({"regions": [{**REGION, "width": 0}]}, "sentences.0.regions.0.width"),
    ],
)
def test_a_sentence_that_makes_no_sense_is_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(UnusableReport, match=f": {field}.") as caught:
        review_of(review(sentence(**change)))
    assert caught.value.code == "bad_review"


@pytest.mark.parametrize(
    "change",
    [
        {"signed_at": "2025-01-02T03:04:05"},  # in no time zone
        {"study_instance_uid": "../1"},
        {"reviewer": ""},
        {"schema_version": "2.0"},
        {"model": None},
    ],
)
def test_a_review_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UnusableReport):
        review_of(review(sentence(), **change))


def test_the_format_reads_back_and_fits_its_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    read = review_of(FULL)
    (line,) = to_jsonl([read]).splitlines()
    assert review_of(json.loads(line)) == read
    for content in (FULL, json.loads(line)):
        jsonschema.validate(content, corrections_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(review(sentence(finding="Fracture")), corrections_schema())


def test_the_schema_in_the_package_is_that_of_the_code() -> None:
    stored = files("medvlm").joinpath("schemas/corrections.schema.json").read_text("utf-8")
    assert json.loads(stored) == corrections_schema()


def test_a_file_of_reviews_with_one_that_is_broken() -> None:
    good = ReviewedStudy.model_validate_json(json.dumps(FULL))
    text = to_jsonl([good]) + json.dumps(review({"text": "x"})) + "\n"
    beside = read_text(text.encode(), "corrections.jsonl", "f")
    assert beside.reviews == [good]
    assert [(p.source, p.code) for p in beside.problems] == [("f line 2", "bad_review")]


def test_the_review_signed_last_counts() -> None:
    first = review_of(review(sentence()))
    # Later, though its clock shows less: another time zone.
    later = review_of(review(sentence(), signed_at="2025-01-02T01:04:06-03:00"))
    assert latest([later, first]) is later
