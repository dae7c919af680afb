"""A draft under changes that nobody would see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medvlm.draft import stability as module
from medvlm.draft.compose import draft_study
from medvlm.draft.locate import ScoredBox
from medvlm.draft.look import look_at
from medvlm.draft.markdown import to_markdown
from medvlm.draft.stability import disturbed, stability
from medvlm.findings import FINDINGS
from medvlm.image.geometry import Box
from medvlm.image.load import ImageInput
from medvlm.model.checkpoint import load_checkpoint
from tests.test_comparison import study
from tests.test_draft import with_points


def film(seed: int = 0) -> ImageInput:
    pixels = np.random.default_rng(seed).random((96, 80)).astype(np.float32)
    return ImageInput(pixels, "film", "0" * 64, False)


def test_what_is_disturbed_hardly_changes() -> None:
    smooth = np.add.outer(np.linspace(0, 0.5, 600), np.linspace(0, 0.5, 500)).astype(np.float32)
    own = ImageInput(smooth, "film", "0" * 64, False)
    changes = disturbed(own)
    assert len(changes) == 5
    for change in changes:
        assert change.image.pixels.shape == smooth.shape
        assert change.image.pixels.dtype == np.float32
        assert 0 < np.abs(change.image.pixels - smooth).max() < 0.03
        assert change.image.sha256 == own.sha256


def test_shifts_are_by_what_they_say() -> None:
    pixels = np.random.default_rng(0).random((600, 500)).astype(np.float32)
    moved = [c for c in disturbed(ImageInput(pixels, "f", "0" * 64, False)) if c.right]
    assert {(c.right, c.down) for c in moved} == {(2, -2), (-2, 2)}
    for change in moved:
        back = np.roll(change.image.pixels, (-change.down, -change.right), axis=(0, 1))
        assert (back[4:-4, 4:-4] == pixels[4:-4, 4:-4]).all()


def test_a_model_that_stands_firm_is_stable_and_one_at_its_limit_is_not(tiny: Path) -> None:
    checkpoint = load_checkpoint()
    (seen,) = look_at(checkpoint, [film()])
    nothing = with_points(checkpoint, present_from=1.1, absent_below=dict.fromkeys(FINDINGS, 1.01))
    assert stability(nothing, [seen]) == 1.0
    # Each finding's limit lies at what it is on this very image.
    limits = {name: seen.probabilities[name] + 1e-7 for name in FINDINGS}
    edge = with_points(checkpoint, present_from=1.1, absent_below=limits)
    assert 0 < stability(edge, [seen]) < 1


def test_a_box_that_jumps_is_not_stable(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = with_points(load_checkpoint(), present_from=0.0)
    (seen,) = look_at(checkpoint, [film()])
    places = iter([Box(0, 0, 20, 20)] * len(FINDINGS) + [Box(40, 40, 20, 20)] * 1000)

    def jumping(*_: object) -> list[ScoredBox]:
        return [ScoredBox(next(places), 1.0)]

    monkeypatch.setattr(module, "released_boxes", jumping)
    assert stability(checkpoint, [seen]) == 0.0
    monkeypatch.setattr(module, "released_boxes", lambda *_: [])
    assert stability(checkpoint, [seen]) == 1.0


def test_a_draft_says_how_stable_it_is(tiny: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint()
    draft = draft_study(checkpoint, study(tmp_path, 1)).draft
    assert draft.stability is not None
    assert 0 <= draft.stability <= 1
    assert f"{draft.stability:.0%}" in to_markdown(draft, "study")
