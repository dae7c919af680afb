"""Proof that the image was used, and donors of another patient's features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from medvlm.data.sets import load_set
from medvlm.draft import compose, evidence
from medvlm.draft.comparison import read_findings
from medvlm.draft.compose import draft_study
from medvlm.draft.evidence import donor_probabilities, look_at_nothing, measure
from medvlm.draft.look import look_at, read_probabilities
from medvlm.draft.markdown import to_markdown
from medvlm.errors import CheckpointError
from medvlm.findings import FINDINGS
from medvlm.image.load import ImageInput
from medvlm.model.checkpoint import CONFIG, Checkpoint, load_checkpoint, save_checkpoint
from medvlm.model.donors import Donors
from medvlm.model.encoder import Features
from medvlm.model.extras import FILE, NO_EXTRAS, Extras
from medvlm.records import Draft
from medvlm.train.donors import choose_donors
from tests.sets import nih
from tests.test_comparison import study
from tests.test_draft import with_points

OTHERS = -3.0


def donors(checkpoint: Checkpoint, count: int = 2) -> Donors:
    """Donors in which every finding's logit is `OTHERS`."""
    model = checkpoint.model
    size = model.config.encoder.size
    maps = model.vision.encoder(torch.rand(count, 1, size, size))._asdict()
    kept = {n: t if n in model.connector.maps else torch.empty(0) for n, t in maps.items()}
    return Donors(
        torch.full((count, len(FINDINGS)), OTHERS),
        torch.ones(count, len(FINDINGS), dtype=torch.bool),
        Features(**kept),
    )


@pytest.fixture
def checkpoint(tiny: Path) -> Checkpoint:
    loaded = load_checkpoint()
    return replace(loaded, extras=Extras(donors(loaded)))


def film(seed: int = 0) -> ImageInput:
    pixels = np.random.default_rng(seed).random((96, 80)).astype(np.float32)
    return ImageInput(pixels, "film", "0" * 64, False)


# ---- what is measured ----


@pytest.mark.parametrize(
    ("image", "erased", "nothing", "other", "status"),
    [
        (0.9, 0.5, 0.3, 0.1, "supported"),
        (0.9, 0.9, 0.3, 0.1, "weak"),
        (0.9, 0.5, 0.99, 0.1, "supported"),
        (0.9, 0.1, 0.1, 0.9, "unsupported"),
        (0.9, 0.9, 0.9, 0.9, "unsupported"),
        (0.999, 0.99, 0.99, 0.99, "supported"),
        (0.01, 0.2, 0.2, 0.2, "unsupported"),
    ],
)
def test_what_falls_without_the_image_is_supported_by_it(
    image: float, erased: float, nothing: float, other: float, status: str
) -> None:
    found = evidence._evidence(image, erased, nothing, other)
    assert found.status == status
    assert (found.p_image, found.p_erased, found.p_blank, found.p_other) == (
        image, erased, nothing, other,
    )  # fmt: skip


def test_every_statement_is_measured_on_its_own_place(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere = with_points(checkpoint, present_from=0.0)
    (seen,) = look_at(everywhere, [film()])
    reads = read_findings(everywhere, [seen])
    looked: list[ImageInput] = []

    def spy(checkpoint: Checkpoint, images: list[ImageInput]):  # type: ignore[no-untyped-def]
        looked.extend(images)
        return read_probabilities(checkpoint, images)

    nothing = look_at_nothing(everywhere, [seen])
    monkeypatch.setattr(evidence, "read_probabilities", spy)
    measured = measure(everywhere, [seen], nothing, reads)
    assert list(measured) == list(FINDINGS)
    places = {read.finding: evidence._places(everywhere, seen, read) for read in reads}
    assert len(looked) == len(set(places.values()))
    for read in reads:
        own = measured[read.finding]
        assert own.p_image == round(read.probability, 4)
        assert own.p_blank == round(nothing[0][read.finding], 4)
        erased = evidence.erase(seen.image, places[read.finding])
        (again,) = look_at(everywhere, [erased])
        # Alone and in a batch, sums are rounded otherwise.
        assert own.p_erased == pytest.approx(again.probabilities[read.finding], abs=2e-4)


def test_a_global_finding_has_the_lungs_for_its_place(checkpoint: Checkpoint) -> None:
    everywhere = with_points(checkpoint, present_from=0.0)
    (seen,) = look_at(everywhere, [film()])
    read = next(r for r in read_findings(everywhere, [seen]) if r.finding == "Edema")
    assert read.boxes == []
    places = evidence._places(everywhere, seen, read)
    assert len(places) == (len(seen.lungs) or 1)


def test_what_is_absent_and_what_has_no_donors_is_not_measured(checkpoint: Checkpoint) -> None:
    nowhere = with_points(checkpoint, present_from=1.1, absent_below=dict.fromkeys(FINDINGS, 1.01))
    (seen,) = look_at(nowhere, [film()])
    assert measure(nowhere, [seen], [seen.probabilities], read_findings(nowhere, [seen])) == {}
    everywhere = with_points(replace(checkpoint, extras=NO_EXTRAS), present_from=0.0)
    reads = read_findings(everywhere, [seen])
    assert measure(everywhere, [seen], [seen.probabilities], reads) == {}


def test_donors_speak_only_of_what_they_lack(checkpoint: Checkpoint) -> None:
    mixed = donors(checkpoint)
    mixed.findings[1] = 5.0
    mixed.lacking[1, 0] = False
    found = donor_probabilities(replace(checkpoint, extras=Extras(mixed)))
    low, high = torch.sigmoid(torch.tensor([OTHERS, 5.0])).tolist()
    assert found[FINDINGS[0]] == pytest.approx(low)
    assert found[FINDINGS[1]] == pytest.approx((low + high) / 2)
    mixed.lacking[:, 2] = False
    found = donor_probabilities(replace(checkpoint, extras=Extras(mixed)))
    assert found[FINDINGS[2]] == pytest.approx((low + high) / 2)


# ---- in the draft ----


def test_a_draft_carries_its_evidence(checkpoint: Checkpoint, tmp_path: Path) -> None:
    everywhere = with_points(checkpoint, present_from=0.0)
    draft = draft_study(everywhere, study(tmp_path, 1)).draft
    assert draft.findings
    assert all(finding.evidence is not None for finding in draft.findings)
    assert Draft.model_validate_json(draft.model_dump_json()) == draft
    assert "not measured" not in to_markdown(draft, "study")


def test_a_model_that_does_not_look_gets_no_draft(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A control without images: the classifier's weights are gone, its biases are left."""
    model = checkpoint.model
    for layer in (model.vision.classifier.coarse, model.vision.classifier.middle, model.probe):
        layer.weight.zero_()
        layer.bias.fill_(2.0)
    draft = draft_study(checkpoint, study(tmp_path, 1)).draft
    assert not draft.input_check.accepted
    assert [reason.code for reason in draft.input_check.reasons] == ["image_not_used"]
    assert (draft.findings, draft.impression, draft.withheld) == ([], "", [])
    assert "No draft" in to_markdown(draft, "study")


def test_the_real_thing_is_not_taken_for_one_that_does_not_look(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = draft_study(checkpoint, study(tmp_path, 1)).draft
    assert draft.input_check.accepted
    monkeypatch.setattr(
        compose, "look_at_nothing", lambda _, seen: [item.probabilities for item in seen]
    )
    assert not draft_study(checkpoint, study(tmp_path, 1)).draft.input_check.accepted


# ---- in the checkpoint ----


def test_donors_travel_in_the_checkpoint(checkpoint: Checkpoint, tmp_path: Path) -> None:
    given = donors(checkpoint)
    save_checkpoint(checkpoint.model, checkpoint.config, tmp_path / "with", Extras(given))
    found = load_checkpoint(str(tmp_path / "with")).extras.donors
    assert found is not None
    assert torch.equal(found.findings, given.findings)
    assert torch.equal(found.lacking, given.lacking)
    for name, own, back in zip(Features._fields, given.features, found.features, strict=True):
        assert torch.equal(own.half().float(), back), name
    # Readings of other weights are no donors for these.
    save_checkpoint(checkpoint.model, checkpoint.config, tmp_path / "with")
    assert not (tmp_path / "with" / FILE).exists()
    assert load_checkpoint(str(tmp_path / "with")).extras.donors is None


@pytest.mark.parametrize("harm", ["gone", "others", "misfit"])
def test_damaged_donors_are_refused(checkpoint: Checkpoint, tmp_path: Path, harm: str) -> None:
    folder = tmp_path / "with"
    save_checkpoint(checkpoint.model, checkpoint.config, folder, Extras(donors(checkpoint)))
    tensors = load_file(folder / FILE)
    if harm == "gone":
        (folder / FILE).unlink()
    elif harm == "others":
        save_file(tensors | {"donors.findings": tensors["donors.findings"] + 1}, folder / FILE)
    else:
        from medvlm.model.digests import sha256_of

        before = sha256_of(folder / FILE)
        save_file({n: t for n, t in tensors.items() if n != "donors.lacking"}, folder / FILE)
        said = (folder / CONFIG).read_text().replace(before, sha256_of(folder / FILE))
        (folder / CONFIG).write_text(said)
    with pytest.raises(CheckpointError, match=r"added|fit"):
        load_checkpoint(str(folder))


def test_donors_are_training_films_without_findings(checkpoint: Checkpoint, tmp_path: Path) -> None:
    nih(tmp_path / "nih_cxr")
    films = load_set(tmp_path / "nih_cxr").films
    normal = [film for film in films if film.normal and not film.validation]
    assert normal
    chosen = choose_donors(checkpoint, films, count=2)
    assert len(chosen.findings) == min(2, len(normal))
    again = choose_donors(checkpoint, films, count=2)
    assert torch.equal(chosen.findings, again.findings)
    with pytest.raises(ValueError, match="without any finding"):
        choose_donors(checkpoint, [film for film in films if film.validation])
