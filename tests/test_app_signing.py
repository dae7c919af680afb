"""What is signed and kept is what stood on the screen; an idle page does nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app import session
from medvlm.config.desk import DeskConfig
from medvlm.desk.exporting import export_report
from medvlm.desk.intake import take_in
from medvlm.errors import InputNotFound
from medvlm.review import locks, people, signing
from medvlm.review import review as actions
from medvlm.review.guards import WARNINGS
from medvlm.review.jobs import ask_for_draft, draft_waits
from medvlm.review.records import Person
from medvlm.review.store import Store
from medvlm.review.studies import record_draft, set_priority
from medvlm.review.worklist import image_path, images, study_row
from tests.desk import a_draft, a_pneumothorax, a_study, effusion, no_pneumothorax
from tests.dicoms import save, synthetic
from tests.pages import opened, press, texts

pytest_plugins = ["tests.pages"]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

PIN = "1234"


@pytest.fixture(autouse=True)
def _has_a_pin(desk: Store) -> None:
    people.set_pin(desk, people.local_person(desk), PIN)


@pytest.fixture
def me(desk: Store) -> Person:
    return people.local_person(desk)


def drafted(desk: Store) -> str:
    study = a_study(desk)
    record_draft(desk, study, a_draft())
    return study


def reviewed(desk: Store, me: Person) -> str:
    """Nothing stands in the way of its signature."""
    study = drafted(desk)
    locks.hold(desk, study, me)
    actions.displayed(desk, study, me, [image.id for image in images(desk, study)])
    review = actions.load(desk, study)
    for one in review.sentences:
        review = actions.accept(desk, study, me, one.id, version=review.version)
    return study


def give_pin(page: AppTest) -> None:
    (field,) = [one for one in page.text_input if one.label == "PIN"]
    field.set_value(PIN)


# ---- the signature ----


def test_what_changed_since_it_was_shown_is_not_signed(desk: Store, me: Person) -> None:
    study = reviewed(desk, me)
    page = opened(study)
    version = actions.load(desk, study).version
    version = actions.edit(
        desk, study, me, "s01", "Left effusion.", polarity="present", version=version
    ).version
    actions.set_fields(desk, study, me, impression="Left pleural effusion.", version=version)
    give_pin(page)
    press(page, "Sign the report")
    assert "Somebody changed this report" in texts(page)
    assert study_row(desk, study).status == "in_review"
    give_pin(page)
    press(page, "Sign the report")
    assert study_row(desk, study).status == "signed"


def test_words_that_were_not_kept_are_told_and_stop_the_signature(desk: Store, me: Person) -> None:
    study = reviewed(desk, me)
    page = opened(study)
    version = actions.load(desk, study).version
    actions.set_fields(desk, study, me, indication="Cough.", version=version)
    typed = "Left pleural effusion is possible."
    for one in page.text_area:
        if one.label == "Impression":
            one.set_value(typed).run()
    page.run()
    assert [one.value for one in page.text_area if one.label == "Impression"] == [typed]
    assert any("not kept" in str(one.value) for one in page.error)
    (sign,) = [one for one in page.button if one.label == "Sign the report"]
    assert sign.disabled
    press(page, "Keep them")
    assert actions.load(desk, study).fields.impression == typed
    assert not page.error


def test_a_confirmation_is_of_one_warning_only(desk: Store, me: Person) -> None:
    study = reviewed(desk, me)
    version = actions.load(desk, study).version
    review = actions.edit(
        desk, study, me, "s01", "Right pleural effusion.", polarity="present", version=version
    )
    page = opened(study)
    assert page.checkbox
    for box in page.checkbox:
        box.check()
    page.run()
    actions.edit(
        desk, study, me, "s01", "Effusion on the right.", polarity="present", version=review.version
    )
    page.run()
    of_the_sentence = [one for one in page.checkbox if str(one.key).startswith("confirm-0-")]
    assert [one.value for one in of_the_sentence] == [False]


def test_an_addendum_is_signed_once(desk: Store, me: Person) -> None:
    study = reviewed(desk, me)
    version = actions.load(desk, study).version
    signing.sign(desk, study, me, version=version, pin=PIN, confirmed=WARNINGS)
    page = opened(study)
    (field,) = [one for one in page.text_area if one.label == "Text of the addendum"]
    field.set_value("Seen again.")
    give_pin(page)
    press(page, "Sign the addendum")
    press(page, "Sign the addendum")
    assert [one.text for one in signing.report(desk, study).addenda] == ["Seen again."]


def test_files_of_an_earlier_state_are_not_offered(desk: Store, me: Person, tmp_path: Path) -> None:
    values = np.arange(10_000, dtype=np.uint16).reshape(100, 100)
    (study,) = take_in(desk, [save(synthetic(values), tmp_path / "film.dcm")], me).added
    record_draft(desk, study, a_draft(effusion(regions=[]), no_pneumothorax()))
    page = opened(study)
    press(page, "export-make")
    assert page.get("download_button")
    press(page, "accept-s02")
    assert not page.get("download_button")


# ---- forms and fields ----


def test_an_edit_does_not_write_over_another_and_is_not_lost(desk: Store, me: Person) -> None:
    study = drafted(desk)
    page = opened(study)
    press(page, "edit-s01")
    actions.edit(desk, study, me, "s01", "Effusion, said elsewhere.", version=0)
    (field,) = [one for one in page.text_area if one.key == "edit-text-s01"]
    field.set_value("Effusion, said here.")
    press(page, "Save")
    assert actions.load(desk, study).sentences[0].text == "Effusion, said elsewhere."
    (field,) = [one for one in page.text_area if one.key == "edit-text-s01"]
    assert field.value == "Effusion, said here."


def test_a_sentence_that_was_not_added_stays_in_its_form(desk: Store, me: Person) -> None:
    study = drafted(desk)
    page = opened(study)
    actions.set_fields(desk, study, me, indication="Cough.", version=0)
    (field,) = [one for one in page.text_input if one.key == "add-text"]
    field.set_value("The lungs are clear.")
    press(page, "Add")
    assert len(actions.load(desk, study).sentences) == 2
    (field,) = [one for one in page.text_input if one.key == "add-text"]
    assert field.value == "The lungs are clear."
    press(page, "Add")
    assert actions.load(desk, study).sentences[-1].text == "The lungs are clear."
    (field,) = [one for one in page.text_input if one.key == "add-text"]
    assert field.value == ""


def test_a_template_can_be_taken_back(desk: Store) -> None:
    study = drafted(desk)
    page = opened(study)
    (box,) = [one for one in page.selectbox if one.label == "Template"]
    box.set_value(box.options[1]).run()
    assert actions.load(desk, study).fields.template == box.options[1]
    press(page, "Undo")
    assert actions.load(desk, study).fields.template == ""


def test_a_priority_that_another_set_is_shown(root: Path, desk: Store, me: Person) -> None:
    study = a_study(desk)
    page = AppTest.from_file(str(root / "app" / "main.py"), default_timeout=60).run()
    set_priority(desk, study, "urgent", me)
    page.run()
    shown = [one.value for one in page.selectbox if str(one.key).startswith(f"priority-{study}")]
    assert shown == ["urgent"]


# ---- idleness ----


def test_a_page_left_idle_does_nothing_and_a_reload_does_not_open_it(desk: Store) -> None:
    study = drafted(desk)
    page = opened(study)
    session._everybody()["local"] -= 3600
    page.session_state["last_seen"] -= 3600
    press(page, "accept-s01")
    assert actions.load(desk, study).sentences[0].decision == "unresolved"
    assert "Yamada" not in texts(page)
    again = opened(study)
    assert "Yamada" not in texts(again)
    give_pin(again)
    press(again, "Open again")
    assert "Yamada" in texts(again)


# ---- drafts that come late, and odd files ----


def test_an_urgent_finding_of_a_late_draft_is_told(desk: Store, me: Person) -> None:
    study = a_study(desk)
    locks.hold(desk, study, me)
    actions.set_fields(desk, study, me, indication="Cough.", version=0)
    record_draft(desk, study, a_draft(a_pneumothorax(), impression="Right pneumothorax."))
    assert study_row(desk, study).urgent == ("Pneumothorax",)
    assert actions.load(desk, study).fields.indication == "Cough."


def test_a_queued_draft_is_waited_for(desk: Store, me: Person) -> None:
    study = a_study(desk)
    assert not draft_waits(desk, study)
    ask_for_draft(desk, study, me)
    assert draft_waits(desk, study)


def test_two_images_with_one_uid_are_told_apart_by_refusing_one(
    desk: Store, me: Person, tmp_path: Path
) -> None:
    """A region names its image by the UID: it would be shown on the wrong one."""
    values = np.arange(10_000, dtype=np.uint16).reshape(100, 100)
    uids = {"StudyInstanceUID": "1.2.9", "SOPInstanceUID": "1.2.3"}
    one = save(synthetic(values, **uids), tmp_path / "one.dcm")
    other = save(synthetic(values[::-1].copy(), **uids), tmp_path / "other.dcm")
    taken = take_in(desk, [one, other], me)
    assert [refused.code for refused in taken.refused] == ["same_uid"]
    assert len(images(desk, taken.added[0])) == 1
    assert take_in(desk, [one, other], me).known == taken.added


def test_a_file_without_a_preamble_is_exported_and_a_lost_one_is_told(
    desk: Store, me: Person, tmp_path: Path
) -> None:
    values = np.arange(10_000, dtype=np.uint16).reshape(100, 100)
    bare = tmp_path / "bare.dcm"
    bare.write_bytes(save(synthetic(values), tmp_path / "film.dcm").read_bytes()[132:])
    (study,) = take_in(desk, [bare], me).added
    report = signing.preliminary_report(desk, study)
    assert "report.comprehensive.dcm" in export_report(desk, report, DeskConfig()).files
    films = [
        save(synthetic(values, SOPInstanceUID=f"1.2.{n}", StudyInstanceUID="1.2.9"), tmp_path / n)
        for n in "34"
    ]
    (study,) = take_in(desk, films, me).added
    report = signing.preliminary_report(desk, study)
    image_path(desk, report.images[0].id)[1].unlink()
    with pytest.raises(InputNotFound):
        export_report(desk, report, DeskConfig())
