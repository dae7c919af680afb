"""Drafts, answers and commands with a prior study; without one, no word of change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from medvlm.dicom.prior import Prior, chosen_prior
from medvlm.dicom.read import read_inputs
from medvlm.dicom.study import Study
from medvlm.draft import compose
from medvlm.draft.answer import answer_question
from medvlm.draft.change import compares, told
from medvlm.draft.compose import draft_study
from medvlm.draft.markdown import to_markdown
from medvlm.draft.parse import Location, parse_sentence
from medvlm.draft.then_and_now import NO_PRIOR, REFUSED, UNTOLD
from medvlm.draft.wording import comparison_answer, comparison_question
from medvlm.draft.write import Statement, says
from medvlm.findings import FINDINGS
from medvlm.image.load import load_image
from medvlm.model.checkpoint import Checkpoint, load_checkpoint
from medvlm.records import Change, Draft
from tests.test_comparison import film, study
from tests.test_draft import with_points


@pytest.fixture
def checkpoint(tiny: Path) -> Checkpoint:
    return load_checkpoint()


def pair(tmp_path: Path) -> tuple[Study, Prior]:
    now, before = study(tmp_path, 1, StudyDate="20200101"), study(tmp_path, 2, StudyDate="20190101")
    return now, chosen_prior(now, [before])


@pytest.mark.parametrize("compared", ["new", "unchanged", "larger", "smaller", "not_comparable"])
def test_a_draft_says_what_became_of_its_findings(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compared: Change
) -> None:
    now, prior = pair(tmp_path)
    monkeypatch.setattr(compose, "change", lambda now, before: compared)
    result = draft_study(with_points(checkpoint, present_from=0.0), now, prior)
    for finding in result.draft.findings:
        assert finding.change == compared
        (said,) = parse_sentence(finding.text)
        assert said.change == told(finding.polarity, compared)
        assert compares(finding.text) == (said.change is not None)
    assert compares(result.draft.impression) == (compared in ("new", "larger", "smaller"))
    assert Draft.model_validate_json(result.draft.model_dump_json()) == result.draft


def test_what_has_resolved_is_no_longer_seen(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, prior = pair(tmp_path)
    monkeypatch.setattr(compose, "change", lambda now, before: "resolved")
    gone = with_points(checkpoint, present_from=1.1, absent_below=dict.fromkeys(FINDINGS, 1.01))
    draft = draft_study(gone, now, prior).draft
    assert draft.findings
    for finding in draft.findings:
        assert finding.text.endswith(" is no longer seen.")
        assert finding.regions == []


def test_the_record_and_the_picture_hold_both_studies(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    now, prior = pair(tmp_path)
    everywhere = with_points(checkpoint, present_from=0.0)
    alone, both = draft_study(everywhere, now), draft_study(everywhere, now, prior)
    comparison = both.draft.comparison
    assert comparison is not None
    assert comparison.study_instance_uid == prior.study.study_instance_uid
    assert comparison.input_check.accepted
    assert comparison.reservations == []
    before = prior.study.instances[0].sop_instance_uid
    regions = [region for finding in comparison.findings for region in finding.regions]
    assert regions
    assert {region.sop_instance_uid for region in regions} == {before}
    assert alone.overlay is not None
    assert both.overlay is not None
    assert both.overlay.width == 2 * alone.overlay.width
    assert (both.draft.study, both.draft.input_check) == (
        alone.draft.study,
        alone.draft.input_check,
    )
    for one, other in zip(alone.draft.findings, both.draft.findings, strict=True):
        assert (one.finding, one.probability, one.regions) == (
            other.finding,
            other.probability,
            other.regions,
        )
        assert one.change is None
    page = to_markdown(both.draft, "t")
    assert f"Prior study: {prior.study.study_instance_uid}." in page


def test_a_prior_that_the_gate_refuses_is_not_compared(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    now = study(tmp_path, 1, StudyDate="20200101")
    lateral = study(tmp_path, 2, StudyDate="20190101", ViewPosition="LL")
    result = draft_study(checkpoint, now, chosen_prior(now, [lateral]))
    assert result.draft.comparison is not None
    assert not result.draft.comparison.input_check.accepted
    assert {finding.change for finding in result.draft.findings} == {"not_comparable"}
    assert not any(compares(finding.text) for finding in result.draft.findings)
    assert "nothing is compared" in to_markdown(result.draft, "t")


def test_a_prior_that_vanished_harms_only_the_comparison(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    now, prior = pair(tmp_path)
    prior.study.instances[0].path.unlink()
    result = draft_study(checkpoint, now, prior)
    assert result.draft.findings
    assert result.draft.comparison is not None
    assert not result.draft.comparison.input_check.accepted
    assert [failed.code for failed in result.failed] == ["not_found"]


@pytest.mark.parametrize("with_prior", [False, True])
def test_the_language_model_never_compares(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_prior: bool
) -> None:
    """Whatever it writes: without a prior no word of change is left, with one only the rule's."""
    now, prior = pair(tmp_path)
    monkeypatch.setattr(compose, "change", lambda now, before: "not_comparable")
    monkeypatch.setattr(
        type(checkpoint.model),
        "write",
        lambda self, sight, turns, max_tokens, guesses, *, exactly: [
            f"Stable {turn.question.removeprefix('Report: ').split(',')[0]}, increased since the "
            "prior."
            for turn in turns
        ],
    )
    draft = draft_study(
        with_points(checkpoint, present_from=0.0), now, prior if with_prior else None
    ).draft
    assert draft.findings
    assert not any(compares(finding.text) for finding in draft.findings)
    assert not compares(draft.impression)
    assert (draft.comparison is not None) == with_prior


@pytest.mark.parametrize(
    "text",
    [
        "Left lower zone nodule, unchanged.",
        "Stable left lower zone nodule.",
        "Again seen left lower zone nodule.",
        "New left lower zone nodule.",
        "Left lower zone nodule, new since the prior.",
    ],
)
def test_a_sentence_that_compares_does_not_stand(text: str) -> None:
    assert not says(text, Statement("Nodule", "present", Location("left", "lower")))
    assert not says(text, Statement("Nodule", "present", Location("left", "lower"), "unchanged"))


def test_without_patients_the_callers_word_is_recorded_as_such(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    now, before = (study(tmp_path, seed, PatientID="") for seed in (1, 2))
    prior = chosen_prior(now, [before])
    assert prior == Prior(before, same_patient=False, earlier=False)
    draft = draft_study(checkpoint, now, prior).draft
    assert draft.comparison is not None
    codes = [reason.code for reason in draft.comparison.reservations]
    assert codes == ["patient_unknown", "order_unknown"]
    assert "caller's word" in to_markdown(draft, "t")


# ---- questions ----


def test_without_a_prior_nothing_is_compared(checkpoint: Checkpoint, tmp_path: Path) -> None:
    image = load_image(pair(tmp_path)[0].instances[0])
    for question in ("Has the effusion resolved?", "What has changed since the prior study?"):
        assert answer_question(checkpoint, image, question).answer == NO_PRIOR


def test_with_a_prior_the_rule_answers(checkpoint: Checkpoint, tmp_path: Path) -> None:
    now, prior = pair(tmp_path)
    image = load_image(now.instances[0])

    def asked(question: str, **points: Any) -> str:
        own = with_points(checkpoint, **points)
        return answer_question(own, image, question, study=now, prior=prior).answer

    absent = {"present_from": 1.1, "absent_below": dict.fromkeys(FINDINGS, 1.01)}
    assert asked("Has the effusion resolved?", **absent) == "not seen on either"
    doubtful = {"present_from": 1.1, "absent_below": dict.fromkeys(FINDINGS, 0.0)}
    assert asked("Is the mass new?", **doubtful) == "whether mass has changed cannot be told"
    assert asked("Any change since the prior film?", **doubtful) == "no change that can be told"
    assert asked("Has the tube moved since the prior film?", **doubtful) == UNTOLD
    lateral = study(tmp_path, 3, StudyDate="20180101", ViewPosition="LL")
    refused = chosen_prior(now, [lateral])
    answer = answer_question(checkpoint, image, "Is the mass new?", study=now, prior=refused)
    assert answer.answer == REFUSED


def test_training_asks_what_became_of_a_finding() -> None:
    assert comparison_question("Effusion") == "Compared with the prior: pleural effusion?"
    answers = [comparison_answer(then, now) for then in (False, True) for now in (False, True)]
    assert answers == ["not seen", "new", "resolved", "unchanged"]


# ---- the command ----


@pytest.fixture
def medvlm(tiny: Path):
    from medvlm.cli import application

    return lambda *words: CliRunner().invoke(application, [str(word) for word in words])


def drafts(out: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in out.glob("*/draft.json")}


def test_the_command_compares_when_it_is_told_to(medvlm, tmp_path: Path) -> None:
    files, out = tmp_path / "in", tmp_path / "out"
    dates = ("20180101", "20190101", "20200101")
    uids = [read_inputs(film(files, i, StudyDate=d)).instances[0] for i, d in enumerate(dates)]
    names = [instance.study_instance_uid for instance in uids]
    assert medvlm("draft", files, "--out", out).exit_code == 0
    assert all(draft["comparison"] is None for draft in drafts(out).values())
    assert medvlm("draft", files, "--out", out, "--prior", "auto").exit_code == 0
    found = {
        name: draft["comparison"] and draft["comparison"]["study_instance_uid"]
        for name, draft in drafts(out).items()
    }
    assert found == {names[0]: None, names[1]: names[0], names[2]: names[1]}
    named = medvlm("draft", uids[2].path, "--out", out, "--prior", uids[0].path)
    assert named.exit_code == 0
    assert drafts(out)[names[2]]["comparison"]["study_instance_uid"] == names[0]


def test_the_command_refuses_another_patients_study(medvlm, tmp_path: Path) -> None:
    now = film(tmp_path / "now", 1)
    other = film(tmp_path / "other", 2, PatientID="ID-2")
    result = medvlm("draft", now, "--out", tmp_path / "out", "--prior", other)
    assert result.exit_code == 1
    assert "other_patient" in result.output
    assert drafts(tmp_path / "out") == {}


def test_ask_takes_a_prior(medvlm, tmp_path: Path) -> None:
    now = film(tmp_path / "now", 1, StudyDate="20200101")
    before = film(tmp_path / "before", 2, StudyDate="20190101")
    question = "Is the mass larger than on the prior film?"
    alone = medvlm("ask", now, question, "--json")
    assert json.loads(alone.stdout)["answer"] == NO_PRIOR
    both = medvlm("ask", now, question, "--prior", before, "--json")
    assert both.exit_code == 0
    assert json.loads(both.stdout)["answer"] != NO_PRIOR
