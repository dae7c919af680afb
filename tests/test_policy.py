"""A site's policy: cut-offs by sensitivity, specificity, cost; what is kept back as doubtful."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from medvlm.cli import application
from medvlm.cli.common import load_with_notice
from medvlm.config.policy import NO_POLICY, POLICY, PolicyConfig, site_policy
from medvlm.draft.compose import draft_study
from medvlm.draft.decide import decide
from medvlm.draft.markdown import to_markdown
from medvlm.draft.policy import under_policy
from medvlm.draft.withhold import withhold
from medvlm.errors import CheckpointError, ConfigError
from medvlm.findings import FINDINGS
from medvlm.model.checkpoint import Checkpoint, OperatingPoints, load_checkpoint, save_checkpoint
from medvlm.model.extras import FILE, Extras
from medvlm.model.references import FEWEST, References
from medvlm.records import Draft, Evidence, Finding
from tests.test_comparison import study
from tests.test_draft import with_points

FINDING = "Effusion"


def policy(**keys: object) -> PolicyConfig:
    return PolicyConfig.model_validate(keys)


def references(with_it: list[float], without: list[float], finding: str = FINDING) -> References:
    """References in which `finding` alone has films."""
    said = np.array([*with_it, *without])
    truth = np.full((len(said), len(FINDINGS)), np.nan)
    truth[:, FINDINGS.index(finding)] = [1.0] * len(with_it) + [0.0] * len(without)
    return References.of(truth, np.tile(said[:, None], (1, len(FINDINGS))))


KNOWN = references([i / 20 + 0.02 for i in range(20)], [i / 40 for i in range(40)])


@pytest.fixture
def checkpoint(tiny: Path) -> Checkpoint:
    return replace(load_checkpoint(), extras=Extras(references=KNOWN))


def finding(polarity: str, probability: float, status: str | None = None) -> Finding:
    evidence = status and Evidence.model_validate(
        {"status": status, "p_image": 0.9, "p_erased": 0.1, "p_blank": 0.1, "p_other": 0.1}
    )
    text = {"present": "Pleural effusion.", "absent": "No pleural effusion."}
    return Finding.model_validate(
        {
            "text": text.get(polarity, "Possible pleural effusion."),
            "finding": FINDING,
            "polarity": polarity,
            "probability": probability,
            "evidence": evidence or None,
        }
    )


# ---- cut-offs ----

probabilities = st.lists(st.floats(0, 1), min_size=FEWEST, max_size=300)
shares = st.integers(1, 99).map(lambda percent: percent / 100)


@given(probabilities, probabilities, shares)
def test_what_is_asked_for_is_reached_on_the_validation_films(
    with_it: list[float], without: list[float], wanted: float
) -> None:
    known = references(with_it, without)
    cut = known.at_sensitivity(FINDING, wanted)
    assert np.mean(np.array(with_it) >= cut) >= wanted - 1e-9
    cut = known.at_specificity(FINDING, wanted)
    assert np.mean(np.array(without) < cut) >= wanted - 1e-9


@given(probabilities, shares)
def test_no_more_is_given_away_than_a_hundredth(with_it: list[float], wanted: float) -> None:
    cut = references(with_it, []).at_sensitivity(FINDING, wanted)
    above = np.array(with_it) > cut
    assert above.mean() < wanted + 1e-9


@given(probabilities, probabilities, st.floats(0, 1))
def test_shares_are_told_to_a_hundredth(
    with_it: list[float], without: list[float], cut: float
) -> None:
    sensitivity, specificity = references(with_it, without).shares(FINDING, cut)
    exact = np.mean(np.array(with_it) >= cut), np.mean(np.array(without) < cut)
    assert sensitivity is not None
    assert specificity is not None
    assert sensitivity - 1e-9 <= exact[0] < sensitivity + 0.01 + 1e-9
    assert specificity - 1e-9 <= exact[1] < specificity + 0.01 + 1e-9


def cuts(checkpoint: Checkpoint, **point: object) -> tuple[float, float]:
    site = under_policy(checkpoint, policy(operating_points={FINDING: point}))
    return site.config.operating_points.cuts(FINDING)


def test_each_way_of_asking(checkpoint: Checkpoint) -> None:
    assert cuts(checkpoint, probability=0.3) == (0.3, 0.5)
    assert cuts(checkpoint, cost={"miss": 9, "false_alarm": 1}) == (pytest.approx(0.1), 0.5)
    assert cuts(checkpoint, sensitivity=0.95) == (pytest.approx(0.07), 0.5)
    own = checkpoint.config.operating_points.cuts(FINDING)[0]
    assert cuts(checkpoint, specificity=0.95) == (own, pytest.approx(0.925))
    both = cuts(checkpoint, sensitivity=0.9, specificity=0.95)
    assert both == (pytest.approx(0.12), pytest.approx(0.925))


def test_nothing_is_stated_that_is_less_likely_than_the_checkpoint_states(
    checkpoint: Checkpoint,
) -> None:
    """A site that would rather hear of too much hears "possible", which says its doubt."""
    for point in ({"probability": 0.1}, {"sensitivity": 0.95}, {"specificity": 0.1}):
        assert cuts(checkpoint, **point)[1] == 0.5
    assert cuts(checkpoint, probability=0.7) == (0.7, 0.7)
    assert cuts(checkpoint, sensitivity=0.1)[0] <= 0.5
    site = under_policy(checkpoint, policy(operating_points={FINDING: {"probability": 0.2}}))
    assert [decide(site, FINDING, p) for p in (0.1, 0.3, 0.6)] == ["absent", "uncertain", "present"]
    assert decide(checkpoint, FINDING, 0.3) == "absent"
    points = OperatingPoints(present={FINDING: 0.2}, absent_below={FINDING: 0.4})
    assert points.cuts(FINDING) == (0.2, 0.2)


def test_too_few_films_are_said_for_a_named_finding_and_passed_over_by_default(
    checkpoint: Checkpoint,
) -> None:
    wanted = {"sensitivity": 0.9}
    with pytest.raises(ConfigError, match=r"operating_points\.Hernia.*validation films"):
        under_policy(checkpoint, policy(operating_points={"Hernia": wanted}))
    own = checkpoint.config.operating_points
    points = under_policy(checkpoint, policy(operating_points={"default": wanted}))
    changed = points.config.operating_points
    assert {name for name in FINDINGS if changed.cuts(name) != own.cuts(name)} == {FINDING}
    none = replace(checkpoint, extras=Extras())
    with pytest.raises(ConfigError, match="keeps no references"):
        under_policy(none, policy(operating_points={"default": wanted}))
    always = under_policy(none, policy(operating_points={"default": {"probability": 0.4}}))
    assert {always.config.operating_points.cuts(name)[0] for name in FINDINGS} == {0.4}


def test_a_few_films_leave_no_trace() -> None:
    few = references([0.123456] * (FEWEST - 1), [0.3] * 50)
    assert not few.positives.any()
    assert few.counts[FINDINGS.index(FINDING)].tolist() == [FEWEST - 1, 50]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("operating_points: {Efusion: {sensitivity: 0.9}}", "Efusion"),
        ("operating_points: {Effusion: {sensitivity: 0.9, probability: 0.9}}", "or probability"),
        ("operating_points: {Effusion: {}}", "give sensitivity"),
        ("operating_points: {Effusion: {sensitivity: 90}}", "sensitivity"),
        ("operating_points: {Effusion: {cost: {miss: .inf, false_alarm: 1}}}", "miss"),
        ("max_risk: 0.7", "max_risk"),
        ("least_evidence: strong", "least_evidence"),
        ("maxrisk: 0.1", "maxrisk"),
    ],
)
def test_what_is_wrong_in_a_policy_is_named(tmp_path: Path, content: str, named: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=named):
        site_policy(path)


def test_the_policy_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(POLICY, raising=False)
    assert site_policy() == NO_POLICY
    path = tmp_path / "policy.yaml"
    path.write_text("max_risk: 0.2")
    monkeypatch.setenv(POLICY, str(path))
    assert site_policy().max_risk == 0.2


# ---- what is kept back ----


@pytest.mark.parametrize(
    ("polarity", "probability", "codes"),
    [
        ("present", 0.9, []),
        ("present", 0.7, ["risk"]),
        ("absent", 0.1, []),
        ("absent", 0.3, ["risk"]),
        ("uncertain", 0.5, []),
    ],
)
def test_a_sentence_riskier_than_the_site_accepts(
    polarity: str, probability: float, codes: list[str]
) -> None:
    doubtful = finding(polarity, probability)
    kept = withhold([doubtful], policy=policy(max_risk=0.2))
    assert len(kept.withheld) == len(codes)
    assert all("wrong with a probability of 0.30" in item.reason for item in kept.withheld)
    shown = withhold([doubtful], policy=policy(max_risk=0.2, doubtful="flag"))
    assert [flag.code for flag in shown.findings[0].flags] == codes
    assert not shown.withheld
    assert withhold([doubtful]).findings == [doubtful]


@pytest.mark.parametrize(
    ("status", "wanted", "kept"),
    [
        ("supported", "supported", True),
        ("weak", "supported", False),
        ("weak", "weak", True),
        ("unsupported", "weak", False),
        (None, "weak", False),
    ],
)
def test_a_sentence_with_less_evidence_than_the_site_asks_for(
    status: str | None, wanted: str, kept: bool
) -> None:
    for polarity in ("present", "uncertain"):
        report = withhold([finding(polarity, 0.9, status)], policy=policy(least_evidence=wanted))
        assert bool(report.findings) == kept
        assert ("evidence" in "".join(item.reason for item in report.withheld)) != kept
    absent = withhold([finding("absent", 0.1)], policy=policy(least_evidence=wanted))
    assert absent.findings


def test_what_was_kept_back_is_not_denied_by_the_impression() -> None:
    for polarity, probability in (("present", 0.6), ("absent", 0.3)):
        report = withhold([finding(polarity, probability)], policy=policy(max_risk=0.1))
        assert report.findings == []
        assert report.impression == ""
    denied = finding("absent", 0.3)
    other = finding("absent", 0.01).model_copy(update={"finding": "Mass", "text": "No mass."})
    assert withhold([denied, other], policy=policy(max_risk=0.1)).impression == ""


def test_the_impression_says_that_it_is_not_all_and_what_is_doubtful() -> None:
    sure = finding("present", 0.95)
    doubtful = finding("present", 0.55).model_copy(update={"finding": "Mass", "text": "Mass."})
    report = withhold([sure, doubtful], policy=policy(max_risk=0.4))
    assert report.impression == "Pleural effusion. More was written and withheld."
    flagged = withhold([sure, doubtful], policy=policy(max_risk=0.4, doubtful="flag"))
    assert flagged.impression.endswith("Doubtful by the site's policy: mass.")


def test_a_draft_under_a_policy_says_so(checkpoint: Checkpoint, tmp_path: Path) -> None:
    everywhere = with_points(checkpoint, present_from=0.0)
    film = study(tmp_path)
    plain = draft_study(everywhere, film).draft
    assert "policy_sha256" not in json.loads(plain.model_dump_json())["model"]
    assert plain.findings
    site = under_policy(everywhere, policy(max_risk=0.0, doubtful="flag"))
    draft = draft_study(site, film).draft
    assert draft.model.policy_sha256 == site.policy.sha256
    assert Draft.model_validate_json(draft.model_dump_json()) == draft
    assert all(one.flags for one in draft.findings if one.polarity == "present")
    assert "doubtful: It is wrong" in to_markdown(draft, "t")
    silent = draft_study(under_policy(everywhere, policy(max_risk=0.0)), film).draft
    assert not silent.findings
    assert len(silent.withheld) == len(plain.findings)


# ---- in the checkpoint, on the command line ----


def test_references_travel_in_the_checkpoint(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "with"
    save_checkpoint(checkpoint.model, checkpoint.config, folder, checkpoint.extras)
    found = load_checkpoint(str(folder)).extras.references
    assert found is not None
    assert all((getattr(found, name) == own).all() for name, own in vars(KNOWN).items())
    (folder / FILE).write_bytes(b"")
    with pytest.raises(CheckpointError):
        load_checkpoint(str(folder))


def test_the_command_shows_what_a_policy_means(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "with"
    save_checkpoint(checkpoint.model, checkpoint.config, folder, checkpoint.extras)
    path = tmp_path / "policy.yaml"
    path.write_text(f"operating_points: {{{FINDING}: {{sensitivity: 0.9}}}}")
    command = ["model", "points", "--checkpoint", str(folder), "--policy", str(path)]
    result = CliRunner().invoke(application, [*command, "--json"])
    assert result.exit_code == 0, result.output
    rows = {row["finding"]: row for row in json.loads(result.stdout)}
    assert rows[FINDING]["films_with"] == 20
    assert rows[FINDING]["called_sensitivity"] == pytest.approx(0.9)
    assert 0 < rows[FINDING]["called_specificity"] < 0.2
    assert rows[FINDING]["stated_sensitivity"] == pytest.approx(0.5)
    assert rows["Mass"]["called_sensitivity"] is None
    shown = CliRunner().invoke(application, command)
    assert "too few" in shown.stdout
    assert "20 with, 40 without" in shown.stdout


def test_only_commands_with_the_option_obey_the_environment(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("operating_points: {default: {probability: 0.05}}")
    monkeypatch.setenv(POLICY, str(path))
    assert load_with_notice(None, None).policy == NO_POLICY
    assert load_with_notice(None, None, site_policy()).policy != NO_POLICY
