"""The worklist: what is on it, in which order, how it is searched, how drafts come onto it."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from medvlm.errors import NotAllowed, ReviewError, StoreError
from medvlm.records import InputCheck, Reason
from medvlm.review import audit, review
from medvlm.review.locks import hold
from medvlm.review.records import ImageRow, Patient
from medvlm.review.store import Store
from medvlm.review.studies import searchable
from medvlm.review.tables import AuditTable, DraftTable, ImageTable, StudyTable
from medvlm.review.worklist import (
    Filter,
    NewImage,
    NewStudy,
    add_study,
    draft_failed,
    image_path,
    images,
    latest_draft,
    modalities,
    priors,
    record_draft,
    set_priority,
    study_row,
    worklist,
)
from tests.desk import (
    MODEL,
    Clock,
    a_draft,
    a_pneumothorax,
    a_study,
    effusion,
    somebody,
)

pytest_plugins = ["tests.desk"]


def shown(store: Store, **told: Any) -> list[str]:
    """The ids of what a filter leaves, in order."""
    return [row.id for row in worklist(store, Filter(**told)).rows]


def test_a_study_is_added_with_its_images(any_store: Store, clock: Clock) -> None:
    study = a_study(any_store, images=3)
    row = study_row(any_store, study)
    assert row.patient.name == "Yamada^Taro=山田^太郎=やまだ^たろう"
    assert (row.status, row.priority, row.images, row.version) == ("new", "routine", 3, 0)
    assert row.received == clock.time
    assert worklist(any_store).rows == [row]
    found = images(any_store, study)
    assert [one.number for one in found] == [0, 1, 2]
    assert {one.study_id for one in found} == {study}
    image, path = image_path(any_store, found[2].id)
    assert image == found[2]
    assert path.read_text() == "2"


def test_the_same_files_are_not_added_twice(any_store: Store) -> None:
    study = NewStudy(content_key="c" * 64, patient=Patient())
    again = NewStudy(content_key="c" * 64, patient=Patient(name="Other"))
    image = NewImage(path="x/y.dcm", rows=2, columns=2, sha256="0" * 64)
    by = somebody(any_store)
    with any_store.transaction() as session:
        assert add_study(session, study, [image], by) == (study.id, True)
    with any_store.transaction() as session:
        assert add_study(session, again, [], by) == (study.id, False)
    assert worklist(any_store).total == 1
    with any_store.reading() as session:
        entry = session.scalars(sa.select(AuditTable).where(AuditTable.action == "added")).one()
    assert entry.person == "sato"
    assert json.loads(entry.after) == {"content_key": "c" * 64, "images": ["0" * 64]}


def test_what_a_database_would_refuse_is_taken_in(any_store: Store) -> None:
    """Files hold more than DICOM allows, and characters that PostgreSQL does not."""
    study = a_study(
        any_store,
        patient=Patient(name="Ya\0mada^\ud800Taro", patient_id="x" * 500),
        accession_number="A" * 300 + "\0",
        modality="D\x1bX" * 20,
        view="PA" * 100,
        description="Chest\r\nPA\0",
        study_instance_uid="1." * 100 + "1",
        taken="20260301101500.000000",
    )
    row = study_row(any_store, study)
    assert row.patient.name == "Yamada^Taro"
    assert row.accession_number == "A" * 300
    assert row.description == "Chest PA"
    assert row.taken == "20260301101500"
    assert shown(any_store, text="\0yamada") == [study]


def test_the_order_in_which_studies_should_be_read(any_store: Store, clock: Clock) -> None:
    by = somebody(any_store)
    names = ("signed", "late", "early", "high", "urgent", "noted", "alarming")
    studies = {}
    for name in names:
        clock.pass_by(minutes=-1 if name == "early" else 1)
        studies[name] = a_study(any_store)
    set_priority(any_store, studies["high"], "high", by)
    set_priority(any_store, studies["urgent"], "urgent", by)
    set_priority(any_store, studies["signed"], "urgent", by)
    for name in ("alarming", "noted"):
        record_draft(any_store, studies[name], a_draft(a_pneumothorax()))
    hold(any_store, studies["noted"], by)
    review.acknowledge(any_store, studies["noted"], by, "Pneumothorax", version=0)
    with any_store.transaction() as session:
        session.get_one(StudyTable, studies["signed"]).status = "signed"
    order = [next(name for name, id in studies.items() if id == one) for one in shown(any_store)]
    assert order == ["alarming", "urgent", "high", "early", "late", "noted", "signed"]
    assert study_row(any_store, studies["alarming"]).urgent == ("Pneumothorax",)
    assert study_row(any_store, studies["noted"]).urgent == ()
    assert study_row(any_store, studies["noted"]).version == 1


def test_filters_and_pages(any_store: Store) -> None:
    chest = [a_study(any_store) for _ in range(3)]
    ct = a_study(any_store, modality="CT", priority="high")
    a_study(any_store, modality=None)
    assert modalities(any_store) == ["CT", "DX"]
    assert shown(any_store, modality="CT") == [ct]
    assert shown(any_store, priority="high") == [ct]
    assert shown(any_store, statuses=frozenset({"drafted"})) == []
    record_draft(any_store, chest[1], a_draft())
    assert shown(any_store, statuses=frozenset({"drafted", "signed"})) == [chest[1]]
    assert shown(any_store, statuses=frozenset()) == []
    page = worklist(any_store, Filter(modality="DX", limit=2, offset=1))
    assert page.total == 3
    assert [row.id for row in page.rows] == sorted(chest, key=shown(any_store).index)[1:]


def test_a_search_finds(any_store: Store) -> None:
    study = a_study(any_store)
    a_study(any_store, patient=Patient(name="Sato^Jiro"), accession_number="B", description="Hand")
    for text in (
        *("yamada", "YAMADA taro", "taro yamada", "Yamada^Taro", "ada^t", "\0yamada"),
        *("山田", "山田太郎", "山田 太郎", "太郎\u3000山田", "やまだ", "ヤマダ", "ﾔﾏﾀﾞ"),
        *("やまだたろう", "pat-1", "acc-7", "chest pa 山田"),
    ):
        assert shown(any_store, text=text) == [study], text
    assert len(shown(any_store, text=" ")) == 2


def test_a_search_does_not_find(any_store: Store) -> None:
    a_study(any_store, patient=Patient(name="Yamada^Taro", patient_id="1"), description="Chest")
    for text in ("suzuki", "山本", "yamada jiro", "%", "_", "y%a", "\\", "'", "20260301", "F"):
        assert shown(any_store, text=text) == [], text


def test_words_are_searched_whatever_their_case_and_width() -> None:
    full = "".join(chr(ord(letter) + 0xFEE0) for letter in "Yamada")
    assert searchable(full) == "yamada"
    assert searchable("Straße") == "strasse"
    assert searchable("ヴァイオリン") == "ゔぁいおりん"


def test_priors_are_the_same_patients_earlier_studies(any_store: Store) -> None:
    study = a_study(any_store, taken="20260301101500")
    older = a_study(any_store, taken="20240101")
    newer = a_study(any_store, taken="20260301090000")
    a_study(any_store, taken="20260302")
    a_study(any_store, taken="20260301")  # the same day, perhaps later
    a_study(any_store, taken="")
    a_study(any_store, taken="20240101", patient_key="6" * 64)
    nobodys = a_study(any_store, taken="20260101", patient_key=None)
    assert [row.id for row in priors(any_store, study)] == [newer, older]
    assert priors(any_store, nobodys) == []


def test_images_come_by_stack_and_number(store: Store) -> None:
    study = NewStudy(content_key="c" * 64)
    order = [(1, 2), (0, 10), (1, 1), (0, 9)]
    made = [
        NewImage(path="p", rows=1, columns=1, sha256="0" * 64, stack=stack, number=number)
        for stack, number in order
    ]
    with store.transaction() as session:
        add_study(session, study, made)
    found = [(one.stack, one.number) for one in images(store, study.id)]
    assert found == sorted(order)


def test_what_is_not_there_is_told(store: Store) -> None:
    by = somebody(store)
    for ask in (
        lambda: study_row(store, "0" * 32),
        lambda: image_path(store, "0" * 32),
        lambda: set_priority(store, "0" * 32, "high", by),
        lambda: record_draft(store, "0" * 32, a_draft()),
        lambda: draft_failed(store, "0" * 32, "no"),
    ):
        with pytest.raises(ReviewError, match="there is no such"):
            ask()
    assert images(store, "0" * 32) == []
    assert priors(store, "0" * 32) == []
    assert latest_draft(store, "0" * 32) is None


def test_no_image_lies_outside_of_the_desk(store: Store) -> None:
    study = a_study(store, images=1)
    with store.transaction() as session:
        image = session.scalars(sa.select(ImageTable)).one()
        image.path = "../../etc/passwd"
    with pytest.raises(StoreError, match="outside"):
        image_path(store, images(store, study)[0].id)


def test_a_reader_sets_no_priority(store: Store) -> None:
    study = a_study(store)
    with pytest.raises(NotAllowed):
        set_priority(store, study, "urgent", somebody(store, "aoki", "reader"))
    assert study_row(store, study).priority == "routine"


# ---- drafts ----


def test_a_draft_is_kept(any_store: Store) -> None:
    study, draft = a_study(any_store), a_draft()
    draft_id = record_draft(any_store, study, draft)
    assert latest_draft(any_store, study) == (draft_id, draft)
    row = study_row(any_store, study)
    assert (row.status, row.urgent, row.problem) == ("drafted", (), None)
    with any_store.reading() as session:
        kept = session.get_one(DraftTable, draft_id)
        entry = session.scalars(sa.select(AuditTable).where(AuditTable.action == "drafted")).one()
    assert (kept.model, kept.weights_sha256) == ("by-hand 1.2.3", MODEL.weights_sha256)
    assert json.loads(entry.after)["model"]["weights_sha256"] == MODEL.weights_sha256
    assert "effusion" not in entry.after


@pytest.mark.parametrize(
    ("polarity", "urgent"),
    [("present", ("Pneumothorax",)), ("uncertain", ("Pneumothorax",)), ("absent", ())],
)
def test_what_cannot_wait_is_told(store: Store, polarity: str, urgent: tuple[str, ...]) -> None:
    study = a_study(store)
    regions = {} if polarity != "absent" else {"regions": []}
    record_draft(store, study, a_draft(a_pneumothorax(polarity=polarity, **regions), effusion()))
    assert study_row(store, study).urgent == urgent


def test_a_site_says_what_cannot_wait(store: Store) -> None:
    study = a_study(store)
    record_draft(store, study, a_draft(a_pneumothorax(), effusion()), urgent={"Effusion"})
    assert study_row(store, study).urgent == ("Effusion",)


def test_a_refusal_says_why(store: Store) -> None:
    study = a_study(store)
    record_draft(store, study, a_draft(accepted=False))
    row = study_row(store, study)
    assert (row.status, row.problem) == ("refused", "It is no chest radiograph.")
    check = InputCheck(accepted=False, reasons=[Reason(code="a", message="A."), *2 * [_REASON]])
    record_draft(store, study, a_draft(accepted=False, input_check=check))
    assert study_row(store, study).problem == "A. B."
    record_draft(store, study, a_draft())
    row = study_row(store, study)
    assert (row.status, row.problem) == ("drafted", None)


_REASON = Reason(code="b", message="B.")


def test_a_draft_that_failed_says_why(any_store: Store) -> None:
    study = a_study(any_store)
    draft_failed(any_store, study, "the checkpoint is damaged\0")
    row = study_row(any_store, study)
    assert (row.status, row.problem) == ("new", "the checkpoint is damaged")
    record_draft(any_store, study, a_draft())
    assert study_row(any_store, study).problem is None
    draft_failed(any_store, study, "again")
    assert study_row(any_store, study).status == "drafted"  # by the earlier draft, which stands


def test_a_draft_comes_into_a_review_in_which_images_were_only_shown(any_store: Store) -> None:
    study, by = a_study(any_store), somebody(any_store)
    hold(any_store, study, by)
    first = images(any_store, study)[0].id
    review.displayed(any_store, study, by, [first])
    draft_id = record_draft(any_store, study, a_draft())
    begun = review.load(any_store, study)
    assert begun.draft_id == draft_id
    assert len(begun.sentences) == 2
    assert begun.displayed == {first}


def test_a_draft_does_not_touch_what_a_person_did(any_store: Store) -> None:
    study, by = a_study(any_store), somebody(any_store)
    first = record_draft(any_store, study, a_draft())
    hold(any_store, study, by)
    accepted = review.accept(any_store, study, by, "s01", version=0)
    second = record_draft(any_store, study, a_draft(a_pneumothorax()))
    assert review.load(any_store, study) == accepted
    assert accepted.draft_id == first
    found = latest_draft(any_store, study)
    assert found is not None
    assert found[0] == second
    row = study_row(any_store, study)
    assert (row.status, row.urgent) == ("in_review", ())


def test_whoever_saw_another_draft_is_told(any_store: Store, clock: Clock) -> None:
    """Its sentences have the same ids, and are others."""
    study, by = a_study(any_store), somebody(any_store)
    record_draft(any_store, study, a_draft())
    hold(any_store, study, by)
    seen = review.load(any_store, study)
    clock.pass_by(seconds=1)
    second = record_draft(any_store, study, a_draft(a_pneumothorax()))
    with pytest.raises(ReviewError, match="changed in the meantime"):
        review.accept(any_store, study, by, "s01", version=seen.version)
    now = review.load(any_store, study)
    assert now.draft_id == second
    assert review.accept(any_store, study, by, "s01", version=now.version).sentences[0].stands


def test_a_signed_study_stays_as_it_is(store: Store) -> None:
    study = a_study(store)
    record_draft(store, study, a_draft())
    with store.transaction() as session:
        session.get_one(StudyTable, study).status = "signed"
    record_draft(store, study, a_draft(a_pneumothorax()))
    draft_failed(store, study, "no")
    row = study_row(store, study)
    assert (row.status, row.urgent) == ("signed", ())
    assert audit.verify(store).holds


def test_a_worklist_of_thousands_is_quick(store: Store, clock: Clock) -> None:
    first = a_study(store, images=1)
    record_draft(store, first, a_draft(a_pneumothorax()))
    with store.transaction() as session:
        row = session.get_one(StudyTable, first)
        values = {column.name: getattr(row, column.name) for column in StudyTable.__table__.columns}
        many = [
            {
                **values,
                "id": f"{number:032x}",
                "content_key": f"{number:064x}",
                "received": clock.time + timedelta(seconds=number),
            }
            for number in range(5000)
        ]
        session.execute(sa.insert(StudyTable), many)
    started = time.process_time()
    assert worklist(store, Filter(text="山田", limit=50)).total == 5001
    assert time.process_time() - started < 2


def test_image_rows_hold_no_place() -> None:
    assert "path" not in ImageRow.model_fields
