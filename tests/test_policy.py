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
from medvlm.records import Evidence, Finding
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


def test_each_way_of_asking(checkpoint: Checkpoint) -> None:
    def cut(point: dict[str, object]) -> float:
        site = under_policy(checkpoint, policy(present={FINDING: point}))
        return site.config.operating_points.cuts(FINDING)[1]

    assert cut({"probability": 0.3}) == 0.3
    assert cut({"cost": {"miss": 9, "false_alarm": 1}}) == pytest.approx(0.1)
    assert cut({"sensitivity": 0.95}) == pytest.approx(0.07)
    assert cut({"sensitivity": 0.5}) > cut({"sensitivity": 0.9})
    assert cut({"specificity": 0.9}) > cut({"specificity": 0.5})


def test_a_finding_that_is_called_sooner_is_never_possible_above_that(
    checkpoint: Checkpoint,
) -> None:
    site = under_policy(checkpoint, policy(present={FINDING: {"probability": 0.2}}))
    assert decide(checkpoint, FINDING, 0.3) == "absent"
    assert decide(site, FINDING, 0.3) == "present"
    assert decide(site, FINDING, 0.1) == "absent"
    points = OperatingPoints(present={FINDING: 0.2}, absent_below={FINDING: 0.1})
    assert points.cuts(FINDING) == (0.1, 0.2)
    assert points.cuts("Mass") == (0.5, 0.5)


def test_too_few_films_are_said_for_a_named_finding_and_passed_over_by_default(
    checkpoint: Checkpoint,
) -> None:
    wanted = {"sensitivity": 0.9}
    with pytest.raises(ConfigError, match=r"present\.Hernia.*validation films"):
        under_policy(checkpoint, policy(present={"Hernia": wanted}))
    site = under_policy(checkpoint, policy(present={"default": wanted}))
    assert set(site.config.operating_points.present) == {FINDING}
    none = replace(checkpoint, extras=Extras())
    with pytest.raises(ConfigError, match=FINDING):
        under_policy(none, policy(present={FINDING: wanted}))
    always = under_policy(none, policy(present={"default": {"probability": 0.4}}))
    assert set(always.config.operating_points.present) == set(FINDINGS)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("present: {Efusion: {sensitivity: 0.9}}", "Efusion"),
        ("present: {Effusion: {sensitivity: 0.9, specificity: 0.9}}", "exactly one"),
        ("present: {Effusion: {}}", "exactly one"),
        ("present: {Effusion: {sensitivity: 90}}", "sensitivity"),
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
    report = withhold([finding("present", 0.6)], policy=policy(max_risk=0.1))
    assert report.findings == []
    assert report.impression == ""


def test_a_draft_under_a_policy_says_so(checkpoint: Checkpoint, tmp_path: Path) -> None:
    everywhere = with_points(checkpoint, present_from=0.0)
    film = study(tmp_path)
    plain = draft_study(everywhere, film).draft
    assert plain.policy_sha256 is None
    assert plain.findings
    site = under_policy(everywhere, policy(max_risk=0.0, doubtful="flag"))
    draft = draft_study(site, film).draft
    assert draft.policy_sha256
    assert len(draft.policy_sha256) == 64
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
    path.write_text(f"present: {{{FINDING}: {{sensitivity: 0.9}}}}")
    command = ["model", "points", "--checkpoint", str(folder), "--policy", str(path)]
    result = CliRunner().invoke(application, [*command, "--json"])
    assert result.exit_code == 0, result.output
    rows = {row["finding"]: row for row in json.loads(result.stdout)}
    assert rows[FINDING]["films_with"] == 20
    assert rows[FINDING]["sensitivity"] == pytest.approx(0.9)
    assert 0 < rows[FINDING]["specificity"] < 0.2
    assert rows["Mass"]["sensitivity"] is None
    shown = CliRunner().invoke(application, command)
    assert "too few" in shown.stdout
    assert "20 with, 40 without" in shown.stdout
