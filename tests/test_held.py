"""Answers under a site's policy that keeps sentences back, or flags them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medvlm.config.policy import PolicyConfig
from medvlm.draft import answer, held
from medvlm.draft.answer import reply
from medvlm.draft.known import HELD_BACK, MORE_HELD_BACK
from medvlm.draft.look import Seen, look_at
from medvlm.draft.policy import under_policy
from medvlm.findings import FINDINGS
from medvlm.image.geometry import Box
from medvlm.image.load import ImageInput
from medvlm.model.checkpoint import Checkpoint, load_checkpoint
from medvlm.records import Evidence
from tests.test_draft import with_points

SAID = {"Effusion": 0.6, "Mass": 0.97, "Pneumothorax": 0.3}


@pytest.fixture
def checkpoint(tiny: object) -> Checkpoint:
    low = dict.fromkeys(FINDINGS, 0.2) | {"Pneumothorax": 0.35}
    return with_points(
        load_checkpoint(), present_from=0.5, absent_below=low, opacity=0.3, frontal_chest=0.0
    )


@pytest.fixture
def seen(checkpoint: Checkpoint) -> Seen:
    pixels = np.random.default_rng(0).random((300, 300)).astype(np.float32)
    (own,) = look_at(checkpoint, [ImageInput(pixels, "film", "0" * 64, False)])
    return replace(own, probabilities=dict.fromkeys(FINDINGS, 0.01) | SAID)


def site(checkpoint: Checkpoint, **keys: object) -> Checkpoint:
    return under_policy(checkpoint, PolicyConfig.model_validate(keys))


@pytest.mark.parametrize(
    "question",
    [
        "Where is the effusion?",
        "Is there a pleural effusion?",
        "Is there any effusion on the left?",
    ],
)
def test_what_a_draft_keeps_back_no_answer_gives_away(
    checkpoint: Checkpoint, seen: Seen, question: str
) -> None:
    assert "policy" not in reply(checkpoint, seen, question).text
    said = reply(site(checkpoint, max_risk=0.3), seen, question)
    assert said.text.startswith("The site's policy holds back an answer on pleural effusion: ")
    assert "wrong with a probability of 0.40; the site accepts 0.30" in said.text
    assert (said.probability, said.regions) == (None, [])
    sure = question.replace("pleural effusion", "mass").replace("effusion", "mass")
    assert reply(site(checkpoint, max_risk=0.3), seen, sure) == reply(checkpoint, seen, sure)


def test_a_denial_is_held_back_too(checkpoint: Checkpoint, seen: Seen) -> None:
    question = "Is there a pneumothorax?"
    assert reply(checkpoint, seen, question).text == "no"
    assert "of 0.30" in reply(site(checkpoint, max_risk=0.2), seen, question).text
    assert reply(site(checkpoint, max_risk=0.4), seen, question).text == "no"


def test_lists_leave_out_what_is_kept_back_and_say_so(checkpoint: Checkpoint, seen: Seen) -> None:
    strict, question = site(checkpoint, max_risk=0.3), "What are the findings?"
    assert reply(checkpoint, seen, question).text == "mass, pleural effusion"
    assert reply(strict, seen, question).text == f"mass; {MORE_HELD_BACK}"
    here = Box(0, 0, 300, 300)
    shown = reply(strict, seen, "What is this?", here).text
    assert "effusion" not in shown
    only = replace(seen, probabilities=seen.probabilities | {"Mass": 0.01})
    assert reply(strict, only, question).text == HELD_BACK
    assert reply(strict, only, "Is this film normal?").text == HELD_BACK
    assert reply(strict, seen, "Is this film normal?").text == "no"


def test_a_finding_without_the_evidence_that_the_site_asks_for(
    checkpoint: Checkpoint, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    weak = Evidence(status="weak", p_image=0.9, p_erased=0.9, p_blank=0.1, p_other=0.1)
    monkeypatch.setattr(held, "measure", lambda *_: {"Mass": weak, "Effusion": weak})
    said = reply(site(checkpoint, least_evidence="supported"), seen, "Where is the mass?")
    assert said.text.endswith("mass: Its evidence is weak; the site asks for supported.")
    assert said.regions == []
    plain = reply(checkpoint, seen, "Where is the mass?")
    assert reply(site(checkpoint, least_evidence="weak"), seen, "Where is the mass?") == plain


def test_the_language_models_own_yes_is_as_risky_as_the_probability_says(
    checkpoint: Checkpoint, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsure = replace(seen, probabilities=seen.probabilities | {"Effusion": 0.45})
    monkeypatch.setattr(answer, "_margin", lambda *_: 1.0)
    strict, question = site(checkpoint, max_risk=0.5), "Is there an effusion?"
    assert reply(checkpoint, unsure, question).text == "yes"
    assert "of 0.55" in reply(strict, unsure, question).text
    monkeypatch.setattr(answer, "_margin", lambda *_: -1.0)
    assert reply(strict, unsure, question).text == "no"


def test_a_site_may_have_it_flagged_instead(checkpoint: Checkpoint, seen: Seen) -> None:
    flags = site(checkpoint, max_risk=0.3, doubtful="flag")
    said = reply(flags, seen, "Is there an effusion?")
    assert said.text.startswith("yes. Doubtful by the site's policy: It is wrong with")
    assert said.probability == pytest.approx(0.6)
    listed = reply(flags, seen, "What are the findings?").text
    assert listed.endswith("Doubtful by the site's policy: pleural effusion")
    assert reply(flags, seen, "Is there a mass?") == reply(checkpoint, seen, "Is there a mass?")
