"""Signed reviews as data: what is written is what `medvlm finetune` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from medvlm.data.site import read_site
from medvlm.data.site_labels import study_labels
from medvlm.errors import ReviewError
from medvlm.reports.corrections import boxes_of, labels_of, review_of, to_jsonl, unsettled
from medvlm.review import changes
from medvlm.review import review as actions
from medvlm.review.corrections import corrections, reviewed
from medvlm.review.guards import WARNINGS
from medvlm.review.locks import hold
from medvlm.review.people import local_person, set_pin
from medvlm.review.records import Person, Sentence
from medvlm.review.signing import addendum, sign
from medvlm.review.store import Store
from medvlm.review.worklist import images, record_draft
from tests.desk import MODEL, a_draft, a_pneumothorax, a_study, effusion, no_pneumothorax, somebody
from tests.dicoms import save, synthetic
from tests.test_review_review import BOX, FINDINGS_OF_FULL, FULL, STEPS

pytest_plugins = ["tests.desk"]

PIN = "4711"
PROOF = "https://id.example.org"


def begun() -> Any:
    return changes.begin("0" * 32, "1" * 32, a_draft(*FINDINGS_OF_FULL, **FULL))


def test_what_each_decision_teaches() -> None:
    review = changes.accept(begun(), "s01")
    review = changes.edit(
        review, "s02", "Left nodule.", finding="Nodule", polarity="present", regions=[BOX]
    )
    review = changes.reject(review, "s03", "wrong place")
    review = changes.move(review, "s03", [BOX])
    review = changes.take_in(review, "w02")
    review = changes.reject(review, "w02", "not there")
    review = changes.add(review, "Hernia.", "Hernia", "present", [BOX])
    said = [one for sentence in review.sentences if (one := reviewed(sentence))]
    assert [(one.finding, one.action, one.reason) for one in said] == [
        ("Effusion", "accepted", None),
        ("Pneumothorax", "edited", None),
        ("Pneumothorax", "rejected", "wrong place"),
        ("Mass", "rejected", "not there"),
        ("Hernia", "added", None),
    ]
    assert said[0].regions == tuple(effusion().regions)
    assert (said[1].text, said[1].text_after) == ("No pneumothorax.", "Left nodule.")
    assert (said[1].finding_after, said[1].polarity_after) == ("Nodule", "present")
    assert said[2].regions == (BOX,)
    assert said[3].regions == ()
    assert said[4].text == "Hernia."


@pytest.mark.parametrize(
    ("reason", "written"),
    [
        ("not there", "not there"),
        ("wrong place", "wrong place"),
        ("wrong severity", "other"),
        ("missing", "other"),
        ("wording", "other"),
    ],
)
def test_reasons(reason: Any, written: str) -> None:
    one = reviewed(changes.reject(begun(), "s03", reason).sentence("s03"))
    assert one is not None
    assert (one.action, one.reason) == ("rejected", written)
    # The machine's own place was wrong, so there is no right one to learn.
    assert one.regions == ()
    # Of what is absent, nothing is "not there".
    denied = reviewed(changes.reject(begun(), "s02", reason).sentence("s02"))
    assert denied is not None
    assert denied.reason == "other"


def test_what_is_no_finding_of_the_lexicon() -> None:
    added = changes.add(begun(), "Rib fracture.", changes.OTHER, "present").sentences[-1]
    assert reviewed(added) is None
    edited = changes.edit(begun(), "s01", "Rib fracture.", finding=changes.OTHER).sentence("s01")
    one = reviewed(edited)
    assert one is not None
    assert (one.action, one.reason, one.text_after) == ("rejected", "other", None)
    assert reviewed(begun().sentence("s01")) is None


@given(some.lists(STEPS, max_size=12))
def test_whatever_was_done_is_read_back(steps: list[tuple[str, Any]]) -> None:
    review = begun()
    for number, (name, given_) in enumerate(steps):
        if name in ("undo", "set_fields"):
            continue
        try:
            review = getattr(changes, name)(review, *given_)
        except ReviewError:
            continue
        review = review.model_copy(update={"version": number + 1})
    for sentence in review.sentences:
        if (one := reviewed(sentence)) is not None:
            assert type(one).model_validate_json(one.model_dump_json()) == one
            agrees(sentence, one.stated)


def agrees(sentence: Sentence, stated: tuple[str, str] | None) -> None:
    """What stands in the report is what is learnt, and nothing that was thrown out is."""
    if sentence.stands and sentence.finding != changes.OTHER:
        assert stated == (sentence.finding, sentence.polarity)
    elif sentence.decision == "rejected" and sentence.reason != "wrong place":
        assert stated is None or stated == (sentence.finding, "absent")


# ---- of the desk ----


def finished(store: Store, by: Person, **told: Any) -> str:
    """A signed study: the effusion accepted, the pneumothorax thrown out, a nodule drawn."""
    study = a_study(store, images=1, **told)
    record_draft(store, study, a_draft(effusion(), a_pneumothorax()))
    hold(store, study, by)
    actions.displayed(store, study, by, [one.id for one in images(store, study)])
    actions.acknowledge(store, study, by, "Pneumothorax", version=0)
    actions.accept(store, study, by, "s01", version=1)
    actions.reject(store, study, by, "s02", "not there", version=2)
    nodule = "Right upper zone nodule, as Yamada feared."
    region = BOX
    if images(store, study)[0].sop_instance_uid != BOX.sop_instance_uid:
        region = BOX.model_copy(update={"sop_instance_uid": None})
    actions.add(store, study, by, nodule, "Nodule", "present", [region], version=3)
    attested = {"pin": PIN} if by.local else {"proof": PROOF}
    sign(store, study, by, version=4, confirmed=WARNINGS, **attested)  # type: ignore[arg-type]
    return study


def me(store: Store) -> Person:
    by = local_person(store)
    set_pin(store, by, PIN)
    return by


def test_what_was_signed_and_only_that(store: Store) -> None:
    by = me(store)
    study = finished(store, by)
    addendum(store, study, by, "Called the ward.", pin=PIN)
    record_draft(store, a_study(store), a_draft())
    (one,) = corrections(store).reviews
    assert one.study_instance_uid == "1.2.826.0.1.3680043.8.498.1"
    assert one.sop_instance_uids == ("1.2.826.0.1.3680043.8.498.1.1.1",)
    assert one.model == MODEL
    assert [said.action for said in one.sentences] == ["accepted", "rejected", "added"]
    assert review_of(json.loads(to_jsonl([one]))) == one


def test_what_has_no_uid_or_no_draft_is_counted(store: Store) -> None:
    by = me(store)
    finished(store, by)
    for uid in (None, "", "not a uid", "1" * 65, "12"):
        finished(store, by, study_instance_uid=uid)
    study = a_study(store, images=1)
    hold(store, study, by)
    actions.displayed(store, study, by, [one.id for one in images(store, study)])
    actions.add(store, study, by, "Mass.", "Mass", "present", version=0)
    actions.set_fields(store, study, by, impression="Mass.", version=1)
    sign(store, study, by, version=2, pin=PIN, confirmed=WARNINGS)
    found = corrections(store)
    assert (len(found.reviews), found.no_uid, found.no_draft, found.left_out) == (1, 5, 1, 6)


def test_a_reviewer_has_a_pseudonym(store: Store) -> None:
    finished(store, me(store))
    finished(store, somebody(store, "sato"))
    finished(store, somebody(store, "sato"))
    numbered = [one.reviewer for one in corrections(store).reviews]
    assert numbered == ["reviewer-1", "reviewer-2", "reviewer-2"]
    keyed = [one.reviewer for one in corrections(store, b"k" * 16).reviews]
    assert keyed[1] == keyed[2] != keyed[0]
    assert keyed != [one.reviewer for one in corrections(store, b"l" * 16).reviews]
    for one in corrections(store, b"k" * 16).reviews:
        written = one.model_dump_json()
        assert "sato" not in written.lower()
        assert "local" not in written.lower()


def test_fine_tuning_reads_it(store: Store, tmp_path: Path) -> None:
    """The folder of a site: the study's image, and the desk's reviews beside it."""
    finished(store, me(store))
    site = tmp_path / "site"
    site.mkdir()
    study, film = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.1.1.1"
    pixels = np.arange(2500 * 2000, dtype=np.uint16).reshape(2500, 2000)
    save(
        synthetic(
            pixels,
            StudyInstanceUID=study,
            SOPInstanceUID=film,
            PatientID="PAT-1",
            PatientName="Yamada^Taro",
        ),
        site / "film.dcm",
    )
    found = corrections(store)
    (site / "corrections.jsonl").write_text(to_jsonl(found.reviews))
    read = read_site(site)
    assert (read.reviews, len(read.studies)) == (1, 1)
    (of,) = read.studies
    assert of.review == found.reviews[0]
    labels = {name: label for name, label in labels_of(of.review).items() if label}
    assert labels == {"Effusion": "uncertain", "Pneumothorax": "absent", "Nodule": "present"}
    assert unsettled(of.review) == frozenset()
    assert [(box.finding, box.action) for box in boxes_of(of.review)] == [("Nodule", "added")]
    learnt = study_labels(read, of, {"yamada": "NAME"})
    assert learnt.labels["Nodule"] == "present"
    (box,) = learnt.boxes[film]
    assert (box.x, box.y) == (BOX.x / 2000, BOX.y / 2500)
    assert "Right upper zone nodule, as [NAME] feared." in [one.text for one in learnt.sentences]


def test_nothing_is_learnt_of_what_is_only_denied(store: Store) -> None:
    review = changes.begin("0" * 32, "1" * 32, a_draft(no_pneumothorax()))
    one = reviewed(changes.reject(review, "s01", "wording").sentence("s01"))
    assert one is not None
    assert one.stated is None
